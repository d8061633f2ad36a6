package poll

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/internal/meter"
)

// asSeen is a meter as a gateway sees it whose clock is away.
type asSeen struct {
	*clocked
	away func() time.Duration
}

func (s asSeen) Visit(ctx context.Context, ask meter.Ask) (meter.Got, error) {
	got, err := s.clocked.Visit(ctx, ask)
	if got.Clock != nil {
		got.Clock.Offset -= s.away()
	}
	return got, err
}

// TestAWrongClockSkipsNothing: a gateway whose clock is years ahead or behind, and
// knows that nobody vouches for it, reads profiles on from their cursors; what is
// behind the first reading is a gap until the time is known, and then read.
func TestAWrongClockSkipsNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		away  time.Duration
		known bool // the profile was read before
	}{
		"ten years ahead":             {10 * 365 * day, true},
		"in 1970":                     {-30 * 365 * day, true},
		"a week ahead, a new meter":   {7 * day, false},
		"ten years ahead, new meter":  {10 * 365 * day, false},
		"in 1970, and a new meter":    {-30 * 365 * day, false},
		"an hour behind, a new meter": {-time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				v, sink := &clocked{}, &sinkhole{}
				for at := time.Now().Add(-10 * day); at.Before(time.Now()); at = at.Add(15 * time.Minute) {
					v.rows = append(v.rows, at.UnixMilli())
				}
				go v.live(ctx)
				if c.known {
					sink.cursors = append(sink.cursors, meter.Cursor{Meter: "m", Serial: "1", Profile: load, Time: v.rows[len(v.rows)-200]})
				}
				var away atomic.Int64
				var sure atomic.Bool
				away.Store(int64(c.away))
				seen := asSeen{v, func() time.Duration { return time.Duration(away.Load()) }}
				p := pollerOf(Config{
					Sink: sink, Wall: func() time.Time { return time.Now().Add(time.Duration(away.Load())) },
					Meters: []Meter{{ID: "m", Serial: "1", Visitor: seen, Groups: []Group{{Name: "p", Lane: meter.Interval, Every: 15 * time.Minute, Align: true, Profile: load}}}},
				})
				p.cfg.Now = func() meter.Stamp {
					s := meter.Stamp{Time: time.Now().Add(time.Duration(away.Load())).UnixMilli(), Mono: time.Now().UnixMilli()}
					if !sure.Load() {
						s.Bound = meter.UnknownBound
					}
					return s
				}
				runFor(t, p, 3*time.Hour, func() {
					time.Sleep(3*time.Hour + 7*time.Minute)
					away.Store(0) // in between visits
					sure.Store(true)
				})
				stop()
				came := map[uint64]int{}
				for _, r := range sink.rows {
					came[r.Value.Bits]++
				}
				first := 0
				if c.known {
					first = len(v.rows) - 200 - 24 // captured meanwhile: one each quarter
				}
				for i := range v.rows {
					n := came[uint64(i)]
					if n > 1 {
						t.Fatalf("row %d of %d came %d times", i, len(v.rows), n)
					}
					if newest := len(v.rows) - 2; n == 0 && i > first && i < newest {
						t.Fatalf("row %d of %d never came; cursors %v", i, len(v.rows), sink.cursors[len(sink.cursors)-1])
					}
				}
			})
		})
	}
}

// TestASteppedClockAndAlignedGroups: set back by a little, what was read is not
// read again; set forward, what became due is read at once, and once.
func TestASteppedClockAndAlignedGroups(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		by    time.Duration
		after time.Duration // of the quarter
		want  []time.Duration
	}{
		"back over the quarter":    {-10 * time.Second, 5 * time.Second, []time.Duration{15, 30, 45}},
		"forward over the quarter": {20 * time.Minute, 5 * time.Second, []time.Duration{15, 35, 45}},
		"back by an hour":          {-time.Hour, 5 * time.Second, []time.Duration{15, -30, -15, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				hour := time.Now().Truncate(time.Hour).Add(time.Hour)
				time.Sleep(time.Until(hour.Add(14 * time.Minute)))
				v := answer("1", "1")
				var by atomic.Int64
				p := pollerOf(Config{
					Wall:   func() time.Time { return time.Now().Add(time.Duration(by.Load())) },
					Meters: []Meter{{ID: "m", Serial: "1", Visitor: v, Groups: []Group{registers(15*time.Minute, true)}}},
				})
				var at []time.Duration
				visit := v.visit
				v.visit = func(ctx context.Context, ask meter.Ask) (meter.Got, error) {
					at = append(at, time.Now().Add(time.Duration(by.Load())).Sub(hour).Truncate(time.Minute)/time.Minute)
					return visit(ctx, ask)
				}
				runFor(t, p, 33*time.Minute, func() {
					time.Sleep(time.Minute + c.after)
					by.Store(int64(c.by))
				})
				at = at[1:] // that of the start
				for i, want := range c.want {
					if i < len(at) && at[i] != want || i >= len(at) && i < 2 {
						t.Fatalf("visits at minutes %v of the hour, want %v", at, c.want)
					}
				}
			})
		})
	}
}
