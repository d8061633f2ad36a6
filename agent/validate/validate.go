// Package validate judges readings: is this value possible, and is it
// consistent with the one before. It never changes or drops a row; it sets
// bits of its quality, and whoever bills decides.
package validate

import (
	"math"

	"gridgate/internal/meter"
)

// Validator remembers the last row of each register, to see one that runs
// backwards. The zero value is ready. It is not safe for concurrent use.
type Validator struct {
	last map[series]previous
}

// series is one channel of one physical meter in one lane: a profile's rows
// are older than the registers read beside them.
type series struct {
	meter   meter.ID
	serial  string
	channel meter.Channel
	lane    meter.Lane
}

type previous struct {
	time  int64
	value float64
}

// Check sets the quality bits of rows that follow from the rows themselves and
// from those seen before.
func (v *Validator) Check(rows []meter.Row) {
	for i := range rows {
		row := &rows[i]
		row.Quality |= clock(row) | v.plausible(row)
	}
}

// clock flags a row whose gateway clock nobody vouches for.
func clock(row *meter.Row) meter.Quality {
	if row.Stamp.Source == meter.FromGateway && row.Stamp.Bound == meter.UnknownBound {
		return meter.ClockUnsynchronised
	}
	return 0
}

func (v *Validator) plausible(row *meter.Row) meter.Quality {
	switch row.Value.Kind {
	case meter.Int, meter.Uint, meter.Float32, meter.Float64:
	case meter.None, meter.Bool, meter.Text, meter.Octets, meter.DateTime:
		return 0
	}
	if !row.Value.IsNumber() {
		return meter.OutOfRange
	}
	x := row.Value.Float64()
	if !inRange(row, x) {
		// An impossible value is no measure for the next one.
		return meter.OutOfRange
	}
	if !cumulative(row) {
		return 0
	}
	if v.last == nil {
		v.last = make(map[series]previous)
	}
	key := series{meter: row.Meter, serial: row.Serial, channel: row.Channel, lane: row.Lane}
	before, known := v.last[key]
	if known && row.Stamp.Time < before.time {
		return 0 // filled in later: not the newest, so not compared
	}
	v.last[key] = previous{time: row.Stamp.Time, value: x}
	if known && x < before.value {
		return meter.RanBackwards
	}
	return 0
}

// inRange holds what no meter of any rating can exceed. Limits that depend on
// the installation (a voltage behind a transformer) are the model's.
func inRange(row *meter.Row, x float64) bool {
	switch row.Unit {
	case meter.Hertz:
		return x == 0 || x >= 40 && x <= 70 // 0: no voltage on the measuring phase
	case meter.Volt:
		return math.Abs(x) <= 1e6
	case meter.WattHour, meter.VarHour, meter.VAHour:
		return x >= 0 || !cumulative(row)
	default:
		return true
	}
}

// cumulative says whether the row is a register that only ever rises: an
// energy with time integral 1 (group D = 8) of a single direction.
func cumulative(row *meter.Row) bool {
	code, class, attribute, ok := row.Channel.Attribute()
	if !ok || class != meter.ClassRegister || attribute != 2 || code[3] != 8 || code[0] != 1 {
		return false
	}
	net := code[2]%20 == 16 // 16, 36, 56, 76: |import| minus |export|, which may fall
	return !net
}
