package cosem

import (
	"sync/atomic"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/internal/meter"
)

// wall is a meter whose times are local and tell no deviation, with a row for
// every period from begin on up to its now. It compares times as they stand.
type wall struct {
	zone   *time.Location
	begin  time.Time
	period time.Duration
	status func(time.Time) byte
	now    atomic.Int64
}

func (w *wall) time(at time.Time) axdr.Value {
	s := []byte(when(at.In(w.zone), 0).Str)
	s[9], s[10], s[11] = 0x80, 0, w.status(at.In(w.zone))
	return axdr.OctetString(string(s))
}

func (w *wall) rows(s *dlmstest.Selection) (rows []axdr.Value) {
	n := 0
	for at := w.begin; at.UnixMilli() <= w.now.Load(); at = at.Add(w.period) {
		l := at.In(w.zone)
		shown := time.Date(l.Year(), l.Month(), l.Day(), l.Hour(), l.Minute(), 0, 0, time.UTC)
		if s == nil || !shown.Before(s.From) && !shown.After(s.To) {
			rows = append(rows, row(w.time(at), axdr.Unsigned(0), units(n)))
		}
		n++
	}
	return rows
}

// TestTheHourThatComesTwice: of the night in which clocks are put back, every row
// is read once, at its time, from a meter that tells the two passes apart and
// from one that does not.
func TestTheHourThatComesTwice(t *testing.T) {
	t.Parallel()
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	night := time.Date(2026, 10, 25, 0, 0, 0, 0, zone)
	daylight := func(at time.Time) byte {
		if at.IsDST() {
			return dlms.StatusDaylightSaving
		}
		return 0
	}
	for title, c := range map[string]struct {
		status   func(time.Time) byte
		selector dlms.Selector
		period   time.Duration
	}{
		"told":               {daylight, dlms.ByTime, quarter},
		"no status":          {func(time.Time) byte { return 0xFF }, dlms.ByTime, quarter},
		"no such status":     {func(time.Time) byte { return 0 }, dlms.ByTime, quarter},
		"of an hour":         {func(time.Time) byte { return 0xFF }, dlms.ByTime, time.Hour},
		"five minutes":       {func(time.Time) byte { return 0xFF }, dlms.ByTime, 5 * time.Minute},
		"by entry":           {func(time.Time) byte { return 0xFF }, dlms.ByEntry, quarter},
		"whole":              {func(time.Time) byte { return 0xFF }, dlms.Whole, quarter},
		"by entry, unstated": {func(time.Time) byte { return 0 }, dlms.ByEntry, quarter},
	} {
		for _, every := range []time.Duration{5 * time.Minute, quarter, 25 * time.Minute, time.Hour, 3 * time.Hour, 7 * time.Hour} {
			w := &wall{zone: zone, begin: night.Add(-2 * time.Hour), period: c.period, status: c.status}
			r := newRig(t, dlmstest.Options{Objects: append([]dlmstest.Object{
				dlmstest.Attributes(8, obisOf("0-0:1.0.0"), map[int8]func() axdr.Value{2: func() axdr.Value { return w.time(time.UnixMilli(w.now.Load())) }}),
				dlmstest.Profile(obisOf(load), columns(), uint32(c.period/time.Second), w.rows),
			}, objects("A1")...)})
			clock := &turnable{at: night}
			m := r.driver(t, Config{Now: clock.now, TimeZone: zone, Quirks: dlms.Quirks{Selector: c.selector}})
			since := since(t, w.begin.Add(-time.Second))
			next := w.begin
			take := func(got meter.Got, err error) {
				if err != nil || len(got.Failures) != 0 {
					t.Fatalf("%s, every %v: %v, %s", title, every, err, describe(got))
				}
				for _, row := range got.Rows {
					if !row.Stamp.UTC().Equal(next) || row.Occurrence != 0 || row.Value.String() != units10(int(next.Sub(w.begin)/c.period)) {
						t.Fatalf("%s, every %v: row %v, want that of %v", title, every, row, next.UTC())
					}
					next = next.Add(c.period)
				}
			}
			for clock.at.Before(night.Add(8 * time.Hour)) {
				clock.turn(every)
				w.now.Store(clock.at.UnixMilli())
				got, err := m.Visit(t.Context(), since)
				take(got, err)
				for _, cursor := range got.Cursors {
					since.Profiles[0].Since = cursor.Time
				}
			}
			if next.Before(clock.at) {
				t.Errorf("%s, every %v: rows up to %v, want %v", title, every, next.UTC(), clock.at.UTC())
			}
		}
	}
}

// units10 prints a number of the scaler -1.
func units10(n int) string { return meter.UintValue(uint64(n), -1).String() }
