package agent

import (
	"context"
	"time"

	"gridgate/agent/status"
	"gridgate/configs"
	"gridgate/drivers"
	"gridgate/drivers/line"
	"gridgate/drivers/plc"
	"gridgate/internal/meter"
)

// plcVisitLimit is how long a visit may take on a power line: a first one is
// some ten exchanges, of which each may take as long as it takes to repeat it.
const plcVisitLimit = 15 * time.Minute

// plcRecent is how far back profiles are read at first: what fits into an
// answer or two. The rest is filled in when nothing is due.
const plcRecent = 6 * time.Hour

// medium is what the meters of a line hang on: a line, or a bridge.
type medium interface {
	Lend(ctx context.Context) (giveBack func(), err error)
	Close() error
}

// open makes the medium of a line.
func (r *runningLine) open(l configs.Line) {
	first, options := l.Meters[0].Address, line.Options{Program: "gridgate run"}
	ids := make(map[string]meter.ID, len(l.Meters))
	for _, m := range l.Meters {
		ids[drivers.NodeName(m.Address)] = m.ID
	}
	// What was read before a start or a change may still be under way.
	const shared = true
	r.bridge = drivers.OpenBridge(first, options, shared, func(node string) { r.poller.Wake(ids[node]) })
	if r.bridge != nil {
		r.line = r.bridge
		return
	}
	r.single = drivers.OpenLine(first, options)
	r.line = r.single
}

// to gives the line to a meter, and the node that it is on a bridge.
func (r *runningLine) to(m configs.Meter) (*line.Line, *plc.Node) {
	if r.bridge == nil {
		return r.single, nil
	}
	node := r.bridge.Node(drivers.NodeName(m.Address))
	return node.Line(), node
}

// parallel gives how many meters of a power line are visited at a time: the
// most that one of them says.
func parallel(l configs.Line) (n int) {
	for _, m := range l.Meters {
		n = max(n, m.Address.Parallel)
	}
	return n
}

// reportBridges tells how the bridges of power lines do. mu is held.
func (a *Agent) reportBridges() (all []status.Bridge) {
	for _, l := range a.cfg.Lines() {
		r, ok := a.lines[l.Key]
		if !ok || r.bridge == nil {
			continue
		}
		ids := make(map[string]meter.ID, len(l.Meters))
		for _, m := range l.Meters {
			ids[drivers.NodeName(m.Address)] = m.ID
		}
		t := r.bridge.Table()
		b := status.Bridge{Line: l.Key, Kind: string(t.Kind), Connected: t.Connected, Error: text(t.Err), Strange: t.Strange, Nodes: Nodes(t, ids)}
		all = append(all, b)
	}
	return all
}

// Nodes gives the nodes of a bridge for a report, with the ids of those that
// are read by the names that they are read under.
func Nodes(t plc.Table, ids map[string]meter.ID) []status.Node {
	nodes := make([]status.Node, len(t.Nodes))
	for i := range t.Nodes {
		nodes[i] = reportNode(&t.Nodes[i], ids[t.Nodes[i].Node])
	}
	return nodes
}

func reportNode(s *plc.Status, id meter.ID) status.Node {
	n := status.Node{
		Meter: string(id), Device: s.Device, Serial: s.Serial, EUI48: s.EUI48, State: string(s.State),
		Since: moment(s.Since), Heard: moment(s.Heard), RTT: seconds(s.RTT), Wait: seconds(s.Wait),
		Asked: s.Asked, Lost: s.Lost, Late: s.Late,
	}
	if q := s.Quality; !q.IsZero() {
		n.Quality = &status.Quality{At: q.At, Level: q.Level, Sent: q.Sent, Received: q.Received, Failed: q.Failed, Damaged: q.Damaged}
	}
	return n
}

// moment gives a time for a report, nil for none.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// seconds gives a duration for a report, to the hundredth.
func seconds(d time.Duration) float64 {
	return d.Round(10 * time.Millisecond).Seconds()
}
