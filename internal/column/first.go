package column

import (
	"fmt"

	"gridgate/internal/meter"
	"gridgate/internal/wire"
)

// ParseFirstRows is ParseRows for a body of the first form, which old chunks
// have and nothing writes any more. It differs in three things: each row has a
// step to its channel; groups stand alone; and times, monos and values are
// columns of the numbers' lengths.
func ParseFirstRows(b []byte, d *Dict) ([]meter.Row, error) {
	return parseRows(nil, b, d, nil, &firstNumbers{})
}

// firstNumbers reads numbers of the first form: of each the zig-zag form z as
// its bit length (0 for 0), one byte in a column, and the bits below its leading
// one, in the body's bits.
type firstNumbers struct {
	times, monos, values column
	noise                bitReader
}

// reset takes the columns, if they bear out so many rows: each has a byte.
func (r *firstNumbers) reset(cols *[colEnd][]byte, noise []byte, rows int) error {
	*r = firstNumbers{column{cols[colTimes]}, column{cols[colMonos]}, column{cols[colValues]}, bitReader{b: noise}}
	if n := len(r.values.b); rows > n {
		return fmt.Errorf("%d rows, but %d bytes of values", rows, n)
	}
	return nil
}

func (r *firstNumbers) number(c *column) (int64, error) {
	if len(c.b) == 0 {
		return 0, wire.ErrTruncated
	}
	n := int(c.b[0])
	c.b = c.b[1:]
	switch {
	case n == 0:
		return 0, nil
	case n > 64:
		return 0, fmt.Errorf("a number of %d bits", n)
	}
	low, err := r.noise.get(n - 1)
	return wire.Unzigzag(1<<(n-1) | low), err
}

func (r *firstNumbers) end() error {
	return firstError(r.times.end("times"), r.monos.end("monos"), r.values.end("values"), r.noise.end())
}

// firstChannelRefs reads which row is of which channel.
func (d *decoder) firstChannelRefs() (err error) {
	steps, last := column{d.cols[colChannelSteps]}, int64(0)
	d.channels = sized(d.channels, d.n)
	for i := range d.channels {
		if last, err = steps.ref(last, len(d.dict.channels)); err != nil {
			return fmt.Errorf("row %d: %w", i, err)
		}
		d.channels[i] = uint32(last)
	}
	return steps.end("channel steps")
}
