package dlmstest

import (
	"slices"
	"sync"
	"time"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

// Selection is what of a profile a client asks for: a range of rows by time,
// both ends included, or by number if Last is not 0; and some columns or all.
type Selection struct {
	From, To time.Time
	// First and Last are the numbers of rows, from 1, and FirstColumn and
	// LastColumn of columns; LastColumn 0 is all.
	First, Last             uint32
	FirstColumn, LastColumn uint16
	// Columns are the columns by name; none is all.
	Columns []Column

	// by is the column that is not the clock, if any, and low and high the
	// values that it must be between.
	by        *Column
	low, high int64
}

// lastTime is the end of a range that has none.
func lastTime() time.Time { return time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC) }

// byNumber says whether the rows are selected by number.
func (s *Selection) byNumber() bool { return s.Last != 0 }

// Column names an attribute that a profile captures.
type Column struct {
	Class uint16
	Code  obis.Code
	ID    int8
}

func (c Column) value() axdr.Value {
	return axdr.Structure(
		axdr.LongUnsigned(c.Class), axdr.OctetString(string(c.Code[:])), axdr.Integer(c.ID), axdr.LongUnsigned(0))
}

func parseColumn(v axdr.Value) (Column, bool) {
	if len(v.Items) != 4 || len(v.Items[1].Str) != len(obis.Code{}) {
		return Column{}, false
	}
	return Column{uint16(v.Items[0].Num), obis.Code([]byte(v.Items[1].Str)), int8(v.Items[2].Num)}, true
}

// Profile gives an object of class 7 with rows of what columns name, captured
// every period seconds. rows gives those in the selection by time, all for nil:
// numbers and columns are selected here.
func Profile(code obis.Code, columns []Column, period uint32, rows func(*Selection) []axdr.Value) Object {
	captured := axdr.Array()
	for _, c := range columns {
		captured.Items = append(captured.Items, c.value())
	}
	sorted := Column{}.value()
	if len(columns) > 0 {
		sorted = columns[0].value()
	}
	return Object{Class: 7, Version: 1, Code: code, Attributes: []int8{2, 3, 4, 5, 6, 7, 8}, Read: func(id int8, selected *Selection) (axdr.Value, bool) {
		switch {
		case id == 2:
			return axdr.Array(selectRows(columns, selected, rows)...), true
		case selected != nil:
		case id == 3:
			return captured, true
		case id == 4:
			return axdr.DoubleLongUnsigned(period), true
		case id == 5:
			return axdr.Enum(1), true // first in, first out
		case id == 6:
			return sorted, true
		case id == 7, id == 8: // in use, and at most
			return axdr.DoubleLongUnsigned(uint32(len(rows(nil)))), true
		}
		return axdr.Value{}, false
	}}
}

func selectRows(columns []Column, s *Selection, rows func(*Selection) []axdr.Value) []axdr.Value {
	if s == nil {
		return rows(nil)
	}
	var found []axdr.Value
	if s.byNumber() {
		found = rows(nil)
		last := min(uint64(s.Last), uint64(len(found)))
		found = found[min(max(uint64(s.First), 1)-1, last):last]
	} else if s.by != nil {
		found = s.between(columns, rows(nil))
	} else {
		found = rows(s)
	}
	if len(s.Columns) == 0 && s.FirstColumn <= 1 && s.LastColumn == 0 {
		return found
	}
	cut := make([]axdr.Value, 0, len(found))
	for _, row := range found {
		var some []axdr.Value
		for i, item := range row.Items {
			if s.wants(columns, i) {
				some = append(some, item)
			}
		}
		cut = append(cut, axdr.Structure(some...))
	}
	return cut
}

// between gives the rows whose column by is in the range.
func (s *Selection) between(columns []Column, rows []axdr.Value) (found []axdr.Value) {
	at := slices.Index(columns, *s.by)
	for _, row := range rows {
		if at < 0 || at >= len(row.Items) {
			continue
		}
		if v, ok := number(row.Items[at]); ok && v >= s.low && v <= s.high {
			found = append(found, row)
		}
	}
	return found
}

// number gives an integer of any type.
func number(v axdr.Value) (int64, bool) {
	if n, ok := v.Int64(); ok {
		return n, true
	}
	n, ok := v.Uint64()
	return int64(n), ok && n < 1<<63
}

// wants says whether the column with that index is in the selection.
func (s *Selection) wants(columns []Column, i int) bool {
	if len(s.Columns) == 0 {
		return i+1 >= int(s.FirstColumn) && (s.LastColumn == 0 || i < int(s.LastColumn))
	}
	for _, c := range s.Columns {
		if i < len(columns) && columns[i] == c {
			return true
		}
	}
	return false
}

// parseSelection takes the parameter of an access selector of a profile (IEC
// 62056-6-2, 4.3.6): 1 a range of the clock, 2 numbers of rows.
func parseSelection(selector byte, v axdr.Value, zone *time.Location) (*Selection, bool) {
	if v.Tag != axdr.TagStructure || len(v.Items) != 4 {
		return nil, false
	}
	var s Selection
	switch selector {
	case 1:
		if !s.parseRange(v, zone) {
			return nil, false
		}
		for _, item := range v.Items[3].Items {
			c, ok := parseColumn(item)
			if !ok {
				return nil, false
			}
			s.Columns = append(s.Columns, c)
		}
	case 2:
		for i, tag := range []axdr.Tag{axdr.TagDoubleLongUnsigned, axdr.TagDoubleLongUnsigned, axdr.TagLongUnsigned, axdr.TagLongUnsigned} {
			if v.Items[i].Tag != tag {
				return nil, false
			}
		}
		s.First, s.Last = uint32(v.Items[0].Num), uint32(v.Items[1].Num)
		s.FirstColumn, s.LastColumn = uint16(v.Items[2].Num), uint16(v.Items[3].Num)
		if s.Last == 0 {
			s.Last = 1<<32 - 1 // to the end
		}
	default:
		return nil, false
	}
	return &s, true
}

// parseRange takes what a range is of, and its ends. An end of the clock whose
// date is not specified is open.
func (s *Selection) parseRange(v axdr.Value, zone *time.Location) bool {
	by, ok := parseColumn(v.Items[0])
	if !ok || v.Items[3].Tag != axdr.TagArray {
		return false
	}
	if by.Class != classClock {
		low, ok1 := number(v.Items[1])
		high, ok2 := number(v.Items[2])
		s.by, s.low, s.high = &by, low, high
		return ok1 && ok2
	}
	s.To = lastTime()
	for i, end := range []*time.Time{&s.From, &s.To} {
		at := v.Items[1+i]
		if at.Tag != axdr.TagOctetString && at.Tag != axdr.TagDateTime || len(at.Str) != 12 {
			return false
		}
		if at.Str[:2] == "\xFF\xFF" || at.Str[2] == 0xFF || at.Str[3] == 0xFF {
			continue
		}
		var ok bool
		if *end, ok = parseTime(at.Str, zone); !ok {
			return false
		}
	}
	return by.ID == 2
}

// Log is the rows of a profile that keeps what it is given: an event log, or
// billing periods. The first column is the time. Make it with NewLog; safe for
// concurrent use.
type Log struct {
	mu   sync.Mutex
	rows []axdr.Value
	most int
}

// NewLog gives a log of at most so many rows; the oldest go first.
func NewLog(most int) *Log { return &Log{most: max(most, 1)} }

// Add adds a row.
func (l *Log) Add(row axdr.Value) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows = append(l.rows, row)
	l.rows = l.rows[max(0, len(l.rows)-l.most):]
}

func (l *Log) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows = nil
}

// selected gives the rows in a range of time.
func (l *Log) selected(s *Selection) []axdr.Value {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []axdr.Value
	for _, row := range l.rows {
		if s != nil && len(row.Items) > 0 {
			t, ok := parseTime(row.Items[0].Str, time.UTC)
			if !ok || t.Before(s.From) || t.After(s.To) {
				continue
			}
		}
		found = append(found, row)
	}
	return found
}

// Object gives the profile. capture, if not nil, makes the row that the method
// capture adds.
func (l *Log) Object(code obis.Code, columns []Column, period uint32, capture func() axdr.Value) Object {
	o := Profile(code, columns, period, l.selected)
	read := o.Read
	o.Read = func(id int8, s *Selection) (axdr.Value, bool) {
		if id == 8 {
			return axdr.DoubleLongUnsigned(uint32(l.most)), s == nil
		}
		return read(id, s)
	}
	o.Methods = []int8{1, 2}
	o.Act = func(id int8, _ axdr.Value) (axdr.Value, Result) {
		switch {
		case id == 1:
			l.reset()
		case id == 2 && capture != nil:
			l.Add(capture())
		default:
			return axdr.Value{}, ReadWriteDenied
		}
		return axdr.Value{}, Success
	}
	return o
}
