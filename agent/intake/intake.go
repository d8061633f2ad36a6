// Package intake takes rounds of readings from the pollers and commits them to
// the store in windows, since a commit costs tens of kilobytes of flash
// however small it is.
//
//	poller ── Submit ──> waiting ── window, or an alarm ──> validate ── Append ──> store
//
// Pollers never wait for the flash. What waits is bounded: over the bound,
// instant rows go first and are declared lost; profile rows go next together
// with their cursors, so that they are read from the meter again.
package intake

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"gridgate/internal/meter"
	"gridgate/internal/sortby"
)

// store is what intake needs of the buffer.
type store interface {
	Append(ctx context.Context, a meter.Append) error
	Cursor(id meter.ID, serial string, profile meter.Channel) (meter.Cursor, bool, error)
}

// validator judges rows before they are stored, in the order of their arrival.
type validator interface {
	Check(rows []meter.Row)
}

// Config is what an Intake works with.
type Config struct {
	Store     store
	Validator validator // used by Run only, from one goroutine
	Log       *slog.Logger
	// Report, when not nil, gives rows that follow from those that were
	// validated; it is called before each commit, from Run.
	Report func() []meter.Row
	// Window is how long interval and instant rows may wait for their commit.
	// Alarm and billing rows are committed at once, and take the others along.
	Window time.Duration
	// Offline is what Window grows to while the fog cannot be reached; not above
	// Window for no growth. Nobody waits for the rows then, and a commit costs
	// much flash beside what it holds.
	Offline time.Duration
	// Away says for how long the fog has not been reached, 0 while it is; nil
	// for a fog that always is. It must not block.
	Away func() time.Duration
	// Gather is how long an urgent row waits for others, so that a storm of
	// them is a few commits and not hundreds.
	Gather time.Duration
	// MaxWaiting bounds the memory of waiting rows in bytes. At half of it they
	// are committed, whatever the window.
	MaxWaiting int
	// Committed, when not nil, is sent to (never blocking) after each commit.
	Committed chan<- struct{}
	// Pulse, when not nil, is called whenever the intake gets on, every minute at
	// least, also while the store refuses everything.
	Pulse func()
}

// Stats counts since the start.
type Stats struct {
	Read    uint64 // rows submitted
	Stored  uint64 // rows committed
	Dropped uint64 // rows lost because the store could not be written and memory ran out
	Reread  uint64 // rows given up with their cursors, to be read from the meter again
	Waiting uint64 // rows that wait now
	Commits uint64
	Failed  uint64    // commits that failed
	Err     error     // why the last commit failed; nil after one that did not
	Last    time.Time // when rows were last committed; zero for not yet
}

// Intake is the task. Submit, Cursor and Stats are safe for concurrent use
// with Run.
type Intake struct {
	cfg  Config
	kick chan struct{}

	mu      sync.Mutex
	waiting []round
	flight  []round // what the commit under way holds
	bytes   int     // of both
	losses  map[meter.Lane]uint64
	gaps    map[place]bool // profiles whose rows were given up since their cursor was asked for
	stats   Stats
	window  time.Duration
	mending func(context.Context) (meter.Gap, []meter.Cursor)
	again   bool // the pause after a commit that failed is over
}

// round is what one visit brought.
type round struct {
	rows      []meter.Row
	cursors   []meter.Cursor
	stored    func() // nil when nobody wants to know
	since     time.Time
	bytes     int
	lane      meter.Lane // of its most important row
	validated bool
}

// isUrgent says whether a round waits for no window: it is of a lane that
// matters, or somebody waits for it to be stored.
func (r *round) isUrgent() bool { return r.lane <= meter.Billing || r.stored != nil }

// place is whose cursor it is.
type place struct {
	meter   meter.ID
	serial  string
	profile meter.Channel
}

func placeOf(c meter.Cursor) place { return place{c.Meter, c.Serial, c.Profile} }

const (
	rowBytes    = 192 // a row in memory, with its share of slices
	retryFirst  = time.Second
	retryMost   = time.Minute
	finalCommit = 3 * time.Second
)

// New gives an intake; Run does the work.
func New(cfg Config) *Intake {
	return &Intake{
		cfg: cfg, window: cfg.Window, kick: make(chan struct{}, 1),
		losses: make(map[meter.Lane]uint64), gaps: make(map[place]bool),
	}
}

// SetWindow changes the commit window for what waits and what will, and what it
// grows to while the fog cannot be reached.
func (in *Intake) SetWindow(d, offline time.Duration) {
	in.mu.Lock()
	in.window, in.cfg.Offline = d, offline
	in.mu.Unlock()
	in.wake()
}

// SetMaxWaiting changes the bound of waiting rows, in bytes.
func (in *Intake) SetMaxWaiting(bytes int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.cfg.MaxWaiting = bytes
	in.shed()
}

// Submit takes a round: rows, and the cursors that they advance, which are
// stored together or not at all. It never blocks on the store, and keeps the
// slices. A round that begins behind rows which were given up since its cursor
// was asked for is given up too: its cursor would jump over them. stored, when
// not nil, has it committed at once and is called once the round is durable, and never for one that is given
// up or that lost a row; it must not block.
func (in *Intake) Submit(rows []meter.Row, cursors []meter.Cursor, stored func()) {
	if len(rows) == 0 && len(cursors) == 0 {
		return
	}
	next := round{rows: rows, cursors: cursors, stored: stored, since: time.Now(), lane: meter.Instant}
	for i := range rows {
		next.bytes += rowBytes + len(rows[i].Value.Data)
		next.lane = min(next.lane, rows[i].Lane)
	}
	in.mu.Lock()
	defer in.wake()
	defer in.mu.Unlock()
	in.stats.Read += uint64(len(rows))
	if slices.ContainsFunc(cursors, func(c meter.Cursor) bool { return in.gaps[placeOf(c)] }) {
		in.stats.Reread += uint64(len(rows))
		for _, c := range cursors {
			in.gaps[placeOf(c)] = true
		}
		return
	}
	in.stats.Waiting += uint64(len(rows))
	in.bytes += next.bytes
	in.waiting = append(in.waiting, next)
	in.shed()
}

func (in *Intake) wake() {
	select {
	case in.kick <- struct{}{}:
	default:
	}
}

// Cursor gives up to where a profile has been read, counting what waits.
func (in *Intake) Cursor(id meter.ID, serial string, profile meter.Channel) (meter.Cursor, bool, error) {
	in.mu.Lock()
	delete(in.gaps, place{id, serial, profile})
	for _, rounds := range [][]round{in.waiting, in.flight} {
		for i := len(rounds) - 1; i >= 0; i-- { // the rest of a round in flight is Run's
			for _, c := range slices.Backward(rounds[i].cursors) {
				if c.Meter == id && c.Serial == serial && c.Profile == profile {
					in.mu.Unlock()
					return c, true, nil
				}
			}
		}
	}
	in.mu.Unlock()
	return in.cfg.Store.Cursor(id, serial, profile)
}

// Stats gives the counts.
func (in *Intake) Stats() Stats {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.stats
}

// Run commits until ctx ends, and then once more what waits.
func (in *Intake) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var pause time.Duration
	var notBefore time.Time
	for {
		if mend := in.takeMending(); mend != nil {
			in.mend(ctx, mend)
		}
		if in.isAgain() {
			notBefore = time.Time{}
		}
		wait := in.untilDue(notBefore)
		if in.cfg.Pulse != nil {
			in.cfg.Pulse()
			wait = min(wait, time.Minute)
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return in.final(ctx)
		case <-in.kick:
			continue
		case <-timer.C:
		}
		if in.untilDue(notBefore) > 0 {
			continue
		}
		if err := in.commit(ctx); err != nil && ctx.Err() == nil {
			if pause == 0 {
				in.cfg.Log.Error("readings cannot be stored; they wait in memory", "error", err)
			}
			pause = min(max(2*pause, retryFirst), retryMost)
			notBefore = time.Now().Add(pause)
			continue
		}
		if pause > 0 {
			in.cfg.Log.Info("readings are stored again")
		}
		pause = 0
	}
}

// isAgain says once that Retry was called.
func (in *Intake) isAgain() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	again := in.again
	in.again = false
	return again
}

// Retry ends the pause after a commit that failed: the store is another one.
func (in *Intake) Retry() {
	in.mu.Lock()
	in.again = true
	in.mu.Unlock()
	in.wake()
}

// present gives the window as it is now: while the fog is away it grows with
// half the time that it has been. mu is held.
func (in *Intake) present() time.Duration {
	if in.cfg.Away == nil {
		return in.window
	}
	return max(in.window, min(in.cfg.Offline, in.cfg.Away()/2))
}

// untilDue gives how long to wait for the next commit: not at all when an
// urgent row waits or half of the room is taken, else what is left of the
// window, and never before notBefore.
func (in *Intake) untilDue(notBefore time.Time) time.Duration {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.waiting) == 0 {
		return time.Hour
	}
	due := in.waiting[0].since.Add(in.present())
	if in.bytes >= in.cfg.MaxWaiting/2 {
		due = in.waiting[0].since
	}
	for _, r := range in.waiting {
		if at := r.since.Add(in.cfg.Gather); r.isUrgent() && at.Before(due) {
			due = at
		}
	}
	if due.Before(notBefore) {
		due = notBefore
	}
	return max(0, time.Until(due))
}

// final commits what is left within a bound that no longer hangs on ctx.
func (in *Intake) final(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finalCommit)
	defer cancel()
	if err := in.commit(ctx); err != nil {
		return fmt.Errorf("intake: %d rows not stored at the stop: %w", in.Stats().Waiting, err)
	}
	return nil
}

// commit stores all that waits in one transaction; on failure it waits on.
func (in *Intake) commit(ctx context.Context) error {
	in.mu.Lock()
	taken := in.waiting
	in.waiting, in.flight = nil, taken
	losses := in.losses
	in.losses = make(map[meter.Lane]uint64)
	in.mu.Unlock()
	if len(taken) == 0 && len(losses) == 0 {
		return nil
	}
	for i := range taken {
		if !taken[i].validated {
			in.cfg.Validator.Check(taken[i].rows)
			taken[i].validated = true
		}
	}
	taken = in.report(taken)
	what := gather(taken, losses)
	err := in.cfg.Store.Append(ctx, what)
	if err == nil {
		for _, r := range taken {
			if r.stored != nil {
				r.stored()
			}
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.stats.Err = err
	in.flight = nil
	if err != nil {
		in.stats.Failed++
		in.waiting = append(taken, in.waiting...)
		for lane, n := range losses {
			in.losses[lane] += n
		}
		in.shed()
		return err
	}
	in.stats.Commits++
	in.stats.Stored += uint64(len(what.Rows))
	if len(what.Rows) > 0 {
		in.stats.Last = time.Now()
	}
	in.stats.Waiting -= uint64(len(what.Rows))
	for _, r := range taken {
		in.bytes -= r.bytes
	}
	select {
	case in.cfg.Committed <- struct{}{}:
	default:
	}
	return nil
}

// report adds what follows from the rows, which waits like them if the commit
// fails.
func (in *Intake) report(taken []round) []round {
	if in.cfg.Report == nil {
		return taken
	}
	rows := in.cfg.Report()
	if len(rows) == 0 {
		return taken
	}
	next := round{rows: rows, since: time.Now(), bytes: rowBytes * len(rows), lane: meter.Interval, validated: true}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.bytes += next.bytes
	in.stats.Read += uint64(len(rows))
	in.stats.Waiting += uint64(len(rows))
	return append(taken, next)
}

// gather makes one Append of the rounds. But for alarms the rows of a meter stand
// together, the meters as they come: the store then has few names and few stamps
// in each of its chunks. Of a meter, and among alarms, the order of arrival stays.
func gather(rounds []round, losses map[meter.Lane]uint64) meter.Append {
	var a meter.Append
	place := make(map[meter.ID]int)
	for _, r := range rounds {
		a.Rows = append(a.Rows, r.rows...)
		a.Cursors = append(a.Cursors, r.cursors...)
		for i := range r.rows {
			if _, known := place[r.rows[i].Meter]; !known {
				place[r.rows[i].Meter] = len(place)
			}
		}
	}
	sortby.Stable(a.Rows, func(x, y meter.Row) int {
		if x.Lane != y.Lane || x.Lane == meter.Alarm {
			return cmp.Compare(x.Lane, y.Lane)
		}
		return cmp.Compare(place[x.Meter], place[y.Meter])
	})
	for _, lane := range meter.Lanes() {
		if n := losses[lane]; n > 0 {
			a.Losses = append(a.Losses, meter.Loss{Lane: lane, Reason: meter.MemoryFull, Count: n})
		}
	}
	return a
}
