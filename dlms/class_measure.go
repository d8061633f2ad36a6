package dlms

import (
	"context"
	"fmt"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

// Register is what a register, an extended register or a demand register holds
// (IEC 62056-6-2, 4.3.2 to 4.3.4). Fields that the class does not have, or the
// meter does not give, are zero.
type Register struct {
	Value       axdr.Value // of a demand register the current average
	Last        axdr.Value // last average of a demand register
	Scale       ScalerUnit
	Status      axdr.Value
	CaptureTime DateTime
	// Of a demand register: when the current period began, how long a period
	// is in seconds, and how many make the average.
	Start   DateTime
	Period  uint32
	Periods uint16
}

// ReadRegister reads a register: class is 3, 4 or 5.
func (c *Client) ReadRegister(ctx context.Context, class uint16, code obis.Code) (Register, error) {
	count := map[uint16]int{ClassRegister: 2, ClassExtendedRegister: 4, ClassDemandRegister: 8}[class]
	if count == 0 {
		return Register{}, ObjectClassInconsistent
	}
	f, err := c.readFields(ctx, class, code, count)
	if err != nil {
		return Register{}, err
	}
	r := Register{Value: f.next()}
	if class == ClassDemandRegister {
		r.Last = f.next()
	}
	r.Scale = f.scale()
	r.Status, r.CaptureTime = f.next(), f.dateTime()
	r.Start, r.Period, r.Periods = f.dateTime(), uint32(f.number()), uint16(f.number())
	return r, f.bad
}

// Clock is what a clock holds (IEC 62056-6-2, 4.5.1).
type Clock struct {
	Time      DateTime
	Zone      int16 // minutes to add to local time to get UTC
	Status    uint8
	Begin     DateTime // of daylight saving
	End       DateTime
	Deviation int8 // minutes of daylight saving
	Enabled   bool
	Base      uint8 // 0 not defined, 1 crystal, 2 and 3 mains of 50 and 60 Hz, 4 satellite, 5 radio
}

// ReadClock reads a clock.
func (c *Client) ReadClock(ctx context.Context, code obis.Code) (Clock, error) {
	f, err := c.readFields(ctx, ClassClock, code, 8)
	if err != nil {
		return Clock{}, err
	}
	return Clock{
		Time: f.dateTime(), Zone: int16(f.number()), Status: uint8(f.number()), Begin: f.dateTime(), End: f.dateTime(),
		Deviation: int8(f.number()), Enabled: f.boolean(), Base: uint8(f.number()),
	}, f.bad
}

// SetClock sets the time of a clock.
func (c *Client) SetClock(ctx context.Context, code obis.Code, d DateTime) error {
	return c.Set(ctx, Attribute{ClassClock, code, 2}, axdr.OctetString(string(d.append(nil))))
}

// ShiftClock moves the time of a clock by seconds, -900 to 900.
func (c *Client) ShiftClock(ctx context.Context, code obis.Code, seconds int16) error {
	return c.run1(ctx, Attribute{ClassClock, code, 6}, axdr.Long(seconds))
}

// run1 runs a method that returns nothing.
func (c *Client) run1(ctx context.Context, method Attribute, argument axdr.Value) error {
	_, err := c.Action(ctx, method, &argument)
	return err
}

// CompactData is what a compact data object holds (IEC 62056-6-2, 4.3.10).
type CompactData struct {
	Buffer   string
	Columns  []Column
	Template uint8
	// Description is the type description of the buffer.
	Description string
}

// ReadCompactData reads a compact data object.
func (c *Client) ReadCompactData(ctx context.Context, code obis.Code) (CompactData, error) {
	f, err := c.readFields(ctx, ClassCompactData, code, 4)
	if err != nil {
		return CompactData{}, err
	}
	d := CompactData{Buffer: f.octets()}
	d.Columns = f.columns()
	d.Template, d.Description = uint8(f.number()), f.octets()
	return d, f.bad
}

// Values decodes the buffer: an array of what was captured each time.
func (d CompactData) Values() (axdr.Value, error) {
	b := append([]byte{byte(axdr.TagCompactArray)}, d.Description...)
	return parseData(append(axdr.AppendLength(b, len(d.Buffer)), d.Buffer...))
}

// columns takes an array of capture objects, with what later versions of a class
// have after the four fields of the first.
func (f *fields) columns() []Column {
	v := f.next()
	items, ok := v.Elements()
	if !ok {
		f.fail(v, "an array")
		return nil
	}
	var columns []Column
	for i, item := range items {
		inner := fieldsOf(fmt.Sprintf("%s: field %d: element %d", f.what, f.at, i), item, max(4, len(item.Items)))
		columns = append(columns, inner.column())
		if f.bad == nil {
			f.bad = inner.bad
		}
	}
	return columns
}

// column takes the fields of a capture object.
func (f *fields) column() Column {
	return Column{
		Attribute: Attribute{Class: uint16(f.number()), Code: f.code(), ID: int8(f.number())},
		Index:     uint16(f.number()),
	}
}
