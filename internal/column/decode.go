package column

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"gridgate/internal/meter"
	"gridgate/internal/wire"
)

// decoder is the columns message taken apart.
type decoder struct {
	dict     *Dict
	n        int
	cols     [colEnd][]byte
	noise    bitReader // the bits of all numbers
	rows     []meter.Row
	meters   []uint32 // numbers by row
	channels []uint32
	order    []uint64 // rows in column order, see orderKey
}

func parseColumns(b, noise []byte, d *Dict) ([]meter.Row, error) {
	dec := &decoder{dict: d, noise: bitReader{b: noise}}
	var rows uint64
	for rest := b; len(rest) > 0; {
		var f wire.Field
		var err error
		if f, rest, err = wire.Next(rest); err != nil {
			return nil, err
		}
		switch {
		case f.Num == colRows:
			rows, err = f.Uint(MaxRows)
		case f.Num < colEnd:
			if err = f.Want(wire.Bytes); err == nil && dec.cols[f.Num] != nil {
				err = fmt.Errorf("column %d is given twice", f.Num)
			}
			dec.cols[f.Num] = f.Data
		}
		if err != nil {
			return nil, err
		}
	}
	// Each row has a byte in two columns at least: a count that the columns do
	// not bear out is refused before it costs memory.
	if n := len(dec.cols[colValues]); rows > uint64(n) {
		return nil, fmt.Errorf("%d rows, but %d bytes of values", rows, n)
	}
	dec.n = int(rows)
	dec.rows = make([]meter.Row, dec.n)
	for _, step := range []func() error{dec.refs, dec.stamps, dec.groups, dec.data, dec.rest} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return dec.rows, dec.noise.end()
}

// refs reads which row is whose.
func (d *decoder) refs() error {
	counts, steps, last := column{d.cols[colMeterCounts]}, column{d.cols[colMeterSteps]}, int64(0)
	d.meters = make([]uint32, 0, d.n)
	for len(d.meters) < d.n {
		count, err := counts.count(d.n - len(d.meters))
		if err == nil {
			last, err = steps.ref(last, len(d.dict.meters))
		}
		if err != nil {
			return fmt.Errorf("meters: %w", err)
		}
		for range count {
			d.meters = append(d.meters, uint32(last))
		}
	}
	d.channels, d.order, last = make([]uint32, d.n), make([]uint64, d.n), 0
	channelSteps := column{d.cols[colChannelSteps]}
	for i := range d.n {
		var err error
		if last, err = channelSteps.ref(last, len(d.dict.channels)); err != nil {
			return fmt.Errorf("channels: row %d: %w", i, err)
		}
		d.channels[i] = uint32(last)
		d.order[i] = orderKey(d.channels[i], d.meters[i], i)
		m, c := &d.dict.meters[d.meters[i]], &d.dict.channels[last]
		r := &d.rows[i]
		r.Meter, r.Serial, r.Channel, r.Unit = m.ID, m.Serial, c.Name, c.Unit
		r.Value.Kind, r.Value.Scale = c.Kind, c.Scale
	}
	slices.Sort(d.order)
	return errors.Join(counts.end("meter counts"), steps.end("meter steps"), channelSteps.end("channel steps"))
}

// stamps reads when the rows were taken.
func (d *decoder) stamps() error {
	counts, starts := column{d.cols[colStampCounts]}, make([]int, 0, d.n)
	for i := 0; i < d.n; {
		count, err := counts.count(d.n - i)
		if err != nil {
			return fmt.Errorf("stamps: row %d: %w", i, err)
		}
		starts = append(starts, i)
		i += count
	}
	times, monos := column{d.cols[colTimes]}, column{d.cols[colMonos]}
	timeDiffs := make([]int64, len(starts))
	for i := range timeDiffs {
		var err error
		if timeDiffs[i], err = d.noise.number(&times); err != nil {
			return fmt.Errorf("times: row %d: %w", starts[i], err)
		}
	}
	boots, bounds, sources := d.runs(colBoots), d.runs(colBounds), d.runs(colSources)
	var g guess
	for k, i := range starts {
		mono, err1 := d.noise.number(&monos)
		boot, err2 := boots.next(math.MaxUint32)
		bound, err3 := bounds.next(math.MaxUint32)
		source, err4 := sources.next(math.MaxUint8)
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			return fmt.Errorf("stamps: row %d: %w", i, err)
		}
		s := meter.Stamp{Boot: uint32(boot), Bound: uint32(bound), Source: meter.Source(source)}
		s.Time = g.time(d.meters[i]) + timeDiffs[k]
		s.Mono = g.mono(s.Time, s.Source) + mono
		g.was(s.Time, s.Mono)
		end := d.n
		if k+1 < len(starts) {
			end = starts[k+1]
		}
		for ; i < end; i++ {
			d.rows[i].Stamp = s
		}
	}
	return errors.Join(counts.end("stamp counts"), times.end("times"), monos.end("monos"),
		boots.end("boots"), bounds.end("bounds"), sources.end("sources"))
}

// groups reads the values.
func (d *decoder) groups() error {
	values := column{d.cols[colValues]}
	codings := codingColumns{column{d.cols[colOrders]}, column{d.cols[colDecimals]}, column{d.cols[colBases]}}
	var s series
	for at, key := range d.order {
		i := int(key & 0xFFFF)
		if at == 0 || d.channels[i] != d.channels[d.order[at-1]&0xFFFF] {
			var err error
			if s.coding, err = codings.next(); err != nil {
				return fmt.Errorf("values: row %d: %w", i, err)
			}
			s = series{coding: s.coding}
		}
		diff, err := d.noise.number(&values)
		if err != nil {
			return fmt.Errorf("values: row %d: %w", i, err)
		}
		n := s.next(d.meters[i]) + diff
		s.was(n)
		v := &d.rows[i].Value
		v.Bits = uint64(n)
		if s.decimals > 0 {
			v.Bits = decimalBits(v.Kind, n, s.decimals)
		}
	}
	return errors.Join(values.end("values"), codings.orders.end("orders"),
		codings.decimals.end("decimals"), codings.bases.end("bases"))
}

// codingColumns reads how groups are written. A column that is absent is all
// zeros.
type codingColumns struct{ orders, decimals, bases column }

func (c *codingColumns) next() (coding, error) {
	var g coding
	if c.orders.b != nil {
		v, err := c.orders.below(orders)
		if err != nil {
			return g, fmt.Errorf("order: %w", err)
		}
		g.order = int(v)
	}
	if c.decimals.b != nil {
		v, err := c.decimals.below(maxDecimals + 2)
		if err != nil {
			return g, fmt.Errorf("decimals: %w", err)
		}
		g.decimals = int(v)
	}
	if c.bases.b != nil {
		v, err := c.bases.signed()
		if err != nil {
			return g, fmt.Errorf("base: %w", err)
		}
		g.base = v
	}
	return g, nil
}

// data reads what is text or octets.
func (d *decoder) data() error {
	lengths, all := d.runs(colDataLengths), string(d.cols[colData])
	for _, key := range d.order {
		n, err := lengths.next(uint64(len(all)))
		if err != nil {
			return fmt.Errorf("data: %w", err)
		}
		d.rows[key&0xFFFF].Value.Data, all = all[:n], all[n:]
	}
	if len(all) > 0 {
		return fmt.Errorf("data: %d bytes too many", len(all))
	}
	return lengths.end("data lengths")
}

// rest reads the columns of runs over rows.
func (d *decoder) rest() error {
	qualities, lanes, periods := d.runs(colQualities), d.runs(colLanes), d.runs(colPeriods)
	occurrences, statuses, has := d.runs(colOccurrences), d.runs(colStatuses), d.runs(colHasStatuses)
	for _, key := range d.order {
		r := &d.rows[key&0xFFFF]
		quality, err1 := qualities.next(math.MaxUint32)
		lane, err2 := lanes.next(uint64(meter.Instant))
		period, err3 := periods.next(math.MaxUint32)
		occurrence, err4 := occurrences.next(math.MaxUint8)
		status, err5 := statuses.next(math.MaxUint64)
		hasStatus, err6 := has.next(1)
		if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
			return fmt.Errorf("row %d: %w", key&0xFFFF, err)
		}
		r.Quality, r.Lane, r.Period = meter.Quality(quality), meter.Lane(lane), uint32(period)
		r.Occurrence, r.Status, r.HasStatus = uint8(occurrence), status, hasStatus == 1
	}
	return errors.Join(qualities.end("qualities"), lanes.end("lanes"), periods.end("periods"),
		occurrences.end("occurrences"), statuses.end("statuses"), has.end("has statuses"))
}

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
		if err := errors.Join(err1, err2); err != nil {
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
