package poll

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/internal/meter"
)

// recorder is a meter with a load profile: a row every quarter of an hour,
// kept for some time. A visit gives at most some rows before it is cut off.
type recorder struct {
	began time.Time
	keeps time.Duration
	dead  bool
	most  int // rows of one visit; 0 is all
	asks  []meter.Profile
}

func (r *recorder) Visit(ctx context.Context, ask meter.Ask) (got meter.Got, err error) {
	if r.dead {
		return got, meter.ErrNoAnswer
	}
	<-time.After(time.Second)
	got.Identity = meter.Identity{Found: "1", Want: "1", Proven: true}
	for _, p := range ask.Profiles {
		r.asks = append(r.asks, p)
		const quarter = 15 * time.Minute
		end := time.Now()
		if p.Until != 0 {
			end = time.UnixMilli(p.Until)
		}
		oldest := r.began
		if kept := time.Now().Add(-r.keeps); oldest.Before(kept) {
			oldest = kept
		}
		at := time.UnixMilli(p.Since).Truncate(quarter).Add(quarter)
		if at.Before(oldest) {
			at = oldest.Truncate(quarter).Add(quarter)
		}
		cursor := meter.Cursor{Meter: "m", Serial: "1", Profile: p.Channel, Time: p.Until}
		rows := 0
		for ; !at.After(end); at = at.Add(quarter) {
			if rows == r.most && r.most > 0 {
				cursor.Time = at.Add(-quarter).UnixMilli()
				got.Cursors = append(got.Cursors, cursor)
				<-ctx.Done()
				return got, context.Cause(ctx)
			}
			rows++
			got.Rows = append(got.Rows, meter.Row{
				Meter: "m", Serial: "1", Channel: "p", Lane: p.Lane,
				Stamp: meter.Stamp{Time: at.UnixMilli(), Source: meter.FromMeter},
			})
		}
		if rows > 0 || p.Until != 0 {
			if p.Until == 0 {
				cursor.Time = at.Add(-quarter).UnixMilli()
			}
			got.Cursors = append(got.Cursors, cursor)
		}
	}
	return got, nil
}

func (r *recorder) Close() error { return nil }

// TestGapsAreFilledNewestFirst: after weeks of silence the newest rows come
// first, then what was missed, day by day backwards; nothing is lost and
// nothing comes twice, over cut visits and restarts.
func TestGapsAreFilledNewestFirst(t *testing.T) {
	t.Parallel()
	for name, most := range map[string]int{"whole": 0, "cut": 50} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				v := &recorder{began: begin.Add(-100 * day), keeps: 60 * day, most: most}
				sink := &sinkhole{}
				poller := func() *Poller {
					return pollerOf(Config{Sink: sink, Meters: []Meter{{
						ID: "m", Serial: "1", Visitor: v,
						Groups: []Group{{Name: "p", Lane: meter.Interval, Every: 15 * time.Minute, Align: true, Profile: load}},
					}}})
				}
				runFor(t, poller(), 12*time.Hour, nil)
				v.dead = true
				runFor(t, poller(), 20*day, nil)
				v.dead = false
				returned := time.Now()
				runFor(t, poller(), 40*time.Second, nil)
				runFor(t, poller(), 12*time.Hour, nil)

				newest := slices.IndexFunc(v.asks, func(p meter.Profile) bool { return p.Since >= returned.Add(-DefaultRecent).UnixMilli() })
				if newest < 0 || v.asks[newest].Until != 0 {
					t.Errorf("asked first on return: %+v", v.asks)
				}
				seen := make(map[int64]int)
				for _, r := range sink.rows {
					seen[r.Stamp.Time]++
				}
				// What grows older than that while the gap is filled need not come.
				first := begin.Add(-DefaultBack + day).Truncate(15 * time.Minute).Add(15 * time.Minute)
				for at := first; at.Before(time.Now().Add(-15 * time.Minute)); at = at.Add(15 * time.Minute) {
					if n := seen[at.UnixMilli()]; n != 1 {
						t.Fatalf("the row of %v came %d times", at, n)
					}
				}
				if len(seen) != len(sink.rows) {
					t.Errorf("%d rows, %d of them different", len(sink.rows), len(seen))
				}
			})
		})
	}
}

// TestAGapThatTheMeterDoesNotKeepIsGivenUpInAFewVisits: empty stretches grow.
func TestAGapThatTheMeterDoesNotKeepIsGivenUpInAFewVisits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := &recorder{began: time.Now().Add(-3 * time.Hour), keeps: 60 * day}
		p := pollerOf(Config{Meters: []Meter{{
			ID: "m", Serial: "1", Visitor: v,
			Groups: []Group{{Name: "p", Lane: meter.Interval, Every: time.Hour, Profile: load, Back: 365 * day}},
		}}})
		runFor(t, p, 10*time.Minute, nil)
		if n := len(v.asks); n < 5 || n > 13 {
			t.Errorf("%d visits for a year in which the meter was not there", n)
		}
		if gaps := p.Status()[0].Gaps; gaps != 0 {
			t.Errorf("%v are still to be filled", gaps)
		}
	})
}

// TestAMeterWithNothingNewKeepsNoStretchForEver: its newest rows are older than
// what is asked first.
func TestAMeterWithNothingNewKeepsNoStretchForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := &recorder{began: time.Now().Add(-100 * day), keeps: 60 * day}
		stopped := visitorFunc(func(ctx context.Context, ask meter.Ask) (meter.Got, error) {
			got, err := v.Visit(ctx, ask) // its clock stands since ten days
			at := time.Now().Add(-10 * day).UnixMilli()
			got.Rows = slices.DeleteFunc(got.Rows, func(r meter.Row) bool { return r.Stamp.Time > at })
			if len(ask.Profiles) > 0 && ask.Profiles[0].Until == 0 && len(got.Rows) == 0 {
				got.Cursors = nil
			}
			return got, err
		})
		sink := &sinkhole{}
		runFor(t, pollerOf(Config{Sink: sink, Meters: []Meter{{
			ID: "m", Serial: "1", Visitor: stopped,
			Groups: []Group{{Name: "p", Lane: meter.Interval, Every: time.Hour, Profile: load}},
		}}}), time.Hour, nil)
		if n := len(sink.rows); n != 30*96 {
			t.Errorf("%d rows, want those of 30 days", n)
		}
	})
}

type visitorFunc func(context.Context, meter.Ask) (meter.Got, error)

func (f visitorFunc) Visit(ctx context.Context, ask meter.Ask) (meter.Got, error) { return f(ctx, ask) }
func (f visitorFunc) Close() error                                                { return nil }
