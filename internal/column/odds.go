package column

// odds are the share of zeros among the bits that came so far, in 1/65536, and
// how many came, up to steady.
type odds struct{ zero, seen uint16 }

// steady is where odds stop to settle: from there on each bit weighs as much
// as the next, and what came long ago is forgotten.
const steady = 126

// weights are what the next bit weighs, in 1/65536: a half at first, then a
// third, and so on.
var weights = func() (w [steady + 1]uint32) { //nolint:gochecknoglobals // a constant table
	for i := range w {
		w[i] = 65536 / uint32(i+2)
	}
	return w
}()

// saw takes a bit into account.
func (o *odds) saw(bit uint32) {
	zero, w := uint32(o.zero), weights[o.seen]
	if bit == 0 {
		zero += (65536 - zero) * w >> 16
	} else {
		zero -= zero * w >> 16
	}
	o.zero = uint16(zero)
	if o.seen < steady {
		o.seen++
	}
}

// split is where a range of this size is divided: zeros below, ones from there on.
func (o *odds) split(size uint32) uint32 { return (size >> 12) * (uint32(o.zero)>>4 | 1) }

// model is the odds of numbers that are alike.
type model struct {
	lengths [64]odds // a tree of the length's six bits, the highest first: from node n to 2n + bit
	signs   [64]odds // by length
	tops    [64]odds // by length: the bit below the leading one
}

// even is a model that has seen nothing.
var even = func() (m model) { //nolint:gochecknoglobals // a constant table
	for i := range m.lengths {
		m.lengths[i].zero, m.signs[i].zero, m.tops[i].zero = 1<<15, 1<<15, 1<<15
	}
	return m
}()

// rangeWriter writes bits by their odds: a bit that was likely takes little.
// It is the range coder of LZMA, without the zero that always leads.
type rangeWriter struct {
	b    []byte
	low  uint64 // of 33 bits: the highest is a carry
	size uint32
	held int  // bytes that a carry may still change: one, and then 0xFF
	one  byte // the one
}

func (w *rangeWriter) reset() { *w = rangeWriter{b: w.b[:0], size: 1<<32 - 1, held: 1} }

func (w *rangeWriter) bit(o *odds, bit uint32) {
	split := o.split(w.size)
	if bit == 0 {
		w.size = split
	} else {
		w.low += uint64(split)
		w.size -= split
	}
	o.saw(bit)
	for w.size < 1<<24 {
		w.shift()
		w.size <<= 8
	}
}

// six writes six bits, the highest first, by the odds of a tree: from node n to
// 2n + bit. It is bit six times, and a third of the time to write a number.
func (w *rangeWriter) six(tree *[64]odds, bits uint32) {
	node, size, low := uint32(1), w.size, w.low
	for i := 5; i >= 0; i-- {
		o, bit := &tree[node&63], bits>>i&1
		zero, weight, split := uint32(o.zero), weights[o.seen], o.split(size)
		if bit == 0 {
			size = split
			zero += (65536 - zero) * weight >> 16
		} else {
			low += uint64(split)
			size -= split
			zero -= zero * weight >> 16
		}
		o.zero = uint16(zero)
		if o.seen < steady {
			o.seen++
		}
		for size < 1<<24 {
			w.low = low
			w.shift()
			low = w.low
			size <<= 8
		}
		node = node<<1 | bit
	}
	w.size, w.low = size, low
}

// shift moves the highest byte of low out.
func (w *rangeWriter) shift() {
	if w.low < 0xFF<<24 || w.low >= 1<<32 {
		carry := byte(w.low >> 32)
		for next := w.one; w.held > 0; w.held-- {
			w.b = append(w.b, next+carry)
			next = 0xFF
		}
		w.one = byte(w.low >> 24)
	}
	w.held++
	w.low = w.low << 8 & (1<<32 - 1)
}

// bytes ends the bits and gives them. The first of all and the last three are
// always zeros and are left out.
func (w *rangeWriter) bytes() []byte {
	if w.size == 1<<32-1 {
		return nil // no bits
	}
	w.low = (w.low + 1<<24 - 1) &^ (1<<24 - 1) // within the range, which is no smaller
	for range 5 {
		w.shift()
	}
	return w.b[1 : len(w.b)-3]
}

// rangeReader reads what rangeWriter wrote.
type rangeReader struct {
	b    []byte
	at   int // may lie behind the end
	size uint32
	code uint32
}

func (r *rangeReader) reset(b []byte) {
	*r = rangeReader{b: b, size: 1<<32 - 1}
	for range 4 {
		r.shift()
	}
}

func (r *rangeReader) shift() {
	r.code <<= 8
	if r.at < len(r.b) {
		r.code |= uint32(r.b[r.at])
	}
	r.at++
}

func (r *rangeReader) bit(o *odds) (bit uint32) {
	split := o.split(r.size)
	if r.code < split {
		r.size = split
	} else {
		r.code -= split
		r.size -= split
		bit = 1
	}
	o.saw(bit)
	for r.size < 1<<24 {
		r.shift()
		r.size <<= 8
	}
	return bit
}

// six reads what rangeWriter.six wrote.
func (r *rangeReader) six(tree *[64]odds) uint32 {
	node, size, code := uint32(1), r.size, r.code
	for node < 64 {
		o := &tree[node]
		zero, weight, split := uint32(o.zero), weights[o.seen], o.split(size)
		if code < split {
			size = split
			zero += (65536 - zero) * weight >> 16
			node <<= 1
		} else {
			code -= split
			size -= split
			zero -= zero * weight >> 16
			node = node<<1 | 1
		}
		o.zero = uint16(zero)
		if o.seen < steady {
			o.seen++
		}
		for size < 1<<24 {
			r.code = code
			r.shift()
			code = r.code
			size <<= 8
		}
	}
	r.size, r.code = size, code
	return node - 64
}

// missing is how many bytes more there should have been; fewer than 0 are too
// many.
func (r *rangeReader) missing() int {
	if r.size == 1<<32-1 {
		return -len(r.b)
	}
	return r.at - 3 - len(r.b)
}
