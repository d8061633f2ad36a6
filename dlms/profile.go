package dlms

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

// Layout is what the rows of a profile generic hold. Read it once with
// ReadLayout and keep it: reading rows needs nothing else. Sum tells whether a
// kept one is still that of the meter.
type Layout struct {
	Buffer  Attribute // attribute 2 of the profile
	Columns []LayoutColumn
	// Clock and Status are the columns with the time of the capture and with
	// the status word (0-b:96.10.e), -1 where there is none.
	Clock, Status int
	// Period is how often rows are captured; 0 is not regularly.
	Period time.Duration
	// Sort is how the buffer is sorted.
	Sort SortMethod
}

// SortMethod is how the buffer of a profile is sorted (IEC 62056-6-2, 4.3.6,
// sort_method). The others sort by a value.
type SortMethod uint8

// The sort methods.
const (
	SortUnknown      SortMethod = 0 // the meter does not say: taken for SortedOldest
	SortedOldest     SortMethod = 1 // first in, first out: the oldest row is number 1
	SortedNewest     SortMethod = 2 // last in, first out: the newest row is number 1
	SortedByLargest  SortMethod = 3
	SortedBySmallest SortMethod = 4
	SortedByNearest  SortMethod = 5 // to zero
	SortedByFarthest SortMethod = 6 // from zero
)

// inOrder says whether each row was captured after the one before it.
func (s SortMethod) inOrder() bool { return s <= SortedOldest }

// LayoutColumn is a column of a profile: what was captured, and how its numbers
// are meant.
type LayoutColumn struct {
	Column
	// Scale holds where ScaleErr is nil; that is ErrNoScaler of what has none
	// by its class, and the meter's refusal of what should have.
	Scale    ScalerUnit
	ScaleErr error
	// Unchanged says that null-data in this column stands for the value of the
	// row before. It does so for the status; for other columns it may also mean
	// that there is no value, so that only who knows the model may say so.
	Unchanged bool
}

// ErrLayout says that rows do not have the columns of the layout: the meter may
// have been set up anew. It is always ErrMalformed, too.
var ErrLayout = errors.New("rows do not fit the columns")

// ErrNoScaler says that an attribute is no scaled number.
var ErrNoScaler = errors.New("no scaler and unit by its class")

// ScalerOf gives the attribute that holds scaler and unit of a.
func ScalerOf(a Attribute) (Attribute, bool) {
	scaler := a
	switch {
	case (a.Class == 3 || a.Class == 4) && a.ID == 2:
		scaler.ID = 3
	case a.Class == 5 && (a.ID == 2 || a.ID == 3):
		scaler.ID = 4
	default:
		return Attribute{}, false
	}
	return scaler, true
}

// NewLayout gives the layout of a profile with these columns, without scalers.
func NewLayout(buffer Attribute, columns []Column, period time.Duration) *Layout {
	l := &Layout{Buffer: buffer, Clock: -1, Status: -1, Period: period}
	for i, c := range columns {
		a := c.Attribute
		switch {
		case a.Class == 8 && a.ID == 2 && l.Clock < 0:
			l.Clock = i
		case a.Class == 1 && a.ID == 2 && a.Code[0] == 0 && a.Code[2] == 96 && a.Code[3] == 10 && l.Status < 0:
			l.Status = i
		}
		l.Columns = append(l.Columns, LayoutColumn{Column: c, ScaleErr: ErrNoScaler, Unchanged: i == l.Status})
	}
	return l
}

// Sum is a hash of what is captured, in order. Two layouts of the same sum have
// the same columns.
func (l *Layout) Sum() uint64 {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
	sum := uint64(offset)
	var b []byte
	for _, c := range l.Columns {
		b = append(c.Attribute.append(b[:0]), byte(c.Index>>8), byte(c.Index))
		for _, octet := range b {
			sum = (sum ^ uint64(octet)) * prime
		}
	}
	return sum
}

// ReadLayout reads what a profile captures, how often, and the scalers and
// units of it, with as few requests as the association allows.
func (c *Client) ReadLayout(ctx context.Context, profile obis.Code) (*Layout, error) {
	l, err := c.ReadColumns(ctx, profile)
	if err != nil {
		return nil, err
	}
	return l, c.readScalers(ctx, l)
}

// ReadColumns is ReadLayout without scalers and units, for who has them.
func (c *Client) ReadColumns(ctx context.Context, profile obis.Code) (*Layout, error) {
	attribute := func(id int8) Attribute { return Attribute{Class: ClassProfileGeneric, Code: profile, ID: id} }
	items, err := c.ReadList(ctx, []Attribute{attribute(3), attribute(4), attribute(5)})
	if err != nil {
		return nil, err
	}
	if items[0].Err != nil {
		return nil, fmt.Errorf("get %v: %w", attribute(3), items[0].Err)
	}
	columns, err := ParseColumns(items[0].Value)
	if err != nil {
		return nil, err
	}
	var period time.Duration
	if seconds, ok := items[1].Value.Uint64(); ok && seconds < 1<<32 {
		period = time.Duration(seconds) * time.Second
	}
	l := NewLayout(attribute(2), columns, period)
	if method, ok := items[2].Value.Uint64(); ok && method <= uint64(SortedByFarthest) {
		l.Sort = SortMethod(method)
	}
	return l, nil
}

func (c *Client) readScalers(ctx context.Context, l *Layout) error {
	var ask []Attribute
	var of []int
	for i, column := range l.Columns {
		if a, ok := ScalerOf(column.Attribute); ok {
			ask, of = append(ask, a), append(of, i)
		}
	}
	items, err := c.ReadList(ctx, ask)
	if err != nil {
		return err
	}
	for i, item := range items {
		column := &l.Columns[of[i]]
		column.ScaleErr = item.Err
		if item.Err == nil {
			column.Scale, column.ScaleErr = ParseScalerUnit(item.Value)
		}
	}
	return nil
}

// Rows says which rows of a profile are read: those captured from Since to
// Until, both included, or, where FromEntry is not 0, those with the numbers
// FromEntry to ToEntry; ToEntry 0 is the last.
type Rows struct {
	Since, Until       time.Time
	FromEntry, ToEntry uint32
	// Zone is the time zone of a meter that gives no deviation, nil for UTC.
	Zone *time.Location
	// Local asks without deviation, as a meter wants it that gives none.
	Local bool
	// Page is about how many rows a request asks for; 0 is all.
	Page uint32
	// Now, where it is not the zero time, is after which no row is expected. Then
	// a last page that ends well before it, or before Until, is asked on after:
	// there are meters that give a part of the rows and do not say so.
	Now time.Time
	// Most is how many rows are taken from a meter that gives all or none; 0 is
	// as many as Options.MaxAnswer has room for.
	Most uint32
}

// ProfileRow is a row of a profile with what it leaves out filled in.
type ProfileRow struct {
	// Time is when the row was captured, in UTC; it is the zero time where the
	// row does not say so.
	Time time.Time
	// Clock is that as the meter gives it, with its status bits; in a row that
	// leaves it out, that of the last row that does not.
	Clock DateTime
	// Values are the columns in order, clock and status among them. Null-data
	// is missing. They are as captured: scale them by the layout.
	Values []axdr.Value
}

// StatusOf gives the status word of a row, null-data where there is none.
func (l *Layout) StatusOf(r ProfileRow) axdr.Value {
	if l.Status < 0 {
		return axdr.Value{}
	}
	return r.Values[l.Status]
}

// Profile reads rows of a profile by a layout that was read before, and fills
// in what they leave out: see Layout.Parse. What is selected by time comes with
// the oldest row first. From a meter that refuses to select by time or by
// number it takes all rows and picks: see Pages, which reads in pages.
func (c *Client) Profile(ctx context.Context, l *Layout, want Rows) ([]ProfileRow, error) {
	if want.FromEntry != 0 {
		return c.entries(ctx, l, want)
	}
	var picked []ProfileRow
	pages := c.Pages(l, want)
	for pages.More() {
		rows, err := pages.Next(ctx)
		if err != nil {
			return nil, err
		}
		if picked == nil && pages.Selector == ByTime {
			picked = rows
			continue
		}
		var newest time.Time // a page by time begins with it again
		if n := len(picked); n > 0 {
			newest = picked[n-1].Time
		}
		for _, r := range rows {
			if pages.Selector == ByTime && r.Time.After(newest) || pages.Selector != ByTime && !r.Time.Before(want.Since) && !r.Time.After(want.Until) {
				picked = append(picked, r)
			}
		}
	}
	return picked, nil
}

// entries gives the rows with the numbers that are wanted.
func (c *Client) entries(ctx context.Context, l *Layout, want Rows) ([]ProfileRow, error) {
	if c.options.Quirks.Selector != Whole {
		data, err := c.GetEntries(ctx, l.Buffer, Entries{From: want.FromEntry, To: want.ToEntry})
		if err == nil {
			return c.parseRows(l, data, want.Zone)
		}
		if !isUnserved(err) {
			return nil, err
		}
	}
	data, err := c.Get(ctx, l.Buffer)
	if err != nil {
		return nil, err
	}
	rows, err := c.parseRows(l, data, want.Zone)
	if err != nil {
		return nil, err
	}
	to := uint32(len(rows))
	if want.ToEntry != 0 {
		to = min(to, want.ToEntry)
	}
	return rows[min(want.FromEntry-1, to):to], nil
}

func (c *Client) parseRows(l *Layout, data axdr.Value, zone *time.Location) ([]ProfileRow, error) {
	rows, err := l.Parse(data, c.options.Quirks, zone)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", l.Buffer, err)
	}
	return rows, nil
}

func (c *Client) rangeOf(l *Layout, want Rows) Range {
	moment := func(t time.Time) DateTime {
		if want.Zone != nil {
			t = t.In(want.Zone)
		} else {
			t = t.UTC()
		}
		d := c.options.Quirks.DateTimeOf(t)
		d.Weekday = 0xFF
		if want.Local {
			d.Deviation = NoDeviation
		}
		return d
	}
	r := Range{From: moment(want.Since), To: moment(want.Until)}
	if l.Clock >= 0 {
		r.Clock = l.Columns[l.Clock].Attribute
	}
	return r
}

// Parse takes the rows of a buffer, an array or a compact-array of structures,
// and fills in what they leave out. Null-data is, in the column of the clock,
// the time of the row before and the period, where the oldest row comes first;
// in that of the status and in those marked Unchanged, the value of the row
// before; in others it stays. A
// delta is added to the number of the row before. What has no row before it
// that says enough is missing. zone is that of date-times without deviation,
// nil for UTC. The rows keep the items of data.
func (l *Layout) Parse(data axdr.Value, q Quirks, zone *time.Location) ([]ProfileRow, error) {
	items, ok := data.Elements()
	if !ok {
		return nil, malformed("buffer is %v, want an array", data.Tag)
	}
	if zone == nil {
		zone = time.UTC
	}
	rows := make([]ProfileRow, len(items))
	last := make([]axdr.Value, len(l.Columns)) // the values of the row before
	var before ProfileRow
	for i := range items {
		row := items[i]
		if row.Tag != axdr.TagStructure || len(row.Items) != len(l.Columns) {
			return nil, malformed("%w: row %d is %v of %d, want a structure of %d", ErrLayout, i, row.Tag, len(row.Items), len(l.Columns))
		}
		for j := range row.Items {
			if j != l.Clock {
				row.Items[j] = fill(row.Items[j], last[j], q.NullUnchanged || l.Columns[j].Unchanged)
				last[j] = row.Items[j]
			}
		}
		rows[i].Values = row.Items
		if l.Clock >= 0 {
			if err := l.stamp(&rows[i], before, q, zone); err != nil {
				return nil, fmt.Errorf("row %d: %w", i, err)
			}
		}
		before = rows[i]
	}
	return rows, nil
}

// fill gives the value of a column, from the one before where it is left out.
func fill(v, before axdr.Value, unchanged bool) axdr.Value {
	if v.Tag == axdr.TagNull && unchanged {
		return before
	}
	delta, ok := v.Delta()
	if !ok {
		return v
	}
	switch before.Tag {
	case axdr.TagInteger, axdr.TagLong, axdr.TagDoubleLong, axdr.TagLong64,
		axdr.TagUnsigned, axdr.TagLongUnsigned, axdr.TagDoubleLongUnsigned, axdr.TagLong64Unsigned:
	default:
		return axdr.Value{}
	}
	sum := axdr.Value{Tag: before.Tag, Num: before.Num + uint64(delta)}
	var room [9]byte
	if _, err := sum.AppendBinary(room[:0]); err != nil || overflows(before, delta, sum) {
		return axdr.Value{} // more than the type holds: not a number that was captured
	}
	return sum
}

// overflows says whether the sum of 64 bits went round.
func overflows(before axdr.Value, delta int64, sum axdr.Value) bool {
	switch before.Tag { //nolint:exhaustive // the others are checked by their width
	case axdr.TagLong64:
		return (int64(sum.Num) < int64(before.Num)) != (delta < 0)
	case axdr.TagLong64Unsigned:
		return (sum.Num < before.Num) != (delta < 0)
	}
	return false
}

// stamp gives a row its time.
func (l *Layout) stamp(row *ProfileRow, before ProfileRow, q Quirks, zone *time.Location) error {
	v := row.Values[l.Clock]
	if v.Tag == axdr.TagNull {
		row.Clock = before.Clock
		if !before.Time.IsZero() && l.Period > 0 && l.Sort.inOrder() {
			row.Time = before.Time.Add(l.Period)
		}
		return nil
	}
	if v.Tag != axdr.TagOctetString && v.Tag != axdr.TagDateTime {
		return malformed("the time is %v, want a date-time", v.Tag)
	}
	d, err := ParseDateTime(v.Str)
	if err != nil {
		return err
	}
	row.Clock = d
	if at, err := q.Time(d, zone); err == nil {
		row.Time = at
	}
	return nil
}
