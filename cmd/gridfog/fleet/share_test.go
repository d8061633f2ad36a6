package fleet

import (
	"slices"
	"testing"
	"time"

	"gridgate/agent/batch"
	"gridgate/internal/meter"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func moment(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// interval is the row of an interval that ends at a moment.
func interval(id string, channel batch.Channel, end time.Time, period uint32) *batch.Row {
	return &batch.Row{
		Meter: batch.ID(id), Serial: "S" + id, Channel: channel, Lane: batch.Interval, Period: period,
		Stamp: batch.Stamp{Time: end.UnixMilli(), Source: meter.FromMeter}, Value: meter.UintValue(7, 0),
	}
}

// day counts a day of quarter hours of one channel, all that ends in it, each
// arriving as late says.
func (v *Intervals) day(id string, begin, end time.Time, z *time.Location, arrival func(n int, end time.Time) time.Time) {
	n := 0
	for at := begin.Add(15 * time.Minute); !at.After(end); at = at.Add(15 * time.Minute) {
		if came := arrival(n, at); !came.IsZero() {
			v.Count("north", "gw-1", interval(id, "1-0:1.29.0", at, 900), came, z)
		}
		n++
	}
}

// The figures of a common day, through the hours at which they change.
func TestSharesThroughADay(t *testing.T) {
	t.Parallel()
	z := zone(t, "Europe/Berlin") // UTC+1
	var v Intervals
	v.Watch(moment(t, "2026-01-09T12:00:00Z"))
	begin, end := moment(t, "2026-01-09T23:00:00Z"), moment(t, "2026-01-10T23:00:00Z")
	// The first meter is read at once, but for ten that come at 07:59:59 and ten
	// at 08:00 of the wall's clock, ten at 11:59 and six never.
	v.day("a", begin, end, z, func(n int, at time.Time) time.Time {
		switch {
		case n < 60:
			return at.Add(time.Minute)
		case n < 70:
			return moment(t, "2026-01-11T06:59:59Z")
		case n < 80:
			return moment(t, "2026-01-11T07:00:00Z")
		case n < 90:
			return moment(t, "2026-01-11T10:59:00Z")
		default:
			return time.Time{}
		}
	})
	for _, c := range []struct {
		now  string
		hour int
		want Share
		ok   bool
	}{
		{"2026-01-11T06:59:59Z", FirstHour, Share{Day: "2026-01-09"}, false}, // it was not watched from its beginning
		{"2026-01-11T07:00:00Z", FirstHour, Share{"2026-01-10", 8, 96, 70}, true},
		{"2026-01-11T10:59:59Z", SecondHour, Share{Day: "2026-01-09"}, false},
		{"2026-01-11T11:00:00Z", SecondHour, Share{"2026-01-10", 12, 96, 90}, true},
		{"2026-01-12T06:59:59Z", FirstHour, Share{"2026-01-10", 8, 96, 70}, true},
		{"2026-01-12T07:00:00Z", FirstHour, Share{"2026-01-11", 8, 96, 0}, true}, // silent, and missed
	} {
		got, ok := v.Share("north", "gw-1", c.hour, moment(t, c.now), z)
		if ok != c.ok || ok && got != c.want || got.Day != c.want.Day {
			t.Errorf("at %s by %d h: %+v, %v; want %+v", c.now, c.hour, got, ok, c.want)
		}
	}
	if _, ok := v.Share("north", "gw-2", FirstHour, moment(t, "2026-01-11T07:00:00Z"), z); ok {
		t.Error("a gateway that nobody knows has a share")
	}
	// What comes twice, or too late, changes no figure.
	v.Count("north", "gw-1", interval("a", "1-0:1.29.0", end, 900), moment(t, "2026-01-12T12:00:00Z"), z)
	v.Count("north", "gw-1", interval("a", "1-0:1.29.0", begin.Add(15*time.Minute), 900), moment(t, "2026-01-11T06:00:00Z"), z)
	if got, _ := v.Share("north", "gw-1", FirstHour, moment(t, "2026-01-11T09:00:00Z"), z); got.Complete != 70 {
		t.Errorf("%+v", got)
	}
}

// Days on which clocks are changed have 92 and 100 quarter hours, and a
// deadline by the clock on the wall.
func TestSharesOfDaysThatAreShortAndLong(t *testing.T) {
	t.Parallel()
	z := zone(t, "Europe/Berlin")
	for _, c := range []struct {
		begin, end, deadline string
		want                 int64
	}{
		{"2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", "2026-03-30T06:00:00Z", 92},
		{"2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", "2026-10-26T07:00:00Z", 100},
	} {
		var v Intervals
		v.Watch(moment(t, c.begin))
		v.day("a", moment(t, c.begin), moment(t, c.end), z, func(_ int, at time.Time) time.Time { return at.Add(time.Minute) })
		got, ok := v.Share("north", "gw-1", FirstHour, moment(t, c.deadline), z)
		if !ok || got.Expected != c.want || got.Complete != c.want {
			t.Errorf("%s: %+v, %v", c.begin, got, ok)
		}
		if ratio, ok := got.Ratio(); ratio != 1 || !ok {
			t.Errorf("ratio %v, %v", ratio, ok)
		}
		if early, _ := v.Share("north", "gw-1", FirstHour, moment(t, c.deadline).Add(-time.Second), z); early.Day == got.Day {
			t.Errorf("%s is judged before its deadline", got.Day)
		}
	}
}

// What is expected: of each channel its own intervals; for a month also of one
// that is silent; not of a meter that came later.
func TestWhatIsExpected(t *testing.T) {
	t.Parallel()
	var v Intervals
	begin := moment(t, "2026-01-10T00:00:00Z")
	v.Watch(begin)
	for at := begin.Add(time.Hour); !at.After(begin.Add(24 * time.Hour)); at = at.Add(time.Hour) {
		v.Count("s", "g", interval("hourly", "1-0:1.29.0", at, 3600), at, time.UTC)
		v.Count("s", "g", interval("hourly", "1-0:2.29.0", at, 3600), at, time.UTC)
	}
	for _, row := range []*batch.Row{
		interval("daily", "1-0:1.29.0", begin.Add(24*time.Hour), 86400),
		interval("moment", "1-0:1.29.0", begin.Add(time.Hour), 0),
		interval("ahead", "1-0:1.29.0", begin.Add(1000*time.Hour), 900),
		interval("behind", "1-0:1.29.0", begin.AddDate(-1, 0, 0), 900),
		{Meter: "none", Lane: batch.Interval, Period: 900, Stamp: batch.Stamp{Time: begin.UnixMilli()}},
		{Meter: "missing", Lane: batch.Interval, Period: 900, Stamp: batch.Stamp{Time: begin.UnixMilli()}, Value: meter.UintValue(0, 0), Quality: meter.IntervalMissing},
		{Meter: "register", Lane: batch.Instant, Period: 900, Stamp: batch.Stamp{Time: begin.UnixMilli()}, Value: meter.UintValue(0, 0)},
	} {
		v.Count("s", "g", row, begin.Add(2*time.Hour), time.UTC)
	}
	share := func(now time.Time) Share {
		got, _ := v.Share("s", "g", FirstHour, now, time.UTC)
		return got
	}
	if got := share(begin.Add(32 * time.Hour)); got.Expected != 48 || got.Complete != 48 {
		t.Errorf("two hourly channels: %+v", got)
	}
	v.Count("s", "g", interval("new", "1-0:1.29.0", begin.Add(25*time.Hour), 900), begin.Add(26*time.Hour), time.UTC)
	if got := share(begin.Add(32 * time.Hour)); got.Expected != 48 {
		t.Errorf("a meter that came a day later is expected: %+v", got)
	}
	if got := share(begin.Add(56 * time.Hour)); got.Expected != 48+96 || got.Complete != 1 {
		t.Errorf("the day after: %+v", got)
	}
	if got := share(begin.AddDate(0, 0, 32).Add(8 * time.Hour)); got.Expected != 48+96 || got.Complete != 0 {
		t.Errorf("silent for 31 days: %+v", got)
	}
	if got := share(begin.AddDate(0, 0, 40)); got.Expected != 0 {
		t.Errorf("silent for longer: %+v", got)
	}
}

func TestJudgedChangesAtTheDeadlines(t *testing.T) {
	t.Parallel()
	z := zone(t, "Europe/Berlin")
	last, changes := "", []string{}
	for now := moment(t, "2026-01-11T00:00:00Z"); now.Before(moment(t, "2026-01-12T00:00:00Z")); now = now.Add(time.Minute) {
		if got := Judged(now, z); got != last {
			last, changes = got, append(changes, now.In(z).Format("15:04 ")+got)
		}
	}
	want := []string{"01:00 2026-01-09 2026-01-09", "08:00 2026-01-10 2026-01-09", "12:00 2026-01-10 2026-01-10"}
	if !slices.Equal(changes, want) {
		t.Errorf("%q", changes)
	}
}
