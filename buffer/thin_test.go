package buffer

import (
	"slices"
	"testing"
	"time"

	"gridgate/internal/meter"
)

// thinAll gives what is left of rows.
func thinAll(t *testing.T, level uint8, zone *time.Location, rows []meter.Row) (out []meter.Row) {
	t.Helper()
	th := newThinner(level, zone, func(r []meter.Row) error { out = append(out, r...); return nil })
	for i := range rows {
		if err := th.take(&rows[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := th.end(); err != nil {
		t.Fatal(err)
	}
	return out
}

func profileRow(c meter.Channel, minute int64, v meter.Value) meter.Row {
	return meter.Row{
		Meter: "m", Serial: "S", Channel: c, Stamp: meter.Stamp{Time: 1_700_006_400_000 + minute*60_000}, // 00:00 UTC
		Value: v, Unit: meter.WattHour, Lane: meter.Interval, Period: 900,
	}
}

func TestThinnedByTheirKind(t *testing.T) {
	t.Parallel()
	const energy, register, maximum, when, minimum, average = "1-0:1.29.0*255/3:2", "1-0:1.8.0*255/3:2",
		"1-0:1.6.0*255/4:2", "1-0:1.6.0*255/4:5", "1-0:32.3.0*255/3:2", "1-0:1.5.0*255/5:3"
	date := func(n int64) meter.Value { return meter.OctetsValue([]byte{byte(n)}) }
	var rows []meter.Row
	for i := int64(1); i <= 8; i++ { // 00:15 to 02:00
		rows = append(
			rows, profileRow(energy, 15*i, meter.UintValue(uint64(i), -1)),
			profileRow(register, 15*i, meter.UintValue(uint64(100+i), 0)),
			profileRow(when, 15*i, date(i)),
			profileRow(maximum, 15*i, meter.IntValue([]int64{0, 3, 9, 9, 2, 1, 1, 7, 6}[i], 0)),
			profileRow(minimum, 15*i, meter.IntValue([]int64{0, 3, 9, 1, 2, 1, 1, 7, 0}[i], 0)),
			profileRow(average, 15*i, meter.IntValue(i%4, 0)),
		)
	}
	got := map[meter.Channel][]meter.Row{}
	for _, r := range thinAll(t, hourly, time.UTC, rows) {
		got[r.Channel] = append(got[r.Channel], r)
	}
	want := func(c meter.Channel, rows ...meter.Row) {
		t.Helper()
		if !slices.Equal(got[c], rows) {
			t.Errorf("%s:\n%+v\nwant\n%+v", c, got[c], rows)
		}
		delete(got, c)
	}
	sum := func(minute int64, v uint64) meter.Row {
		r := profileRow(energy, minute, meter.UintValue(v, -1))
		r.Period, r.Quality = 3600, meter.Substituted
		return r
	}
	want(energy, sum(60, 1+2+3+4), sum(120, 5+6+7+8))
	at := func(c meter.Channel, i int64, v meter.Value) meter.Row { return profileRow(c, 15*i, v) }
	want(register, at(register, 1, meter.UintValue(101, 0)), at(register, 4, meter.UintValue(104, 0)), at(register, 8, meter.UintValue(108, 0)))
	want(maximum, at(maximum, 2, meter.IntValue(9, 0)), at(maximum, 7, meter.IntValue(7, 0)))
	want(when, at(when, 2, date(2)), at(when, 7, date(7)))
	want(minimum, at(minimum, 3, meter.IntValue(1, 0)), at(minimum, 8, meter.IntValue(0, 0)))
	want(average, at(average, 3, meter.IntValue(3, 0)), at(average, 7, meter.IntValue(3, 0)))
	if len(got) > 0 {
		t.Errorf("also %v", got)
	}
}

// TestSumsAreWhole pins that a sum covers what its period says: not over a
// missing interval, a revision, another unit or scale, or what does not fit.
func TestSumsAreWhole(t *testing.T) {
	t.Parallel()
	const c = "1-0:1.29.0*255/3:2"
	row := func(minute int64, v meter.Value) meter.Row { return profileRow(c, minute, v) }
	one := meter.UintValue(1, 0)
	for name, rows := range map[string][]meter.Row{
		"missing":   {row(15, one), row(45, one)},
		"revision":  {row(15, one), row(15, meter.UintValue(2, 0))},
		"no value":  {row(15, one), row(30, meter.Value{})},
		"scale":     {row(15, one), row(30, meter.UintValue(1, 1))},
		"kind":      {row(15, one), row(30, meter.IntValue(1, 0))},
		"too large": {row(15, meter.UintValue(1<<63, 0)), row(30, meter.UintValue(1<<63, 0))},
		"negative":  {row(15, meter.IntValue(-1<<63, 0)), row(30, meter.IntValue(-1, 0))},
		"hour":      {row(60, one), row(75, one)},
	} {
		if got := thinAll(t, hourly, time.UTC, rows); !slices.Equal(got, rows) {
			t.Errorf("%s: %+v, want them as they are", name, got)
		}
	}
	a, b := row(15, one), row(30, one)
	a.Quality, a.Status, a.HasStatus = meter.PowerFailure, 7, true
	b.Quality, b.Status, b.HasStatus = meter.DaylightSaving, 8, true
	got := thinAll(t, hourly, time.UTC, []meter.Row{a, b})
	want := row(30, meter.UintValue(2, 0))
	want.Period, want.Quality = 1800, meter.PowerFailure|meter.DaylightSaving|meter.Substituted
	if !slices.Equal(got, []meter.Row{want}) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestDaysAreOfTheZone pins the 23 hours of the day on which summer time begins.
func TestDaysAreOfTheZone(t *testing.T) {
	t.Parallel()
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Date(2026, 3, 28, 0, 0, 0, 0, zone)
	var rows []meter.Row
	for at := begin.Add(time.Hour); !at.After(begin.Add(71 * time.Hour)); at = at.Add(time.Hour) {
		r := profileRow("1-0:1.29.0*255/3:2", 0, meter.UintValue(1, 0))
		r.Stamp.Time, r.Period = at.UnixMilli(), 3600
		rows = append(rows, r)
	}
	var hours []uint64
	for _, r := range thinAll(t, daily, zone, rows) {
		hours = append(hours, r.Value.Bits)
		if uint64(r.Period) != 3600*r.Value.Bits {
			t.Errorf("%d hours in %d s", r.Value.Bits, r.Period)
		}
	}
	if !slices.Equal(hours, []uint64{24, 23, 24}) {
		t.Errorf("days of %v hours", hours)
	}
}
