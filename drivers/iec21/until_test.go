package iec21

import (
	"testing"
	"time"

	"gridgate/internal/meter"
)

// A stretch with an end gives a cursor at its end when all of it came; a refusal
// of a stretch says that there is nothing in it once the profile was read.
func TestLoadProfileUntil(t *testing.T) {
	t.Parallel()
	r := programmable()
	r.answer = loadProfile(false, "(15)(2)(1.5)(kW)(1-0:1.8.0)(kWh)")
	with(t, r, Config{Password: []byte("12345678")}, func(t *testing.T, m *Meter) {
		time.Sleep(60 * time.Hour)
		day := time.Date(2000, 1, 2, 0, 0, 0, 0, time.UTC)
		for _, c := range []struct {
			title        string
			since, until time.Time
			rows         int
			cursor       time.Time
			fails        bool
		}{
			{"nothing, and nothing known", day.Add(-20 * time.Hour), day.Add(-10 * time.Hour), 0, time.Time{}, true},
			{"some", day.Add(3 * time.Hour), day.Add(4*time.Hour + 7*time.Second), 2 * 4, day.Add(4*time.Hour + 7*time.Second), false},
			{"nothing", day.Add(-20 * time.Hour), day.Add(-10 * time.Hour), 0, day.Add(-10 * time.Hour), false},
			{"to behind the first", day.Add(-20 * time.Hour), day.Add(time.Hour), 2 * 4, day.Add(time.Hour), false},
			{"into the future", day.Add(29 * time.Hour), day.Add(70 * time.Hour), 2 * 4, day.Add(30 * time.Hour), false},
			{"empty", day, day, 0, day, false},
			{"backwards", day.Add(time.Hour), day, 0, time.Time{}, false},
		} {
			got, err := m.Visit(t.Context(), meter.Ask{Profiles: []meter.Profile{{
				Channel: channel(t, "1-0:99.1.0"), Lane: meter.Interval, Since: c.since.UnixMilli(), Until: c.until.UnixMilli(),
			}}})
			if err != nil || len(got.Rows) != c.rows || len(got.Failures) > 0 != c.fails {
				t.Errorf("%s: %v, %d rows, %v", c.title, err, len(got.Rows), got.Failures)
				continue
			}
			if c.cursor.IsZero() != (len(got.Cursors) == 0) || len(got.Cursors) > 0 && got.Cursors[0].Time != c.cursor.UnixMilli() {
				t.Errorf("%s: cursors %+v, want %v", c.title, got.Cursors, c.cursor)
			}
		}
	})
}

// A session that begins anew gives one cursor a profile: the last.
func TestOneCursorAProfile(t *testing.T) {
	t.Parallel()
	v := visit{}
	for _, c := range []meter.Cursor{{Profile: "a", Time: 1}, {Profile: "b", Time: 2}, {Profile: "a", Time: 3}} {
		v.reached(c)
	}
	if len(v.got.Cursors) != 2 || v.got.Cursors[0].Time != 3 {
		t.Errorf("%+v", v.got.Cursors)
	}
}
