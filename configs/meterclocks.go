package configs

import (
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"gridgate/drivers/modbus"
	"gridgate/internal/meter"
)

// MeterClocks says what is done about the clocks of meters.
type MeterClocks struct {
	Set       bool          // they are put right, where their models do not say otherwise
	Threshold time.Duration // what one is surely off by before that
	Limit     time.Duration // what one may perhaps be off by at most
	Guard     time.Duration // around the ends of capture periods
}

// ClockPolicy is what is done about the clock of one meter, or of those of a
// model; "" leaves it to who is asked next.
type ClockPolicy string

// The policies.
const (
	ClockObserve ClockPolicy = "observe" // compared and told
	ClockSet     ClockPolicy = "set"     // put right, by writing the time
	ClockShift   ClockPolicy = "shift"   // put right, by the method that moves it by seconds
)

func defaultMeterClocks() MeterClocks {
	return MeterClocks{Threshold: 5 * time.Second, Limit: 10 * time.Minute, Guard: time.Minute}
}

func meterClocksFields() []field[*MeterClocks] {
	return []field[*MeterClocks]{
		{name: "policy", read: func(r *reader, at string, n *yaml.Node, m *MeterClocks) {
			m.Set = r.oneOf(at, n, string(ClockObserve), string(ClockSet)) == string(ClockSet)
		}},
		{name: "threshold", read: func(r *reader, at string, n *yaml.Node, m *MeterClocks) {
			m.Threshold = r.duration(at, n, 2*time.Second, 10*time.Minute)
		}},
		{name: "limit", read: func(r *reader, at string, n *yaml.Node, m *MeterClocks) {
			m.Limit = r.duration(at, n, 10*time.Second, 10*time.Minute)
		}},
		{name: "guard", read: func(r *reader, at string, n *yaml.Node, m *MeterClocks) {
			m.Guard = r.duration(at, n, 10*time.Second, 3*time.Minute)
		}},
	}
}

func (r *reader) clockPolicy(at string, n *yaml.Node) ClockPolicy {
	return ClockPolicy(r.oneOf(at, n, string(ClockObserve), string(ClockSet), string(ClockShift)))
}

// meterClocks checks what the keys of the meters' clocks cannot check alone.
func (r *reader) meterClocks(d *document, n *yaml.Node) {
	if m := &d.MeterClocks; n != nil && n.Kind == yaml.MappingNode && m.Limit > 0 && m.Threshold >= m.Limit {
		r.fail("meter_clocks.threshold", n, formatDuration(m.Threshold), "want less than limit, %s", formatDuration(m.Limit))
	}
}

// meterClock checks that a meter's clock can be put right as it says.
func (r *reader) meterClock(m *rawMeter, model *modbus.Model) {
	n := m.nodes["clock"]
	switch {
	case n == nil || m.Address.Line == "":
	case m.Clock == ClockShift && !m.Address.Scheme.IsDLMS():
		r.fail(m.at+".clock", n, n.Value, "is for DLMS meters, which have a method that moves their clock; want set or observe")
	case m.Clock == ClockSet && model != nil && (model.Clock == nil || !model.Clock.Writable):
		r.fail(m.at+".clock", n, n.Value, "the model %s has no clock that can be written; want observe", model.Name)
	}
}

// MeterClock gives what is done about the clock of a meter: what it says itself
// goes first. set says that it is put right, by method.
func (c *Config) MeterClock(m Meter) (set bool, method meter.ClockMethod) {
	policy := m.Clock
	if policy == "" && !c.MeterClocks.Set {
		return false, 0
	}
	switch {
	case policy != "":
	case m.Address.Scheme.IsDLMS():
		if model, err := c.DLMSModel(m.Address.Model); err == nil {
			policy = model.Clock
		}
	case m.Address.Scheme.IsModbus():
		if model, err := c.Model(m.Address.Model); err != nil || model.Clock == nil || !model.Clock.Writable {
			return false, 0
		}
	}
	if policy == ClockShift {
		method = meter.ShiftTime
	}
	return policy != ClockObserve, method
}

// clockFields are the keys of the clock of a register map.
func clockFields() []field[*modbus.Clock] {
	return []field[*modbus.Clock]{
		{name: "function", required: true, read: func(r *reader, at string, n *yaml.Node, c *modbus.Clock) {
			c.Function = uint8(r.integer(at, n, 3, 4))
		}},
		{name: "address", required: true, read: func(r *reader, at string, n *yaml.Node, c *modbus.Clock) {
			r.checked(at, n, "the address on the wire, 0 to 65535 or 0x0000 to 0xFFFF", func(s string) bool {
				a, err := strconv.ParseUint(s, 0, 16)
				c.Address = uint16(a)
				return err == nil && n.Tag == "!!int"
			})
		}},
		{name: "format", required: true, read: func(r *reader, at string, n *yaml.Node, c *modbus.Clock) {
			r.checked(at, n, strings.Join(modbus.ClockFormats(), ", "), func(s string) (ok bool) {
				c.Format, ok = modbus.ParseClockFormat(s)
				return ok
			})
		}},
		{name: "order", read: func(r *reader, at string, n *yaml.Node, c *modbus.Clock) {
			c.LittleEndianWords = r.oneOf(at, n, "be", "le") == "le"
		}},
		{name: "zone", read: func(r *reader, at string, n *yaml.Node, c *modbus.Clock) {
			c.UTC = r.oneOf(at, n, "utc", "local") == "utc"
		}},
		{name: "write", read: func(r *reader, at string, n *yaml.Node, c *modbus.Clock) {
			c.Writable = r.oneOf(at, n, "allowed", "forbidden") == "allowed"
		}},
	}
}

// clock checks what the keys of a clock cannot check alone.
func (r *reader) clock(m *rawModel, n *yaml.Node) {
	c := m.Clock
	switch {
	case c == nil || c.Format == 0:
	case int(c.Address)+int(c.Format.Len()) > 0x10000:
		r.fail("clock.address", n, "", "goes past the last register, 65535")
	case c.Writable && c.Function != 3:
		r.fail("clock.write", n, "", "an input register (function 4) cannot be written")
	case c.LittleEndianWords && c.Format != modbus.ClockUnix:
		r.fail("clock.order", n, "", "is for the format unix only")
	case int(c.Format.Len()) > m.MaxRegs:
		r.fail("clock.format", n, "", "has %d registers; max_regs is %d", c.Format.Len(), m.MaxRegs)
	}
}
