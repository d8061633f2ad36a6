package validate

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"gridgate/internal/meter"
)

// TestCompleteness follows a day of 25 hours: its figure is given when it is
// complete, else at 8 and 12 o'clock of the day behind it and once a day then.
func TestCompleteness(t *testing.T) {
	t.Parallel()
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Date(2026, 10, 25, 0, 0, 0, 0, zone) // daylight saving ends
	end := time.Date(2026, 10, 26, 0, 0, 0, 0, zone)
	v := New(Config{TimeZone: zone})
	told := func(at time.Time) (figures []string) {
		for _, r := range v.Complete(began.Add(-time.Hour), meter.Stamp{Time: at.UnixMilli()}) {
			if r.Channel != Completeness || r.Unit != meter.Percent || r.Period != 25*3600 || r.Stamp.Time != end.UnixMilli() {
				t.Errorf("%+v", r)
			}
			figures = append(figures, r.Value.String())
		}
		return figures
	}
	expect := func(at time.Time, want ...string) {
		t.Helper()
		got := told(at)
		if len(got) != len(want) || len(want) > 0 && got[0] != want[0] {
			t.Errorf("at %v: %v, want %v", at, got, want)
		}
	}
	v.Check(profileRows(began.Add(-15*time.Minute).UnixMilli(), 2, 1)) // of the day before, of which we know half
	first := began.Add(15 * time.Minute).UnixMilli()
	v.Check(profileRows(first, 80, 1))
	v.Check(profileRows(first, 10, 1)) // come twice
	expect(end.Add(time.Hour))
	expect(end.Add(8*time.Hour), "80.00")
	expect(end.Add(9 * time.Hour))
	v.Check(profileRows(first+80*900_000, 10, 1))
	expect(end.Add(10 * time.Hour))
	expect(end.Add(12*time.Hour), "90.00")
	expect(end.Add(37 * time.Hour)) // nothing new
	v.Check(profileRows(first+90*900_000, 5, 1))
	expect(end.Add(40 * time.Hour))
	expect(end.Add(60*time.Hour), "95.00")
	v.Check(profileRows(first+95*900_000, 5, 1))
	expect(end.Add(60*time.Hour+time.Minute), "100.00")
	v.Check(profileRows(first, 100, 1)) // all of it once more
	expect(end.Add(300 * time.Hour))
	expect(end.Add(keepDays + time.Hour))
	if len(v.days) != 0 {
		t.Errorf("%d days are kept", len(v.days))
	}
}

// TestDaysAreWholeWhereMidnightIsNot: where daylight saving begins at midnight
// that day begins at 1 o'clock, and the one before has 24 hours.
func TestDaysAreWholeWhereMidnightIsNot(t *testing.T) {
	t.Parallel()
	zone, err := time.LoadLocation("America/Santiago")
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Date(2026, 9, 5, 0, 0, 0, 0, zone)
	v := New(Config{TimeZone: zone})
	v.Check(profileRows(begin.Add(15*time.Minute).UnixMilli(), (24+23)*4, 1))
	rows := v.Complete(begin, meter.Stamp{Time: begin.Add(50 * time.Hour).UnixMilli()})
	if len(rows) != 2 {
		t.Fatalf("%d figures: %+v", len(rows), rows)
	}
	for i, hours := range []uint32{24, 23} {
		if r := rows[i]; r.Period != hours*3600 || r.Value.String() != "100.00" {
			t.Errorf("day %d of %d hours is complete to %s", i, r.Period/3600, r.Value)
		}
	}
}

// TestDaysTakeLittleMemory: those of 200 meters over all the time that they
// are kept, and none that began before the gateway did.
func TestDaysTakeLittleMemory(t *testing.T) {
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	const meters, days = 200, 41
	v := New(Config{})
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for n := range meters {
		id := meter.ID(fmt.Sprint("meter-", n))
		var rows []meter.Row
		for i := range int64(2 * days * 24) {
			rows = append(rows, meter.Row{
				Meter: id, Serial: string(id), Lane: meter.Interval, Period: 3600,
				Stamp: meter.Stamp{Time: begin.UnixMilli() + (i+1-days*24)*3600_000, Source: meter.FromMeter},
			})
		}
		v.Check(rows)
		v.Complete(begin, meter.Stamp{Time: begin.AddDate(0, 0, days).UnixMilli()})
	}
	took := heap() - before
	t.Logf("%d days in %d KiB", len(v.days), took>>10)
	if len(v.days) > meters*days || took > 1<<20 {
		t.Errorf("%d days in %d KiB", len(v.days), took>>10)
	}
	runtime.KeepAlive(v)
}
