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
//
// With beside g > 0 what is foretold and written is not the number but what is
// left of it when share/64 of another number is taken away: that of the same
// meter and the same place in its series, g groups before. Currents of three
// phases go together, and a power with its currents.
type coding struct {
	order, decimals int
	base            int64
	beside          int
	share           int64
}

// maxBeside is how many groups before a group is looked at.
const maxBeside = 255

// part is what is taken away for a number beside.
func (c *coding) part(beside int64) int64 { return beside * c.share >> 6 }

// group is a group as it is written or read.
type group struct {
	coding
	kind     meter.Kind
	channel  uint32
	from, to int // in column order
}

// number gives the number of a value that another body had, if it has one.
func (g *group) number(bits uint64) (int64, bool) {
	if g.decimals == 0 {
		return int64(bits), true
	}
	// The conversion keeps the product from being fused with the sum.
	n := math.Floor(float64(floatOf(g.kind, bits)*pow10[g.decimals-1]) + 0.5)
	return int64(n), math.Abs(n) < 1<<53
}

// seed gives what a series that had p, of meter m, starts with: how many numbers
// it had, up to two, and the last two. other is the group beside, if there is one.
func (g *group) seed(p past, s *State, other *group, m uint32) (n int, last, prev int64) {
	if p.n == 0 {
		return 0, 0, 0
	}
	last, ok := g.number(p.last)
	prev, ok2 := g.number(p.prev)
	if g.beside > 0 {
		q := s.past(other.channel<<16 | m)
		a, ok3 := other.number(q.last)
		b, ok4 := other.number(q.prev)
		ok, ok2 = ok && ok3 && q.n > 0, ok2 && ok4 && q.n > 1
		last, prev = last-g.part(a), prev-g.part(b)
	}
	switch {
	case !ok:
		return 0, 0, 0
	case !ok2 || p.n < 2:
		return 1, last, 0
	}
	return 2, last, prev
}

// series foretells the numbers of one series after the other.
type series struct {
	order      int
	base       int64
	count      int // numbers so far, up to two
	last, step int64
}

// begin starts a series that had n numbers before, up to two.
func (s *series) begin(n int, last, prev int64) {
	s.count, s.last, s.step = n, last, last-prev
}

// next foretells the next number.
func (s *series) next() int64 {
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

// beside walks through another group and finds the numbers that stand beside.
type beside struct {
	order   []uint64 // orderKeys
	numbers []int64  // in column order
	at, to  int
	ready   uint32 // the meter that at was looked up for
	any     bool
}

func (b *beside) begin(order []uint64, numbers []int64, g *group) {
	*b = beside{order: order, numbers: numbers, at: g.from, to: g.to}
}

// next gives the number beside the next one, which is of meter m; 0 if none is.
// Meters must rise.
func (b *beside) next(m uint32) int64 {
	if !b.any || m != b.ready {
		b.any, b.ready = true, m
		for b.at < b.to && meterAt(b.order[b.at]) < m {
			b.at++
		}
	}
	if b.at >= b.to || meterAt(b.order[b.at]) != m {
		return 0
	}
	b.at++
	return b.numbers[b.at-1]
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
type codings struct{ orders, decimals, bases, besides, shares []byte }

func (c *codings) reset() {
	for _, b := range []*[]byte{&c.orders, &c.decimals, &c.bases, &c.besides, &c.shares} {
		*b = (*b)[:0]
	}
}

func (c *codings) add(g *coding) {
	c.orders = append(c.orders, byte(g.order))
	c.decimals = append(c.decimals, byte(g.decimals))
	c.bases = wire.AppendVarint(c.bases, wire.Zigzag(g.base))
	c.besides = append(c.besides, byte(g.beside))
	c.shares = wire.AppendVarint(c.shares, wire.Zigzag(g.share))
}

// append appends those columns from orders to bases that are not all zeros.
func (c *codings) append(b []byte) []byte {
	b = appendUnlessZero(b, colOrders, c.orders)
	b = appendUnlessZero(b, colDecimals, c.decimals)
	return appendUnlessZero(b, colBases, c.bases)
}

func (c *codings) appendBesides(b []byte) []byte {
	b = appendUnlessZero(b, colBesides, c.besides)
	return appendUnlessZero(b, colShares, c.shares)
}

func appendUnlessZero(b []byte, num int, column []byte) []byte {
	if slices.ContainsFunc(column, func(v byte) bool { return v != 0 }) {
		b = wire.AppendBytes(b, num, column)
	}
	return b
}
