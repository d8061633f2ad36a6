package dlms

import (
	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

// Entries selects the rows of a profile generic by their number in the buffer
// as it is sorted, from 1 (IEC 62056-6-2, 4.3.6, selective access,
// entry_descriptor), and columns by theirs.
type Entries struct {
	From, To                uint32 // both included; To 0 is the last row
	FirstColumn, LastColumn uint16 // both included; FirstColumn 0 is 1, LastColumn 0 the last
}

// selection is which rows of a profile's buffer are asked for; the zero value
// is all.
type selection struct {
	rows    *Range
	entries *Entries
}

// append appends the access selection: 00 for none, or 01, the selector and
// its parameter.
func (s selection) append(b []byte) []byte {
	switch {
	case s.rows != nil:
		return s.rows.append(append(b, 1))
	case s.entries != nil:
		return s.entries.append(append(b, 1))
	}
	return append(b, 0)
}

// appendParameter appends the selector and its parameter, or nothing.
func (s selection) appendParameter(b []byte) []byte {
	switch {
	case s.rows != nil:
		return s.rows.append(b)
	case s.entries != nil:
		return s.entries.append(b)
	}
	return b
}

// append appends the access selector 2 and its entry_descriptor:
//
//	02  02 04  06 from  06 to  12 first column  12 last column
func (e *Entries) append(b []byte) []byte {
	first := max(e.FirstColumn, 1)
	return append(b, 2, byte(axdr.TagStructure), 4,
		byte(axdr.TagDoubleLongUnsigned), byte(e.From>>24), byte(e.From>>16), byte(e.From>>8), byte(e.From),
		byte(axdr.TagDoubleLongUnsigned), byte(e.To>>24), byte(e.To>>16), byte(e.To>>8), byte(e.To),
		byte(axdr.TagLongUnsigned), byte(first>>8), byte(first),
		byte(axdr.TagLongUnsigned), byte(e.LastColumn>>8), byte(e.LastColumn))
}

// clockTime is the attribute that rows of a profile are selected by.
func clockTime() Attribute {
	return Attribute{Class: 8, Code: obis.Code{0, 0, 1, 0, 0, 255}, ID: 2}
}

func (a Attribute) append(b []byte) []byte {
	b = append(b, byte(a.Class>>8), byte(a.Class))
	b = append(b, a.Code[:]...)
	return append(b, byte(a.ID))
}

// append appends the access selector 1 and its range_descriptor:
//
//	01  02 04                                                 structure of 4
//	      02 04  12 class  09 06 code  0F attribute  12 0000  the column that is compared
//	      09 0C from  09 0C to
//	      01 00                                               all columns
func (r *Range) append(b []byte) []byte {
	clock := r.Clock
	if clock == (Attribute{}) {
		clock = clockTime()
	}
	b = append(b, 1, byte(axdr.TagStructure), 4,
		byte(axdr.TagStructure), 4, byte(axdr.TagLongUnsigned), byte(clock.Class>>8), byte(clock.Class),
		byte(axdr.TagOctetString), byte(len(clock.Code)))
	b = append(b, clock.Code[:]...)
	b = append(b, byte(axdr.TagInteger), byte(clock.ID), byte(axdr.TagLongUnsigned), 0, 0)
	b = r.From.append(append(b, byte(axdr.TagOctetString), DateTimeLen))
	b = r.To.append(append(b, byte(axdr.TagOctetString), DateTimeLen))
	return append(b, byte(axdr.TagArray), 0)
}
