package column

import (
	"math"

	"gridgate/internal/meter"
	"gridgate/internal/wire"
)

// maxDecimals is how many decimal places a float may be taken to have.
const maxDecimals = 9

var pow10 = [maxDecimals + 1]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9} //nolint:gochecknoglobals // a constant table

// coding is how a group's numbers are written.
//
// With order 0 a number is written as the difference to the number before it in
// the group, 0 before the first. With order 1 it is the difference to the
// number before plus the last step, if the two numbers before it are of the
// same series; a register that counts a steady load has even steps.
//
// With decimals 0 the number is the value's bits. With decimals d > 0 the group
// is of floats, and each is the number / 10^(d-1), divided in binary64 and, for
// a Float32, then rounded to binary32. Floats that a meter made of decimal
// digits are small and even that way, and restored to the bit.
type coding struct{ order, decimals int }

// group decides on the coding of rows from to to in column order, and leaves
// their numbers in e.best.
func (e *encoder) group(rows []meter.Row, from, to int, kind meter.Kind) coding {
	e.best = e.best[:0]
	for at := from; at < to; at++ {
		e.best = append(e.best, int64(rows[e.row(at)].Value.Bits))
	}
	c := coding{}
	size := e.groupSize(e.best, from, 0)
	if s := e.groupSize(e.best, from, 1); s < size {
		c.order, size = 1, s
	}
	d := 0
	if kind == meter.Float32 || kind == meter.Float64 {
		d = e.decimals(kind)
	}
	if d == 0 {
		return c
	}
	for order := range 2 {
		if s := e.groupSize(e.bits, from, order); s < size {
			c, size = coding{order, d}, s
		}
	}
	if c.decimals > 0 {
		e.best, e.bits = e.bits, e.best
	}
	return c
}

// decimals finds the fewest decimal places that give all floats of e.best, and
// leaves the numbers in e.bits. It gives 0 when there are none.
func (e *encoder) decimals(kind meter.Kind) int {
	for d := 1; d <= maxDecimals+1; d++ {
		e.bits = e.bits[:0]
		for _, bits := range e.best {
			n := math.RoundToEven(floatOf(kind, uint64(bits)) * pow10[d-1])
			if !(math.Abs(n) < 1<<53) || decimalBits(kind, int64(n), d) != uint64(bits) {
				break
			}
			e.bits = append(e.bits, int64(n))
		}
		if len(e.bits) == len(e.best) {
			return d
		}
	}
	return 0
}

func floatOf(kind meter.Kind, bits uint64) float64 {
	if kind == meter.Float32 {
		return float64(math.Float32frombits(uint32(bits)))
	}
	return math.Float64frombits(bits)
}

// decimalBits gives the bits of the float that a number with decimals d is.
func decimalBits(kind meter.Kind, n int64, d int) uint64 {
	f := float64(n) / pow10[d-1]
	if kind == meter.Float32 {
		return uint64(math.Float32bits(float32(f)))
	}
	return math.Float64bits(f)
}

// series foretells the numbers of a group.
type series struct {
	order      int
	meter      uint32
	count      int // numbers of this meter so far
	last, step int64
}

// next foretells the next number, which is of meter m.
func (s *series) next(m uint32) int64 {
	if m != s.meter {
		s.meter, s.count = m, 0
	}
	if s.order == 1 && s.count >= 2 {
		return s.last + s.step
	}
	return s.last
}

func (s *series) was(n int64) {
	s.count++
	s.step, s.last = n-s.last, n
}

// groupSize gives the bytes that numbers take with that order.
func (e *encoder) groupSize(numbers []int64, from, order int) int {
	size, s := 0, series{order: order}
	for i, n := range numbers {
		size += wire.SizeVarint(wire.Zigzag(n - s.next(e.meters[e.row(from+i)])))
		s.was(n)
	}
	return size
}

// appendGroup appends the numbers in e.best.
func (e *encoder) appendGroup(b []byte, from, order int) []byte {
	s := series{order: order}
	for i, n := range e.best {
		b = wire.AppendVarint(b, wire.Zigzag(n-s.next(e.meters[e.row(from+i)])))
		s.was(n)
	}
	return b
}
