package cosem

import (
	"fmt"
	"math"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/internal/meter"
)

// table makes rows of readings out of the rows of a profile.
type table struct {
	layout layout
	zone   *time.Location
	base   meter.Row // what is the same in all rows; its stamp is the gateway's now
	since  int64     // the newest capture time there is; rows up to it are not taken again
	until  int64     // rows after it are not taken

	rows     []meter.Row
	timeless int // rows whose time is no moment
	early    int // rows after until

	seen map[int64]uint8 // how many rows had that capture time
	// The row before: null-data stands for what follows from it.
	clock   dlms.DateTime
	time    int64
	timed   bool
	status  uint64
	hasStat bool
}

// add takes the rows of one answer, all or, with an error, none. A row that
// does not have the columns of the layout is errLayout.
func (t *table) add(data axdr.Value) error {
	before := len(t.rows)
	newest, err := t.addRows(data)
	if err != nil {
		t.rows = t.rows[:before]
		return err
	}
	t.since = newest
	return nil
}

// addRows gives the newest capture time.
func (t *table) addRows(data axdr.Value) (newest int64, err error) {
	newest = t.since
	if data.Tag != axdr.TagArray {
		return 0, fmt.Errorf("%w: profile buffer is %v, want an array", dlms.ErrMalformed, data.Tag)
	}
	t.timed, t.hasStat = false, false
	for i, row := range data.Items {
		if row.Tag != axdr.TagStructure || len(row.Items) != len(t.layout.columns) {
			return 0, fmt.Errorf("%w: %w: row %d is %v of %d, want a structure of %d",
				dlms.ErrMalformed, errLayout, i, row.Tag, len(row.Items), len(t.layout.columns))
		}
		if err := t.stamp(row.Items[t.layout.clock]); err != nil {
			return 0, fmt.Errorf("row %d: %w", i, err)
		}
		if t.layout.status >= 0 {
			t.read(row.Items[t.layout.status])
		}
		if !t.timed {
			t.timeless++
			continue
		}
		if t.time > t.until {
			t.early++
			continue
		}
		if t.time <= t.since {
			continue
		}
		newest = max(newest, t.time)
		t.row(row.Items)
	}
	return newest, nil
}

// stamp reads the capture time of a row. Null-data is the row before and a
// capture period; with neither of them the row has no time.
func (t *table) stamp(v axdr.Value) error {
	if v.Tag == axdr.TagNull {
		t.timed = t.timed && t.layout.period > 0
		t.time += int64(t.layout.period) * 1000
		return nil
	}
	d, err := dlms.ParseDateTime(v.Str)
	if err != nil {
		return err
	}
	at, err := d.Time(t.zone)
	t.timed = err == nil
	if t.timed {
		t.clock, t.time = d, at.UnixMilli()
	}
	return nil
}

// read reads the status word of a row. Null-data is the word of the row before.
func (t *table) read(v axdr.Value) {
	switch v.Tag { //nolint:exhaustive // what status words come as
	case axdr.TagNull:
		return
	case axdr.TagOctetString, axdr.TagBitString:
		t.status, t.hasStat = 0, len(v.Str) <= 8
		for i := range len(v.Str) {
			t.status = t.status<<8 | uint64(v.Str[i])
		}
		return
	case axdr.TagInteger, axdr.TagLong, axdr.TagDoubleLong, axdr.TagLong64:
		t.status, t.hasStat = v.Num, true
		return
	}
	t.status, t.hasStat = v.Uint64()
}

// row makes a row of readings of every column but the clock and the status.
func (t *table) row(items []axdr.Value) {
	r := t.base
	r.Stamp.Time, r.Stamp.Source, r.Stamp.Bound = t.time, meter.FromMeter, meter.UnknownBound
	r.Quality |= clockQuality(t.clock)
	r.Status, r.HasStatus = t.status, t.hasStat
	if t.seen == nil {
		t.seen = map[int64]uint8{}
	}
	r.Occurrence = t.seen[t.time]
	if r.Occurrence < math.MaxUint8 {
		t.seen[t.time] = r.Occurrence + 1
	}
	quality := r.Quality
	for i, c := range t.layout.columns {
		if i == t.layout.clock || i == t.layout.status || c.err != nil {
			continue
		}
		value, q, err := toValue(items[i], c.attribute, c.scale.Scaler)
		if err != nil {
			value, q = meter.Value{}, meter.Overflow
		}
		r.Channel, r.Value, r.Unit, r.Quality = c.channel, value, meter.Unit(c.scale.Unit), quality|q
		t.rows = append(t.rows, r)
	}
}
