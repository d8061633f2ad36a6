package agent

import (
	"fmt"
	"os"
	"time"

	"gridgate/agent/poll"
	"gridgate/agent/status"
	"gridgate/agent/timesync"
	"gridgate/agent/web"
	"gridgate/configs"
	"gridgate/drivers/address"
	"gridgate/internal/meter"
	"gridgate/internal/sys"
)

// snapshot gives what the page shows of everything.
func (a *Agent) snapshot() web.Snapshot {
	r := a.Report()
	cfg, now := a.config(), time.Now()
	s := web.Snapshot{Overview: a.overview(&r, cfg, now), Events: []web.Alarm{}, Lines: []web.Line{}, Meters: make([]web.Meter, 0, len(r.Meters))}
	if l := a.live.Load(); l != nil {
		s.Events = l.newest()
	}
	nodes := nodesByMeter(&r)
	configured := make(map[string]*configs.Meter, len(cfg.Meters))
	for i := range cfg.Meters {
		configured[string(cfg.Meters[i].ID)] = &cfg.Meters[i]
	}
	for i := range r.Meters {
		m := &r.Meters[i]
		c := configured[m.Meter]
		if c == nil {
			continue // the configuration is being changed
		}
		v := pageMeter(m, c, cfg)
		if n := nodes[m.Meter]; n != nil && n.Asked > 0 {
			v.Signal = percentAnswered(n)
		}
		s.Meters = append(s.Meters, v)
	}
	s.Lines = a.pageLines(cfg, s.Meters, &r)
	s.Overview.Meters = countStates(s.Meters)
	s.Overview.Conditions = a.conditions(&r, &s, cfg)
	return s
}

// nodesByMeter finds the nodes of power lines that are meters of ours.
func nodesByMeter(r *status.Report) map[string]*status.Node {
	nodes := map[string]*status.Node{}
	for i := range r.Bridges {
		for k := range r.Bridges[i].Nodes {
			if n := &r.Bridges[i].Nodes[k]; n.Meter != "" {
				nodes[n.Meter] = n
			}
		}
	}
	return nodes
}

// percentAnswered is how many percent of the requests to a node were answered in time.
func percentAnswered(n *status.Node) *int {
	percent := int(100 - 100*min(n.Lost, n.Asked)/n.Asked)
	return &percent
}

func (a *Agent) overview(r *status.Report, cfg *configs.Config, now time.Time) web.Overview {
	use := sys.Usage()
	_, offset := now.In(cfg.TimeZone).Zone()
	o := web.Overview{
		Version: r.Version, Site: r.Site, Gateway: r.Gateway, TimeZone: cfg.TimeZone.String(), UTCOffset: offset,
		Now: web.Time(now), Started: web.Time(r.Started), Uptime: int64(now.Sub(r.Started) / time.Second),
		Clock: web.GatewayClock{
			State: r.Clock.State, Reason: r.Clock.Reason, Discipline: r.Clock.Discipline, Source: r.Clock.Source,
			Bound: r.Clock.Bound, Offset: r.Clock.Offset,
		},
		Uplink: web.Uplink{
			Broker: r.Uplink.Broker, Connected: r.Uplink.Connected, Error: r.Uplink.Error, Rows: r.Uplink.Rows, Bytes: r.Uplink.Bytes,
			Reconnects: r.Uplink.Reconnects, BudgetDay: r.Uplink.Day, BudgetMonth: r.Uplink.Month, BudgetSpent: r.Uplink.Withheld,
			Unconfirmed: r.Uplink.Unconfirmed,
		},
		Intake: web.Intake{
			Read: r.Intake.Read, Stored: r.Intake.Stored, Waiting: r.Intake.Waiting, Dropped: r.Intake.Dropped,
			Commits: r.Intake.Commits, Failed: r.Intake.Failed, Last: web.Time(a.intake.Stats().Last), Error: r.Intake.Error,
		},
		Backlog: []web.Backlog{},
		Config:  web.RunsWith{Hash: cfg.Hash()[:min(len(cfg.Hash()), 16)], Trust: r.Orders.Trust, Layers: append([]string{}, r.Orders.Layers...), Trial: r.Orders.Trial, Last: r.Orders.Last},
		Memory:  web.Memory{Resident: use.Resident, Anonymous: use.Anonymous, Available: use.Available},
		Disk:    web.Disk{Written: use.Written},
	}
	if r.Clock.LastSync != nil {
		o.Clock.LastSync = web.Time(*r.Clock.LastSync)
	}
	if m := r.Modem; m != nil {
		o.Modem = &web.Modem{
			State: m.State, Error: m.Error, Registration: m.Registration, Operator: m.Operator, Technology: m.Technology,
			Signal: m.Signal, Weak: m.Weak, Resets: m.Resets,
		}
	}
	for _, l := range r.Lanes {
		o.Backlog = append(o.Backlog, web.Backlog{Lane: l.Lane, Rows: l.Last - min(l.Acked, l.Last), Lost: l.Lost})
	}
	o.Disk.Total, o.Disk.Free, _ = sys.Room(cfg.Buffer.Path) // 0 where it cannot be told
	if st, err := a.store.get().Stat(); err == nil {
		o.Disk.Buffer = st.FileBytes
	}
	return o
}

// protocol names what is spoken with a meter.
func protocol(s address.Scheme) string {
	switch {
	case s.IsModbus():
		return "modbus"
	case s.IsDLMS():
		return "dlms"
	}
	return "iec21"
}

// pageMeter gives a meter as the page shows it.
func pageMeter(m *status.Meter, c *configs.Meter, cfg *configs.Config) web.Meter {
	v := web.Meter{
		ID: m.Meter, Line: m.Line, State: m.State, Serial: m.Serial, Error: m.Error,
		Success: m.Success, SuccessOf: m.SuccessOf, Protocol: protocol(c.Address.Scheme),
	}
	if v.Serial == "" {
		v.Serial = c.Serial
	}
	if m.Good != nil {
		v.Last = web.Time(m.Good.Truncate(time.Second))
	}
	if k := m.Clock; k != nil {
		offset := k.Offset
		v.Clock = &offset
		v.ClockBad = isWrong(k, cfg)
	}
	return v
}

// pageLines gives the lines as the page shows them.
func (a *Agent) pageLines(cfg *configs.Config, meters []web.Meter, r *status.Report) []web.Line {
	type sum struct {
		ok       int
		answered float64
		of       int
		last     string
	}
	sums := map[string]*sum{}
	for i := range meters {
		m := &meters[i]
		s := sums[m.Line]
		if s == nil {
			s = &sum{}
			sums[m.Line] = s
		}
		if m.State == string(poll.OK) {
			s.ok++
		}
		if m.Success != nil {
			s.answered += *m.Success * float64(m.SuccessOf)
			s.of += m.SuccessOf
		}
		s.last = max(s.last, m.Last) // of one form and length
	}
	lent := a.lent()
	all := []web.Line{}
	for _, l := range cfg.Lines() {
		v := web.Line{Line: l.Key, Kind: "network", Meters: len(l.Meters), Lent: lent[l.Key]}
		if l.Serial {
			v.Kind = "serial"
			if _, err := os.Stat(l.Key); err != nil {
				v.Error = "the port is not there"
			}
		}
		if s := sums[l.Key]; s != nil {
			v.OK, v.Last = s.ok, s.last
			if s.of > 0 {
				share := s.answered / float64(s.of)
				v.Success = &share
			}
		}
		for _, b := range r.Bridges {
			if b.Line == l.Key {
				v.Kind, v.Connected, v.Nodes, v.Error = "plc", &b.Connected, len(b.Nodes), b.Error
			}
		}
		all = append(all, v)
	}
	return all
}

// lent says which lines tools have.
func (a *Agent) lent() map[string]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[string]bool{}
	for key, l := range a.lines {
		if l.lent.Load() > 0 {
			out[key] = true
		}
	}
	return out
}

func countStates(meters []web.Meter) (c web.Counts) {
	c.Total = len(meters)
	for i := range meters {
		switch poll.State(meters[i].State) {
		case poll.Waiting:
			c.Waiting++
		case poll.OK:
			c.OK++
		case poll.Partial:
			c.Partial++
		case poll.Failing:
			c.Failing++
		case poll.Exchanged:
			c.Exchanged++
		case poll.LockedOut:
			c.Locked++
		}
	}
	return c
}

// meterDetail gives all of one meter.
func (a *Agent) meterDetail(id string) (web.MeterDetail, bool) {
	cfg := a.config()
	c, ok := cfg.Meter(meter.ID(id))
	if !ok {
		return web.MeterDetail{}, false
	}
	m, node := a.reportOne(c)
	d := web.MeterDetail{
		Meter: pageMeter(&m, &c, cfg), Configured: c.Serial, Model: c.Address.Model,
		Visits: m.Visits, Answered: m.Answered, Rows: m.Rows, Gaps: m.Gaps,
	}
	for _, g := range c.Groups {
		d.Groups = append(d.Groups, string(g.Name))
	}
	if k := m.Clock; k != nil {
		d.ClockDetail = &web.MeterClock{
			Offset: k.Offset, Uncertainty: k.Uncertainty, Valid: k.Valid, Measured: web.Time(k.Measured),
			GatewayUnsynchronised: k.Unsynchronised, Policy: k.Policy, Pending: k.Pending, Why: k.Why,
		}
		if k.LastSet != nil {
			d.ClockDetail.LastSet = web.Time(*k.LastSet)
		}
	}
	if node != nil {
		d.Link = &web.Link{State: node.State, RTT: node.RTT, Requests: node.Asked, Lost: node.Lost}
		if node.Asked > 0 {
			d.Signal = percentAnswered(node)
		}
		if node.Quality != nil {
			d.Link.Level = node.Quality.Level
		}
		if node.Heard != nil {
			d.Link.Heard = web.Time(*node.Heard)
		}
	}
	if l := a.live.Load(); l != nil {
		d.Values = l.values(c.ID, c.Serial)
	}
	return d, true
}

// reportOne gives the report on one meter, and on its node where it is one of a
// power line.
func (a *Agent) reportOne(c configs.Meter) (m status.Meter, node *status.Node) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m = status.Meter{Meter: string(c.ID), Line: c.Address.Line, State: string(poll.Waiting)}
	l := a.lines[c.Address.Line]
	if l == nil {
		return m, nil
	}
	for _, s := range append(l.poller.Status(), l.broken...) {
		if s.Meter == c.ID {
			m = reportMeter(s, l.clocks[s.Meter])
		}
	}
	if l.bridge != nil {
		for _, b := range a.reportBridges() {
			for i := range b.Nodes {
				if b.Nodes[i].Meter == string(c.ID) {
					node = &b.Nodes[i]
				}
			}
		}
	}
	return m, node
}

// diskLow is how much room is too little.
const diskLow = 4 << 20

// grace is how long after a start nothing is said of what takes a while.
const grace = 2 * time.Minute

// conditions gives what is not as it should be.
func (a *Agent) conditions(r *status.Report, s *web.Snapshot, cfg *configs.Config) (all []web.Condition) {
	add := func(is bool, code string, level web.Level, count uint64, format string, args ...any) {
		if is {
			all = append(all, web.Condition{Code: code, Level: level, Count: count, Text: fmt.Sprintf(format, args...)})
		}
	}
	n := s.Overview.Meters
	failing := web.Warn
	if n.Failing == n.Total {
		failing = web.Fail
	}
	add(n.Failing > 0, "meters-failing", failing, uint64(n.Failing), "%d of %d meters do not answer", n.Failing, n.Total)
	add(n.Locked > 0, "meters-locked", web.Fail, uint64(n.Locked), "%d of %d meters refused our credentials and are left alone: correct them", n.Locked, n.Total)
	add(n.Exchanged > 0, "meters-exchanged", web.Fail, uint64(n.Exchanged), "%d of %d meters are others than configured: correct the configuration or the wiring", n.Exchanged, n.Total)
	add(n.Partial > 0, "meters-partial", web.Warn, uint64(n.Partial), "of %d of %d meters some channels cannot be read", n.Partial, n.Total)
	gone := uint64(0)
	for _, l := range s.Lines {
		if l.Error != "" {
			gone++
		}
	}
	add(gone > 0, "lines-missing", web.Fail, gone, "%d lines cannot be used: look at their ports and bridges", gone)
	a.uplinkConditions(r, add)
	if modemFails(r.Modem) {
		add(true, "modem", web.Warn, 0, "modem: %s%s", r.Modem.State, orError(r.Modem.Error))
	}
	switch r.Clock.State {
	case timesync.Unsynchronised.String():
		add(true, "clock-unsynchronised", web.Warn, 0, "nobody vouches for the clock: readings are flagged")
	case timesync.Holdover.String():
		add(true, "clock-holdover", web.Info, 0, "no time server answers: the clock goes on by itself")
	}
	add(r.Intake.Error != "", "store-failing", web.Fail, 0, "readings cannot be stored and wait in memory: %s", r.Intake.Error)
	lost := r.Intake.Dropped
	for _, l := range r.Lanes {
		lost += l.Lost
	}
	add(lost > 0, "rows-lost", web.Warn, lost, "%d rows were given up before the fog had them", lost)
	d := s.Overview.Disk
	add(d.Total > 0 && d.Free < diskLow, "disk-full", web.Fail, 0, "%d octets are free where the buffer is: make room", d.Free)
	add(r.Orders.Trial != "", "trial", web.Info, 0, "%s", r.Orders.Trial)
	for _, note := range r.Notes {
		add(true, "note", web.Warn, 0, "%s", note)
	}
	return all
}

// downLong is how long the fog may be away before that is more than a warning.
const downLong = time.Hour

func (a *Agent) uplinkConditions(r *status.Report, add func(bool, string, web.Level, uint64, string, ...any)) {
	young := time.Since(a.started) < grace
	away := a.reached.away().Round(time.Minute)
	level := web.Warn
	if away > downLong {
		level = web.Fail
	}
	why := ""
	if r.Uplink.Error != "" {
		why = ": " + r.Uplink.Error
	}
	never := !a.reached.ever.Load()
	add(!r.Uplink.Connected && never && !(young && why == ""), "uplink-never", level, 0, "the fog was not reached since the start%s", why)
	add(!r.Uplink.Connected && !never, "uplink-down", level, 0, "the fog cannot be reached, for %s%s", away, why)
	add(len(r.Uplink.Unconfirmed) > 0, "uplink-unconfirmed", web.Warn, uint64(len(r.Uplink.Unconfirmed)), "the broker takes what the fog does not confirm: %v", r.Uplink.Unconfirmed)
	add(r.Uplink.Withheld, "budget-spent", web.Warn, 0, "the budget of the uplink is spent: interval and instant wait")
}
