package column

import (
	"math"
	"slices"

	"gridgate/internal/meter"
	"gridgate/internal/wire"
)

// maxDecimals is how many decimal places a float may be taken to have.
const maxDecimals = 9

var pow10 = [maxDecimals + 1]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9} //nolint:gochecknoglobals // a constant table

// How a number of a group is foretold. The first of a series is foretold to be
// the group's base, which serves snapshots of many meters.
const (
	orderLast = iota // then as the one before it in the series
	orderStep        // then, from the third on, the one before plus the last step: a register under a steady load
	orderBase        // then the base again: noise around a fixed value
	orders
)

// coding is how a group, the rows of one channel, is written: each number as
// the difference to what is foretold, modulo 2^64.
//
// With decimals 0 the number is the value's bits. With decimals d > 0 the group
// is of floats, and each is the number / 10^(d-1), divided in binary64 and, for
// a Float32, then rounded to binary32. Floats that a meter made of decimal
// digits are small and even that way, and restored to the bit.
type coding struct {
	order, decimals int
	base            int64
}

// series foretells the numbers of a group.
type series struct {
	coding
	begun      bool
	meter      uint32
	count      int // numbers of this meter so far
	last, step int64
}

// next foretells the next number, which is of meter m.
func (s *series) next(m uint32) int64 {
	if !s.begun || m != s.meter {
		s.begun, s.meter, s.count = true, m, 0
	}
	switch {
	case s.count == 0 || s.order == orderBase:
		return s.base
	case s.order == orderStep && s.count >= 2:
		return s.last + s.step
	default:
		return s.last
	}
}

// was says what the number turned out to be.
func (s *series) was(n int64) {
	s.count++
	s.step, s.last = n-s.last, n
}

// group decides on the coding of rows from to to in column order, and leaves
// their numbers in e.best.
func (e *encoder) group(rows []meter.Row, from, to int, kind meter.Kind) coding {
	e.best = e.best[:0]
	for at := from; at < to; at++ {
		e.best = append(e.best, int64(rows[e.row(at)].Value.Bits))
	}
	c, size := e.choose(e.best, from, 0)
	if kind != meter.Float32 && kind != meter.Float64 {
		return c
	}
	if d := e.decimals(kind); d > 0 {
		if other, s := e.choose(e.bits, from, d); s < size {
			e.best, e.bits = e.bits, e.best
			return other
		}
	}
	return c
}

// choose finds the coding that makes numbers smallest, and its size in bits.
func (e *encoder) choose(numbers []int64, from, decimals int) (best coding, size int) {
	size = -1
	for order := range orders {
		c := coding{order: order, decimals: decimals, base: e.base(numbers, from, order)}
		s, n := series{coding: c}, bitLen(c.base)
		for i, v := range numbers {
			n += bitLen(v - s.next(e.meters[e.row(from+i)]))
			s.was(v)
		}
		if size < 0 || n < size {
			best, size = c, n
		}
	}
	return best, size
}

// base gives the median of the numbers that are foretold by it, and 0 where
// there is only one of them.
func (e *encoder) base(numbers []int64, from, order int) int64 {
	e.sorted = e.sorted[:0]
	for i, n := range numbers {
		if order == orderBase || i == 0 || e.meters[e.row(from+i)] != e.meters[e.row(from+i-1)] {
			e.sorted = append(e.sorted, n)
		}
	}
	if len(e.sorted) < 2 {
		return 0
	}
	slices.Sort(e.sorted)
	return e.sorted[len(e.sorted)/2]
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

// codings are the columns of how groups are written, a number for each group.
type codings struct{ orders, decimals, bases []byte }

func (c *codings) reset() { c.orders, c.decimals, c.bases = c.orders[:0], c.decimals[:0], c.bases[:0] }

func (c *codings) add(g coding) {
	c.orders = append(c.orders, byte(g.order))
	c.decimals = append(c.decimals, byte(g.decimals))
	c.bases = wire.AppendVarint(c.bases, wire.Zigzag(g.base))
}

// append appends those columns that are not all zeros.
func (c *codings) append(b []byte) []byte {
	for i, column := range [][]byte{c.orders, c.decimals, c.bases} {
		if slices.ContainsFunc(column, func(v byte) bool { return v != 0 }) {
			b = wire.AppendBytes(b, colOrders+i, column)
		}
	}
	return b
}
