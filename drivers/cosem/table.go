package cosem

import (
	"math"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/internal/meter"
)

// table makes rows of readings out of the rows of a profile.
type table struct {
	layout *layout
	model  model
	base   meter.Row // what is the same in all rows; its stamp is the gateway's now
	since  int64     // the newest capture time there is; rows up to it are not taken again
	until  int64     // rows after it are not taken
	ends   bool      // until is where the stretch ends that was asked for, not the future

	rows     []meter.Row
	timeless int // rows whose time is no moment
	early    int // rows after until

	seen  map[int64]uint8 // how many rows had that capture time
	wrong map[int]error   // why a column had no value in some row
}

// add takes the rows of one answer.
func (t *table) add(rows []dlms.ProfileRow) {
	newest := t.since
	for _, row := range rows {
		if row.Time.IsZero() {
			t.timeless++
			continue
		}
		at := row.Time.UnixMilli()
		if at > t.until {
			if !t.ends {
				t.early++
			}
			continue
		}
		if at <= t.since {
			continue
		}
		newest = max(newest, at)
		t.row(at, row)
	}
	t.since = newest
}

// statusOf gives a status word. Other than numbers and up to 8 octets is none.
func statusOf(v axdr.Value) (status uint64, ok bool) {
	switch v.Tag { //nolint:exhaustive // what status words come as
	case axdr.TagOctetString, axdr.TagBitString:
		for i := range len(v.Str) {
			status = status<<8 | uint64(v.Str[i])
		}
		return status, len(v.Str) <= 8
	case axdr.TagInteger, axdr.TagLong, axdr.TagDoubleLong, axdr.TagLong64:
		return v.Num, true
	}
	return v.Uint64()
}

// row makes a row of readings of every column but the clock and the status.
func (t *table) row(at int64, row dlms.ProfileRow) {
	r := t.base
	r.Stamp.Time, r.Stamp.Source, r.Stamp.Bound = at, meter.FromMeter, meter.UnknownBound
	r.Quality |= clockQuality(row.Clock)
	r.Status, r.HasStatus = statusOf(t.layout.StatusOf(row))
	if t.seen == nil {
		t.seen = map[int64]uint8{}
	}
	r.Occurrence = t.seen[at]
	if r.Occurrence < math.MaxUint8 {
		t.seen[at] = r.Occurrence + 1
	}
	quality := r.Quality
	for i := range t.layout.columns {
		c := &t.layout.columns[i]
		if i == t.layout.Clock || i == t.layout.Status || c.err != nil {
			continue
		}
		value, q, err := t.model.value(row.Values[i], t.layout.Columns[i].Attribute, c.scale)
		if err != nil {
			if value, q = (meter.Value{}), meter.IntervalMissing; t.wrong == nil {
				t.wrong = map[int]error{}
			}
			t.wrong[i] = err
		}
		r.Channel, r.Value, r.Unit, r.Quality = c.channel, value, meter.Unit(c.scale.Unit), quality|q
		t.rows = append(t.rows, r)
	}
}
