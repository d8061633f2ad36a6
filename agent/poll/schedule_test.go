package poll

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/internal/meter"
)

// busyVisitor takes its time and notes when it was visited for what.
type busyVisitor struct {
	takes time.Duration
	err   error
	log   *visitLog
	id    string
}

type visitLog struct {
	mu      sync.Mutex
	order   []string
	at      map[string][]time.Time
	running int
	most    int
}

func (l *visitLog) begin(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at == nil {
		l.at = make(map[string][]time.Time)
	}
	l.order = append(l.order, name)
	l.at[name] = append(l.at[name], time.Now())
	l.running++
	l.most = max(l.most, l.running)
}

func (l *visitLog) end() {
	l.mu.Lock()
	l.running--
	l.mu.Unlock()
}

func (v *busyVisitor) Visit(ctx context.Context, ask meter.Ask) (meter.Got, error) {
	name := v.id
	for _, g := range ask.Groups {
		name += " " + g.Name
	}
	v.log.begin(name)
	defer v.log.end()
	select {
	case <-ctx.Done():
		return meter.Got{}, context.Cause(ctx)
	case <-time.After(v.takes):
	}
	v.log.mu.Lock()
	defer v.log.mu.Unlock()
	return meter.Got{Identity: meter.Identity{Found: v.id, Proven: true}}, v.err
}

func (v *busyVisitor) Close() error { return nil }

func group(lane meter.Lane, every time.Duration) Group {
	return Group{Name: lane.String(), Lane: lane, Every: every, Channels: []meter.Channel{"x"}}
}

func pollerOf(c Config) *Poller {
	c.Line, c.Memory, c.Log = "l", newCounts(), slog.New(slog.DiscardHandler)
	if c.Sink == nil {
		c.Sink = &sinkhole{}
	}
	c.Now = func() meter.Stamp { return meter.Stamp{Time: time.Now().UnixMilli()} }
	return New(c)
}

// runFor runs a poller for some time; meanwhile is called in between.
func runFor(t *testing.T, p *Poller, d time.Duration, meanwhile func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	if meanwhile != nil {
		meanwhile()
	}
	time.Sleep(d)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWhatMattersMostGoesFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &visitLog{}
		var meters []Meter
		for _, lane := range []meter.Lane{meter.Instant, meter.Interval, meter.Alarm} {
			meters = append(meters, Meter{
				ID: meter.ID("m-" + lane.String()), Serial: "s", Visitor: &busyVisitor{takes: time.Second, log: l, id: "m"},
				Groups: []Group{group(lane, time.Hour)},
			})
		}
		p := pollerOf(Config{Meters: meters})
		runFor(t, p, time.Minute, func() {
			time.Sleep(100 * time.Millisecond) // the first visit is under way
			got, err := p.Do(t.Context(), "m-interval", meter.Ask{Groups: []meter.Group{{Name: "order"}}})
			if err != nil || got.Identity.Found != "m" {
				t.Errorf("%v, %v", got, err)
			}
		})
		want := []string{"m alarm", "m order", "m interval", "m instant"}
		if !slices.Equal(l.order, want) {
			t.Errorf("visits in the order %v, want %v", l.order, want)
		}
	})
}

// TestALineWithTooMuchToDoStillReadsAll: what is late moves up.
func TestALineWithTooMuchToDoStillReadsAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &visitLog{}
		var meters []Meter
		for i := range 10 {
			lane := meter.Interval
			if i == 0 {
				lane = meter.Instant
			}
			meters = append(meters, Meter{
				ID: meter.ID(fmt.Sprint("m", i)), Serial: "s", Visitor: &busyVisitor{takes: 2 * time.Second, log: l, id: fmt.Sprint(i)},
				Groups: []Group{group(lane, 10*time.Second)}, // 20 s of work every 10 s
			})
		}
		runFor(t, pollerOf(Config{Meters: meters}), time.Hour, nil)
		for name, at := range l.at {
			if len(at) < 120 {
				t.Errorf("%s was visited %d times of 180", name, len(at))
			}
		}
	})
}

func TestADeadMeterIsTriedOnceADayInTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &visitLog{}
		v := &busyVisitor{takes: 3 * time.Second, err: meter.ErrNoAnswer, log: l, id: "m"}
		p := pollerOf(Config{Meters: []Meter{{ID: "m", Visitor: v, Groups: []Group{group(meter.Instant, time.Minute)}}}})
		begin := time.Now()
		runFor(t, p, 30*day, nil)
		at := l.at["m instant"]
		late := slices.IndexFunc(at, func(when time.Time) bool { return when.Sub(begin) > deadAfter+day })
		if days := len(at) - late; days < 25 || days > 27 {
			t.Errorf("%d visits in the last 26 days", days)
		}
		if late > 90 || late < 70 {
			t.Errorf("%d visits in the first four days", late)
		}
	})
}

// TestMetersThatFellSilentTogetherComeBackTogether: the feeder returns, and who
// waits for the end of a long pause is read with the first that is.
func TestMetersThatFellSilentTogetherComeBackTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &visitLog{}
		var all []*busyVisitor
		var meters []Meter
		for i := range 4 {
			v := &busyVisitor{takes: time.Second, log: l, id: fmt.Sprint(i), err: meter.ErrNoAnswer}
			all = append(all, v)
			meters = append(meters, Meter{ID: meter.ID(fmt.Sprint("m", i)), Visitor: v, Groups: []Group{group(meter.Instant, time.Minute)}})
		}
		p := pollerOf(Config{Meters: meters})
		runFor(t, p, 30*time.Second, func() {
			time.Sleep(20 * time.Hour)
			l.mu.Lock()
			for _, v := range all[:3] { // the last stays dead, and costs one visit
				v.err = nil
			}
			l.at = nil
			l.mu.Unlock()
			p.Wake("m1")
		})
		for i := range 4 {
			if at := l.at[fmt.Sprint(i, " instant")]; len(at) != 1 {
				t.Errorf("meter %d was visited at %v", i, at)
			}
		}
	})
}

func TestAPortThatIsGoneIsHeldAgainstNoMeter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &visitLog{}
		gone := fmt.Errorf("line x: %w", meter.ErrNoLine)
		a := &busyVisitor{log: l, id: "a", err: gone}
		b := &busyVisitor{log: l, id: "b", err: gone}
		p := pollerOf(Config{Serial: true, Meters: []Meter{
			{ID: "a", Visitor: a, Groups: []Group{group(meter.Instant, time.Minute)}},
			{ID: "b", Visitor: b, Groups: []Group{group(meter.Instant, time.Minute)}},
		}})
		runFor(t, p, 5*time.Second, func() {
			time.Sleep(time.Hour + time.Second)
			synctest.Wait()
			if n := len(l.order); n > 3600/2+1 {
				t.Errorf("%d tries in an hour", n)
			}
			if s := p.Status(); s[0].State != Failing {
				t.Errorf("%+v", s)
			}
			l.mu.Lock()
			l.at, a.err, b.err = nil, nil, nil
			l.mu.Unlock()
		})
		if len(l.at["a instant"]) != 1 || len(l.at["b instant"]) != 1 {
			t.Errorf("5 s after the return: %v", l.at)
		}
	})
}

func TestVisitsInParallelAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &visitLog{}
		gate := make(chan struct{}, 3)
		var pollers []*Poller
		for line := range 2 {
			var meters []Meter
			for i := range 10 {
				meters = append(meters, Meter{
					ID: meter.ID(fmt.Sprint("m", i)), Visitor: &busyVisitor{takes: 10 * time.Second, log: l, id: fmt.Sprint(line, "/", i)},
					Groups: []Group{group(meter.Instant, 10*time.Minute)},
				})
			}
			pollers = append(pollers, pollerOf(Config{Meters: meters, Parallel: 2, Gate: gate}))
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		for _, p := range pollers {
			go func() { done <- p.Run(ctx) }()
		}
		time.Sleep(71 * time.Second) // 20 visits of 10 s, 3 at a time
		cancel()
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
		if l.most != 3 || len(l.order) != 20 || len(l.at) != 20 {
			t.Errorf("%d at a time, %d visits to %d meters", l.most, len(l.order), len(l.at))
		}
	})
}

func TestAVisitThatTakesTooLongLeavesTheLineToOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &visitLog{}
		slow := &busyVisitor{takes: time.Hour, log: l, id: "slow"}
		quick := &busyVisitor{takes: time.Second, log: l, id: "quick"}
		p := pollerOf(Config{VisitLimit: time.Minute, Meters: []Meter{
			{ID: "slow", Serial: "slow", Visitor: slow, Groups: []Group{profileOf(time.Minute)}},
			{ID: "quick", Visitor: quick, Groups: []Group{group(meter.Instant, 2*time.Minute)}},
		}})
		runFor(t, p, time.Hour, func() {
			time.Sleep(90 * time.Second)
			if s := p.Status()[0]; s.State != Partial || s.Err == "" {
				t.Errorf("%+v", s)
			}
		})
		if n := len(l.at["quick instant"]); n < 29 {
			t.Errorf("the quick meter was visited %d times in an hour", n)
		}
		if n := len(l.at["slow"]); n < 29 {
			t.Errorf("the slow meter was visited %d times in an hour", n)
		}
	})
}

func TestOrdersAreAnsweredWhateverHappens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &visitLog{}
		p := pollerOf(Config{Meters: []Meter{{ID: "m", Visitor: &busyVisitor{takes: time.Hour, log: l, id: "m"}}}})
		if _, err := p.Do(t.Context(), "other", meter.Ask{}); err == nil {
			t.Error("an order for a meter that is not there was taken")
		}
		enough := errors.New("enough")
		errs := make(chan error, 16)
		runFor(t, p, time.Minute, func() {
			impatient, cancel := context.WithCancelCause(t.Context())
			go func() {
				_, err := p.Do(impatient, "m", meter.Ask{})
				errs <- err
			}()
			time.Sleep(time.Second)
			cancel(enough)
			if err := <-errs; !errors.Is(err, enough) {
				t.Error(err)
			}
			for range maxDemands + 2 { // one is under way, one is too many
				go func() {
					_, err := p.Do(t.Context(), "m", meter.Ask{})
					errs <- err
				}()
				synctest.Wait()
			}
			if err := <-errs; !errors.Is(err, ErrBusy) {
				t.Error(err)
			}
		})
		if _, err := p.Do(t.Context(), "m", meter.Ask{}); err == nil {
			t.Error("an order was taken after the stop")
		}
		for range maxDemands + 1 {
			if err := <-errs; !errors.Is(err, context.Canceled) {
				t.Errorf("an order that the stop cut off: %v", err)
			}
		}
	})
}

// TestALineThatIsLentTakesNoPlaceInTheGate: a visit waits for its line before
// it takes a place that others could use.
func TestALineThatIsLentTakesNoPlaceInTheGate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &visitLog{}
		back := make(chan struct{}) // closed when the line is given back
		free := func(ctx context.Context) error {
			select {
			case <-back:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		gate := make(chan struct{}, 1)
		lent := pollerOf(Config{Gate: gate, Meters: []Meter{{
			ID: "lent", Free: free, Visitor: &busyVisitor{log: l, id: "lent"}, Groups: []Group{group(meter.Instant, time.Minute)},
		}}})
		other := pollerOf(Config{Gate: gate, Meters: []Meter{{
			ID: "other", Visitor: &busyVisitor{log: l, id: "other"}, Groups: []Group{group(meter.Instant, time.Minute)},
		}}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		for _, p := range []*Poller{lent, other} {
			go func() { done <- p.Run(ctx) }()
		}
		time.Sleep(time.Hour)
		impatient, leave := context.WithTimeout(t.Context(), time.Second)
		if _, err := lent.Do(impatient, "lent", meter.Ask{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an order for a line that is lent: %v", err)
		}
		leave()
		synctest.Wait()
		if n := len(l.at["other instant"]); n < 59 || len(l.at["lent instant"]) > 0 {
			t.Errorf("%d visits to the other line in an hour, %v", n, l.at["lent instant"])
		}
		close(back)
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(l.at["lent instant"]) == 0 {
			t.Error("no visit after the line was given back")
		}
		cancel()
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
	})
}

// TestAnOrderTellsHowAMeterDoes: whoever ordered a visit sees what came of it in
// the status at once, though nothing is due yet.
func TestAnOrderTellsHowAMeterDoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(12 * time.Hour) // the bubble's clock starts at midnight, about which registers for bills are read
		later := group(meter.Billing, 24*time.Hour)
		p := pollerOf(Config{Meters: []Meter{{
			ID: "m", Serial: "m", Visitor: &busyVisitor{takes: time.Second, log: &visitLog{}, id: "m"}, Groups: []Group{later},
		}}})
		runFor(t, p, time.Minute, func() {
			time.Sleep(time.Minute)
			if s := p.Status()[0].State; s != Waiting {
				t.Errorf("it is %s before anything is due", s)
			}
			if _, err := p.Do(t.Context(), "m", meter.Ask{}); err != nil {
				t.Error(err)
			}
			if s := p.Status()[0]; s.State != OK || s.Since.IsZero() {
				t.Errorf("it is %s, since %v", s.State, s.Since)
			}
		})
	})
}
