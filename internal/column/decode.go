package column

import (
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"sync"

	"gridgate/internal/meter"
	"gridgate/internal/wire"
)

// decoder is the columns message taken apart, and the memory to do it.
type decoder struct {
	dict      *Dict
	state     *State
	n         int
	cols      [colEnd][]byte
	numbers   numberReader  // of times, monos and values
	first     *firstNumbers // the same of a body of the first form, else nil
	model     model
	rows      []meter.Row
	meters    []uint32 // numbers by row
	channels  []uint32
	order     []uint64 // rows in column order, see orderKey
	starts    []int
	after     followers
	timeDiffs []int64
	values    []int64 // in column order
	groups    []group
	check     []byte
	inflater  inflater
}

var decoders = sync.Pool{New: func() any { return &decoder{} }} //nolint:gochecknoglobals // memory to reuse, no state

// forget lets go of what belongs to the caller.
func (d *decoder) forget() {
	d.dict, d.state, d.rows, d.cols, d.numbers, d.first = nil, nil, nil, [colEnd][]byte{}, numberReader{}, nil
	d.inflater.in.Reset(nil)
}

func (d *decoder) parse(dst []meter.Row, b []byte, dict *Dict, s *State) ([]meter.Row, error) {
	p, err := parsePacked(b)
	if err != nil {
		return nil, err
	}
	content, err := d.inflater.content(&p)
	if err != nil {
		return nil, err
	}
	d.dict, d.state, d.check = dict, s, d.check[:0]
	rows, err := d.columns(content)
	if err != nil {
		return nil, err
	}
	d.n = int(rows)
	switch {
	case d.first != nil:
		err = d.first.reset(&d.cols, p.noise, d.n)
	case d.cols[colTimes] != nil || d.cols[colMonos] != nil || d.cols[colValues] != nil:
		err = errors.New("a body of the first form, which is in old chunks only")
	default:
		d.numbers.reset(p.coded, p.noise)
	}
	if err != nil {
		return nil, err
	}
	before := len(dst)
	if cap(dst)-before < d.n {
		dst = append(make([]meter.Row, 0, before+d.n), dst...)
	}
	dst = dst[:before+d.n]
	d.rows = dst[before:]
	clear(d.rows)
	for _, step := range []func(*decoder) error{(*decoder).refs, (*decoder).stamps, (*decoder).allGroups, (*decoder).data, (*decoder).rest} {
		if err := step(d); err != nil {
			return nil, err
		}
	}
	if s != nil {
		s.Check = crc32.ChecksumIEEE(d.check)
	}
	if d.first != nil {
		return dst, d.first.end()
	}
	return dst, d.numbers.end()
}

// columns takes the message apart, and gives the count of rows.
func (d *decoder) columns(b []byte) (rows uint64, err error) {
	for rest := b; len(rest) > 0; {
		var f wire.Field
		if f, rest, err = wire.Next(rest); err != nil {
			return 0, err
		}
		switch {
		case f.Num == colRows:
			rows, err = f.Uint(MaxRows)
		case f.Num < colEnd:
			if err = f.Want(wire.Bytes); err == nil && d.cols[f.Num] != nil {
				err = fmt.Errorf("column %d is given twice", f.Num)
			}
			d.cols[f.Num] = f.Data
		}
		if err != nil {
			return 0, err
		}
	}
	return rows, nil
}

// refs reads which row is whose.
func (d *decoder) refs() error {
	counts, steps, last := column{d.cols[colMeterCounts]}, column{d.cols[colMeterSteps]}, int64(0)
	d.meters = sized(d.meters, d.n)[:0]
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
	if err := d.channelRefs(); err != nil {
		return fmt.Errorf("channels: %w", err)
	}
	for i := range d.rows {
		m, c := &d.dict.meters[d.meters[i]], &d.dict.channels[d.channels[i]]
		r := &d.rows[i]
		r.Meter, r.Serial, r.Channel, r.Unit = m.ID, m.Serial, c.Name, c.Unit
		r.Value.Kind, r.Value.Scale = c.Kind, c.Scale
	}
	d.order, d.starts = columnOrder(d.order, d.starts, d.channels, d.meters, len(d.dict.channels))
	if d.state != nil {
		d.state.Keys = d.state.Keys[:0]
		for i := range d.n {
			d.state.Keys = append(d.state.Keys, Key(d.channels[i]<<16|d.meters[i]))
		}
	}
	return firstError(counts.end("meter counts"), steps.end("meter steps"))
}

// channelRefs reads which row is of which channel.
func (d *decoder) channelRefs() error {
	if d.first != nil {
		return d.firstChannelRefs()
	}
	counts, steps, last := column{d.cols[colChannelCounts]}, column{d.cols[colChannelSteps]}, int64(0)
	d.channels = sized(d.channels, d.n)[:0]
	d.after.reset()
	add := func(c int64) {
		if len(d.channels) > 0 {
			d.after.was(uint32(last), uint32(c))
		}
		last, d.channels = c, append(d.channels, uint32(c))
	}
	for len(d.channels) < d.n {
		foretold, err := counts.below(uint64(d.n-len(d.channels)) + 1)
		if err != nil {
			return fmt.Errorf("row %d: %w", len(d.channels), err)
		}
		for range foretold {
			next, ok := d.after.next(uint32(last))
			if !ok {
				return fmt.Errorf("row %d: nothing came after %d before", len(d.channels), last)
			}
			add(int64(next))
		}
		if len(d.channels) < d.n {
			c, err := steps.ref(last, len(d.dict.channels))
			if err != nil {
				return fmt.Errorf("row %d: %w", len(d.channels), err)
			}
			add(c)
		}
	}
	return firstError(counts.end("channel counts"), steps.end("channel steps"))
}

// stamps reads when the rows were taken.
func (d *decoder) stamps() error {
	counts, starts := column{d.cols[colStampCounts]}, sized(d.starts, d.n)[:0]
	for i := 0; i < d.n; {
		count, err := counts.count(d.n - i)
		if err != nil {
			return fmt.Errorf("stamps: row %d: %w", i, err)
		}
		starts = append(starts, i)
		i += count
	}
	d.starts = starts
	timeDiffs := sized(d.timeDiffs, len(starts))
	d.timeDiffs, d.model = timeDiffs, even
	for i := range timeDiffs {
		var err error
		if timeDiffs[i], err = d.time(); err != nil {
			return fmt.Errorf("times: row %d: %w", starts[i], err)
		}
	}
	d.model = even
	boots, bounds, sources := d.runs(colBoots), d.runs(colBounds), d.runs(colSources)
	var g guess
	for k, i := range starts {
		mono, err1 := d.mono()
		boot, err2 := boots.next(math.MaxUint32)
		bound, err3 := bounds.next(math.MaxUint32)
		source, err4 := sources.next(math.MaxUint8)
		if err := firstError(err1, err2, err3, err4); err != nil {
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
	return firstError(counts.end("stamp counts"), boots.end("boots"), bounds.end("bounds"), sources.end("sources"))
}

func (d *decoder) time() (int64, error) {
	if d.first != nil {
		return d.first.number(&d.first.times)
	}
	return d.numbers.number(&d.model)
}

func (d *decoder) mono() (int64, error) {
	if d.first != nil {
		return d.first.number(&d.first.monos)
	}
	return d.numbers.number(&d.model)
}

// allGroups reads the values.
func (d *decoder) allGroups() error {
	codings := codingColumns{
		orders: column{d.cols[colOrders]}, decimals: column{d.cols[colDecimals]}, bases: column{d.cols[colBases]},
		besides: column{d.cols[colBesides]}, shares: column{d.cols[colShares]},
	}
	d.values, d.groups = sized(d.values, d.n), d.groups[:0]
	for from := 0; from < d.n; {
		to := from + 1
		channel := channelAt(d.order[from])
		for to < d.n && channelAt(d.order[to]) == channel {
			to++
		}
		g := group{channel: channel, kind: d.dict.channels[channel].Kind, from: from, to: to}
		var err error
		if g.coding, err = codings.next(len(d.groups)); err == nil {
			d.groups = append(d.groups, g)
			err = d.group(&d.groups[len(d.groups)-1])
		}
		if err != nil {
			return fmt.Errorf("values: row %d: %w", rowAt(d.order[from]), err)
		}
		from = to
	}
	return codings.end()
}

// group reads the values of one group, the last.
func (d *decoder) group(g *group) error {
	d.model = even
	f := series{order: g.order, base: g.base}
	var other *group
	var b beside
	if g.beside > 0 {
		other = &d.groups[len(d.groups)-1-g.beside]
		b.begin(d.order, d.values, other)
	}
	for at := g.from; at < g.to; at++ {
		m := meterAt(d.order[at])
		if at == g.from || m != meterAt(d.order[at-1]) {
			p := d.state.past(g.channel<<16 | m)
			d.check = p.appendCheck(d.check)
			f.begin(g.seed(p, d.state, other, m))
		}
		var diff int64
		var err error
		if d.first != nil {
			diff, err = d.first.number(&d.first.values)
		} else {
			diff, err = d.numbers.number(&d.model)
		}
		if err != nil {
			return err
		}
		n := f.next() + diff
		f.was(n)
		if g.beside > 0 {
			n += g.part(b.next(m))
		}
		d.values[at] = n
		v := &d.rows[rowAt(d.order[at])].Value
		v.Bits = uint64(n)
		if g.decimals > 0 {
			v.Bits = decimalBits(v.Kind, n, g.decimals)
		}
	}
	return nil
}

// codingColumns reads how groups are written. A column that is absent is all
// zeros.
type codingColumns struct{ orders, decimals, bases, besides, shares column }

// next reads the coding of a group that has so many before it.
func (c *codingColumns) next(before int) (g coding, err error) {
	order, err1 := c.orders.belowOrAbsent(orders)
	decimals, err2 := c.decimals.belowOrAbsent(maxDecimals + 2)
	beside, err3 := c.besides.belowOrAbsent(uint64(min(before, maxBeside)) + 1)
	g = coding{order: int(order), decimals: int(decimals), beside: int(beside)}
	var err4, err5 error
	if c.bases.b != nil {
		g.base, err4 = c.bases.signed()
	}
	if c.shares.b != nil {
		g.share, err5 = c.shares.signed()
	}
	return g, firstError(err1, err2, err3, err4, err5)
}

func (c *codingColumns) end() error {
	return firstError(c.orders.end("orders"), c.decimals.end("decimals"), c.bases.end("bases"),
		c.besides.end("besides"), c.shares.end("shares"))
}

// firstError gives the first that is none of nil; errors.Join allocates.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// data reads what is text or octets.
func (d *decoder) data() error {
	if d.absent(colDataLengths, colData) {
		return nil
	}
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
	if d.absent(colQualities, colLanes, colPeriods, colOccurrences, colStatuses, colHasStatuses) {
		return nil
	}
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
		if err := firstError(err1, err2, err3, err4, err5, err6); err != nil {
			return fmt.Errorf("row %d: %w", key&0xFFFF, err)
		}
		r.Quality, r.Lane, r.Period = meter.Quality(quality), meter.Lane(lane), uint32(period)
		r.Occurrence, r.Status, r.HasStatus = uint8(occurrence), status, hasStatus == 1
	}
	return firstError(qualities.end("qualities"), lanes.end("lanes"), periods.end("periods"),
		occurrences.end("occurrences"), statuses.end("statuses"), has.end("has statuses"))
}

// sized gives memory for n, that of s if it is enough.
func sized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// absent says whether all of these columns are.
func (d *decoder) absent(columns ...int) bool {
	for _, num := range columns {
		if d.cols[num] != nil {
			return false
		}
	}
	return true
}
