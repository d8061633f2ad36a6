package dlmstest

import (
	"encoding/binary"
	"time"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

// Object is a COSEM object of a Meter.
type Object struct {
	Class uint16
	Code  obis.Code
	// Read gives an attribute; it is false for one that the object does not
	// have. rows is the selection that the client sent, nil for none. It may be
	// called by several sessions at once.
	Read func(id int8, rows *Selection) (v axdr.Value, ok bool)
}

// Selection is a range of rows of a profile by time, both ends included.
type Selection struct {
	From, To time.Time
}

// Attributes gives an object of a class with the attributes in values.
func Attributes(class uint16, code obis.Code, values map[int8]func() axdr.Value) Object {
	return Object{Class: class, Code: code, Read: func(id int8, rows *Selection) (axdr.Value, bool) {
		read, ok := values[id]
		if !ok || rows != nil {
			return axdr.Value{}, false
		}
		return read(), true
	}}
}

// Fixed gives v again and again.
func Fixed(v axdr.Value) func() axdr.Value { return func() axdr.Value { return v } }

// Data gives an object of class 1.
func Data(code obis.Code, value func() axdr.Value) Object {
	return Attributes(1, code, map[int8]func() axdr.Value{2: value})
}

// Register gives an object of class 3.
func Register(code obis.Code, scaler int8, unit uint8, value func() axdr.Value) Object {
	return Attributes(3, code, map[int8]func() axdr.Value{2: value, 3: scalerUnit(scaler, unit)})
}

// ExtendedRegister gives an object of class 4, with the time of capture.
func ExtendedRegister(code obis.Code, scaler int8, unit uint8, value func() axdr.Value, captured func() time.Time) Object {
	return Attributes(4, code, map[int8]func() axdr.Value{
		2: value, 3: scalerUnit(scaler, unit), 4: Fixed(axdr.Unsigned(0)),
		5: func() axdr.Value { return axdr.OctetString(DateTime(captured())) },
	})
}

// Clock gives an object of class 8. Times are in the zone of what now gives.
func Clock(code obis.Code, now func() time.Time) Object {
	return Attributes(8, code, map[int8]func() axdr.Value{
		2: func() axdr.Value { return axdr.OctetString(DateTime(now())) },
		3: func() axdr.Value { return axdr.Long(int16(deviation(now()))) },
		4: Fixed(axdr.Unsigned(0)),
	})
}

func scalerUnit(scaler int8, unit uint8) func() axdr.Value {
	return Fixed(axdr.Structure(axdr.Integer(scaler), axdr.Enum(unit)))
}

// Column names an attribute that a profile captures.
type Column struct {
	Class uint16
	Code  obis.Code
	ID    int8
}

// Profile gives an object of class 7 with rows of what columns name, captured
// every period seconds. rows gives those in the selection, all for nil.
func Profile(code obis.Code, columns []Column, period uint32, rows func(*Selection) []axdr.Value) Object {
	captured := axdr.Array()
	for _, c := range columns {
		captured.Items = append(captured.Items, axdr.Structure(
			axdr.LongUnsigned(c.Class), axdr.OctetString(string(c.Code[:])), axdr.Integer(c.ID), axdr.LongUnsigned(0)))
	}
	return Object{Class: 7, Code: code, Read: func(id int8, selected *Selection) (axdr.Value, bool) {
		switch {
		case id == 2:
			return axdr.Array(rows(selected)...), true
		case selected != nil:
		case id == 3:
			return captured, true
		case id == 4:
			return axdr.DoubleLongUnsigned(period), true
		}
		return axdr.Value{}, false
	}}
}

// parseSelection decodes access selector 1 with a range_descriptor over all
// columns (IEC 62056-6-2, 4.3.6).
func parseSelection(b []byte) (*Selection, bool) {
	if len(b) == 0 || b[0] != 1 {
		return nil, false
	}
	v, n, err := axdr.Parse(b[1:])
	if err != nil || n != len(b)-1 || v.Tag != axdr.TagStructure || len(v.Items) != 4 || len(v.Items[3].Items) != 0 {
		return nil, false
	}
	from, ok1 := parseTime(v.Items[1].Str)
	to, ok2 := parseTime(v.Items[2].Str)
	return &Selection{From: from, To: to}, ok1 && ok2
}

// parseTime reads a date-time; without a deviation it is UTC.
func parseTime(s string) (time.Time, bool) {
	if len(s) != 12 {
		return time.Time{}, false
	}
	b := []byte(s)
	t := time.Date(int(binary.BigEndian.Uint16(b)), time.Month(b[2]), int(b[3]), int(b[5]), int(b[6]), int(b[7]), 0, time.UTC)
	if minutes := int16(binary.BigEndian.Uint16(b[9:])); minutes != -0x8000 {
		t = t.Add(time.Duration(minutes) * time.Minute)
	}
	return t, true
}

// DateTime gives the 12 octets of a date-time: t in its zone, to the second.
func DateTime(t time.Time) string {
	b := binary.BigEndian.AppendUint16(nil, uint16(t.Year()))
	weekday := (int(t.Weekday()) + 6) % 7 // Monday is 0
	b = append(b, byte(t.Month()), byte(t.Day()), byte(weekday+1), byte(t.Hour()), byte(t.Minute()), byte(t.Second()), 0)
	b = binary.BigEndian.AppendUint16(b, uint16(deviation(t)))
	status := byte(0)
	if t.IsDST() {
		status = 0x80
	}
	return string(append(b, status))
}

// deviation is the minutes to add to t's local time to get UTC.
func deviation(t time.Time) int {
	_, offset := t.Zone()
	return -offset / 60
}
