package column

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// whole is the length that stands for 63 and 64 bits.
const whole = 63

// numberWriter writes signed numbers. Of each the length of its magnitude in
// bits, its sign, and the bit below the leading one go by the model's odds: they
// are alike from number to number. The bits below are noise and are written as
// they are.
type numberWriter struct {
	coded rangeWriter
	noise bitWriter
}

func (w *numberWriter) reset() {
	w.coded.reset()
	w.noise.reset()
}

func (w *numberWriter) number(m *model, v int64) {
	magnitude := uint64(v)
	if v < 0 {
		magnitude = -magnitude
	}
	n := min(bits.Len64(magnitude), whole)
	node := uint32(1)
	for i := 5; i >= 0; i-- {
		bit := uint32(n) >> i & 1
		w.coded.bit(&m.lengths[node], bit)
		node = node<<1 | bit
	}
	switch n {
	case 0:
	case whole:
		w.noise.put(uint64(v), 64)
	default:
		w.coded.bit(&m.signs[n], uint32(uint64(v)>>63))
		if n > 1 {
			w.coded.bit(&m.tops[n], uint32(magnitude>>(n-2)&1))
			w.noise.put(magnitude, n-2)
		}
	}
}

// bitLen is the bits that v takes, near enough to compare codings.
func bitLen(v int64) int { return bits.Len64(uint64(v<<1 ^ v>>63)) }

// numberReader reads what numberWriter wrote.
type numberReader struct {
	coded rangeReader
	noise bitReader
}

func (r *numberReader) reset(coded, noise []byte) {
	r.coded.reset(coded)
	r.noise = bitReader{b: noise}
}

func (r *numberReader) number(m *model) (int64, error) {
	node := uint32(1)
	for node < 64 {
		node = node<<1 | r.coded.bit(&m.lengths[node])
	}
	n := int(node - 64)
	switch n {
	case 0:
		return 0, nil
	case whole:
		v, err := r.noise.get(64)
		return int64(v), err
	}
	negative, magnitude := r.coded.bit(&m.signs[n]), uint64(1)
	if n > 1 {
		low, err := r.noise.get(n - 2)
		if err != nil {
			return 0, err
		}
		magnitude = uint64(2|r.coded.bit(&m.tops[n]))<<(n-2) | low
	}
	if negative == 1 {
		return -int64(magnitude), nil
	}
	return int64(magnitude), nil
}

// end says whether all was needed that is there.
func (r *numberReader) end() error {
	if n := r.coded.missing(); n != 0 {
		return fmt.Errorf("coded: %d bytes, want %d", len(r.coded.b), len(r.coded.b)+n)
	}
	return r.noise.end()
}

// bitWriter writes bits as they are, the first in the lowest bit of its byte.
type bitWriter struct {
	b    []byte
	acc  uint64
	fill int // bits in acc, less than 8
}

// put appends the n lowest bits of v, the lowest first.
func (w *bitWriter) put(v uint64, n int) {
	for n > 0 {
		take := min(n, 56)
		w.acc |= (v & (1<<take - 1)) << w.fill
		w.fill += take
		v, n = v>>take, n-take
		for w.fill >= 8 {
			w.b = append(w.b, byte(w.acc))
			w.acc, w.fill = w.acc>>8, w.fill-8
		}
	}
}

// bytes gives the bits in whole bytes; the last is filled up with zeros.
func (w *bitWriter) bytes() []byte {
	if w.fill > 0 {
		w.b = append(w.b, byte(w.acc))
		w.acc, w.fill = 0, 0
	}
	return w.b
}

func (w *bitWriter) reset() { w.b, w.acc, w.fill = w.b[:0], 0, 0 }

// bitReader reads what bitWriter wrote.
type bitReader struct {
	b    []byte
	acc  uint64
	fill int // bits in acc
}

func (r *bitReader) get(n int) (v uint64, err error) {
	for got := 0; got < n; {
		if r.fill == 0 {
			switch {
			case len(r.b) >= 4:
				r.acc, r.fill, r.b = uint64(binary.LittleEndian.Uint32(r.b)), 32, r.b[4:]
			case len(r.b) > 0:
				r.acc, r.fill, r.b = uint64(r.b[0]), 8, r.b[1:]
			default:
				return 0, errors.New("bits end too soon")
			}
		}
		take := min(n-got, r.fill)
		v |= (r.acc & (1<<take - 1)) << got
		r.acc, r.fill, got = r.acc>>take, r.fill-take, got+take
	}
	return v, nil
}

// end says whether the bits are used up but for the zeros that fill a byte.
func (r *bitReader) end() error {
	if n := len(r.b) + r.fill/8; n > 0 || r.acc != 0 {
		return fmt.Errorf("bits: %d bytes too many", max(n, 1))
	}
	return nil
}
