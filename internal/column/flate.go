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

// packed is the fields of a body.
type packed struct {
	plain, deflated []byte
	size            uint64
	noise, coded    []byte
}

// parsePacked reads the fields of a body. They alias b. Other fields are skipped.
func parsePacked(b []byte) (p packed, err error) {
	for rest := b; len(rest) > 0; {
		var f wire.Field
		if f, rest, err = wire.Next(rest); err != nil {
			return p, err
		}
		switch f.Num {
		case bodyPlain:
			p.plain, err = f.Data, f.Want(wire.Bytes)
		case bodySize:
			p.size, err = f.Uint(math.MaxInt32)
		case bodyDeflated:
			p.deflated, err = f.Data, f.Want(wire.Bytes)
		case bodyBits:
			p.noise, err = f.Data, f.Want(wire.Bytes)
		case bodyCoded:
			p.coded, err = f.Data, f.Want(wire.Bytes)
		}
		if err != nil {
			return p, err
		}
	}
	switch limit := inflateLimit(len(p.deflated)); {
	case (p.plain == nil) == (p.deflated == nil):
		return p, errors.New("want a content, either plain or deflated")
	case p.deflated != nil && p.size > limit:
		return p, fmt.Errorf("%d bytes deflated to %d, at most %d", p.size, len(p.deflated), limit)
	}
	return p, nil
}

// deflate gives p deflated, if that is smaller and may be inflated again. What
// it gives is good until the next call.
func (e *encoder) deflate(p []byte) ([]byte, bool) {
	if len(p) < 64 {
		return nil, false
	}
	e.packed.Reset()
	var err error
	if e.deflater == nil {
		e.deflater, err = flate.NewWriter(&e.packed, level)
	} else {
		e.deflater.Reset(&e.packed)
	}
	if err == nil {
		_, err = e.deflater.Write(p)
	}
	if err == nil {
		err = e.deflater.Close()
	}
	n := e.packed.Len()
	if err != nil || n+4 >= len(p) || uint64(len(p)) > inflateLimit(n) {
		return nil, false // a bytes.Buffer takes all, so there is no error
	}
	return e.packed.Bytes(), true
}

// inflater is the memory of inflating.
type inflater struct {
	in  bytes.Reader
	r   io.ReadCloser
	out []byte
	one [1]byte
}

// content gives what a body holds, inflated if need be: as many bytes as it
// says, no more and no less. It is good until the next call.
func (i *inflater) content(p *packed) ([]byte, error) {
	if p.deflated == nil {
		return p.plain, nil
	}
	i.in.Reset(p.deflated)
	if i.r == nil {
		i.r = flate.NewReader(&i.in)
	} else if err := i.r.(flate.Resetter).Reset(&i.in, nil); err != nil {
		return nil, err
	}
	i.out = sized(i.out, int(p.size))
	if _, err := io.ReadFull(i.r, i.out); err != nil {
		return nil, fmt.Errorf("inflating %d to %d bytes: %w", len(p.deflated), p.size, err)
	}
	if n, err := i.r.Read(i.one[:]); n > 0 || !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("inflates to more than the %d bytes it says", p.size)
	}
	return i.out, nil
}

// Pack appends p as a message of one content, deflated when that is smaller.
func Pack(dst, p []byte) []byte {
	e := encoders.Get().(*encoder)
	defer encoders.Put(e)
	return e.appendPacked(dst, p)
}

// Unpack gives what Pack was given. It may alias b.
func Unpack(b []byte) ([]byte, error) {
	p, err := parsePacked(b)
	var content []byte
	if err == nil {
		content, err = (&inflater{}).content(&p)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return content, nil
}
