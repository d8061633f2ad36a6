package column

import (
	"errors"
	"fmt"

	"gridgate/internal/wire"
)

// column is a packed column that is read from the front.
type column struct{ b []byte }

func (c *column) unsigned() (v uint64, err error) {
	v, c.b, err = wire.ReadVarint(c.b)
	return v, err
}

func (c *column) signed() (int64, error) {
	v, err := c.unsigned()
	return wire.Unzigzag(v), err
}

func (c *column) below(limit uint64) (uint64, error) {
	v, err := c.unsigned()
	if err == nil && v >= limit {
		err = fmt.Errorf("%d, want less than %d", v, limit)
	}
	return v, err
}

func (c *column) belowOrAbsent(limit uint64) (uint64, error) {
	if c.b == nil {
		return 0, nil
	}
	return c.below(limit)
}

// count reads the length of a run where left rows are left.
func (c *column) count(left int) (int, error) {
	v, err := c.unsigned()
	if err == nil && (v == 0 || v > uint64(left)) {
		err = fmt.Errorf("a run of %d where %d are left", v, left)
	}
	return int(v), err
}

// ref reads a step from last to a number below limit.
func (c *column) ref(last int64, limit int) (int64, error) {
	step, err := c.signed()
	n := last + step
	if err == nil && (n < 0 || n >= int64(limit)) {
		err = fmt.Errorf("number %d of %d", n, limit)
	}
	return n, err
}

func (c *column) end(name string) error {
	if len(c.b) > 0 {
		return fmt.Errorf("%s: %d bytes too many", name, len(c.b))
	}
	return nil
}

// runs is a column of runs.
type runs struct {
	column
	absent bool
	left   uint64
	value  uint64
}

func (d *decoder) runs(num int) runs {
	return runs{column: column{d.cols[num]}, absent: d.cols[num] == nil}
}

// next gives the next value, which may be at most limit.
func (r *runs) next(limit uint64) (uint64, error) {
	if r.absent {
		return 0, nil
	}
	if r.left == 0 {
		count, err1 := r.unsigned()
		value, err2 := r.unsigned()
		if err := firstError(err1, err2); err != nil {
			return 0, err
		}
		if count == 0 {
			return 0, errors.New("a run of nothing")
		}
		r.left, r.value = count, value
	}
	if r.value > limit {
		return 0, fmt.Errorf("%d is over %d", r.value, limit)
	}
	r.left--
	return r.value, nil
}

func (r *runs) end(name string) error {
	if r.left > 0 {
		return fmt.Errorf("%s: a run is %d too long", name, r.left)
	}
	return r.column.end(name)
}
