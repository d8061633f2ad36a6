package validate

import (
	"math"

	"gridgate/internal/meter"
)

// step names an energy in an interval, whether a register's way or the
// interval's own value says how much it was.
type step struct {
	meter  meter.ID
	serial string
	time   int64
	a, b   byte // of the OBIS code: medium and channel
	c, e   byte // quantity and tariff
}

func stepOf(row *meter.Row) (s step, ok bool) {
	code, _, _, ok := row.Channel.Attribute()
	return step{row.Meter, row.Serial, row.Stamp.Time, code[0], code[1], code[2], code[4]}, ok
}

// compare holds the intervals' energies against what the registers of the same
// meter did in the same time, and flags both where they differ by more than
// their last digits.
func compare(rows []meter.Row, steps map[step]float64) {
	if len(steps) == 0 {
		return
	}
	wrong := make(map[step]bool)
	resolution := make(map[step]float64)
	for i := range rows {
		if s, ok := stepOf(&rows[i]); ok && cumulative(&rows[i]) {
			resolution[s] = digit(rows[i].Value)
		}
	}
	for i := range rows {
		row := &rows[i]
		s, ok := stepOf(row)
		way, stepped := steps[s]
		if !ok || !stepped || !isInterval(row) || !row.Value.IsNumber() {
			continue
		}
		const rounding = 1.01 // of the floats, on top of the digits
		if math.Abs(row.Value.Float64()-way) > rounding*(digit(row.Value)+resolution[s]) {
			row.Quality |= meter.Inconsistent
			wrong[s] = true
		}
	}
	for i := range rows {
		if s, ok := stepOf(&rows[i]); ok && wrong[s] && cumulative(&rows[i]) {
			rows[i].Quality |= meter.Inconsistent
		}
	}
}

// digit gives what the last digit of a value is worth.
func digit(v meter.Value) float64 {
	switch v.Kind {
	case meter.Float32:
		x := math.Float32frombits(uint32(v.Bits))
		return float64(math.Nextafter32(x, math.MaxFloat32)-x) * math.Pow10(int(v.Scale))
	case meter.Float64:
		x := math.Float64frombits(v.Bits)
		return (math.Nextafter(x, math.MaxFloat64) - x) * math.Pow10(int(v.Scale))
	default:
		return math.Pow10(int(v.Scale))
	}
}
