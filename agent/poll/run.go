package poll

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gridgate/internal/meter"
)

const (
	longest = 30 * time.Second // a wait; then the wall clock is looked at again
	// lineRetry is how often a port is tried that is gone.
	lineRetry = 2 * time.Second
)

// Run visits meters until ctx ends, then closes their sessions. It gives no
// error: what goes wrong is a meter's, and in its status.
func (p *Poller) Run(ctx context.Context) error {
	defer p.close()
	p.recallExchanges()
	for _, m := range p.meters {
		p.begin(m, p.now())
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	ended := make(chan *meterState)
	running := 0
	for {
		wait := longest
		p.pulse(time.Now())
		if running < p.cfg.Parallel && ctx.Err() == nil {
			now := p.now()
			m, t, at := p.choose(now)
			if m != nil && !at.After(now.gone) {
				m.busy = true
				running++
				go func() {
					p.turn(ctx, m, t)
					ended <- m
				}()
				continue
			}
			if m != nil {
				wait = min(longest, at.Sub(now.gone))
			}
		}
		timer.Reset(wait)
		select {
		case m := <-ended:
			running--
			m.busy = false
			p.cameBack(m)
		case <-ctx.Done():
			for ; running > 0; running-- {
				(<-ended).busy = false
			}
			p.refuseDemands(ctx)
			return nil
		case <-p.wake:
		case <-timer.C:
		}
	}
}

// overdue is how much longer than its limit a visit may take: drivers end their
// sessions with it.
const overdue = 2 * time.Minute

// pulse tells that the poller gets on. A visit that does not come back though its
// time is over stops that.
func (p *Poller) pulse(now time.Time) {
	if p.cfg.Pulse == nil {
		return
	}
	for _, m := range p.meters {
		if at := m.visiting.Load(); at != nil && now.Sub(*at) > p.cfg.VisitLimit+overdue {
			return
		}
	}
	p.cfg.Pulse()
}

// moment is now by two clocks: gone tells how much time passed and never steps,
// wall is what clocks on walls show, and steps when it is set. What is due is
// kept by the one that it is due by, see job.follows.
type moment struct{ gone, wall time.Time }

func (p *Poller) now() moment { return moment{gone: time.Now(), wall: p.cfg.Wall()} }

// by gives now by the clock that a job is due by.
func (m moment) by(j *job) time.Time {
	if j.follows() {
		return m.wall
	}
	return m.gone
}

// due says whether a job is due.
func (m moment) due(j *job) bool { return !j.due.After(m.by(j)) }

// when gives when a job is due, by the clock that never steps.
func (m moment) when(j *job) time.Time { return m.gone.Add(j.due.Sub(m.by(j))) }

// sure says whether the gateway knows what time it is.
func (p *Poller) sure() bool { return p.cfg.Now().Bound != meter.UnknownBound }

// begin makes all jobs of a meter due, but for those that say nothing at another
// time.
func (p *Poller) begin(m *meterState, now moment) {
	for i := range m.jobs {
		j := &m.jobs[i]
		if j.due = now.by(j); j.brackets() {
			j.due = j.next(now.by(j), p.cfg.TimeZone)
		}
	}
}

func (p *Poller) close() {
	for _, m := range p.meters {
		if err := m.Visitor.Close(); err != nil {
			p.cfg.Log.Debug("closing a session", "line", p.cfg.Line, "meter", string(m.ID), "error", err)
		}
	}
}

// task is what a visit is for.
type task struct {
	demand *demand // what somebody waits for; nil with
	fill   *job    // a profile with a gap; nil with what is due
}

// choose gives the meter to visit next, and when. nil when there is none.
// All times are those of the clock that never steps.
func (p *Poller) choose(now moment) (first *meterState, what task, at time.Time) {
	var urgent class
	for _, m := range p.meters {
		if m.busy {
			continue
		}
		p.rein(m, now)
		if d := p.demanded(m); d != nil {
			return m, task{demand: d}, now.gone
		}
		due, c, ok := p.due(m, now)
		if !ok {
			continue
		}
		sooner := first == nil || due.Before(at)
		if first != nil && !due.After(now.gone) && !at.After(now.gone) && c != urgent {
			sooner = c < urgent
		}
		if sooner {
			first, at, urgent = m, due, c
		}
	}
	if first == nil || at.After(now.gone) {
		if m, j := p.fillable(now); m != nil {
			return m, task{fill: j}, now.gone
		}
	}
	return first, task{}, at
}

// due gives when m has its turn, and the class of the most urgent of its jobs
// that are due then.
func (p *Poller) due(m *meterState, now moment) (at time.Time, c class, ok bool) {
	if len(m.jobs) == 0 || p.refused(m) {
		return at, c, false
	}
	for i := range m.jobs {
		if j := &m.jobs[i]; !m.rides(j) && (!ok || now.when(j).Before(at)) {
			at, ok = now.when(j), true
		}
	}
	for _, bound := range []time.Time{m.notBefore, p.noLine} {
		if at.Before(bound) {
			at = bound
		}
	}
	c = instant
	for i := range m.jobs {
		if j := &m.jobs[i]; !m.rides(j) && now.due(j) {
			c = min(c, j.urgency(now.by(j)))
		}
	}
	return at, c, ok
}

// rein brings back what is due further away than its timetable puts it: the
// wall clock, which aligned groups follow, was set back.
func (p *Poller) rein(m *meterState, now moment) {
	for i := range m.jobs {
		j := &m.jobs[i]
		// A day that ends daylight saving is an hour longer, and steps that are small
		// against the period are none.
		if j.follows() && j.due.Sub(now.wall) > j.Every+min(time.Hour, j.Every/2) {
			j.due = j.next(now.wall, p.cfg.TimeZone)
		}
	}
}

// ErrBusy says that too much was demanded of a meter already.
var ErrBusy = errors.New("too many orders wait for this meter")

// maxDemands is how many orders may wait for one meter.
const maxDemands = 8

// demand is what somebody waits for.
type demand struct {
	ctx   context.Context //nolint:containedctx // of who waits; it may leave
	ask   meter.Ask
	reply chan reply
}

type reply struct {
	got meter.Got
	err error
}

// Do visits a meter for ask before anything else, and gives what came of it.
// The rows are the caller's: they are not stored. A pause of a meter that
// fails is not kept; a lock is.
func (p *Poller) Do(ctx context.Context, id meter.ID, ask meter.Ask) (meter.Got, error) {
	d := &demand{ctx: ctx, ask: ask, reply: make(chan reply, 1)}
	if err := p.enqueue(id, d); err != nil {
		return meter.Got{}, err
	}
	p.rouse()
	select {
	case r := <-d.reply:
		return r.got, r.err
	case <-ctx.Done():
		return meter.Got{}, fmt.Errorf("meter %s: %w", id, context.Cause(ctx))
	}
}

func (p *Poller) enqueue(id meter.ID, d *demand) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.meters {
		switch {
		case m.ID != id:
		case p.stopped != nil:
			return fmt.Errorf("meter %s: %w", id, p.stopped)
		case m.status.State == LockedOut:
			return fmt.Errorf("meter %s: %s: %w", id, m.status.Err, meter.ErrAuthentication)
		case len(m.demands) >= maxDemands:
			return fmt.Errorf("meter %s: %w", id, ErrBusy)
		default:
			m.demands = append(m.demands, d)
			return nil
		}
	}
	return fmt.Errorf("meter %s: not on line %s", id, p.cfg.Line)
}

// demanded takes the next order for m that somebody still waits for. It also
// ends the pause of a meter that was heard of.
func (p *Poller) demanded(m *meterState) *demand {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m.heard {
		m.heard, m.notBefore = false, time.Time{}
	}
	m.hurry(p.now())
	for len(m.demands) > 0 {
		d := m.demands[0]
		m.demands = m.demands[1:]
		if d.ctx.Err() == nil {
			return d
		}
	}
	return nil
}

// refuseDemands answers those who still wait when the poller stops.
func (p *Poller) refuseDemands(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.meters {
		for _, d := range m.demands {
			d.reply <- reply{err: fmt.Errorf("meter %s: %w", m.ID, context.Cause(ctx))}
		}
		m.demands = nil
	}
	p.stopped = context.Cause(ctx)
}
