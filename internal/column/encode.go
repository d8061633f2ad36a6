package column

import (
	"bytes"
	"compress/flate"
	"fmt"
	"slices"

	"gridgate/internal/meter"
	"gridgate/internal/wire"
)

// encoder is the memory of one AppendRows.
type encoder struct {
	meters, channels []uint32 // numbers by row
	order            []uint64 // rows in column order, see orderKey
	stamps           []int    // the rows at which a new stamp begins
	out              []byte   // the columns message
	col, alt         []byte   // columns being made
	bits, best       []int64  // numbers of one group
	sorted           []int64
	codings          codings
	noise            bitWriter // the bits of all numbers
	packed           bytes.Buffer
	writer           *flate.Writer
}

// orderKey sorts rows into column order and keeps the row in its low 16 bits.
func orderKey(channel, meter uint32, row int) uint64 {
	return uint64(channel)<<32 | uint64(meter)<<16 | uint64(row)
}

// number finds the numbers of the rows' meters and channels.
func (e *encoder) number(rows []meter.Row, d *Dict, grow bool) error {
	e.meters, e.channels, e.order = e.meters[:0], e.channels[:0], e.order[:0]
	for i := range rows {
		r := &rows[i]
		if !r.Lane.Valid() {
			return fmt.Errorf("row %d: meter %q: no such lane: %d", i, r.Meter, r.Lane)
		}
		m, err := d.meter(meterOf(r), grow)
		if err != nil {
			return fmt.Errorf("row %d: %w", i, err)
		}
		c, err := d.channel(channelOf(r), grow)
		if err != nil {
			return fmt.Errorf("row %d: meter %q: %w", i, r.Meter, err)
		}
		e.meters, e.channels = append(e.meters, m), append(e.channels, c)
		e.order = append(e.order, orderKey(c, m, i))
	}
	slices.Sort(e.order)
	return nil
}

func (e *encoder) row(at int) int { return int(e.order[at] & 0xFFFF) }

// columns makes the columns message in e.out, with or without the lanes.
func (e *encoder) columns(rows []meter.Row, d *Dict, lanes bool) {
	n := len(rows)
	e.noise.reset()
	e.out = wire.AppendUint(e.out[:0], colRows, uint64(n))
	e.refs(n)
	e.stampColumns(rows)
	e.groups(rows, d)
	e.data(rows)
	inOrder := func(i int) *meter.Row { return &rows[e.row(i)] }
	e.runs(colQualities, n, func(i int) uint64 { return uint64(inOrder(i).Quality) })
	if lanes {
		e.runs(colLanes, n, func(i int) uint64 { return uint64(inOrder(i).Lane) })
	}
	e.runs(colPeriods, n, func(i int) uint64 { return uint64(inOrder(i).Period) })
	e.runs(colOccurrences, n, func(i int) uint64 { return uint64(inOrder(i).Occurrence) })
	e.runs(colStatuses, n, func(i int) uint64 { return inOrder(i).Status })
	e.runs(colHasStatuses, n, func(i int) uint64 {
		if inOrder(i).HasStatus {
			return 1
		}
		return 0
	})
}

// refs makes the columns that say which row is whose.
func (e *encoder) refs(n int) {
	e.col, e.alt = e.col[:0], e.alt[:0]
	last := int64(0)
	for i := 0; i < n; {
		j := i + 1
		for j < n && e.meters[j] == e.meters[i] {
			j++
		}
		e.col = wire.AppendVarint(e.col, uint64(j-i))
		e.alt = wire.AppendVarint(e.alt, wire.Zigzag(int64(e.meters[i])-last))
		last, i = int64(e.meters[i]), j
	}
	e.out = wire.AppendBytes(e.out, colMeterCounts, e.col)
	e.out = wire.AppendBytes(e.out, colMeterSteps, e.alt)
	e.col, last = e.col[:0], 0
	for _, c := range e.channels {
		e.col = wire.AppendVarint(e.col, wire.Zigzag(int64(c)-last))
		last = int64(c)
	}
	e.out = wire.AppendBytes(e.out, colChannelSteps, e.col)
}

// stampColumns makes the columns of when the rows were taken.
func (e *encoder) stampColumns(rows []meter.Row) {
	e.stamps, e.col = e.stamps[:0], e.col[:0]
	for i := 0; i < len(rows); {
		j := i + 1
		for j < len(rows) && rows[j].Stamp == rows[i].Stamp {
			j++
		}
		e.stamps = append(e.stamps, i)
		e.col = wire.AppendVarint(e.col, uint64(j-i))
		i = j
	}
	e.out = wire.AppendBytes(e.out, colStampCounts, e.col)
	e.numbers(colTimes, rows, func(s *meter.Stamp, time, _ int64) int64 { return s.Time - time })
	e.numbers(colMonos, rows, func(s *meter.Stamp, _, mono int64) int64 { return s.Mono - mono })
	n, of := len(e.stamps), func(i int) *meter.Stamp { return &rows[e.stamps[i]].Stamp }
	e.runs(colBoots, n, func(i int) uint64 { return uint64(of(i).Boot) })
	e.runs(colBounds, n, func(i int) uint64 { return uint64(of(i).Bound) })
	e.runs(colSources, n, func(i int) uint64 { return uint64(of(i).Source) })
}

// numbers makes a column of a number for each stamp, as it differs from what
// is foretold.
func (e *encoder) numbers(num int, rows []meter.Row, differ func(s *meter.Stamp, time, mono int64) int64) {
	e.col = e.col[:0]
	var g guess
	for _, i := range e.stamps {
		s := &rows[i].Stamp
		time := g.time(e.meters[i])
		mono := g.mono(s.Time, s.Source)
		e.col = e.noise.number(e.col, differ(s, time, mono))
		g.was(s.Time, s.Mono)
	}
	e.out = wire.AppendBytes(e.out, num, e.col)
}

// groups makes the columns of the values.
func (e *encoder) groups(rows []meter.Row, d *Dict) {
	e.codings.reset()
	e.col = e.col[:0]
	for from := 0; from < len(rows); {
		to := from + 1
		channel := e.channels[e.row(from)]
		for to < len(rows) && e.channels[e.row(to)] == channel {
			to++
		}
		s := series{coding: e.group(rows, from, to, d.channels[channel].Kind)}
		e.codings.add(s.coding)
		for i, n := range e.best {
			e.col = e.noise.number(e.col, n-s.next(e.meters[e.row(from+i)]))
			s.was(n)
		}
		from = to
	}
	e.out = e.codings.append(e.out)
	e.out = wire.AppendBytes(e.out, colValues, e.col)
}

// data makes the columns of what is text or octets.
func (e *encoder) data(rows []meter.Row) {
	e.runs(colDataLengths, len(rows), func(i int) uint64 { return uint64(len(rows[e.row(i)].Value.Data)) })
	e.col = e.col[:0]
	for i := range rows {
		e.col = append(e.col, rows[e.row(i)].Value.Data...)
	}
	e.out = wire.AppendBytes(e.out, colData, e.col)
}

// runs makes a column of n numbers as pairs of a count and a value.
func (e *encoder) runs(num, n int, at func(int) uint64) {
	e.col = e.col[:0]
	zero := true
	for i := 0; i < n; {
		v, j := at(i), i+1
		for j < n && at(j) == v {
			j++
		}
		zero = zero && v == 0
		e.col = wire.AppendVarint(e.col, uint64(j-i))
		e.col = wire.AppendVarint(e.col, v)
		i = j
	}
	if !zero {
		e.out = wire.AppendBytes(e.out, num, e.col)
	}
}
