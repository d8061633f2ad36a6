package column

import (
	"bytes"
	"compress/flate"
	"fmt"
	"hash/crc32"
	"slices"

	"gridgate/internal/meter"
	"gridgate/internal/wire"
)

// encoder is the memory of one AppendRows.
type encoder struct {
	meters, channels []uint32 // numbers by row
	order            []uint64 // rows in column order, see orderKey
	starts           []int    // where each channel starts in order
	after            followers
	stamps           []int  // the rows at which a new stamp begins
	out              []byte // the columns message
	col, alt         []byte // columns being made
	counts           []byte // the column that comes last
	check            []byte
	numbers          []int64  // in column order
	left, spare      []int64  // numbers of one group: what is written of them; as decimals
	mine, theirs     []int64  // samples of two groups
	sorted           []uint64 // numbers with their sign inverted, which sort as the keys do
	groups           []group
	pasts            []past // by place in a group
	codings          codings
	model            model
	writer           numberWriter
	packed           bytes.Buffer
	deflater         *flate.Writer
}

// orderKey sorts rows into column order: channel, meter, and in the low 16
// bits the row.
func orderKey(channel, meter uint32, row int) uint64 {
	return uint64(channel)<<32 | uint64(meter)<<16 | uint64(row)
}

func meterAt(key uint64) uint32   { return uint32(key>>16) & 0xFFFF }
func channelAt(key uint64) uint32 { return uint32(key >> 32) }
func rowAt(key uint64) int        { return int(key & 0xFFFF) }

// number finds the numbers of the rows' meters and channels.
func (e *encoder) number(rows []meter.Row, d *Dict, grow bool) error {
	e.meters, e.channels = e.meters[:0], e.channels[:0]
	e.after.reset()
	var m, c uint32
	for i := range rows {
		r := &rows[i]
		if !r.Lane.Valid() {
			return fmt.Errorf("row %d: meter %q: no such lane: %d", i, r.Meter, r.Lane)
		}
		// Names are alike from row to row: a look at the one that is likely
		// spares a search.
		if last := m; i == 0 || d.meters[last] != meterOf(r) {
			var err error
			if m, err = d.meter(meterOf(r), grow); err != nil {
				return fmt.Errorf("row %d: %w", i, err)
			}
		}
		last := c
		if next, ok := e.after.next(last); ok && d.channels[next] == channelOf(r) {
			c = next
		} else {
			var err error
			if c, err = d.channel(channelOf(r), grow); err != nil {
				return fmt.Errorf("row %d: meter %q: %w", i, r.Meter, err)
			}
		}
		if i > 0 {
			e.after.was(last, c)
		}
		e.meters, e.channels = append(e.meters, m), append(e.channels, c)
	}
	e.order, e.starts = columnOrder(e.order, e.starts, e.channels, e.meters, len(d.channels))
	return nil
}

// columnOrder makes the column order in the memory of order and starts. Rows
// come meter by meter mostly, so that they need only be dealt out by channel.
func columnOrder(order []uint64, starts []int, channels, meters []uint32, all int) ([]uint64, []int) {
	starts = sized(starts, all+1)
	clear(starts)
	for _, c := range channels {
		starts[c+1]++
	}
	for c := range all {
		starts[c+1] += starts[c]
	}
	order = sized(order, len(channels))
	for i, c := range channels {
		order[starts[c]] = orderKey(c, meters[i], i)
		starts[c]++
	}
	if !slices.IsSorted(order) {
		slices.Sort(order)
	}
	return order, starts
}

func (e *encoder) row(at int) int { return rowAt(e.order[at]) }

// columns makes the columns message in e.out, with or without the lanes.
func (e *encoder) columns(rows []meter.Row, d *Dict, lanes bool, s *State) {
	n := len(rows)
	e.writer.reset()
	e.out = wire.AppendUint(e.out[:0], colRows, uint64(n))
	e.refs(n)
	e.stampColumns(rows)
	e.values(rows, d, s)
	e.data(rows)
	e.rest(rows, lanes)
	e.out = e.codings.appendBesides(e.out)
	e.out = wire.AppendBytes(e.out, colChannelCounts, e.counts)
}

// rest makes the columns of runs over rows. Rows are alike mostly, and to see
// that takes no column order.
func (e *encoder) rest(rows []meter.Row, lanes bool) {
	var quality, lane, period, occurrence, status, has bool // whether rows differ
	for i := range rows {
		r, first := &rows[i], &rows[0]
		quality = quality || r.Quality != first.Quality
		lane = lane || r.Lane != first.Lane
		period = period || r.Period != first.Period
		occurrence = occurrence || r.Occurrence != first.Occurrence
		status = status || r.Status != first.Status
		has = has || r.HasStatus != first.HasStatus
	}
	e.rowRuns(colQualities, rows, quality, func(r *meter.Row) uint64 { return uint64(r.Quality) })
	if lanes {
		e.rowRuns(colLanes, rows, lane, func(r *meter.Row) uint64 { return uint64(r.Lane) })
	}
	e.rowRuns(colPeriods, rows, period, func(r *meter.Row) uint64 { return uint64(r.Period) })
	e.rowRuns(colOccurrences, rows, occurrence, func(r *meter.Row) uint64 { return uint64(r.Occurrence) })
	e.rowRuns(colStatuses, rows, status, func(r *meter.Row) uint64 { return r.Status })
	e.rowRuns(colHasStatuses, rows, has, func(r *meter.Row) uint64 {
		if r.HasStatus {
			return 1
		}
		return 0
	})
}

func (e *encoder) rowRuns(num int, rows []meter.Row, differ bool, at func(*meter.Row) uint64) {
	if differ {
		e.runs(num, len(rows), func(i int) uint64 { return at(&rows[e.row(i)]) })
		return
	}
	if len(rows) > 0 && at(&rows[0]) != 0 {
		e.col = wire.AppendVarint(e.col[:0], uint64(len(rows)))
		e.col = wire.AppendVarint(e.col, at(&rows[0]))
		e.out = wire.AppendBytes(e.out, num, e.col)
	}
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
	e.channelColumns()
}

// channelColumns makes the columns of the rows' channels: how many rows are as
// foretold, and the step to the next that is not. The counts come later.
func (e *encoder) channelColumns() {
	e.counts, e.alt = e.counts[:0], e.alt[:0]
	e.after.reset()
	last, foretold := uint32(0), uint64(0)
	for i, c := range e.channels {
		if next, ok := e.after.next(last); i > 0 && ok && next == c {
			foretold++
		} else {
			e.counts, foretold = wire.AppendVarint(e.counts, foretold), 0
			e.alt = wire.AppendVarint(e.alt, wire.Zigzag(int64(c)-int64(last)))
		}
		if i > 0 {
			e.after.was(last, c)
		}
		last = c
	}
	if foretold > 0 {
		e.counts = wire.AppendVarint(e.counts, foretold)
	}
	e.out = wire.AppendBytes(e.out, colChannelSteps, e.alt)
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
	e.times(rows, func(s *meter.Stamp, time, _ int64) int64 { return s.Time - time })
	e.times(rows, func(s *meter.Stamp, _, mono int64) int64 { return s.Mono - mono })
	n, of := len(e.stamps), func(i int) *meter.Stamp { return &rows[e.stamps[i]].Stamp }
	e.runs(colBoots, n, func(i int) uint64 { return uint64(of(i).Boot) })
	e.runs(colBounds, n, func(i int) uint64 { return uint64(of(i).Bound) })
	e.runs(colSources, n, func(i int) uint64 { return uint64(of(i).Source) })
}

// times writes a number for each stamp, as it differs from what is foretold.
func (e *encoder) times(rows []meter.Row, differ func(s *meter.Stamp, time, mono int64) int64) {
	e.model = even
	var g guess
	for _, i := range e.stamps {
		s := &rows[i].Stamp
		time := g.time(e.meters[i])
		mono := g.mono(s.Time, s.Source)
		e.writer.number(&e.model, differ(s, time, mono))
		g.was(s.Time, s.Mono)
	}
}

// values writes the numbers of the values, and the columns of how.
func (e *encoder) values(rows []meter.Row, d *Dict, s *State) {
	e.codings.reset()
	e.groups, e.check = e.groups[:0], e.check[:0]
	e.numbers = sized(e.numbers, len(rows))
	for from := 0; from < len(rows); {
		to := from + 1
		channel := channelAt(e.order[from])
		for to < len(rows) && channelAt(e.order[to]) == channel {
			to++
		}
		e.groups = append(e.groups, group{channel: channel, kind: d.channels[channel].Kind, from: from, to: to})
		g := &e.groups[len(e.groups)-1]
		e.group(rows, g, s)
		e.codings.add(&g.coding)
		e.model = even
		f := series{order: g.order, base: g.base}
		for i, n := range e.left {
			if m := meterAt(e.order[from+i]); i == 0 || m != meterAt(e.order[from+i-1]) {
				f.begin(g.seed(e.pasts[i], s, e.other(g), m))
			}
			e.writer.number(&e.model, n-f.next())
			f.was(n)
		}
		from = to
	}
	e.out = e.codings.append(e.out)
	if s == nil {
		return
	}
	s.Check, s.Keys = crc32.ChecksumIEEE(e.check), s.Keys[:0]
	for i := range rows {
		s.Keys = append(s.Keys, Key(e.channels[i]<<16|e.meters[i]))
	}
}

// data makes the columns of what is text or octets.
func (e *encoder) data(rows []meter.Row) {
	any := false
	for i := range rows {
		any = any || rows[i].Value.Data != ""
	}
	if !any {
		return
	}
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
