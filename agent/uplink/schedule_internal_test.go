package uplink

import (
	"encoding/json"
	"testing"
	"time"
	_ "time/tzdata"
)

func TestWindows(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	const h = time.Hour
	night := Schedule{Windows: []Window{{22 * h, 6 * h}}}
	always := Schedule{Windows: []Window{{0, 24 * h}}}
	two := Schedule{Windows: []Window{{12 * h, 13 * h}, {1 * h, 2 * h}}}
	at := func(day, hour, minute int) time.Time { return time.Date(2026, 3, day, hour, minute, 0, 0, berlin) }
	for i, c := range []struct {
		s      Schedule
		now    time.Time
		spread float64
		open   bool
		until  time.Time
	}{
		{Schedule{}, at(1, 5, 0), 0.5, true, at(2, 5, 0)},
		{night, at(1, 5, 59), 0, true, at(1, 6, 0)},
		{night, at(1, 6, 0), 0, false, at(1, 22, 0)},
		{night, at(1, 6, 0), 0.5, false, at(1, 22, 5)},
		{night, at(1, 22, 4), 0.5, false, at(1, 22, 5)},
		{night, at(1, 22, 5), 0.5, true, at(2, 6, 0)},
		{two, at(1, 1, 5), 1, false, at(1, 1, 10)},
		{two, at(1, 3, 0), 0, false, at(1, 12, 0)},
		{two, at(1, 14, 0), 0, false, at(2, 1, 0)},
		{always, at(1, 0, 0), 1, true, at(4, 0, 0)}, // no gap at midnight
		// The clock goes from 2:00 to 3:00 on the 29th, and what begins at 2:30
		// begins at 3:30 then.
		{Schedule{Windows: []Window{{2*h + 30*time.Minute, 5 * h}}}, at(29, 1, 59), 0, false, at(29, 3, 30)},
		{night, at(29, 5, 0), 0, true, at(29, 6, 0)},
	} {
		open, until := c.s.open(c.now, berlin, c.spread)
		if open != c.open || !until.Equal(c.until) {
			t.Errorf("%d: %v until %v, want %v until %v", i, open, until, c.open, c.until)
		}
		if open, until := c.s.open(c.now.UTC(), berlin, c.spread); open != c.open || !until.Equal(c.until) {
			t.Errorf("%d, as UTC: %v until %v", i, open, until)
		}
	}
}

// TestSpendingOfALostClock: a gateway that begins in 1970 after a power cut has no
// new month when it comes to know the time.
func TestSpendingOfALostClock(t *testing.T) {
	t.Parallel()
	at := func(year int, month time.Month, day, hour int) time.Time {
		return time.Date(year, month, day, hour, 0, 0, 0, time.UTC)
	}
	s := spending{Day: "2026-05-03", Month: "2026-05", DayBytes: 100, MonthBytes: 1000}
	counted := int64(0)
	for i, c := range []struct {
		now        time.Time
		sure       bool
		day, month int64
	}{
		{at(1970, 1, 1, 0), false, 101, 1001},
		{at(1970, 1, 2, 1), false, 102, 1002},
		{at(2026, 5, 3, 9), true, 103, 1003},
		{at(2026, 5, 4, 9), true, 1, 1004},
		{at(2031, 5, 4, 9), false, 1, 1}, // a clock that is far ahead
		{at(2026, 5, 5, 9), true, 2, 2},  // does not keep the days from coming
		{at(2026, 5, 6, 9), true, 1, 3},
	} {
		counted++
		if s.add(c.now, time.UTC, counted, c.sure); s.DayBytes != c.day || s.MonthBytes != c.month {
			t.Errorf("%d: %d and %d, want %d and %d", i, s.DayBytes, s.MonthBytes, c.day, c.month)
		}
	}
}

func TestSpendingKnowsDaysAndMonths(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("", 3600)
	at := func(month time.Month, day, hour int) time.Time {
		return time.Date(2026, month, day, hour, 0, 0, 0, zone)
	}
	var s spending
	counted := int64(0)
	for i, c := range []struct {
		now        time.Time
		day, month int64
	}{
		{at(1, 30, 12), 100, 100},
		{at(1, 30, 23), 200, 200},
		{at(1, 31, 0), 100, 300}, // in UTC still the day before
		{at(2, 1, 0), 100, 100},
		{at(1, 31, 12), 200, 200}, // the clock went back: what was spent stays spent
		{at(2, 1, 12), 100, 100},
		{at(2, 2, 12), 100, 200},
		{at(12, 1, 0), 100, 100},
	} {
		counted += 100
		s.add(c.now, zone, counted, true)
		if s.DayBytes != c.day || s.MonthBytes != c.month {
			t.Errorf("%d: %d and %d, want %d and %d", i, s.DayBytes, s.MonthBytes, c.day, c.month)
		}
	}
	b, err := json.Marshal(&s)
	if err != nil || string(b) != `{"day":"2026-12-01","month":"2026-12","day_bytes":100,"month_bytes":100}` {
		t.Errorf("%s, %v", b, err)
	}
	for _, c := range []struct {
		b    Budget
		want bool
	}{{Budget{}, false}, {Budget{Day: 100}, true}, {Budget{Day: 101}, false}, {Budget{Month: 100}, true}, {Budget{101, 101}, false}, {Budget{101, 100}, true}} {
		if got := s.spent(c.b); got != c.want {
			t.Errorf("%+v: %v", c.b, got)
		}
	}
}
