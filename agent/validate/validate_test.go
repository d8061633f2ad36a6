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
