// Package poll decides when to visit which meter. A Poller is the one task of
// a line: it visits the line's meters one after another, the longest due
// first, and hands what they say to the intake without waiting for the flash.
//
//	due ──> Ask ──> Visitor.Visit ──> identity, lock-out, back-off ──> Submit
//
// A meter that does not answer is left alone for growing pauses, so that it
// costs its line one time-out a pause and not one a period.
package poll

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"gridgate/internal/meter"
)

// Group is a group of channels, or one profile, with its timetable.
type Group struct {
	Name     string
	Lane     meter.Lane
	Every    time.Duration
	Align    bool            // at whole multiples of Every, counted from local midnight
	Channels []meter.Channel // registers to read; or
	Profile  meter.Channel   // the profile to follow
}

// Meter is one meter of the line.
type Meter struct {
	ID     meter.ID
	Serial string // as configured; empty when the configuration names none
	// Credentials name the address and the secrets that the meter is shown,
	// without telling them; empty when it is shown none.
	Credentials string
	Visitor     meter.Visitor
	Groups      []Group
}

// sink takes what was read; it does not block.
type sink interface {
	Submit(rows []meter.Row, cursors []meter.Cursor)
	Cursor(id meter.ID, serial string, profile meter.Channel) (meter.Cursor, bool, error)
}

// memory is what must be remembered over restarts: how often in a row a meter
// refused credentials, also those that a tool showed it, and for which foreign
// serial number an alarm was given.
type memory interface {
	Refusals(credentials string) (n int, last time.Time)
	Refused(credentials string, at time.Time) (n int, err error)
	Accepted(credentials string) error
	WasAccepted(credentials string) bool
	Exchanged(id meter.ID) (found string)
	SetExchanged(id meter.ID, found string) error
}

// Config is what a Poller works with.
type Config struct {
	Line     string
	Meters   []Meter
	Sink     sink
	Memory   memory
	Now      meter.Now
	TimeZone *time.Location // whose midnight aligned groups count from; nil is UTC
	Log      *slog.Logger
}

// State says how a meter does.
type State string

// The states.
const (
	Waiting   State = "waiting"   // not visited yet
	OK        State = "ok"        // the last visit brought what was asked
	Partial   State = "partial"   // some channels could not be read
	Failing   State = "failing"   // the last visit failed
	Exchanged State = "exchanged" // another meter answers than the configured one
	LockedOut State = "locked"    // refused us twice; not visited until its credentials change, or a tool was let in with them
)

// Status is how one meter does.
type Status struct {
	Meter  meter.ID
	Line   string
	Serial string // as last found
	State  State
	Err    string    // what is wrong, empty when nothing is
	Since  time.Time // of the last good visit; zero when there was none
	Visits uint64
	Rows   uint64
}

// Poller is the task of one line. Status is safe for concurrent use with Run.
type Poller struct {
	cfg    Config
	meters []*meterState

	mu sync.Mutex // guards the status of the meters
}

// meterState is what the poller knows of a meter. Only status is shared.
type meterState struct {
	Meter
	due       []time.Time // by group
	notBefore time.Time   // back-off
	pause     time.Duration
	serial    string // that cursors are looked up by
	proven    bool   // serial was found or configured, so cursors can be looked up
	alarmed   string // the foreign serial that an alarm was given for
	again     bool   // the last visit was one whose profiles had to be asked again
	locked    bool
	unkept    bool // locked because a refusal could not be counted
	doubtful  int  // visits in a row that may have been refused
	status    Status
}

const (
	authLimit = 2 // refusals, after which a meter may lock out for good
	// doubtLimit is how many visits in a row that may have been refused, or cut
	// off by the line, count as a refusal of credentials that the meter took
	// before. Two of those lock it: six visits in a row, which a line that
	// loses one in twenty just there does to one meter of a thousand in two years.
	doubtLimit = 5
	pauseFirst = 5 * time.Second
	pauseMost  = 15 * time.Minute
	// firstReach is how far back a profile is read that was never read.
	firstReach = 24 * time.Hour
	longest    = 30 * time.Second // a wait; then the wall clock is looked at again
	// cursorRetry is how long a profile waits whose cursor cannot be read.
	cursorRetry = time.Minute
)

// New gives the poller of a line; Run does the work.
func New(cfg Config) *Poller {
	p := &Poller{cfg: cfg}
	for _, m := range cfg.Meters {
		p.meters = append(p.meters, &meterState{
			Meter:  m,
			due:    make([]time.Time, len(m.Groups)),
			serial: m.Serial,
			proven: m.Serial != "",
			status: Status{Meter: m.ID, Line: cfg.Line, State: Waiting},
		})
	}
	return p
}

// Status tells how each meter does, in the order of the configuration.
func (p *Poller) Status() []Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]Status, len(p.meters))
	for i, m := range p.meters {
		all[i] = m.status
	}
	return all
}

// Run visits meters until ctx ends, then closes their sessions. It gives no
// error: what goes wrong is a meter's, and in its status.
func (p *Poller) Run(ctx context.Context) error {
	defer p.close()
	p.recallExchanges()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		m, at := p.next()
		wait := longest
		if m != nil {
			wait = min(longest, time.Until(at))
		}
		if m == nil || wait > 0 {
			timer.Reset(wait)
			select {
			case <-ctx.Done():
				return nil
			case <-timer.C:
				continue
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		p.visit(ctx, m)
	}
}

func (p *Poller) close() {
	for _, m := range p.meters {
		if err := m.Visitor.Close(); err != nil {
			p.cfg.Log.Debug("closing a session", "line", p.cfg.Line, "meter", string(m.ID), "error", err)
		}
	}
}

// next gives the meter that is due first, and when. nil when there is none.
func (p *Poller) next() (*meterState, time.Time) {
	var first *meterState
	var at time.Time
	for _, m := range p.meters {
		if len(m.due) == 0 || p.refused(m) {
			continue
		}
		p.rein(m)
		due := slices.MinFunc(m.due, time.Time.Compare)
		if due.Before(m.notBefore) {
			due = m.notBefore
		}
		if first == nil || due.Before(at) {
			first, at = m, due
		}
	}
	return first, at
}

// rein brings back what is due further away than its timetable puts it: the
// wall clock, which aligned groups follow, was set back.
func (p *Poller) rein(m *meterState) {
	for i, g := range m.Groups {
		// A day that ends daylight saving is an hour longer.
		if g.Align && time.Until(m.due[i]) > g.Every+time.Hour {
			m.due[i] = aligned(time.Now(), g.Every, p.cfg.TimeZone)
		}
	}
}

// after gives when a group is due next, after it was due at due and read now.
func (p *Poller) after(g Group, due, now time.Time) time.Time {
	if g.Align {
		return aligned(now, g.Every, p.cfg.TimeZone)
	}
	next := due.Add(g.Every)
	if !next.After(now) { // first visit, or the line is too slow for the timetable
		next = now.Add(g.Every)
	}
	return next
}

// aligned gives the next multiple of every after now, counted from local
// midnight and beginning anew at each; whole days are counted as days, which
// daylight saving makes 23 or 25 hours long.
func aligned(now time.Time, every time.Duration, zone *time.Location) time.Time {
	if zone == nil {
		zone = time.UTC
	}
	const day = 24 * time.Hour
	y, m, d := now.In(zone).Date()
	if every >= day {
		return time.Date(y, m, d+int(every/day), 0, 0, 0, 0, zone)
	}
	midnight := time.Date(y, m, d, 0, 0, 0, 0, zone)
	next := midnight.Add(now.Sub(midnight).Truncate(every) + every)
	if tomorrow := time.Date(y, m, d+1, 0, 0, 0, 0, zone); tomorrow.Before(next) {
		return tomorrow
	}
	return next
}
