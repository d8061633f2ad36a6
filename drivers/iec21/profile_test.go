package iec21

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gridgate/internal/meter"
)

// wall answers P.01 with quarters of hours up to now in local time, as a meter
// does that tells no season and compares times as they stand. The value is the
// number of the row. Windows that refuse names by how they begin are refused.
func wall(zone *time.Location, first time.Time, refuse func(from string) bool) func(command, data string) (string, byte) {
	const layout = "0601021504"
	return func(command, data string) (string, byte) {
		span, ok := strings.CutPrefix(strings.TrimSuffix(data, ")"), "P.01(")
		if !ok || command != "R5" {
			return "", 0
		}
		from, to, _ := strings.Cut(span, ";")
		var b strings.Builder
		n, before := 0, ""
		for at := first; !at.After(time.Now()); at = at.Add(quarter) {
			shown := at.In(zone).Format(layout)
			if shown >= from && shown <= to {
				if b.Len() == 0 || shown <= before { // a new head where the clock is put back
					fmt.Fprintf(&b, "P.01(%s00)(00)(15)(1)(1-0:1.8.0)(kWh)\r\n", shown)
				}
				fmt.Fprintf(&b, "(%d)\r\n", n)
				before = shown
			}
			n++
		}
		if b.Len() == 0 || refuse != nil && refuse(from) {
			return "P.01(ERROR)", 3
		}
		return b.String(), 3
	}
}

const quarter = 15 * time.Minute

// follower reads a profile visit by visit, each row once and in order.
type follower struct {
	profile meter.Profile
	first   time.Time
	rows    int
	stopped int // visits that did not come to the end
}

func (f *follower) visit(t *testing.T, m *Meter) {
	t.Helper()
	got, err := m.Visit(t.Context(), meter.Ask{Profiles: []meter.Profile{f.profile}})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range got.Rows {
		if at := f.first.Add(time.Duration(f.rows) * quarter); !row.Stamp.UTC().Equal(at) || row.Value.Bits != uint64(f.rows) || row.Occurrence != 0 {
			t.Fatalf("row %v at %v, want number %d of %v", row, row.Stamp.UTC(), f.rows, at)
		}
		f.rows++
	}
	for _, c := range got.Cursors {
		f.profile.Since = c.Time
	}
	f.stopped += len(got.Failures)
}

// TestARefusedWindowBetweenOthers: what a meter refuses once is asked for again
// before rows behind it are taken; what it refuses twice is not there.
func TestARefusedWindowBetweenOthers(t *testing.T) {
	t.Parallel()
	for _, times := range []int{1, 1000} {
		r := programmable()
		first := time.Date(2000, 1, 1, 0, 15, 0, 0, time.UTC)
		refused := 0
		r.answer = wall(time.UTC, first, func(from string) bool {
			if from == "0001020000" && refused < times { // the second window
				refused++
				return true
			}
			return false
		})
		with(t, r, Config{Password: []byte("12345678"), Serial: "50123456"}, func(t *testing.T, m *Meter) {
			time.Sleep(10 * 24 * time.Hour)
			since := first.Add(-quarter)
			f := follower{profile: meter.Profile{Channel: channel(t, "1-0:99.1.0"), Since: since.UnixMilli()}, first: first}
			f.visit(t, m)
			if f.rows != 96 || f.stopped != 1 || f.profile.Since != since.Add(24*time.Hour).UnixMilli() {
				t.Fatalf("%d rows up to %v, stopped %d times", f.rows, time.UnixMilli(f.profile.Since).UTC(), f.stopped)
			}
			if times > 1 {
				f.rows += 95 // that it does not give
			}
			f.visit(t, m)
			if f.rows < 900 {
				t.Errorf("%d rows", f.rows)
			}
		})
	}
}

// TestTheHourThatComesTwice: of the night in which clocks are put back, every row
// is read once from a meter that tells no season.
func TestTheHourThatComesTwice(t *testing.T) {
	t.Parallel()
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	night := time.Date(2000, 10, 29, 0, 0, 0, 0, zone)
	for _, every := range []time.Duration{quarter, 25 * time.Minute, time.Hour, 2 * time.Hour, 7 * time.Hour} {
		r := programmable()
		first := night.Add(-2 * time.Hour)
		r.answer = wall(zone, first, nil)
		with(t, r, Config{Password: []byte("12345678"), Serial: "50123456", TimeZone: zone}, func(t *testing.T, m *Meter) {
			time.Sleep(time.Until(night))
			f := follower{profile: meter.Profile{Channel: channel(t, "1-0:99.1.0"), Since: first.UnixMilli() - 1}, first: first}
			for time.Now().Before(night.Add(8 * time.Hour)) {
				time.Sleep(every)
				f.visit(t, m)
			}
			if want := int(time.Since(first) / quarter); f.rows < want || f.stopped != 0 {
				t.Errorf("every %v: %d rows, want %d", every, f.rows, want)
			}
		})
	}
}
