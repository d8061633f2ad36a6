package column

import (
	"math"
	"slices"

	"gridgate/internal/meter"
)

// What is foretold best is found on samples: that is as good, and fast.
const (
	samples = 128
	stretch = 512 // the first rows of a group, to compare ways to write it
	maxBack = 12  // groups before
)

// group decides how the rows of g are written, and leaves the numbers in their
// places of e.numbers, and what is left of them in e.left.
func (e *encoder) group(rows []meter.Row, g *group, s *State) {
	numbers := e.numbers[g.from:g.to]
	for i := range numbers {
		numbers[i] = int64(rows[e.row(g.from+i)].Value.Bits)
	}
	e.left = append(e.left[:0], numbers...)
	e.look(g, s)
	size := e.choose(g, s)
	if d := e.decimals(g, numbers); d > 0 {
		plain := g.coding
		g.coding = coding{decimals: d}
		e.left, e.spare = e.spare, e.left
		if s := e.choose(g, s); s < size {
			copy(numbers, e.left)
			size = s
		} else {
			g.coding = plain
			e.left = append(e.left[:0], numbers...)
		}
	}
	back, share := e.relate(g)
	if back == 0 {
		return
	}
	alone := g.coding
	g.beside, g.share = back, share
	var b beside
	b.begin(e.order, e.numbers, e.other(g))
	for i := range e.left {
		e.left[i] -= g.part(b.next(meterAt(e.order[g.from+i])))
	}
	if s := e.choose(g, s); s+16 >= size {
		g.coding = alone
		e.left = append(e.left[:0], numbers...)
	}
}

// look finds what the series of a group had before, each at its first place.
func (e *encoder) look(g *group, s *State) {
	n := g.to - g.from
	e.pasts = sized(e.pasts, n)
	clear(e.pasts)
	if s == nil || s.Base == nil {
		return
	}
	for i := range e.pasts {
		if m := meterAt(e.order[g.from+i]); i == 0 || m != meterAt(e.order[g.from+i-1]) {
			e.pasts[i] = s.past(g.channel<<16 | m)
			e.check = e.pasts[i].appendCheck(e.check)
		}
	}
}

// other is the group beside g, the last; nil if there is none.
func (e *encoder) other(g *group) *group {
	if g.beside == 0 {
		return nil
	}
	return &e.groups[len(e.groups)-1-g.beside]
}

// choose finds the order and base that make the first of e.left smallest, and
// their size in bits.
func (e *encoder) choose(g *group, st *State) int {
	other := e.other(g)
	first, all := e.base(g, false), e.base(g, true)
	by := [orders]series{{order: orderLast, base: first}, {order: orderStep, base: first}, {order: orderBase, base: all}}
	size := [orders]int{bitLen(first), bitLen(first), bitLen(all)}
	for i, v := range e.left[:min(len(e.left), stretch)] {
		if m := meterAt(e.order[g.from+i]); i == 0 || m != meterAt(e.order[g.from+i-1]) {
			seeds, last, prev := g.seed(e.pasts[i], st, other, m)
			for k := range by {
				by[k].begin(seeds, last, prev)
			}
		}
		for k := range by {
			size[k] += bitLen(v - by[k].next())
		}
		last := by[0].last
		for k := range by {
			by[k].count++
			by[k].step, by[k].last = v-last, v
		}
	}
	best := 0
	for k := range by {
		if size[k] < size[best] {
			best = k
		}
	}
	g.order, g.base = best, by[best].base
	return size[best]
}

// base gives the median of all numbers or of the first of each series, and 0
// where there is only one of them. It takes samples.
func (e *encoder) base(g *group, all bool) int64 {
	const sign = 1 << 63
	e.sorted = e.sorted[:0]
	stride := 1
	if all {
		stride = max(1, len(e.left)/samples)
	}
	for i := 0; i < len(e.left); i += stride {
		if all || i == 0 || meterAt(e.order[g.from+i]) != meterAt(e.order[g.from+i-1]) {
			e.sorted = append(e.sorted, uint64(e.left[i])^sign)
		}
	}
	if n := len(e.sorted); n > 2*samples {
		for i := range samples {
			e.sorted[i] = e.sorted[i*n/samples]
		}
		e.sorted = e.sorted[:samples]
	}
	if len(e.sorted) < 2 {
		return 0
	}
	slices.Sort(e.sorted)
	return int64(e.sorted[len(e.sorted)/2] ^ sign)
}

// decimals finds the fewest decimal places that give all floats, and leaves
// the numbers in e.spare. It gives 0 when there are none.
func (e *encoder) decimals(g *group, all []int64) int {
	if g.kind != meter.Float32 && g.kind != meter.Float64 {
		return 0
	}
	for d := 1; d <= maxDecimals+1; d++ {
		e.spare = e.spare[:0]
		for _, bits := range all {
			n := math.RoundToEven(floatOf(g.kind, uint64(bits)) * pow10[d-1])
			if !(math.Abs(n) < 1<<53) || decimalBits(g.kind, int64(n), d) != uint64(bits) {
				break
			}
			e.spare = append(e.spare, int64(n))
		}
		if len(e.spare) == len(all) {
			return d
		}
	}
	return 0
}

// numeric says whether the numbers of a group are such as go with others.
func (g *group) numeric() bool {
	return g.kind == meter.Int || g.kind == meter.Uint || g.decimals > 0
}

// relate finds the group before g that foretells it best, by samples of how
// both change from one row to the next, and the share of it. It gives 0 when
// none saves a bit a number.
func (e *encoder) relate(g *group) (best int, share int64) {
	n := g.to - g.from
	if n < 16 || !g.numeric() {
		return 0, 0
	}
	most := 0
	for back := 1; back <= maxBack && back < len(e.groups); back++ {
		other := &e.groups[len(e.groups)-1-back]
		if !other.numeric() || other.to-other.from < n/2 {
			continue
		}
		if s, gain := e.share(g, other); gain > most {
			best, share, most = back, s, gain
		}
	}
	return best, share
}

// share finds how much of other is best taken away from g, and how many bits
// that saves on samples, less one for each.
func (e *encoder) share(g, other *group) (share int64, gain int) {
	var b beside
	b.begin(e.order, e.numbers, other)
	// Samples are stretches: the walk beside must go through all rows anyhow.
	n := min(g.to-g.from, 2*samples)
	e.mine, e.theirs = e.mine[:0], e.theirs[:0]
	var mine, his int64
	var xx, xy float64
	apart := meterAt(e.order[g.from]) != meterAt(e.order[g.from+n/2]) && e.series(g, n) > n/2
	for i := range n {
		m := meterAt(e.order[g.from+i])
		x, y := b.next(m), e.numbers[g.from+i]
		if i > 0 && (apart || m == meterAt(e.order[g.from+i-1])) {
			dx, dy := x-his, y-mine
			e.theirs, e.mine = append(e.theirs, dx), append(e.mine, dy)
			xx += float64(dx) * float64(dx)
			xy += float64(dx) * float64(dy)
		}
		his, mine = x, y
	}
	s := math.Round(64 * xy / xx)
	if !(math.Abs(s) >= 1 && math.Abs(s) < 1<<20) {
		return 0, 0
	}
	c := coding{share: int64(s)}
	gain = -len(e.mine)
	for i, dy := range e.mine {
		gain += bitLen(dy) - bitLen(dy-c.part(e.theirs[i]))
	}
	return c.share, gain
}

// series counts the series in the first n rows of g.
func (e *encoder) series(g *group, n int) (count int) {
	for i := range n {
		if i == 0 || meterAt(e.order[g.from+i]) != meterAt(e.order[g.from+i-1]) {
			count++
		}
	}
	return count
}
