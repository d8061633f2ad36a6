// Package validate judges readings: is this value possible, and is it
// consistent with the one before and the ones beside it. It never changes or
// drops a row; it sets bits of its quality, and whoever bills decides.
//
//	Check     the rows of a commit, in the order of their arrival
//	Complete  how much of a day's intervals of each meter has come
package validate

import (
	"math"
	"time"

	"gridgate/internal/meter"
)

// Limits are what is possible where a meter is installed.
type Limits struct {
	// Amperes and Phases are of the fuse before the meter; 0 is not known.
	Amperes float64
	Phases  int
	// Voltage is the nominal voltage between a phase and neutral, in volts; 0
	// is not known. Meters behind transformers have none here.
	Voltage float64
	// Frequency is the nominal frequency in hertz; 0 is not known.
	Frequency float64
}

// power gives the most that the fuse lets through, in watts; it holds a quarter
// more than its name for hours. 0 is not known.
func (l Limits) power() float64 {
	voltage := l.Voltage
	if voltage == 0 {
		voltage = 230
	}
	return 1.25 * l.Amperes * float64(l.Phases) * voltage
}

// Config is what a Validator works with. The zero value is good.
type Config struct {
	Limits   func(meter.ID) Limits // nil knows none
	TimeZone *time.Location        // whose days Complete counts; nil is UTC
}

// Validator remembers the last row of each register, to see one that runs
// backwards. The zero value is ready. It is not safe for concurrent use.
type Validator struct {
	cfg  Config
	last map[series]previous
	days map[dayOf]*intervals
	// whole stands for each day that is complete, to keep 41 of a thousand meters
	// in little memory.
	whole *intervals
}

// New gives a validator.
func New(cfg Config) *Validator { return &Validator{cfg: cfg} }

// series is one channel of one physical meter in one lane: a profile's rows
// are older than the registers read beside them.
type series struct {
	meter   meter.ID
	serial  string
	channel meter.Channel
	lane    meter.Lane
}

func seriesOf(row *meter.Row) series {
	return series{meter: row.Meter, serial: row.Serial, channel: row.Channel, lane: row.Lane}
}

type previous struct {
	time  int64
	value meter.Value
}

// Check sets the quality bits of rows that follow from the rows themselves and
// from those seen before.
func (v *Validator) Check(rows []meter.Row) {
	if v.last == nil {
		v.last = make(map[series]previous)
		v.days = make(map[dayOf]*intervals)
		v.whole = &intervals{period: 1, done: true}
	}
	steps := make(map[step]float64)
	for i := range rows {
		row := &rows[i]
		row.Quality |= clock(row) | v.plausible(row, steps)
		v.count(row)
	}
	compare(rows, steps)
}

// clock flags a row whose gateway clock nobody vouches for.
func clock(row *meter.Row) meter.Quality {
	if row.Stamp.Source == meter.FromGateway && row.Stamp.Bound == meter.UnknownBound {
		return meter.ClockUnsynchronised
	}
	return 0
}

func (v *Validator) limits(id meter.ID) (l Limits) {
	if v.cfg.Limits != nil {
		l = v.cfg.Limits(id)
	}
	return l
}

func (v *Validator) plausible(row *meter.Row, steps map[step]float64) meter.Quality {
	switch row.Value.Kind {
	case meter.Int, meter.Uint, meter.Float32, meter.Float64:
	case meter.None, meter.Bool, meter.Text, meter.Octets, meter.DateTime:
		return 0
	}
	if !row.Value.IsNumber() {
		return meter.OutOfRange
	}
	limits := v.limits(row.Meter)
	if !inRange(row, row.Value.Float64(), limits) {
		// An impossible value is no measure for the next one.
		return meter.OutOfRange
	}
	if !cumulative(row) {
		return 0
	}
	key := seriesOf(row)
	before, known := v.last[key]
	if known && row.Stamp.Time < before.time {
		return 0 // filled in later: not the newest, so not compared
	}
	v.last[key] = previous{time: row.Stamp.Time, value: row.Value}
	if !known {
		return 0
	}
	return advance(row, before, limits, steps)
}

// advance judges the way of a register from the row before, and notes it for
// the comparison with the interval's own energy.
func advance(row *meter.Row, before previous, limits Limits, steps map[step]float64) (q meter.Quality) {
	way := row.Value.Float64() - before.value.Float64()
	if way < 0 {
		end := rollover(before.value, row.Value)
		if end == 0 {
			return meter.RanBackwards
		}
		q, way = meter.RolledOver, way+end
	}
	elapsed := time.Duration(row.Stamp.Time-before.time) * time.Millisecond
	if exceeds(row, way, elapsed, limits) {
		q |= meter.OutOfRange
	}
	if row.Period > 0 && elapsed == time.Duration(row.Period)*time.Second {
		if s, ok := stepOf(row); ok {
			steps[s] = way
		}
	}
	return q
}

// rollover gives where a register begins again at 0 that fell from before to
// after: at a power of ten or of two that was near. 0 says that it did not.
func rollover(before, after meter.Value) float64 {
	if before.Kind != after.Kind || before.Scale != after.Scale {
		return 0
	}
	unit := math.Pow10(int(before.Scale))
	b, a := before.Float64()/unit, after.Float64()/unit
	const least, near = 1e4, 0.02 // digits, and the part of the range that is near its end
	for _, end := range [...]float64{math.Pow10(int(math.Ceil(math.Log10(b + 1)))), 1 << 24, 1 << 31, 1 << 32} {
		if end >= least && b < end && b >= (1-near)*end && a <= near*end {
			return end * unit
		}
	}
	return 0
}

// exceeds says whether an energy is more than the fuse lets through in the
// time, which is taken for no less than a minute: clocks are read in seconds.
// The last digit of row's value may have been about to change.
func exceeds(row *meter.Row, energy float64, in time.Duration, limits Limits) bool {
	switch row.Unit {
	case meter.WattHour, meter.VarHour, meter.VAHour:
		most := limits.power()
		return most > 0 && energy > most*max(in, time.Minute).Hours()+digit(row.Value)
	default:
		return false
	}
}

// inRange holds what is possible: at all, and where the meter is installed.
func inRange(row *meter.Row, x float64, limits Limits) bool {
	switch row.Unit {
	case meter.Hertz:
		low, high := 40.0, 70.0
		if limits.Frequency > 0 {
			low, high = 0.9*limits.Frequency, 1.1*limits.Frequency
		}
		return x == 0 || x >= low && x <= high // 0: no voltage on the measuring phase
	case meter.Volt:
		if limits.Voltage > 0 && isPhaseVoltage(row.Channel) {
			return math.Abs(x) <= 1.5*limits.Voltage
		}
		return math.Abs(x) <= 1e6
	case meter.Watt, meter.Var, meter.VoltAmpere:
		most := limits.power()
		return most == 0 || math.Abs(x) <= most
	case meter.WattHour, meter.VarHour, meter.VAHour:
		if isInterval(row) && row.Period > 0 {
			return x >= 0 && !exceeds(row, x, time.Duration(row.Period)*time.Second, limits)
		}
		return x >= 0 || !cumulative(row)
	default:
		return true
	}
}

// isPhaseVoltage says whether a channel is the voltage of a phase against
// neutral, now: 1-b:32.7.e, 52 and 72.
func isPhaseVoltage(c meter.Channel) bool {
	code, _, _, ok := c.Attribute()
	return ok && code[0] == 1 && (code[2] == 32 || code[2] == 52 || code[2] == 72) && code[3] == 7
}

// cumulative says whether the row is a register that only ever rises: an
// energy with time integral 1 (group D = 8) of a single direction.
func cumulative(row *meter.Row) bool {
	code, class, attribute, ok := row.Channel.Attribute()
	if !ok || class != meter.ClassRegister || attribute != 2 || code[3] != 8 || code[0] != 1 {
		return false
	}
	return !isNet(code[2])
}

// isNet says whether a quantity is |import| minus |export|, which may fall.
func isNet(c byte) bool { return c%20 == 16 }

// isInterval says whether the row is the energy of an interval: time integral 5
// (group D = 29), that of one direction.
func isInterval(row *meter.Row) bool {
	code, _, attribute, ok := row.Channel.Attribute()
	return ok && code[0] == 1 && code[3] == 29 && attribute == 2 && !isNet(code[2])
}
