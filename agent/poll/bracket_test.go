package poll

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/internal/meter"
)

const energy meter.Channel = "1-0:1.8.0*255/3:2"

// TestMidnightStandsBetweenTwoReads: a meter without billing rows is read on
// both sides of each local midnight, also where a day has 23 hours.
func TestMidnightStandsBetweenTwoReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		zone, err := time.LoadLocation("Europe/Berlin")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(time.Date(2000, 3, 25, 9, 0, 0, 0, zone)))
		begin := time.Now()
		wh := func(at time.Time) uint64 { return uint64(at.Sub(begin).Seconds()) } // 3600 W
		v := visitorFunc(func(_ context.Context, ask meter.Ask) (got meter.Got, err error) {
			time.Sleep(3 * time.Second)
			got.Identity = meter.Identity{Found: "1"}
			for range ask.Groups {
				got.Rows = append(got.Rows, meter.Row{
					Meter: "m", Serial: "1", Channel: energy, Lane: meter.Billing, Unit: meter.WattHour,
					Stamp: meter.Stamp{Time: time.Now().UnixMilli()}, Value: meter.UintValue(wh(time.Now()), 0),
				})
			}
			return got, nil
		})
		sink := &sinkhole{}
		p := pollerOf(Config{Sink: sink, TimeZone: zone, Meters: []Meter{{ID: "m", Visitor: v, Groups: []Group{{
			Name: "b", Lane: meter.Billing, Every: day, Channels: []meter.Channel{energy},
		}}}}})
		runFor(t, p, 3*day, nil)
		var midnights []time.Time
		read := 0
		for _, r := range sink.rows {
			at := time.UnixMilli(r.Stamp.Time)
			if r.Quality&meter.Estimated == 0 {
				read++
				continue
			}
			midnights = append(midnights, at)
			if r.Value.Bits != wh(at) {
				t.Errorf("%v: %d Wh, want %d", at, r.Value.Bits, wh(at))
			}
			if y, m, d := at.In(zone).Date(); !at.Equal(time.Date(y, m, d, 0, 0, 0, 0, zone)) {
				t.Errorf("%v is no midnight", at.In(zone))
			}
		}
		if len(midnights) != 3 || read != 6 {
			t.Errorf("%d reads, midnights %v", read, midnights)
		}
	})
}

func TestBetween(t *testing.T) {
	t.Parallel()
	f := func(x float32) meter.Value { return meter.Float32Value(math.Float32bits(x), 3) }
	for _, c := range []struct {
		before, after meter.Value
		want          string
	}{
		{meter.UintValue(100, -2), meter.UintValue(103, -2), "1.00"}, // 100.75 is cut off
		{meter.UintValue(math.MaxUint64-4, 0), meter.UintValue(math.MaxUint64, 0), "18446744073709551612"},
		{meter.IntValue(-8, 0), meter.IntValue(0, 0), "-6"},
		{f(1), f(2), "1250"},
		{meter.UintValue(5, 0), meter.UintValue(4, 0), ""},   // ran backwards
		{meter.UintValue(5, 0), meter.UintValue(50, -1), ""}, // another register
		{f(2), f(1), ""},
		{meter.TextValue("a"), meter.TextValue("b"), ""},
	} {
		got, ok := between(c.before, c.after, 1, 4)
		if ok != (c.want != "") || ok && got.String() != c.want {
			t.Errorf("between %v and %v: %v, %v, want %s", c.before, c.after, got, ok, c.want)
		}
	}
}

func TestEstimateRefusesWhatIsTooFar(t *testing.T) {
	t.Parallel()
	midnight := int64(1_700_000_000_000)
	row := func(after time.Duration, serial string) *meter.Row {
		return &meter.Row{Serial: serial, Channel: energy, Value: meter.UintValue(1, 0), Stamp: meter.Stamp{Time: midnight + after.Milliseconds()}}
	}
	for _, c := range []struct {
		before, after *meter.Row
		ok            bool
	}{
		{row(-time.Minute, "1"), row(time.Minute, "1"), true},
		{row(-time.Minute, "1"), row(time.Minute, "2"), false},
		{row(-time.Minute, "1"), row(-time.Second, "1"), false},
		{row(time.Second, "1"), row(time.Minute, "1"), false},
		{row(-time.Hour, "1"), row(time.Minute, "1"), false},
		{row(0, "1"), row(0, "1"), false},
	} {
		if _, ok := estimate(c.before, c.after, midnight); ok != c.ok {
			t.Errorf("%v to %v: %v", c.before.Stamp, c.after.Stamp, ok)
		}
	}
}
