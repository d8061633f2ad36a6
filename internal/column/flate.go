package column

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"gridgate/internal/wire"
)

// A deflating writer takes 0.8 MB whatever its level, and longer to make than to
// use; one is kept between calls, until the collector wants it.
var encoders = sync.Pool{New: func() any { return &encoder{} }} //nolint:gochecknoglobals // memory to reuse, no state

// level is where smaller stops on columns: 9 gains less than 0.1 % over 6, 1
// loses 3 %, and memory is the same (see BenchmarkBytesPerValue).
const level = 6

// inflateLimit is how large columns may be that are n bytes deflated. Columns
// that would be larger are not deflated. It is part of the format.
func inflateLimit(n int) uint64 { return 8<<10 + 32*uint64(n) }

// appendPacked appends p as the fields of a body: deflated when that is smaller.
func (e *encoder) appendPacked(dst, p []byte) []byte {
	packed, ok := e.deflate(p)
	if !ok {
		return wire.AppendMessage(dst, bodyPlain, p)
	}
	dst = wire.AppendUint(dst, bodySize, uint64(len(p)))
	return wire.AppendBytes(dst, bodyDeflated, packed)
}

// parsePacked gives what appendPacked appended, and the bits that may stand
// beside it. What was not deflated aliases b. Other fields are skipped.
func parsePacked(b []byte) (p, noise []byte, err error) {
	var deflated []byte
	var size uint64
	for rest := b; len(rest) > 0; {
		var f wire.Field
		if f, rest, err = wire.Next(rest); err != nil {
			return nil, nil, err
		}
		switch f.Num {
		case bodyPlain:
			p, err = f.Data, f.Want(wire.Bytes)
		case bodySize:
			size, err = f.Uint(math.MaxInt32)
		case bodyDeflated:
			deflated, err = f.Data, f.Want(wire.Bytes)
		case bodyBits:
			noise, err = f.Data, f.Want(wire.Bytes)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	switch {
	case p != nil && deflated == nil:
		return p, noise, nil
	case p != nil || deflated == nil:
		return nil, nil, errors.New("want a content, either plain or deflated")
	case size > inflateLimit(len(deflated)):
		return nil, nil, fmt.Errorf("%d bytes deflated to %d, at most %d", size, len(deflated), inflateLimit(len(deflated)))
	}
	p, err = inflate(deflated, int(size))
	return p, noise, err
}

// deflate gives p deflated, if that is smaller and may be inflated again. What
// it gives is good until the next call.
func (e *encoder) deflate(p []byte) ([]byte, bool) {
	if len(p) < 64 {
		return nil, false
	}
	e.packed.Reset()
	var err error
	if e.writer == nil {
		e.writer, err = flate.NewWriter(&e.packed, level)
	} else {
		e.writer.Reset(&e.packed)
	}
	if err == nil {
		_, err = e.writer.Write(p)
	}
	if err == nil {
		err = e.writer.Close()
	}
	n := e.packed.Len()
	if err != nil || n+4 >= len(p) || uint64(len(p)) > inflateLimit(n) {
		return nil, false // a bytes.Buffer takes all, so there is no error
	}
	return e.packed.Bytes(), true
}

// inflate gives the size bytes that p inflates to, no more and no less.
func inflate(p []byte, size int) ([]byte, error) {
	r := flate.NewReader(bytes.NewReader(p))
	out := make([]byte, size)
	if _, err := io.ReadFull(r, out); err != nil {
		return nil, fmt.Errorf("inflating %d to %d bytes: %w", len(p), size, err)
	}
	var one [1]byte
	if n, err := r.Read(one[:]); n > 0 || !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("inflates to more than the %d bytes it says", size)
	}
	return out, nil
}

// Pack appends p as a message of one content, deflated when that is smaller.
func Pack(dst, p []byte) []byte {
	e := encoders.Get().(*encoder)
	defer encoders.Put(e)
	return e.appendPacked(dst, p)
}

// Unpack gives what Pack was given. It may alias b.
func Unpack(b []byte) ([]byte, error) {
	p, _, err := parsePacked(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return p, nil
}
