package poll

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/internal/meter"
)

// clocked is a meter with a clock that is off, and a row for every quarter of an
// hour that it shows.
type clocked struct {
	mu   sync.Mutex
	off  time.Duration
	rows []int64 // when by its clock, in the order of capture
}

// live captures until ctx ends.
func (c *clocked) live(ctx context.Context) {
	const quarter = 15 * time.Minute
	for {
		shown := time.Now().Add(c.offset())
		timer := time.NewTimer(shown.Truncate(quarter).Add(quarter).Sub(shown))
		select {
		case <-timer.C:
			c.mu.Lock()
			c.rows = append(c.rows, time.Now().Add(c.off).UnixMilli())
			c.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

func (c *clocked) offset() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.off
}

func (c *clocked) set(off time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = off
}

func (c *clocked) Visit(_ context.Context, ask meter.Ask) (meter.Got, error) {
	<-time.After(time.Second)
	c.mu.Lock()
	defer c.mu.Unlock()
	got := meter.Got{Identity: meter.Identity{Found: "1", Want: "1", Proven: true}}
	if ask.Clock {
		got.Clock = &meter.ClockOffset{Offset: c.off, Uncertainty: time.Second, Valid: true}
	}
	for _, p := range ask.Profiles {
		seen, newest := map[int64]uint8{}, p.Since
		for i, at := range c.rows {
			if at <= p.Since || p.Until != 0 && at > p.Until {
				continue
			}
			newest = max(newest, at)
			got.Rows = append(got.Rows, meter.Row{
				Meter: "m", Serial: "1", Channel: "p", Lane: p.Lane, Occurrence: seen[at], Value: meter.UintValue(uint64(i), 0),
				Stamp: meter.Stamp{Time: at, Source: meter.FromMeter},
			})
			seen[at]++
		}
		if p.Until != 0 && p.Until <= time.Now().UnixMilli() {
			newest = p.Until
		}
		if newest > p.Since {
			got.Cursors = append(got.Cursors, meter.Cursor{Meter: "m", Serial: "1", Profile: p.Channel, Time: newest})
		}
	}
	return got, nil
}

func (c *clocked) Close() error { return nil }

// TestAClockThatIsSetBack: of a meter whose clock was ahead no row is lost when
// it is set right, each keeps its key, and little is read twice; also where the
// agent was started anew meanwhile. A clock that drifts has nothing read twice.
func TestAClockThatIsSetBack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ahead, to time.Duration
		restart   bool
		again     int // rows that may come twice
	}{
		"by an hour":            {time.Hour, 0, false, 40},
		"by eight hours":        {8 * time.Hour, 0, false, 70},
		"by twenty hours":       {20 * time.Hour, 0, false, 200},
		"behind":                {0, -2 * time.Hour, false, 40},
		"before a start":        {3 * time.Hour, 0, true, 200},
		"by a little":           {40 * time.Second, 0, false, 0},
		"put forward":           {-2 * time.Hour, 0, false, 0},
		"lost":                  {0, -20 * 365 * day, false, 0},
		"found again":           {-20 * 365 * day, 0, false, 0},
		"ahead all the time":    {3 * time.Hour, 3 * time.Hour, false, 0},
		"ahead and a new start": {3 * time.Hour, 3 * time.Hour, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				v, sink := &clocked{off: c.ahead}, &sinkhole{}
				go v.live(ctx)
				poller := func() *Poller {
					return pollerOf(Config{Sink: sink, Meters: []Meter{{
						ID: "m", Serial: "1", Visitor: v,
						Groups: []Group{{Name: "p", Lane: meter.Interval, Every: 15 * time.Minute, Align: true, Profile: load}},
					}}})
				}
				if c.restart {
					runFor(t, poller(), 31*time.Hour+7*time.Minute, nil)
				}
				p := poller()
				runFor(t, p, 80*time.Hour, func() {
					if !c.restart {
						time.Sleep(31*time.Hour + 7*time.Minute)
					}
					v.set(c.to)
					time.Sleep(40 * time.Hour)
				})
				keys, values, twice := map[meter.Key]uint64{}, map[uint64]bool{}, 0
				for _, r := range sink.rows {
					if was, ok := keys[r.Key()]; ok && was != r.Value.Bits {
						t.Fatalf("row %v had the number %d before", r, was)
					} else if ok {
						twice++
					}
					keys[r.Key()] = r.Value.Bits
					values[r.Value.Bits] = true
				}
				lost := 0
				stop()
				synctest.Wait()
				for i := range v.rows[:len(v.rows)-2] {
					if !values[uint64(i)] && c.to.Abs() < mostOff && c.ahead.Abs() < mostOff {
						lost++
					}
				}
				if lost > 0 || twice > c.again {
					t.Errorf("%d of %d rows were lost, %d came twice, want at most %d", lost, len(v.rows), twice, c.again)
				}
			})
		})
	}
}
