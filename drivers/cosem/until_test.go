package cosem

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/internal/meter"
)

// TestStretchesOfAProfile asks for stretches of a profile: only rows of the stretch
// come, whatever the meter gives, and the cursor says that there are no more.
func TestStretchesOfAProfile(t *testing.T) {
	t.Parallel()
	began := start().Add(-6 * time.Hour)
	all := func(low, high time.Time) (rows []axdr.Value) {
		for i := range 20 { // of the first 5 hours
			if at := began.Add(time.Duration(i) * quarter); !at.Before(low) && !at.After(high) {
				rows = append(rows, row(when(at, 0), axdr.Unsigned(8), units(1000+i)))
			}
		}
		return rows
	}
	for name, give := range map[string]func(*dlmstest.Selection) []axdr.Value{
		"selects": func(s *dlmstest.Selection) []axdr.Value {
			if s == nil {
				return all(began, start())
			}
			return all(s.From, s.To)
		},
		"gives all": func(*dlmstest.Selection) []axdr.Value { return all(began, start()) },
	} {
		r := newRig(t, dlmstest.Options{Objects: append(objects("A1"), dlmstest.Profile(obisOf(load), columns(), 900, give))})
		m := r.driver(t, Config{})
		for _, c := range []struct {
			since, until time.Duration // after began
			first, rows  int
			cursor       time.Duration
		}{
			{-40 * 24 * time.Hour, -39 * 24 * time.Hour, 0, 0, -39 * 24 * time.Hour},
			{-time.Hour, 2 * quarter, 0, 3, 2 * quarter},
			{2 * quarter, 5*quarter + time.Minute, 3, 3, 5*quarter + time.Minute},
			{4 * time.Hour, 5*time.Hour + 30*time.Minute, 17, 3, 5*time.Hour + 30*time.Minute},
			{4 * time.Hour, 7 * time.Hour, 17, 3, 5*time.Hour - quarter}, // what is to come is not over
		} {
			got, err := m.Visit(t.Context(), meter.Ask{Profiles: []meter.Profile{{
				Channel: channel(t, load), Lane: meter.Interval, Since: began.Add(c.since).UnixMilli(), Until: began.Add(c.until).UnixMilli(),
			}}})
			var values, want []string
			for _, r := range got.Rows {
				values = append(values, r.Value.String())
			}
			for i := range c.rows {
				want = append(want, fmt.Sprintf("%.1f", float64(1000+c.first+i)/10))
			}
			cursor := began.Add(c.cursor).UnixMilli()
			if err != nil || len(got.Failures) > 0 || !slices.Equal(values, want) || len(got.Cursors) != 1 || got.Cursors[0].Time != cursor {
				t.Errorf("%s, %v to %v: %v, want %v and the cursor %v; %v: %s", name, c.since, c.until, values, want, cursor, err, describe(got))
			}
		}
	}
}
