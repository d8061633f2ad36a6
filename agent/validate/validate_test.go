package validate

import (
	"math"
	"testing"

	"gridgate/internal/meter"
)

func row(channel string, unit meter.Unit, value meter.Value, at int64) meter.Row {
	c, err := meter.ParseChannel(channel)
	if err != nil {
		panic(err)
	}
	return meter.Row{Meter: "m", Serial: "s", Channel: c, Unit: unit, Value: value, Lane: meter.Instant, Stamp: meter.Stamp{Time: at}}
}

func TestEachRule(t *testing.T) {
	t.Parallel()
	nan := meter.Float32Value(math.Float32bits(float32(math.NaN())), 0)
	for name, c := range map[string]struct {
		rows []meter.Row
		want []meter.Quality
	}{
		"a register that rises is good": {
			[]meter.Row{row("1-0:1.8.0", meter.WattHour, meter.UintValue(5, 0), 1), row("1-0:1.8.0", meter.WattHour, meter.UintValue(6, 0), 2)},
			[]meter.Quality{0, 0},
		},
		"a register that falls ran backwards, once": {
			[]meter.Row{
				row("1-0:1.8.0", meter.WattHour, meter.UintValue(5, 0), 1), row("1-0:1.8.0", meter.WattHour, meter.UintValue(4, 0), 2),
				row("1-0:1.8.0", meter.WattHour, meter.UintValue(5, 0), 3),
			},
			[]meter.Quality{0, meter.RanBackwards, 0},
		},
		"scales are compared as numbers": {
			[]meter.Row{row("1-0:1.8.0", meter.WattHour, meter.UintValue(5, 3), 1), row("1-0:1.8.0", meter.WattHour, meter.UintValue(5001, 0), 2)},
			[]meter.Quality{0, 0},
		},
		"an older row filled in later is not compared": {
			[]meter.Row{row("1-0:1.8.0", meter.WattHour, meter.UintValue(9, 0), 9), row("1-0:1.8.0", meter.WattHour, meter.UintValue(4, 0), 4)},
			[]meter.Quality{0, 0},
		},
		"power may fall":              {[]meter.Row{row("1-0:1.7.0", meter.Watt, meter.IntValue(5, 0), 1), row("1-0:1.7.0", meter.Watt, meter.IntValue(-4, 0), 2)}, []meter.Quality{0, 0}},
		"net energy may fall":         {[]meter.Row{row("1-0:16.8.0", meter.WattHour, meter.IntValue(5, 0), 1), row("1-0:16.8.0", meter.WattHour, meter.IntValue(-4, 0), 2)}, []meter.Quality{0, 0}},
		"negative energy":             {[]meter.Row{row("1-0:1.8.0", meter.WattHour, meter.IntValue(-5, 0), 1)}, []meter.Quality{meter.OutOfRange}},
		"500 Hz":                      {[]meter.Row{row("1-0:14.7.0", meter.Hertz, meter.UintValue(500, 0), 1)}, []meter.Quality{meter.OutOfRange}},
		"50.0 Hz":                     {[]meter.Row{row("1-0:14.7.0", meter.Hertz, meter.UintValue(500, -1), 1)}, []meter.Quality{0}},
		"not a number":                {[]meter.Row{row("1-0:32.7.0", meter.Volt, nan, 1)}, []meter.Quality{meter.OutOfRange}},
		"text has no range":           {[]meter.Row{row("0-0:96.1.0", 0, meter.TextValue("x"), 1)}, []meter.Quality{0}},
		"a voltage behind a VT is ok": {[]meter.Row{row("1-0:32.7.0", meter.Volt, meter.UintValue(57, 0), 1)}, []meter.Quality{0}},
	} {
		var v Validator
		v.Check(c.rows)
		for i, want := range c.want {
			if c.rows[i].Quality != want {
				t.Errorf("%s: row %d: got %v, want %v", name, i, c.rows[i].Quality, want)
			}
		}
	}
}

func TestAnotherSerialIsAnotherRegister(t *testing.T) {
	t.Parallel()
	var v Validator
	a := row("1-0:1.8.0", meter.WattHour, meter.UintValue(500, 0), 1)
	b := row("1-0:1.8.0", meter.WattHour, meter.UintValue(3, 0), 2)
	b.Serial = "new"
	rows := []meter.Row{a, b}
	v.Check(rows)
	if rows[1].Quality != 0 {
		t.Errorf("an exchanged meter's lower reading is flagged %v", rows[1].Quality)
	}
}

func TestUnsynchronisedClock(t *testing.T) {
	t.Parallel()
	var v Validator
	gateway := row("1-0:1.7.0", meter.Watt, meter.IntValue(5, 0), 1)
	gateway.Stamp.Bound = meter.UnknownBound
	own := gateway
	own.Stamp.Source = meter.FromMeter
	rows := []meter.Row{gateway, own}
	v.Check(rows)
	if rows[0].Quality != meter.ClockUnsynchronised || rows[1].Quality != 0 {
		t.Errorf("gateway's stamp %v, meter's stamp %v", rows[0].Quality, rows[1].Quality)
	}
}

func household(meter.ID) Limits {
	return Limits{Amperes: 63, Phases: 3, Voltage: 230, Frequency: 50}
}

func TestLimitsOfTheSite(t *testing.T) {
	t.Parallel()
	hour := int64(3600_000)
	interval := func(kWh uint64) []meter.Row {
		r := row("1-0:1.29.0", meter.WattHour, meter.UintValue(kWh, 3), hour)
		r.Period = 900
		return []meter.Row{r}
	}
	for name, c := range map[string]struct {
		rows []meter.Row
		want []meter.Quality
	}{
		"60 Hz on a 50 Hz network": {[]meter.Row{row("1-0:14.7.0", meter.Hertz, meter.UintValue(60, 0), 1)}, []meter.Quality{meter.OutOfRange}},
		"400 V on a phase":         {[]meter.Row{row("1-0:32.7.0", meter.Volt, meter.UintValue(400, 0), 1)}, []meter.Quality{meter.OutOfRange}},
		"a phase that is gone":     {[]meter.Row{row("1-0:52.7.0", meter.Volt, meter.UintValue(0, 0), 1)}, []meter.Quality{0}},
		"more power than the fuse": {[]meter.Row{row("1-0:1.7.0", meter.Watt, meter.UintValue(60, 3), 1)}, []meter.Quality{meter.OutOfRange}},
		"13 kWh in a quarter":      {interval(13), []meter.Quality{0}},
		"15 kWh in a quarter":      {interval(15), []meter.Quality{meter.OutOfRange}},
		"more energy than the fuse": {
			[]meter.Row{row("1-0:1.8.0", meter.WattHour, meter.UintValue(0, 3), 0), row("1-0:1.8.0", meter.WattHour, meter.UintValue(60, 3), hour)},
			[]meter.Quality{0, meter.OutOfRange},
		},
		"as much as the fuse lets through": {
			[]meter.Row{row("1-0:1.8.0", meter.WattHour, meter.UintValue(0, 3), 0), row("1-0:1.8.0", meter.WattHour, meter.UintValue(50, 3), hour)},
			[]meter.Quality{0, 0},
		},
	} {
		v := New(Config{Limits: household})
		v.Check(c.rows)
		for i, want := range c.want {
			if c.rows[i].Quality != want {
				t.Errorf("%s: row %d: got %v, want %v", name, i, c.rows[i].Quality, want)
			}
		}
	}
}

func TestRollover(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		before, after meter.Value
		want          meter.Quality
	}{
		{meter.UintValue(999_998, 0), meter.UintValue(3, 0), meter.RolledOver},
		{meter.UintValue(99_999_990, -2), meter.UintValue(12, -2), meter.RolledOver},
		{meter.UintValue(1<<32-3, 0), meter.UintValue(40, 0), meter.RolledOver},
		{meter.UintValue(980, 0), meter.UintValue(3, 0), meter.RanBackwards},     // three digits are no register
		{meter.UintValue(500_000, 0), meter.UintValue(3, 0), meter.RanBackwards}, // far from its end
		{meter.UintValue(999_998, 0), meter.UintValue(500_000, 0), meter.RanBackwards},
		{meter.UintValue(999_998, 0), meter.UintValue(3, 1), meter.RanBackwards}, // another scale
	} {
		rows := []meter.Row{row("1-0:1.8.0", meter.WattHour, c.before, 1000), row("1-0:1.8.0", meter.WattHour, c.after, 900_000)}
		var v Validator
		v.Check(rows)
		if rows[1].Quality != c.want {
			t.Errorf("%v then %v: %v, want %v", c.before, c.after, rows[1].Quality, c.want)
		}
	}
}

// profileRows are the rows of n quarters of an hour: register and interval.
func profileRows(from int64, n int, wh ...uint64) (rows []meter.Row) {
	var sum uint64
	for i := range n {
		at := from + int64(i)*900_000
		e := wh[i%len(wh)]
		sum += e
		for _, r := range []meter.Row{
			row("1-0:1.8.0", meter.WattHour, meter.UintValue(sum/10, 1), at), row("1-0:1.29.0", meter.WattHour, meter.UintValue(e, 0), at),
		} {
			r.Lane, r.Period, r.Stamp.Source = meter.Interval, 900, meter.FromMeter
			rows = append(rows, r)
		}
	}
	return rows
}

func TestIntervalsAgreeWithTheRegister(t *testing.T) {
	t.Parallel()
	var v Validator
	rows := profileRows(0, 20, 57, 123, 4)
	v.Check(rows)
	for i, r := range rows {
		if r.Quality != 0 {
			t.Errorf("row %d: %v: digits that are cut off are no contradiction", i, r.Quality)
		}
	}
	rows = profileRows(0, 20, 57, 123, 4)
	rows[11].Value = meter.UintValue(rows[11].Value.Bits+25, 0)
	v = Validator{}
	v.Check(rows)
	for i, r := range rows {
		want := meter.Quality(0)
		if i == 10 || i == 11 {
			want = meter.Inconsistent
		}
		if r.Quality != want {
			t.Errorf("row %d: %v, want %v", i, r.Quality, want)
		}
	}
}

// TestALastDigitIsNoEnergy: a register in whole kilowatt-hours that is read each
// minute moves by one when it moves; a fuse of 25 A lets through 0.12 kWh then.
func TestALastDigitIsNoEnergy(t *testing.T) {
	t.Parallel()
	v := New(Config{Limits: func(meter.ID) Limits { return Limits{Amperes: 25, Phases: 1} }})
	const minute = 60_000
	float := func(x float32) meter.Value { return meter.Float32Value(math.Float32bits(x), 3) }
	interval := row("1-0:1.29.0", meter.WattHour, meter.UintValue(2, 3), 9)
	interval.Period = 900 // 1.8 kWh, and the last digit
	for i, c := range []struct {
		row  meter.Row
		want meter.Quality
	}{
		{row("1-0:1.8.0", meter.WattHour, meter.UintValue(100, 3), 0), 0},
		{row("1-0:1.8.0", meter.WattHour, meter.UintValue(101, 3), minute), 0},
		{row("1-0:1.8.0", meter.WattHour, meter.UintValue(103, 3), 2*minute), meter.OutOfRange},
		{row("1-0:2.8.0", meter.WattHour, float(1<<24), 0), 0},
		{row("1-0:2.8.0", meter.WattHour, float(1<<24+2), minute), 0},
		{row("1-0:2.8.0", meter.WattHour, float(1<<24+8), 2*minute), meter.OutOfRange},
		{interval, 0},
	} {
		rows := []meter.Row{c.row}
		v.Check(rows)
		if rows[0].Quality != c.want {
			t.Errorf("row %d: %v, want %v", i, rows[0].Quality, c.want)
		}
	}
}
