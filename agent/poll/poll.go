// Package poll decides when to visit which meter. A Poller is the one task of
// a line: it visits the line's meters, the most important work first, and hands
// what they say to the intake without waiting for the flash.
//
//	jobs ── choose ──> Ask ──> Visitor.Visit ──> identity, lock-out, back-off ──> Submit
//
// What is due goes by class: on demand, alarms, clock, billing, interval,
// instant, and then the gaps of profiles. Work that is late moves up, a class
// for each of its periods, so that a line with too much to do still reads all
// of its meters. A meter that does not answer is left alone for growing pauses:
// it costs its line one time-out a pause and not one a period.
package poll

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
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
	// Back is how far a profile is read back that has gaps, or was never read;
	// 0 is DefaultBack.
	Back time.Duration
	// Clear takes the bits of alarm registers that are stored out of them.
	Clear bool
}

// Meter is one meter of the line.
type Meter struct {
	ID     meter.ID
	Serial string // as configured; empty when the configuration names none
	// Credentials name the address and the secrets that the meter is shown,
	// without telling them; empty when it is shown none.
	Credentials string
	Visitor     meter.Visitor
	// Free, when not nil, waits until nobody has the meter's line.
	Free   func(ctx context.Context) error
	Groups []Group
	// Discover, when not nil, gives the groups of a meter that has none in the
	// configuration: it asks the meter, before the first visit.
	Discover func(ctx context.Context) ([]Group, error)
	// EventOf, when not nil, gives the channel of what a bit of an alarm register
	// means, where that is known.
	EventOf func(register meter.Channel, bit uint8) (event meter.Channel, ok bool)
	// Clock, when not nil, decides about the meter's clock.
	Clock clockKeeper
}

// sink takes what was read; it does not block.
type sink interface {
	Submit(rows []meter.Row, cursors []meter.Cursor, stored func())
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

// clockKeeper decides what is done about the clock of a meter. Its methods are
// called one at a time.
type clockKeeper interface {
	// Recall has read what was stored of the last setting, if need be.
	Recall(read func() (at int64, ok bool, err error))
	// Took takes what a visit found. It gives rows to store with it, and what to
	// store for Recall; 0 is nothing.
	Took(now meter.Stamp, got *meter.Got) (rows []meter.Row, keep int64)
	// Next gives what a visit is to do about the clock after that wait, nil for
	// nothing.
	Next(now meter.Stamp) (wait time.Duration, order *meter.SetClock)
	// Forget forgets the meter: another one answers.
	Forget()
}

// Config is what a Poller works with.
type Config struct {
	Line   string
	Meters []Meter
	Sink   sink
	Memory memory
	Now    meter.Now
	// Wall gives the wall time, which aligned groups follow when it is stepped;
	// nil is the system's.
	Wall     func() time.Time
	TimeZone *time.Location // whose midnight aligned groups count from; nil is UTC
	Log      *slog.Logger
	// Serial says that the line is a port of this machine. When it is gone that
	// is held against no meter, and it is tried again every few seconds.
	Serial bool
	// Parallel is how many meters are visited at a time; 0 is 1, and a medium
	// that has one exchange at a time has no use for more.
	Parallel int
	// Gate, when not nil, is shared by lines: a visit holds a place in it.
	Gate chan struct{}
	// VisitLimit ends a visit that takes too long, so that others have their
	// turn; 0 is DefaultVisitLimit. What it brought counts, and it is resumed.
	VisitLimit time.Duration
	// Pulse, when not nil, is called whenever the poller gets on, every 30 s at least,
	// unless a visit does not come back.
	Pulse func()
	// Recent is how far back a profile is read at first, where more is missing:
	// the rest is filled in when nothing is due. 0 is DefaultRecent.
	Recent time.Duration
}

// Defaults.
const (
	DefaultBack       = 40 * 24 * time.Hour
	DefaultVisitLimit = 3 * time.Minute
	// DefaultRecent: the newest rows matter most.
	DefaultRecent = 24 * time.Hour
)

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
	Gone   bool      // it fails since the port is gone
	Err    string    // what is wrong, empty when nothing is
	Since  time.Time // of the last good visit; zero when there was none
	Visits uint64
	// Answered counts the visits that were, History tells of the last ones.
	Answered uint64
	History  History
	// Of Visits, those that were not or not wholly answered, and those with garbage
	// among the answers.
	Silent, Garbled uint64
	Rows            uint64
	Clock           *meter.ClockOffset // as last compared; nil when it was not
	Gaps            time.Duration      // how much of its profiles is still to be filled in
}

// Poller is the task of one line. Status, Do and Wake are safe for concurrent
// use with Run.
type Poller struct {
	cfg    Config
	meters []*meterState
	wake   chan struct{}

	noLine time.Time // the port is gone and is not tried before; Run's own

	mu      sync.Mutex // guards the status and the demands of the meters, and:
	stopped error      // why nothing is done any more; nil while Run is, or will be
	results Counts
}

// meterState is what the poller knows of a meter. It belongs to the visit while
// busy, else to Run; what mu guards is shared.
type meterState struct {
	Meter
	jobs      []job
	busy      bool
	visiting  atomic.Pointer[time.Time] // since when; nil while it is not
	notBefore time.Time                 // back-off
	pause     time.Duration
	failed    time.Time                     // since when it fails; zero while it does not
	recovered time.Time                     // since when it had failed that just answered again
	serial    string                        // that cursors are looked up by
	proven    bool                          // serial was found or configured, so cursors can be looked up
	alarmed   string                        // the foreign serial that an alarm was given for
	again     bool                          // the last visit was one whose profiles had to be asked again
	bits      map[meter.Channel]uint64      // of alarm registers, as last seen
	compared  *comparison                   // of its clock, the last; nil for none since the start
	values    map[meter.Channel]meter.Value // of other alarms
	stuck     []meter.Clear                 // bits that the meter did not let be cleared
	unstick   time.Time                     // they are not tried before
	setting   bool                          // its clock is to be set when the job of the clock is due
	locked    bool
	unkept    bool // locked because a refusal could not be counted
	doubtful  int  // visits in a row that may have been refused
	lineGone  bool // the port was not there in the last visit

	status   Status
	demands  []*demand
	heard    bool          // somebody heard of the meter: its pause is over
	clearing []meter.Clear // bits of alarm registers that are stored by now
}

// New gives the poller of a line; Run does the work.
func New(cfg Config) *Poller {
	cfg.Parallel = max(1, cfg.Parallel)
	if cfg.VisitLimit <= 0 {
		cfg.VisitLimit = DefaultVisitLimit
	}
	if cfg.Recent <= 0 {
		cfg.Recent = DefaultRecent
	}
	if cfg.TimeZone == nil {
		cfg.TimeZone = time.UTC
	}
	if cfg.Wall == nil {
		cfg.Wall = time.Now
	}
	p := &Poller{cfg: cfg, wake: make(chan struct{}, 1)}
	for _, m := range cfg.Meters {
		p.meters = append(p.meters, &meterState{
			Meter:  m,
			jobs:   jobsOf(m),
			serial: m.Serial,
			proven: m.Serial != "",
			bits:   make(map[meter.Channel]uint64),
			values: make(map[meter.Channel]meter.Value),
			status: Status{Meter: m.ID, Line: cfg.Line, State: Waiting},
		})
		if m.Discover != nil {
			p.meters[len(p.meters)-1].jobs = discovery()
		}
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

// Wake ends the pause of a meter that was heard of: it pushed something.
func (p *Poller) Wake(id meter.ID) {
	p.mu.Lock()
	for _, m := range p.meters {
		m.heard = m.heard || m.ID == id
	}
	p.mu.Unlock()
	p.rouse()
}

func (p *Poller) rouse() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}
