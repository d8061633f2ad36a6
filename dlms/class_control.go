package dlms

import (
	"context"
	"fmt"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

// DisconnectControl is what a breaker or valve holds (IEC 62056-6-2, 4.5.8).
type DisconnectControl struct {
	Connected bool  // output_state: energy flows
	State     uint8 // 0 disconnected, 1 connected, 2 ready for reconnection by hand
	// Mode says who may switch: 0 nobody; remote reconnection connects at once
	// in modes 2 and 4, and makes ready in 1, 3, 5 and 6.
	Mode uint8
}

// ReadDisconnectControl reads the state of a breaker.
func (c *Client) ReadDisconnectControl(ctx context.Context, code obis.Code) (DisconnectControl, error) {
	f, err := c.readFields(ctx, ClassDisconnectControl, code, 3)
	if err != nil {
		return DisconnectControl{}, err
	}
	return DisconnectControl{Connected: f.boolean(), State: uint8(f.number()), Mode: uint8(f.number())}, f.bad
}

// Disconnect runs remote_disconnect. An error that is no AccessError leaves
// open whether it ran: read the state.
func (c *Client) Disconnect(ctx context.Context, code obis.Code) error {
	return c.run1(ctx, Attribute{ClassDisconnectControl, code, 1}, axdr.Integer(0))
}

// Reconnect runs remote_reconnect, as Disconnect. In some modes it energises at
// once: see DisconnectControl.
func (c *Client) Reconnect(ctx context.Context, code obis.Code) error {
	return c.run1(ctx, Attribute{ClassDisconnectControl, code, 2}, axdr.Integer(0))
}

// Script is a script of a script table that is run on an event.
type Script struct {
	Table    obis.Code
	Selector uint16
}

func (f *fields) script() Script { return Script{Table: f.code(), Selector: uint16(f.number())} }

// ExecuteScript runs a script of a script table (IEC 62056-6-2, 4.5.2).
func (c *Client) ExecuteScript(ctx context.Context, s Script) error {
	return c.run1(ctx, Attribute{ClassScriptTable, s.Table, 1}, axdr.LongUnsigned(s.Selector))
}

// Limiter is what a limiter holds (IEC 62056-6-2, 4.5.9). Thresholds are of the
// type of the monitored value, and scaled as it is.
type Limiter struct {
	Monitored                 Attribute
	Active, Normal, Emergency axdr.Value
	// MinOver and MinUnder are how long the value must be over or under the
	// threshold, in seconds.
	MinOver, MinUnder uint32
	Profile           EmergencyProfile
	Groups            []uint16
	InEmergency       bool
	Over, Under       Script
}

// EmergencyProfile is when a limiter uses its emergency threshold.
type EmergencyProfile struct {
	ID       uint16
	Start    DateTime
	Duration uint32 // seconds
}

// ReadLimiter reads a limiter.
func (c *Client) ReadLimiter(ctx context.Context, code obis.Code) (Limiter, error) {
	f, err := c.readFields(ctx, ClassLimiter, code, 10)
	if err != nil {
		return Limiter{}, err
	}
	var l Limiter
	f.within(3, func(f *fields) { l.Monitored = f.valueDefinition() })
	l.Active, l.Normal, l.Emergency = f.next(), f.next(), f.next()
	l.MinOver, l.MinUnder = uint32(f.number()), uint32(f.number())
	f.within(3, func(f *fields) {
		l.Profile = EmergencyProfile{ID: uint16(f.number()), Start: f.dateTime(), Duration: uint32(f.number())}
	})
	groups := f.next()
	for _, g := range groups.Items {
		l.Groups = append(l.Groups, uint16(g.Num))
	}
	l.InEmergency = f.boolean()
	f.within(2, func(f *fields) {
		f.within(2, func(f *fields) { l.Over = f.script() })
		f.within(2, func(f *fields) { l.Under = f.script() })
	})
	return l, f.bad
}

// SetEmergencyProfile sets when a limiter uses its emergency threshold; its
// own duration ends it.
func (c *Client) SetEmergencyProfile(ctx context.Context, code obis.Code, p EmergencyProfile) error {
	return c.Set(ctx, Attribute{ClassLimiter, code, 8}, axdr.Structure(axdr.LongUnsigned(p.ID),
		axdr.OctetString(string(p.Start.append(nil))), axdr.DoubleLongUnsigned(p.Duration)))
}

// valueDefinition takes class, logical name and attribute.
func (f *fields) valueDefinition() Attribute {
	return Attribute{Class: uint16(f.number()), Code: f.code(), ID: int8(f.number())}
}

// RegisterMonitor watches a value (IEC 62056-6-2, 4.5.6): for each threshold
// what is run when the value goes over it and when it goes under.
type RegisterMonitor struct {
	Thresholds []axdr.Value
	Monitored  Attribute
	Actions    [][2]Script // up, down
}

// ReadRegisterMonitor reads a register monitor.
func (c *Client) ReadRegisterMonitor(ctx context.Context, code obis.Code) (RegisterMonitor, error) {
	f, err := c.readFields(ctx, ClassRegisterMonitor, code, 3)
	if err != nil {
		return RegisterMonitor{}, err
	}
	var m RegisterMonitor
	m.Thresholds, _ = f.next().Elements()
	f.within(3, func(f *fields) { m.Monitored = f.valueDefinition() })
	f.each(2, func(f *fields) {
		var pair [2]Script
		for i := range pair {
			f.within(2, func(f *fields) { pair[i] = f.script() })
		}
		m.Actions = append(m.Actions, pair)
	})
	return m, f.bad
}

// SingleActionSchedule runs a script at times (IEC 62056-6-2, 4.5.7).
type SingleActionSchedule struct {
	Script Script
	Type   uint8
	// Times has a time (4 octets) and a date (5 octets) each, FF for any.
	Times []struct{ Time, Date string }
}

// ReadSingleActionSchedule reads a schedule.
func (c *Client) ReadSingleActionSchedule(ctx context.Context, code obis.Code) (SingleActionSchedule, error) {
	f, err := c.readFields(ctx, ClassSingleAction, code, 3)
	if err != nil {
		return SingleActionSchedule{}, err
	}
	var s SingleActionSchedule
	f.within(2, func(f *fields) { s.Script = f.script() })
	s.Type = uint8(f.number())
	f.each(2, func(f *fields) { s.Times = append(s.Times, struct{ Time, Date string }{f.octets(), f.octets()}) })
	return s, f.bad
}

// SpecialDay is a day with another day profile (IEC 62056-6-2, 4.5.4).
type SpecialDay struct {
	Index uint16
	Date  string // 5 octets, FF for any
	Day   uint8
}

// ReadSpecialDays reads a special days table.
func (c *Client) ReadSpecialDays(ctx context.Context, code obis.Code) ([]SpecialDay, error) {
	f, err := c.readFields(ctx, ClassSpecialDays, code, 1)
	if err != nil {
		return nil, err
	}
	var days []SpecialDay
	f.each(3, func(f *fields) {
		days = append(days, SpecialDay{Index: uint16(f.number()), Date: f.octets(), Day: uint8(f.number())})
	})
	return days, f.bad
}

// ActivityCalendar is what an activity calendar holds (IEC 62056-6-2, 4.5.5):
// the names and tables of the active and of the passive calendar, and when the
// passive one becomes active. Tables are given as they come.
type ActivityCalendar struct {
	Active, Passive CalendarTables
	Activation      DateTime
}

// CalendarTables are the tables of a calendar.
type CalendarTables struct {
	Name                 string
	Seasons, Weeks, Days []axdr.Value
}

// ReadActivityCalendar reads an activity calendar.
func (c *Client) ReadActivityCalendar(ctx context.Context, code obis.Code) (ActivityCalendar, error) {
	f, err := c.readFields(ctx, ClassActivityCalendar, code, 9)
	if err != nil {
		return ActivityCalendar{}, err
	}
	tables := func() CalendarTables {
		t := CalendarTables{Name: f.octets()}
		t.Seasons, _ = f.next().Elements()
		t.Weeks, _ = f.next().Elements()
		t.Days, _ = f.next().Elements()
		return t
	}
	return ActivityCalendar{Active: tables(), Passive: tables(), Activation: f.dateTime()}, f.bad
}

// ActivateCalendar makes the passive calendar the active one.
func (c *Client) ActivateCalendar(ctx context.Context, code obis.Code) error {
	return c.run1(ctx, Attribute{ClassActivityCalendar, code, 1}, axdr.Integer(0))
}

// Image is the state of an image transfer (IEC 62056-6-2, 4.4.6).
type Image struct {
	BlockSize uint32
	// Blocks has a bit for each block, the first the highest of the first
	// octet: it has come.
	Blocks  axdr.Value
	First   uint32 // the first block that has not come
	Enabled bool
	Status  uint8 // 1 initiated, 2 to 4 verification begun, done, failed, 5 to 7 activation
}

// ReadImage reads the state of an image transfer.
func (c *Client) ReadImage(ctx context.Context, code obis.Code) (Image, error) {
	f, err := c.readFields(ctx, ClassImageTransfer, code, 5)
	if err != nil {
		return Image{}, err
	}
	return Image{
		BlockSize: uint32(f.number()), Blocks: f.next(), First: uint32(f.number()), Enabled: f.boolean(), Status: uint8(f.number()),
	}, f.bad
}

// SendImage gives an image to a meter: it begins a transfer with begin, else
// it goes on with the one that was begun, from the first block that has not
// come. It neither verifies nor activates the image.
func (c *Client) SendImage(ctx context.Context, code obis.Code, identifier string, image []byte, begin bool) error {
	method := func(id int8) Attribute { return Attribute{ClassImageTransfer, code, id} }
	if begin {
		err := c.run1(ctx, method(1), axdr.Structure(axdr.OctetString(identifier), axdr.DoubleLongUnsigned(uint32(len(image)))))
		if err != nil {
			return err
		}
	}
	state, err := c.ReadImage(ctx, code)
	if err != nil {
		return err
	}
	if !state.Enabled || state.BlockSize == 0 {
		return fmt.Errorf("image transfer is %w: it is not enabled", ErrNotGranted)
	}
	size := uint64(state.BlockSize)
	for n := uint64(state.First); n*size < uint64(len(image)); n++ {
		octets := image[n*size : min((n+1)*size, uint64(len(image)))]
		err := c.run1(ctx, method(2), axdr.Structure(axdr.DoubleLongUnsigned(uint32(n)), axdr.OctetString(string(octets))))
		if err != nil {
			return fmt.Errorf("block %d: %w", n, err)
		}
	}
	return nil
}

// VerifyImage has the meter check the image. A meter that takes its time
// answers TemporaryFailure: read the state until it says.
func (c *Client) VerifyImage(ctx context.Context, code obis.Code) error {
	return c.run1(ctx, Attribute{ClassImageTransfer, code, 3}, axdr.Integer(0))
}

// ActivateImage has the meter run the image, as VerifyImage.
func (c *Client) ActivateImage(ctx context.Context, code obis.Code) error {
	return c.run1(ctx, Attribute{ClassImageTransfer, code, 4}, axdr.Integer(0))
}
