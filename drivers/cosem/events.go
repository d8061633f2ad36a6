package cosem

import (
	"context"
	"errors"
	"fmt"
	"math/bits"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

// Model is what is to be known of the meters of a model. It is not changed once
// made.
type Model struct {
	Name string
	File string // where it is from, for messages
	// Quirks is what they do differently.
	Quirks dlms.Quirks
	// Info and Window are what HDLC proposes to them, where an address says
	// nothing; 0 is what is usual.
	Info, Window int
	// Release says that they serve one client at a time.
	Release bool
	Events  Events
}

// Events names what meters of a model tell by number: what stands in an event
// log, and the bits of alarm registers. The zero value, and nil, name nothing.
// It is not changed once made.
type Events struct {
	// Codes has the events by the object that holds an event's number
	// (0-b:96.11.e), which logs capture.
	Codes map[obis.Code]map[uint64]string
	// Bits has the events by the object of an alarm register or descriptor
	// (0-b:97.98.e). The lowest bit is 0.
	Bits map[obis.Code]map[uint8]string
}

// EventChannel gives the channel of the events of that name, whatever meter
// they are of: event.NAME.
func EventChannel(name string) meter.Channel { return meter.Channel("event." + name) }

// Code gives the channel of an event, by the object that holds its number.
func (e *Events) Code(object meter.Channel, number uint64) (meter.Channel, bool) {
	if code, ok := e.object(object); ok {
		name, named := e.Codes[code][number]
		return EventChannel(name), named
	}
	return "", false
}

// Bit gives the channel of what a bit of an alarm register means.
func (e *Events) Bit(object meter.Channel, bit uint8) (meter.Channel, bool) {
	if code, ok := e.object(object); ok {
		name, named := e.Bits[code][bit]
		return EventChannel(name), named
	}
	return "", false
}

func (e *Events) object(c meter.Channel) (code obis.Code, ok bool) {
	if e == nil {
		return code, false
	}
	code, class, attribute, ok := c.Attribute()
	return code, ok && class == meter.ClassData && attribute == 2
}

// beside gives rows with those of named events behind each row that tells of
// one: of the same time, with the meter's own number for a value. Of a register
// these are all bits that are set.
func (e *Events) beside(rows []meter.Row) []meter.Row {
	if e == nil || len(e.Codes)+len(e.Bits) == 0 {
		return rows
	}
	all := make([]meter.Row, 0, len(rows))
	for _, r := range rows {
		all = append(all, r)
		if r.Value.Scale != 0 || r.Value.Kind != meter.Uint && r.Value.Kind != meter.Int {
			continue
		}
		event := r
		event.Lane, event.Unit, event.Period = meter.Alarm, meter.NoUnit, 0
		if c, ok := e.Code(r.Channel, r.Value.Bits); ok {
			event.Channel, event.Value = c, meter.UintValue(r.Value.Bits, 0)
			all = append(all, event)
		}
		for left := r.Value.Bits; left != 0; left &= left - 1 {
			bit := uint8(bits.TrailingZeros64(left))
			if c, ok := e.Bit(r.Channel, bit); ok {
				event.Channel, event.Value = c, meter.UintValue(uint64(bit), 0)
				all = append(all, event)
			}
		}
	}
	return all
}

// What keeps bits from being taken out of a register.
var (
	errNotBits  = errors.New("not a register of bits")
	errExchange = errors.New("who answers is not proven to be the meter")
)

// clears takes bits that are stored out of registers. Each is read right
// before, so that a bit that came meanwhile stays. Of what answers in place of
// the meter nothing is cleared.
func (v *visit) clears(ctx context.Context, clears []meter.Clear) error {
	for _, c := range clears {
		err := errExchange
		if v.cfg.Serial == "" || v.got.Identity.Proven {
			err = v.clear(ctx, c)
		}
		switch {
		case err == nil:
		case errors.Is(err, errNotBits), errors.Is(err, errExchange), errors.Is(err, ErrNotCOSEM):
			v.got.Failures = append(v.got.Failures, meter.Failure{Channel: c.Channel, Err: fmt.Errorf("clear: %w", err)})
		default:
			if err := v.failed(c.Channel, fmt.Errorf("clear: %w", err)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *visit) clear(ctx context.Context, c meter.Clear) error {
	code, class, id, ok := c.Channel.Attribute()
	if !ok {
		return ErrNotCOSEM
	}
	a := dlms.Attribute{Class: class, Code: code, ID: id}
	data, err := v.get(ctx, a)
	if err != nil {
		return err
	}
	switch data.Tag {
	case axdr.TagUnsigned, axdr.TagLongUnsigned, axdr.TagDoubleLongUnsigned, axdr.TagLong64Unsigned:
	default:
		return fmt.Errorf("%w: %v", errNotBits, data.Tag)
	}
	left := data.Num &^ c.Bits
	if left == data.Num {
		return nil
	}
	data.Num = left
	if err := v.client.Set(ctx, a, data); err != nil {
		return fmt.Errorf("set %v: %w", a, v.tried(ctx, err))
	}
	return nil
}
