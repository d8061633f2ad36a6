package dlmstest

import (
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"time"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

// Object is a COSEM object of a Meter. Its functions are called by one session
// at a time.
type Object struct {
	Class   uint16
	Version uint8
	Code    obis.Code
	// Attributes are those that there are besides the first, Settable those of
	// them that a client may set, Methods the methods: as the list of objects
	// of an association shows them.
	Attributes, Settable, Methods []int8
	// Read gives an attribute; it is false for one that the object does not
	// have. rows is the selection that the client sent, nil for none.
	Read func(id int8, rows *Selection) (v axdr.Value, ok bool)
	// Write sets an attribute; nil if none can be.
	Write func(id int8, v axdr.Value) Result
	// Act runs a method; null-data is no argument, and nothing returned. nil if
	// there is none.
	Act func(id int8, argument axdr.Value) (axdr.Value, Result)
}

// Attributes gives an object of a class with the attributes in values.
func Attributes(class uint16, code obis.Code, values map[int8]func() axdr.Value) Object {
	ids := slices.Sorted(maps.Keys(values))
	return Object{Class: class, Code: code, Attributes: ids, Read: func(id int8, rows *Selection) (axdr.Value, bool) {
		read, ok := values[id]
		if !ok || rows != nil {
			return axdr.Value{}, false
		}
		return read(), true
	}}
}

// Fixed gives v again and again.
func Fixed(v axdr.Value) func() axdr.Value { return func() axdr.Value { return v } }

// Cells gives an object whose attributes are what they are set to. Those in
// settable can be set, to values of the types that they began with.
func Cells(class uint16, code obis.Code, values map[int8]axdr.Value, settable ...int8) Object {
	var mu sync.Mutex
	shapes := maps.Clone(values)
	values = maps.Clone(values)
	return Object{
		Class: class, Code: code, Attributes: slices.Sorted(maps.Keys(values)), Settable: settable,
		Read: func(id int8, rows *Selection) (axdr.Value, bool) {
			mu.Lock()
			defer mu.Unlock()
			v, ok := values[id]
			return v, ok && rows == nil
		},
		Write: func(id int8, v axdr.Value) Result {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case !slices.Contains(settable, id):
				return ReadWriteDenied
			case !sameShape(shapes[id], v):
				return TypeUnmatched
			}
			values[id] = v
			return Success
		},
	}
}

// Data gives an object of class 1.
func Data(code obis.Code, value func() axdr.Value) Object {
	return Attributes(1, code, map[int8]func() axdr.Value{2: value})
}

// Register gives an object of class 3.
func Register(code obis.Code, scaler int8, unit uint8, value func() axdr.Value) Object {
	return Attributes(classRegister, code, map[int8]func() axdr.Value{2: value, 3: scalerUnit(scaler, unit)})
}

// ExtendedRegister gives an object of class 4, with the time of capture.
func ExtendedRegister(code obis.Code, scaler int8, unit uint8, value func() axdr.Value, captured func() time.Time) Object {
	return Attributes(4, code, map[int8]func() axdr.Value{
		2: value, 3: scalerUnit(scaler, unit), 4: Fixed(axdr.Unsigned(0)),
		5: func() axdr.Value { return axdr.OctetString(DateTime(captured())) },
	})
}

func scalerUnit(scaler int8, unit uint8) func() axdr.Value {
	return Fixed(axdr.Structure(axdr.Integer(scaler), axdr.Enum(unit)))
}

// Wrong is by how much a clock is ahead of the time. The zero value is right.
// Safe for concurrent use.
type Wrong struct {
	mu sync.Mutex
	by time.Duration
}

// By gives by how much.
func (w *Wrong) By() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.by
}

// Add sets the clock ahead by d.
func (w *Wrong) Add(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.by += d
}

// Clock gives an object of class 8. Times are in the zone of what now gives,
// which must be the time as the object has it: see SettableClock.
func Clock(code obis.Code, now func() time.Time) Object {
	return Attributes(classClock, code, map[int8]func() axdr.Value{
		2: func() axdr.Value { return axdr.OctetString(DateTime(now())) },
		3: func() axdr.Value { return axdr.Long(int16(deviation(now()))) },
		4: func() axdr.Value { return axdr.Unsigned(DateTime(now())[11]) },
		5: Fixed(axdr.OctetString("\xFF\xFF\x03\xFE\x07\x02\x00\x00\x00\x80\x00\x00")),
		6: Fixed(axdr.OctetString("\xFF\xFF\x0A\xFE\x07\x03\x00\x00\x00\x80\x00\x00")),
		7: Fixed(axdr.Integer(60)),
		8: Fixed(axdr.Boolean(false)),
		9: Fixed(axdr.Enum(1)),
	})
}

// SettableClock gives a Clock whose time can be set and shifted, and when its
// daylight saving begins and ends. now is the right time; what it is set to
// goes into wrong.
func SettableClock(code obis.Code, now func() time.Time, wrong *Wrong) Object {
	c := clock{now: func() time.Time { return now().Add(wrong.By()) }, wrong: wrong}
	o := Clock(code, c.now)
	initial := map[int8]axdr.Value{}
	for id := int8(5); id <= 8; id++ {
		initial[id], _ = o.Read(id, nil)
	}
	saving, read := Cells(classClock, code, initial, 5, 6, 7, 8), o.Read
	o.Settable, o.Methods = []int8{2, 5, 6, 7, 8}, []int8{1, 2, 3, 4, 5, 6}
	o.Read = func(id int8, rows *Selection) (axdr.Value, bool) {
		if v, ok := saving.Read(id, rows); ok {
			return v, true
		}
		return read(id, rows)
	}
	o.Write = func(id int8, v axdr.Value) Result {
		if id != 2 {
			return saving.Write(id, v)
		}
		return c.set(v)
	}
	o.Act = func(id int8, argument axdr.Value) (axdr.Value, Result) { return axdr.Value{}, c.act(id, argument) }
	return o
}

// clock is what a SettableClock does.
type clock struct {
	now    func() time.Time // as it shows it
	wrong  *Wrong
	preset axdr.Value // the time of method 5, null for none
}

func (c *clock) set(v axdr.Value) Result {
	shown := c.now()
	t, ok := parseTime(v.Str, shown.Location())
	switch {
	case !ok || v.Tag != axdr.TagOctetString && v.Tag != axdr.TagDateTime:
		return TypeUnmatched
	case t.Year() < 2000 || t.Year() > 2099:
		return OtherReason
	}
	c.wrong.Add(t.Sub(shown))
	return Success
}

func (c *clock) act(id int8, argument axdr.Value) Result {
	t := c.now()
	switch id {
	case 1, 2: // to the quarter of an hour, to the measuring period
		c.wrong.Add(t.Round(15 * time.Minute).Sub(t))
	case 3: // to the minute
		c.wrong.Add(t.Round(time.Minute).Sub(t))
	case 4: // to the preset time
		if c.preset.Tag == axdr.TagNull {
			return OtherReason
		}
		return c.set(c.preset)
	case 5: // preset: the time, and from when to when it may be taken
		if argument.Tag != axdr.TagStructure || len(argument.Items) != 3 || argument.Items[0].Tag != axdr.TagOctetString {
			return TypeUnmatched
		}
		c.preset = argument.Items[0]
	case 6: // by so many seconds
		by, ok := argument.Int64()
		if !ok || by < -900 || by > 900 {
			return TypeUnmatched
		}
		c.wrong.Add(time.Duration(by) * time.Second)
	default:
		return ReadWriteDenied
	}
	return Success
}

// parseTime reads a date-time; without a deviation it is in zone. What is not
// specified of the time of day is 0.
func parseTime(s string, zone *time.Location) (time.Time, bool) {
	if len(s) != 12 {
		return time.Time{}, false
	}
	b := []byte(s)
	for i := 5; i < 8; i++ {
		if b[i] == 0xFF {
			b[i] = 0
		}
	}
	if minutes := int16(binary.BigEndian.Uint16(b[9:])); minutes != -0x8000 {
		zone = time.FixedZone("", -int(minutes)*60)
	}
	t := time.Date(int(binary.BigEndian.Uint16(b)), time.Month(b[2]), int(b[3]), int(b[5]), int(b[6]), int(b[7]), 0, zone)
	return t, b[2] >= 1 && b[2] <= 12 && b[3] >= 1 && b[3] <= 31
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
