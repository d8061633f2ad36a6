package column

import (
	"errors"
	"fmt"
	"math/bits"

	"gridgate/internal/wire"
)

// bitWriter writes columns of signed numbers: of each the zig-zag form z, split
// into its bit length (0 for 0), one byte in the column, and the bits below its
// leading one, in the body's bits. Lengths are few and alike, and deflate well;
// the bits below are noise, which deflating would only make larger and which
// would spoil the code lengths for the rest.
type bitWriter struct {
	b    []byte
	acc  uint64
	fill int // bits in acc, less than 8
}

// put appends n bits of v, the lowest first; the first bit is the lowest of its byte.
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

// number appends the length of v to column and its bits to w.
func (w *bitWriter) number(column []byte, v int64) []byte {
	z := wire.Zigzag(v)
	n := bits.Len64(z)
	if n > 1 {
		w.put(z, n-1)
	}
	return append(column, byte(n))
}

// bitLen is the bits that v takes, near enough to compare codings.
func bitLen(v int64) int { return bits.Len64(wire.Zigzag(v)) }

// bitReader reads what bitWriter wrote.
type bitReader struct {
	b    []byte
	acc  uint64
	fill int
}

func (r *bitReader) get(n int) (v uint64, err error) {
	for got := 0; got < n; {
		if r.fill == 0 {
			if len(r.b) == 0 {
				return 0, errors.New("bits end too soon")
			}
			r.acc, r.fill, r.b = uint64(r.b[0]), 8, r.b[1:]
		}
		take := min(n-got, r.fill)
		v |= (r.acc & (1<<take - 1)) << got
		r.acc, r.fill, got = r.acc>>take, r.fill-take, got+take
	}
	return v, nil
}

// number takes a length off the column and its bits off r.
func (r *bitReader) number(column *column) (int64, error) {
	if len(column.b) == 0 {
		return 0, wire.ErrTruncated
	}
	n := int(column.b[0])
	column.b = column.b[1:]
	switch {
	case n == 0:
		return 0, nil
	case n > 64:
		return 0, fmt.Errorf("a number of %d bits", n)
	}
	low, err := r.get(n - 1)
	return wire.Unzigzag(1<<(n-1) | low), err
}

// end says whether the bits are used up but for the zeros that fill a byte.
func (r *bitReader) end() error {
	if len(r.b) > 0 || r.acc != 0 {
		return fmt.Errorf("bits: %d bytes too many", len(r.b)+1)
	}
	return nil
}
