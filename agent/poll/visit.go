package poll

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gridgate/internal/meter"
	"gridgate/internal/sortby"
)

// AlarmExchanged is the channel of the alarm that another meter answers than
// the configured one; its value says in text which was found.
const AlarmExchanged meter.Channel = "event.meter-exchanged"

// errLong is the cause of a visit's end that took more than its time.
var errLong = errors.New("the visit took too long; it goes on after the other meters had their turn")

// turn is one visit with a place in the gate. It waits for a line that is lent
// before it takes one: a tool may have it for hours.
func (p *Poller) turn(ctx context.Context, m *meterState, t task) {
	if m.Free != nil {
		_ = m.Free(ctx) // what else is wrong with the line the visit finds out
	}
	if p.cfg.Gate != nil && ctx.Err() == nil {
		select {
		case p.cfg.Gate <- struct{}{}:
			defer func() { <-p.cfg.Gate }()
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		if t.demand != nil {
			t.demand.reply <- reply{err: context.Cause(ctx)}
		}
		return
	}
	if t.demand == nil { // who demands bounds it himself
		began := time.Now()
		m.visiting.Store(&began)
		defer m.visiting.Store(nil)
	}
	switch {
	case t.demand != nil:
		p.obey(ctx, m, t.demand)
	case t.fill != nil:
		p.fill(ctx, m, t.fill)
	case m.Discover != nil:
		p.discover(ctx, m)
	default:
		p.visit(ctx, m)
	}
}

// obey does what somebody waits for, but for a lock, which may have come since
// he asked.
func (p *Poller) obey(ctx context.Context, m *meterState, d *demand) {
	if p.refused(m) {
		d.reply <- reply{err: fmt.Errorf("meter %s: locked: %w", m.ID, meter.ErrAuthentication)}
		return
	}
	visit, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	//nolint:contextcheck // it is of who waits, and ends the visit when they leave
	defer context.AfterFunc(d.ctx, func() { cancel(context.Cause(d.ctx)) })()
	got, err := m.Visitor.Visit(visit, d.ask)
	defer func() { d.reply <- reply{got, err} }() // when what it says of the meter can be seen
	switch {
	case errors.Is(err, meter.ErrAuthentication), visit.Err() == nil && mayBeRefusal(err):
		p.failed(m, err)
	case err == nil:
		p.accepted(m)
		m.notBefore = time.Time{} // it answers: what was due meanwhile is read now
		answered := got.Identity.Found != "" || len(got.Rows) > 0
		if answered && len(got.Failures) == 0 && !got.Identity.Exchanged() && p.waits(m) {
			p.become(m, OK, "")
		}
	}
}

// waits says whether a meter was not visited yet.
func (p *Poller) waits(m *meterState) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return m.status.State == Waiting
}

// visit visits m for all its jobs that are due.
func (p *Poller) visit(ctx context.Context, m *meterState) {
	now := p.now()
	r := p.prepare(m, now)
	if len(r.jobs) == 0 { // or the wall clock was set back, and nothing is due yet
		p.clearAgain(m, r.ask.Clears)
		if len(r.blocked) > 0 {
			p.become(m, Partial, r.blocked[0].Error())
		}
		return
	}
	limited, cancel := context.WithTimeoutCause(ctx, p.cfg.VisitLimit, errLong)
	defer cancel()
	got, err := m.Visitor.Visit(limited, r.ask)
	p.tally(m, err, got.Failures)
	silent := err != nil && got.Identity.Found == "" && len(got.Rows) == 0
	cut := err != nil && limited.Err() != nil && !errors.Is(err, meter.ErrAuthentication)
	if cut {
		err = nil // what came before counts
		if ctx.Err() != nil {
			r.jobs = nil // a stop is no failure of the meter
		} else {
			got.Failures = append(got.Failures, meter.Failure{Err: errLong})
		}
	}
	got.Failures = append(got.Failures, r.blocked...)
	again := p.identify(m, &got, len(r.ask.Profiles) > 0, err == nil)
	if again {
		m.compared = nil // of another meter
	} else {
		p.follow(m, &r, &got, err == nil && !cut)
		p.clockSetBack(m, &got)
		p.keepClock(m, &got)
	}
	p.noteClears(m, r.ask.Clears, &got, silent)
	m.news(&got)
	p.bracket(m, &r, &got)
	p.submit(m, got, r.cleared())
	p.keepExchange(m)
	for _, j := range r.jobs {
		switch j.resumed = cut && j.Profile != ""; {
		case again && !m.again && j.Profile != "" && err == nil:
			continue // still due: now with the cursor of the meter that answers
		case p.lacksLine(err):
			continue
		case j.resumed:
			j.due = p.now().by(j)
		case err != nil:
			j.due = j.retry(now.by(j), p.cfg.TimeZone)
		default:
			j.due, j.ran = j.next(now.by(j), p.cfg.TimeZone), true
		}
	}
	p.planClock(m)
	m.again = again // one that shows another serial each time has its turn like the others
	switch {
	case err != nil:
		p.failed(m, err)
	case ctx.Err() == nil:
		p.succeeded(m, got)
	}
}

// tally counts visits that the line, or the meter, spoiled.
func (p *Poller) tally(m *meterState, err error, failures []meter.Failure) {
	is := func(kind error) bool {
		return errors.Is(err, kind) || slices.ContainsFunc(failures, func(f meter.Failure) bool { return errors.Is(f.Err, kind) })
	}
	garbled := is(meter.ErrGarbled)
	silent := !garbled && is(meter.ErrNoAnswer)
	p.mu.Lock()
	defer p.mu.Unlock()
	if garbled {
		m.status.Garbled++
	}
	if silent {
		m.status.Silent++
	}
}

// round is a visit on the way.
type round struct {
	ask     meter.Ask
	jobs    []*job // what it is for
	blocked []meter.Failure
	reads   []read // of profiles
}

// prepare gathers what is due, the most important first. Profiles wait for the
// visit that first shows the meter's serial number, because cursors are kept by
// it. A profile whose cursor cannot be read is blocked and tried again soon;
// the registers are read.
func (p *Poller) prepare(m *meterState, now moment) (r round) {
	r.ask.ClockToo = true
	for i := range m.jobs {
		if j := &m.jobs[i]; now.due(j) {
			r.jobs = append(r.jobs, j)
		}
	}
	sortby.Stable(r.jobs, func(a, b *job) int { return int(a.class) - int(b.class) })
	r.ask.Clears = p.takeClears(m)
	r.jobs = slices.DeleteFunc(r.jobs, func(j *job) bool {
		switch {
		case j.class == clock:
			r.ask.Clock, r.ask.SetClock = true, p.clockOrder(m)
		case j.Profile == "":
			r.ask.Groups = append(r.ask.Groups, meter.Group{Name: j.Name, Lane: j.Lane, Channels: j.Channels})
		case m.proven:
			return !p.prepareProfile(m, j, now, &r)
		}
		return false
	})
	return r
}

// identify looks at who answered. It gives true when profiles must be asked
// again, because they were asked with another meter's cursors or not at all.
func (p *Poller) identify(m *meterState, got *meter.Got, askedProfiles, answered bool) (again bool) {
	found := got.Identity.Found
	// Drivers ask who answers before they read anything. So a meter that gave
	// rows and no serial number has none, and its cursors are kept under none.
	answered = answered || len(got.Rows)+len(got.Cursors) > 0
	known := m.proven && (found == m.serial || found == "" && !answered)
	if !known && (found != "" || answered) {
		again = true
		if m.proven && m.serial != found {
			m.forget()
		}
		m.serial, m.proven = found, true
		if askedProfiles {
			got.Cursors = nil
			got.Rows = slices.DeleteFunc(got.Rows, func(r meter.Row) bool { return r.Stamp.Source == meter.FromMeter })
		}
	}
	switch {
	case got.Identity.Exchanged() && m.alarmed != found:
		m.alarmed = found
		p.cfg.Log.Error("meter exchanged: another meter answers than the configured one; its rows are kept under the serial found",
			"line", p.cfg.Line, "meter", string(m.ID), "configured", m.Serial, "found", found)
		got.Rows = append(got.Rows, meter.Row{
			Meter: m.ID, Serial: found, Channel: AlarmExchanged, Lane: meter.Alarm, Stamp: p.cfg.Now(),
			Value: meter.TextValue(fmt.Sprintf("configured %s, found %s", m.Serial, found)),
		})
	case found != "" && !got.Identity.Exchanged():
		m.alarmed = ""
	}
	return again
}

// submit hands the rows on. Rows of profiles travel with their cursors, apart
// from registers, so that under pressure they can be given up and read again.
func (p *Poller) submit(m *meterState, got meter.Got, clearable map[meter.Channel]bool) {
	rows := len(got.Rows)
	if len(got.Cursors) > 0 {
		var profile, registers []meter.Row
		for _, r := range got.Rows {
			if r.Stamp.Source == meter.FromMeter {
				profile = append(profile, r)
			} else {
				registers = append(registers, r)
			}
		}
		p.cfg.Sink.Submit(profile, got.Cursors, nil)
		got.Rows = registers
	}
	p.cfg.Sink.Submit(got.Rows, nil, p.clearer(m, got.Rows, clearable))
	p.mu.Lock()
	m.status.Visits++
	m.status.Rows += uint64(rows)
	if got.Identity.Found != "" {
		m.status.Serial = got.Identity.Found
	}
	if got.Clock != nil {
		m.status.Clock = got.Clock
	}
	m.status.Gaps = m.missing()
	p.mu.Unlock()
}
