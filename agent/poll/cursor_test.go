package poll

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/internal/meter"
)

func profileOf(every time.Duration) Group {
	return Group{Name: "p", Lane: meter.Interval, Every: every, Profile: load, Back: DefaultRecent}
}

// TestAMeterThatShowsNoSerialKeepsItsPlaceInTheProfile: its rows and cursors
// are kept under no serial, whatever the configuration calls it.
func TestAMeterThatShowsNoSerialKeepsItsPlaceInTheProfile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := answer("", "configured")
		b := run(t, Meter{ID: "m", Serial: "configured", Visitor: v, Groups: []Group{profileOf(time.Hour)}})
		time.Sleep(3*time.Hour + time.Minute)
		if err := b.stop(); err != nil {
			t.Fatal(err)
		}
		seen := make(map[int64]bool)
		for _, r := range b.sink.rows {
			if seen[r.Stamp.Time] {
				t.Errorf("the row of %d came twice", r.Stamp.Time)
			}
			seen[r.Stamp.Time] = true
		}
		last := v.asks[len(v.asks)-1].Profiles[0].Since
		if newest := b.sink.cursors[len(b.sink.cursors)-2].Time; last != newest {
			t.Errorf("asked since %d, want %d, where the visit before ended", last, newest)
		}
	})
}

// deaf is a sink whose cursors cannot be read for some time.
type deaf struct {
	*sinkhole
	until time.Time
}

func (d *deaf) Cursor(id meter.ID, serial string, profile meter.Channel) (meter.Cursor, bool, error) {
	if time.Now().Before(d.until) {
		return meter.Cursor{}, false, errors.New("buffer damaged")
	}
	return d.sinkhole.Cursor(id, serial, profile)
}

func TestRegistersAreReadWhileNoCursorCanBe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := answer("1", "1")
		sink := &deaf{sinkhole: &sinkhole{}, until: time.Now().Add(10*time.Minute + 30*time.Second)}
		now := func() meter.Stamp { return meter.Stamp{Time: time.Now().UnixMilli()} }
		p := New(Config{
			Line: "l", Sink: sink, Memory: newCounts(), Now: now, Log: slog.New(slog.DiscardHandler),
			Meters: []Meter{{ID: "m", Serial: "1", Visitor: v, Groups: []Group{registers(time.Minute, false), profileOf(24 * time.Hour)}}},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		time.Sleep(10*time.Minute + time.Second)
		synctest.Wait()
		if s := p.Status()[0]; s.State != Partial || s.Rows != 11 || !strings.Contains(s.Err, "buffer damaged") {
			t.Errorf("after ten minutes %+v, want 11 rows of registers", s)
		}
		time.Sleep(2 * time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if len(sink.cursors) != 1 {
			t.Errorf("cursors %v: want the profile read once, soon after its cursor could be", sink.cursors)
		}
	})
}

// TestAClockSetBackStopsNoAlignedGroup: a due time is never further away than
// the timetable can put it.
func TestAClockSetBackStopsNoAlignedGroup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := pollerOf(Config{Meters: []Meter{{ID: "m", Groups: []Group{registers(15*time.Minute, true)}}}})
		p.meters[0].jobs[0].due = time.Now().Round(0).Add(30 * 24 * time.Hour) // from before the clock went back
		if _, _, at := p.choose(p.now()); time.Until(at) > 15*time.Minute {
			t.Errorf("next visit in %v", time.Until(at))
		}
	})
}

// TestAFlickeringSerialLeavesTheLineToOthers: two meters at one address.
func TestAFlickeringSerialLeavesTheLineToOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two, n := answer("1", ""), answer("2", ""), 0
		flicker := &visitor{visit: func(ctx context.Context, ask meter.Ask) (meter.Got, error) {
			time.Sleep(time.Second)
			if n++; n%2 == 0 {
				return one.visit(ctx, ask)
			}
			return two.visit(ctx, ask)
		}}
		other := answer("3", "3")
		b := run(t, Meter{ID: "m", Visitor: flicker, Groups: []Group{profileOf(time.Minute)}},
			Meter{ID: "o", Serial: "3", Visitor: other, Groups: []Group{registers(time.Minute, false)}})
		time.Sleep(10*time.Minute + 30*time.Second)
		if err := b.stop(); err != nil {
			t.Fatal(err)
		}
		if len(other.at) < 10 {
			t.Errorf("the other meter was visited %d times in ten minutes, the flickering one %d times", len(other.at), len(flicker.at))
		}
	})
}

// TestARefusalDuringAStopCounts: a meter counts it too, and locks out.
func TestARefusalDuringAStopCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := &visitor{visit: func(ctx context.Context, _ meter.Ask) (meter.Got, error) {
			<-ctx.Done()
			return meter.Got{}, meter.ErrAuthentication
		}}
		b := run(t, Meter{ID: "m", Credentials: "f", Visitor: v, Groups: []Group{registers(time.Minute, false)}})
		synctest.Wait()
		if err := b.stop(); err != nil {
			t.Fatal(err)
		}
		if n, _ := b.counts.Refusals("f"); n != 1 {
			t.Errorf("%d refusals are counted, want 1", n)
		}
	})
}
