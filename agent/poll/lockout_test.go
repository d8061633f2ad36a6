package poll

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/internal/meter"
)

// counts is a memory that outlives pollers.
type counts struct {
	mu        sync.Mutex
	refusals  map[string]int
	accepted  map[string]bool
	exchanged map[meter.ID]string
	broken    error
}

func newCounts() *counts {
	return &counts{refusals: map[string]int{}, accepted: map[string]bool{}, exchanged: map[meter.ID]string{}}
}

func (c *counts) Refusals(credentials string) (int, time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refusals[credentials], time.Time{}
}

func (c *counts) Refused(credentials string, _ time.Time) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return 0, c.broken
	}
	c.refusals[credentials]++
	return c.refusals[credentials], nil
}

func (c *counts) Accepted(credentials string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.refusals, credentials)
	c.accepted[credentials] = true
	return nil
}

func (c *counts) WasAccepted(credentials string) bool { return c.accepted[credentials] }

func (c *counts) Exchanged(id meter.ID) string { return c.exchanged[id] }

func (c *counts) SetExchanged(id meter.ID, found string) error {
	c.exchanged[id] = found
	return nil
}

func TestAMeterThatRefusesTwiceIsLeftAloneOverRestarts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		refuse := func() *visitor {
			return &visitor{visit: func(context.Context, meter.Ask) (meter.Got, error) {
				return meter.Got{}, fmt.Errorf("client 17: %w", meter.ErrAuthentication)
			}}
		}
		c := newCounts()
		first := refuse()
		b := runWith(t, c, nil, Meter{ID: "m", Credentials: "old", Visitor: first, Groups: []Group{registers(time.Minute, false)}})
		time.Sleep(time.Hour)
		status := b.poller.Status()
		_ = b.stop()
		if len(first.at) != 2 || status[0].State != LockedOut {
			t.Errorf("tried %d times, %+v", len(first.at), status)
		}
		second := refuse()
		b = runWith(t, c, nil, Meter{ID: "m", Credentials: "old", Visitor: second, Groups: []Group{registers(time.Minute, false)}})
		time.Sleep(time.Hour)
		_ = b.stop()
		if len(second.at) != 0 {
			t.Errorf("tried %d times after a restart", len(second.at))
		}
		third := answer("1", "")
		b = runWith(t, c, nil, Meter{ID: "m", Credentials: "new password", Visitor: third, Groups: []Group{registers(time.Minute, false)}})
		time.Sleep(time.Hour)
		_ = b.stop()
		if len(third.at) < 59 {
			t.Errorf("read %d times after the configuration changed", len(third.at))
		}
	})
}

// TestAToolsRefusalsCount: two refusals that a tool met lock the meter before it
// is visited again, and a tool that is let in unlocks it.
func TestAToolsRefusalsCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, v := newCounts(), answer("1", "1")
		b := runWith(t, c, nil, Meter{ID: "m", Serial: "1", Credentials: "c", Visitor: v, Groups: []Group{registers(time.Minute, false)}})
		time.Sleep(time.Minute + time.Second)
		for range 2 {
			_, _ = c.Refused("c", time.Now())
		}
		before := len(v.at)
		time.Sleep(10 * time.Minute)
		if s := b.poller.Status()[0]; len(v.at) != before || s.State != LockedOut || !strings.Contains(s.Err, "gridgate read -force") {
			t.Errorf("visited %d times after two refusals, %+v", len(v.at)-before, s)
		}
		_ = c.Accepted("c")
		time.Sleep(2 * time.Minute)
		if s := b.poller.Status()[0]; len(v.at) == before || s.State != OK {
			t.Errorf("not visited after a tool was let in, %+v", s)
		}
		_ = b.stop()
	})
}

func TestARefusalThatCannotBeCountedIsTheLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCounts()
		c.broken = errors.New("disk full")
		v := &visitor{visit: func(context.Context, meter.Ask) (meter.Got, error) { return meter.Got{}, meter.ErrAuthentication }}
		b := runWith(t, c, nil, Meter{ID: "m", Credentials: "c", Visitor: v, Groups: []Group{registers(time.Minute, false)}})
		time.Sleep(time.Hour)
		if _ = b.stop(); len(v.at) != 1 {
			t.Errorf("visited %d times", len(v.at))
		}
	})
}

// doubt is an error of a driver that may be a refusal.
type doubt struct{}

func (doubt) Error() string      { return "silence after our proof" }
func (doubt) MayBeRefusal() bool { return true }

// TestADoubtfulRefusal: with credentials that were never taken it counts, with
// others only when it comes again and again.
func TestADoubtfulRefusal(t *testing.T) {
	t.Parallel()
	for title, c := range map[string]struct {
		accepted bool
		fails    func(visit int) error // from 1
		visits   int
	}{
		"never taken":          {false, func(int) error { return doubt{} }, 2},
		"taken before":         {true, func(int) error { return doubt{} }, doubtLimit + 1},
		"taken, other between": {true, func(n int) error { return []error{doubt{}, meter.ErrNoAnswer}[n%2] }, 11},
		"line only":            {false, func(int) error { return meter.ErrNoAnswer }, 11},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				v := &visitor{}
				v.visit = func(context.Context, meter.Ask) (meter.Got, error) { return meter.Got{}, c.fails(len(v.at)) }
				m := newCounts()
				if c.accepted {
					_ = m.Accepted("c")
				}
				b := runWith(t, m, nil, Meter{ID: "m", Credentials: "c", Visitor: v, Groups: []Group{registers(time.Minute, false)}})
				time.Sleep(2 * time.Hour)
				s := b.poller.Status()[0]
				if _ = b.stop(); c.visits < 11 && (len(v.at) != c.visits || s.State != LockedOut) || len(v.at) < c.visits {
					t.Errorf("visited %d times, want %d; %+v", len(v.at), c.visits, s)
				}
			})
		})
	}
}

func TestOneRefusalIsForgivenByASession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := 0
		good := answer("1", "1")
		flaky := &visitor{visit: func(ctx context.Context, ask meter.Ask) (meter.Got, error) {
			if n++; n%2 == 1 {
				return meter.Got{}, meter.ErrAuthentication
			}
			return good.visit(ctx, ask)
		}}
		b := run(t, Meter{ID: "m", Serial: "1", Visitor: flaky, Groups: []Group{registers(time.Minute, false)}})
		time.Sleep(time.Hour)
		_ = b.stop()
		if len(flaky.at) < 50 {
			t.Errorf("visited %d times", len(flaky.at))
		}
	})
}

// TestOrdersBypassNoLock: orders that wait when the meter is locked are not done,
// and none is of a meter that was locked before the start.
func TestOrdersBypassNoLock(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before int // refusals
		want   int // sessions
	}{"waiting": {0, authLimit}, "locked before": {authLimit, 0}} {
		synctest.Test(t, func(t *testing.T) {
			v := &visitor{visit: func(context.Context, meter.Ask) (meter.Got, error) {
				time.Sleep(time.Second)
				return meter.Got{}, fmt.Errorf("client 17: %w", meter.ErrAuthentication)
			}}
			memory := newCounts()
			memory.refusals["c"] = c.before
			p := New(Config{
				Line: "l", Meters: []Meter{{ID: "m", Credentials: "c", Visitor: v}}, Sink: &sinkhole{}, Memory: memory,
				Now: func() meter.Stamp { return meter.Stamp{} }, Log: slog.New(slog.DiscardHandler),
			})
			errs := make(chan error, 6)
			for range cap(errs) {
				go func() {
					_, err := p.Do(t.Context(), "m", meter.Ask{})
					errs <- err
				}()
			}
			synctest.Wait()
			runFor(t, p, time.Hour, nil)
			for range cap(errs) {
				if err := <-errs; !errors.Is(err, meter.ErrAuthentication) {
					t.Errorf("%s: %v", name, err)
				}
			}
			if len(v.at) != c.want {
				t.Errorf("%s: %d sessions with credentials that the meter refuses", name, len(v.at))
			}
		})
	}
}

// TestOrdersThatMayBeRefusedCount: a meter that hangs up over a proof that it
// never took is not shown it in order after order.
func TestOrdersThatMayBeRefusedCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := &visitor{visit: func(context.Context, meter.Ask) (meter.Got, error) { return meter.Got{}, doubt{} }}
		p := pollerOf(Config{Meters: []Meter{{ID: "m", Visitor: v}}})
		runFor(t, p, time.Minute, func() {
			for range 5 {
				_, _ = p.Do(t.Context(), "m", meter.Ask{})
				synctest.Wait()
			}
		})
		if len(v.at) != authLimit {
			t.Errorf("%d sessions", len(v.at))
		}
	})
}
