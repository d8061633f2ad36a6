package poll

import (
	"math"
	"math/big"
	"slices"
	"time"

	"gridgate/internal/meter"
)

// Meters that keep no billing rows are read shortly before midnight and again
// behind it. Both reads are rows as the meter gave them; between them stands a
// row of midnight that was computed, and says so.

const (
	// bracketLead is how long before midnight the first read is due.
	bracketLead = 2 * time.Minute
	// bracketMost is how far a read may be from midnight to count.
	bracketMost = 30 * time.Minute
	// bracketRetry is how long a read waits that failed.
	bracketRetry = 30 * time.Second
)

// nextBracket gives when registers for billing are due after now.
func (j *job) nextBracket(now time.Time, zone *time.Location) time.Time {
	midnight := aligned(now, day, zone)
	if first := midnight.Add(-bracketLead); now.Before(first) {
		return first
	}
	return midnight
}

// retryBracket gives when registers for billing are due after a read that
// failed now: soon, as long as it counts for midnight, else at next.
func (j *job) retryBracket(now, next time.Time, zone *time.Location) time.Time {
	if now.Sub(aligned(now.Add(-bracketMost), day, zone)) >= 0 || next.Sub(now) <= bracketLead {
		return now.Add(bracketRetry)
	}
	return next
}

// bracket keeps what was read before midnight, and puts the rows of midnight
// between that and what is read behind it.
func (p *Poller) bracket(m *meterState, r *round, got *meter.Got) {
	for _, j := range r.jobs {
		if !j.brackets() {
			continue
		}
		var rows []meter.Row
		for _, row := range got.Rows {
			if row.Lane == meter.Billing && row.Stamp.Source == meter.FromGateway && slices.Contains(j.Channels, row.Channel) {
				rows = append(rows, row)
			}
		}
		for _, after := range rows {
			midnight := aligned(time.UnixMilli(after.Stamp.Time).Add(-bracketMost), day, p.cfg.TimeZone).UnixMilli()
			for i := range j.before {
				if row, ok := estimate(&j.before[i], &after, midnight); ok {
					got.Rows = append(got.Rows, row)
				}
			}
		}
		// What was not read now is still waiting for its other side.
		j.before = append(slices.DeleteFunc(j.before, func(old meter.Row) bool {
			return slices.ContainsFunc(rows, func(row meter.Row) bool { return row.Channel == old.Channel })
		}), rows...)
	}
}

// estimate gives the row of midnight between two reads of a register that
// rises, in proportion to the time.
func estimate(before, after *meter.Row, midnight int64) (row meter.Row, ok bool) {
	b, a := before.Stamp.Time, after.Stamp.Time
	if !sameClock(before.Stamp, after.Stamp) {
		return row, false // nobody knows when midnight was between them
	}
	if before.Channel != after.Channel || before.Serial != after.Serial || before.Unit != after.Unit ||
		b > midnight || a < midnight || a == b ||
		midnight-b > bracketMost.Milliseconds() || a-midnight > bracketMost.Milliseconds() {
		return row, false
	}
	row = *after
	if row.Value, ok = between(before.Value, after.Value, midnight-b, a-b); !ok {
		return row, false
	}
	row.Quality |= before.Quality | meter.Estimated
	row.Stamp.Time = midnight
	if row.Stamp.Bound != meter.UnknownBound {
		row.Stamp.Bound = max(row.Stamp.Bound, before.Stamp.Bound)
	}
	return row, true
}

// stepLeast is what a clock is put right by at once; less is slewed.
const stepLeast = 10 * time.Second

// sameClock says whether two stamps are of a clock that was right and not stepped
// between them.
func sameClock(before, after meter.Stamp) bool {
	if before.Bound == meter.UnknownBound || after.Bound == meter.UnknownBound {
		return false
	}
	gone := time.Duration((after.Time-before.Time)-(after.Mono-before.Mono)) * time.Millisecond
	return before.Boot != after.Boot || before.Mono == after.Mono || gone.Abs() < stepLeast
}

// between gives the value at part of the way from b to a, which is whole long.
// Digits stay those of the register: what is below its last digit is cut off.
func between(b, a meter.Value, part, whole int64) (v meter.Value, ok bool) {
	if a.Kind != b.Kind || a.Scale != b.Scale {
		return v, false
	}
	v = a
	switch a.Kind {
	case meter.Int, meter.Uint:
		x, y := integer(b), integer(a)
		step := new(big.Int).Sub(y, x)
		if step.Sign() < 0 {
			return v, false
		}
		step.Mul(step, big.NewInt(part)).Quo(step, big.NewInt(whole))
		if x.Add(x, step); a.Kind == meter.Int {
			v.Bits = uint64(x.Int64())
		} else {
			v.Bits = x.Uint64()
		}
		return v, true
	case meter.Float32:
		x, y := math.Float32frombits(uint32(b.Bits)), math.Float32frombits(uint32(a.Bits))
		z := float64(x) + (float64(y)-float64(x))*float64(part)/float64(whole)
		v.Bits = uint64(math.Float32bits(float32(z)))
		return v, x <= y
	case meter.Float64:
		x, y := math.Float64frombits(b.Bits), math.Float64frombits(a.Bits)
		v.Bits = math.Float64bits(x + (y-x)*float64(part)/float64(whole))
		return v, x <= y
	case meter.None, meter.Bool, meter.Text, meter.Octets, meter.DateTime:
	}
	return v, false
}

func integer(v meter.Value) *big.Int {
	if v.Kind == meter.Int {
		return big.NewInt(int64(v.Bits))
	}
	return new(big.Int).SetUint64(v.Bits)
}
