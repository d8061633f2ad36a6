package poll

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/internal/meter"
)

// TestAVisitForWhatIsNoLongerDueIsNone: the wall clock was set back while the
// visit waited for its place in the gate.
func TestAVisitForWhatIsNoLongerDueIsNone(t *testing.T) {
	t.Parallel()
	v := answer("1", "1")
	p := pollerOf(Config{Meters: []Meter{{ID: "m", Serial: "1", Visitor: v, Groups: []Group{registers(time.Hour, true)}}}})
	m := p.meters[0]
	for i := range m.jobs {
		m.jobs[i].due = time.Now().Add(time.Second).Round(0)
	}
	m.clearing = []meter.Clear{{Channel: "x", Bits: 1}}
	p.visit(t.Context(), m)
	if len(v.asks) != 0 || len(m.clearing) != 1 {
		t.Errorf("asked %v, to be cleared %v", v.asks, m.clearing)
	}
}

// TestOneTimeoutCostsNoDay: what is read once a day is tried again soon.
func TestOneTimeoutCostsNoDay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fail := true
		v := answer("1", "1")
		good := v.visit
		v.visit = func(ctx context.Context, ask meter.Ask) (meter.Got, error) {
			if fail {
				fail = false
				return meter.Got{}, fmt.Errorf("unit 1: %w", meter.ErrNoAnswer)
			}
			return good(ctx, ask)
		}
		b := run(t, Meter{ID: "m", Serial: "1", Visitor: v, Groups: []Group{profileOf(day)}})
		time.Sleep(time.Hour)
		_ = b.stop()
		if len(b.sink.rows) == 0 {
			t.Errorf("no row in an hour; visits at %v", v.at)
		}
	})
}

// TestMidnightIsNotLostToATimeout: the first read behind midnight fails.
func TestMidnightIsNotLostToATimeout(t *testing.T) {
	t.Parallel()
	for name, failing := range map[string]time.Duration{"before": -bracketLead, "behind": 0} {
		synctest.Test(t, func(t *testing.T) {
			midnight := time.Date(2000, 1, 2, 0, 0, 0, 0, time.UTC)
			failed := false
			v := visitorFunc(func(_ context.Context, ask meter.Ask) (got meter.Got, err error) {
				time.Sleep(3 * time.Second)
				if at := time.Since(midnight); !failed && at >= failing {
					failed = true
					return got, fmt.Errorf("unit 1: %w", meter.ErrNoAnswer)
				}
				got.Identity = meter.Identity{Found: "1"}
				for range ask.Groups {
					got.Rows = append(got.Rows, meter.Row{
						Meter: "m", Serial: "1", Channel: energy, Lane: meter.Billing, Unit: meter.WattHour,
						Stamp: meter.Stamp{Time: time.Now().UnixMilli()}, Value: meter.UintValue(uint64(time.Now().Unix()), 0),
					})
				}
				return got, nil
			})
			sink := &sinkhole{}
			p := pollerOf(Config{Sink: sink, Meters: []Meter{{ID: "m", Visitor: v, Groups: []Group{{
				Name: "b", Lane: meter.Billing, Every: day, Channels: []meter.Channel{energy},
			}}}}})
			runFor(t, p, time.Until(midnight.Add(time.Hour)), nil)
			var estimated []time.Time
			for _, r := range sink.rows {
				if r.Quality&meter.Estimated != 0 {
					estimated = append(estimated, r.Stamp.UTC())
				}
			}
			if len(estimated) != 1 || !estimated[0].Equal(midnight) {
				t.Errorf("a time-out %s midnight: rows of midnight %v of %d rows", name, estimated, len(sink.rows))
			}
		})
	}
}

// TestWhatBreaksAVisitIsNotAskedForInEveryOne: a meter that hangs up over a
// profile is read its registers.
func TestWhatBreaksAVisitIsNotAskedForInEveryOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := answer("1", "1")
		good := v.visit
		v.visit = func(ctx context.Context, ask meter.Ask) (meter.Got, error) {
			if len(ask.Profiles) > 0 {
				return meter.Got{}, fmt.Errorf("hung up: %w", meter.ErrNoAnswer)
			}
			return good(ctx, ask)
		}
		b := run(t, Meter{ID: "m", Serial: "1", Visitor: v, Groups: []Group{registers(time.Minute, false), profileOf(day)}})
		time.Sleep(5 * time.Hour)
		_ = b.stop()
		if n := len(b.sink.rows); n < 250 {
			t.Errorf("%d rows in 300 minutes", n)
		}
	})
}
