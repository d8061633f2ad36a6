package agent

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"time"

	"gridgate/agent/poll"
	"gridgate/agent/status"
	"gridgate/buffer"
	"gridgate/internal/meter"
	"gridgate/internal/sortby"
)

// Report tells how the agent does.
func (a *Agent) Report() status.Report {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := status.Report{
		Version: a.opts.Version, Site: string(a.cfg.Site), Gateway: string(a.cfg.Gateway),
		PID: os.Getpid(), Started: a.started, Epoch: fmt.Sprintf("%016x", a.store.Epoch()),
		Notes: slices.Clone(a.notes), Meters: []status.Meter{},
		Clock: reportClock(a.clock.Load().Status(), time.Now()),
	}
	in := a.intake.Stats()
	r.Intake = status.Intake{
		Read: in.Read, Stored: in.Stored, Waiting: in.Waiting, Dropped: in.Dropped,
		Commits: in.Commits, Failed: in.Failed, Error: text(in.Err),
	}
	store := a.store.get()
	for _, lane := range meter.Lanes() {
		r.Lanes = append(r.Lanes, status.Lane{
			Lane: lane.String(), Last: store.Last(lane), Acked: store.Acked(lane), Lost: store.Lost(lane),
		})
	}
	r.Dropped = reportDropped(store)
	r.Uplink = a.reportUplink()
	for _, l := range a.cfg.Lines() { // in the order of the configuration
		if running, ok := a.lines[l.Key]; ok {
			for _, s := range append(running.poller.Status(), running.broken...) {
				r.Meters = append(r.Meters, reportMeter(s, running.clocks[s.Meter]))
			}
		}
	}
	r.Bridges = a.reportBridges()
	r.Orders = a.orders.status()
	r.Orders.Commands = a.commands.active()
	r.Firmware = a.updates.status()
	r.Modem = a.reportModem()
	r.Lines = a.reportLines()
	r.Config = a.reportConfig()
	r.Buffer = a.reportBuffer()
	r.Health = judgeHealth(&r, a.reached.away())
	return r
}

// reportDropped lists the channels of which the most rows were given up.
func reportDropped(s *buffer.Store) []status.Dropped {
	list, err := s.Dropped()
	if err != nil {
		return nil // the store is being opened anew
	}
	sortby.Stable(list, func(a, b buffer.Dropped) int { return cmp.Compare(b.Rows, a.Rows) })
	var out []status.Dropped
	for _, d := range list[:min(len(list), status.MaxDropped)] {
		out = append(out, status.Dropped{Meter: string(d.Meter), Channel: string(d.Channel), Rows: d.Rows})
	}
	return out
}

func reportMeter(s poll.Status, clock *meterClock) status.Meter {
	m := status.Meter{
		Meter: string(s.Meter), Line: s.Line, Serial: s.Serial, State: string(s.State),
		Error: s.Err, Visits: s.Visits, Rows: s.Rows, Silent: s.Silent, Garbled: s.Garbled,
	}
	m.Answered = s.Answered
	if n := s.History.Count; n > 0 {
		share := float64(s.History.Answered()) / float64(n)
		m.Success, m.SuccessOf = &share, n
	}
	m.Gaps = int64(s.Gaps / time.Second)
	if clock != nil {
		m.Clock = clock.report()
	}
	if !s.Since.IsZero() {
		m.Good = &s.Since
	}
	return m
}

func (a *Agent) reportUplink() status.Uplink {
	u := a.uplink
	if u == nil {
		return status.Uplink{}
	}
	out := status.Uplink{Broker: u.cfg.Broker, Error: text(u.err)}
	if u.uplink != nil {
		s := u.uplink.Stats()
		if len(u.cfg.Brokers)+len(u.cfg.Interfaces) > 1 {
			out.Broker = s.Path.String()
		}
		out.Connected, out.Batches, out.Rows, out.Bytes = s.Connected, s.Batches, s.Rows, s.Bytes
		out.Reconnects, out.Error = s.Reconnects, text(s.Err)
		out.Day, out.Month, out.Withheld = s.DayBytes, s.MonthBytes, s.Withheld
		for _, lane := range s.Unconfirmed {
			out.Unconfirmed = append(out.Unconfirmed, lane.String())
		}
	}
	return out
}

// fogState gives the members of the state topic that the uplink does not know.
// It must not take mu: who holds that may wait for the uplink.
func (a *Agent) fogState() []byte {
	cfg := a.runs.Load()
	store, now := a.store.get(), a.now()
	b := fmt.Appendf(nil, `"at":%q,"started":%q,"config":%q,"time_zone":%q,"meters":%d`,
		utc(time.UnixMilli(now.Time)), utc(a.started), cfg.Hash()[:min(len(cfg.Hash()), 16)], cfg.TimeZone, len(cfg.Meters))
	b = append(b, `,"clock":{"synchronised":`...)
	if now.Bound == meter.UnknownBound {
		b = append(b, `false}`...)
	} else {
		b = fmt.Appendf(b, `true,"bound_ms":%d}`, now.Bound)
	}
	sep := `,"backlog":{`
	for _, lane := range meter.Lanes() {
		// Acked first: what is stored meanwhile must not make it negative.
		acked := store.Acked(lane)
		b = fmt.Appendf(b, `%s%q:%d`, sep, lane, store.Last(lane)-acked)
		sep = ","
	}
	b = append(b, '}')
	if last := a.intake.Stats().Last; !last.IsZero() {
		b = fmt.Appendf(b, `,"reading":%q`, utc(last))
	}
	return a.appendModem(b)
}

func utc(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
