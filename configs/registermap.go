package configs

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"gridgate/drivers/modbus"
	"gridgate/internal/meter"
)

// Limits of one register map.
const (
	maxRegisters = 500
	maxIdentity  = 20
)

// ParseModel reads a register map. file stands for it in problems. The error
// is Problems.
func ParseModel(file string, data []byte) (*modbus.Model, error) {
	r := &reader{file: file}
	top := r.document(data)
	if top == nil {
		return nil, r.err()
	}
	if isDLMSModel(string(data)) {
		r.fail("protocol", top, "", "is for models of DLMS meters; a register map of a Modbus meter has none")
		return nil, r.err()
	}
	m := &rawModel{}
	m.MaxRegs = 125 // Modbus application protocol V1.1b3, 6.3
	m.Holes = true
	has := mapping(r, "", top, modelFields(), m)
	if want := strings.TrimSuffix(file[strings.LastIndexByte(file, '/')+1:], ".yaml"); m.Name != "" && m.Name != want {
		r.fail("name", has["name"], m.Name, "want %s, as the file is called", want)
	}
	r.registerMap(m, top, has)
	if err := r.err(); err != nil {
		return nil, err
	}
	m.File = file
	return &m.Model, nil
}

// rawModel is a register map on the way.
type rawModel struct {
	modbus.Model
	rows     []rawRegister
	serial   *rawRegister
	identity []rawRegister
	checks   []rawCheck
}

// rawRegister is a register with its place in the file. One that is not sound
// has problems that were noted already.
type rawRegister struct {
	modbus.Identity
	at    string
	node  *yaml.Node
	sound bool
}

type rawCheck struct {
	modbus.Check
	at    string
	node  *yaml.Node
	sound bool
}

// register reads a register of those fields.
func (r *reader) register(at string, n *yaml.Node, fields []field[*modbus.Identity]) rawRegister {
	x := rawRegister{at: at, node: n}
	before := len(r.problems)
	mapping(r, at, n, fields, &x.Identity)
	x.Line, x.sound = n.Line, len(r.problems) == before
	return x
}

func modelFields() []field[*rawModel] {
	return []field[*rawModel]{
		{name: "name", required: true, read: func(r *reader, at string, n *yaml.Node, m *rawModel) {
			m.Name = string(r.id(at, n))
		}},
		{name: "max_regs", read: func(r *reader, at string, n *yaml.Node, m *rawModel) {
			if regs := int(r.integer(at, n, 1, 125)); regs > 0 {
				m.MaxRegs = regs
			}
		}},
		{name: "holes", read: func(r *reader, at string, n *yaml.Node, m *rawModel) {
			m.Holes = r.oneOf(at, n, "allowed", "forbidden") == "allowed"
		}},
		{name: "turnaround", read: func(r *reader, at string, n *yaml.Node, m *rawModel) {
			m.Turnaround = r.duration(at, n, 0, time.Second)
		}},
		{name: "serial", below: paths("serial.", placeFields()), read: func(r *reader, at string, n *yaml.Node, m *rawModel) {
			x := r.register(at, n, placeFields())
			m.serial = &x
		}},
		{name: "identity", below: paths("identity[].", identityFields()), read: func(r *reader, at string, n *yaml.Node, m *rawModel) {
			r.list(at, n, maxIdentity, func(at string, n *yaml.Node) {
				m.identity = append(m.identity, r.register(at, n, identityFields()))
			})
		}},
		{name: "clock", below: paths("clock.", clockFields()), read: func(r *reader, at string, n *yaml.Node, m *rawModel) {
			m.Clock = &modbus.Clock{}
			mapping(r, at, n, clockFields(), m.Clock)
			r.clock(m, n)
		}},
		{name: "registers", required: true, below: paths("registers[].", registerFields()), read: func(r *reader, at string, n *yaml.Node, m *rawModel) {
			r.list(at, n, maxRegisters, func(at string, n *yaml.Node) {
				m.rows = append(m.rows, r.register(at, n, registerFields()))
			})
		}},
		{name: "checks", below: paths("checks[].", checkFields()), read: func(r *reader, at string, n *yaml.Node, m *rawModel) {
			r.list(at, n, maxRegisters, func(at string, n *yaml.Node) {
				x := rawCheck{at: at, node: n}
				before := len(r.problems)
				mapping(r, at, n, checkFields(), &x.Check)
				x.sound = len(r.problems) == before
				m.checks = append(m.checks, x)
			})
		}},
	}
}

// placeFields say where a quantity stands and how it is coded.
func placeFields() []field[*modbus.Identity] {
	return []field[*modbus.Identity]{
		{name: "function", required: true, read: func(r *reader, at string, n *yaml.Node, x *modbus.Identity) {
			x.Function = uint8(r.integer(at, n, 3, 4))
		}},
		{name: "address", required: true, read: func(r *reader, at string, n *yaml.Node, x *modbus.Identity) {
			r.checked(at, n, "the address on the wire, 0 to 65535 or 0x0000 to 0xFFFF", func(s string) bool {
				base := 10
				hex, isHex := strings.CutPrefix(s, "0x")
				if isHex {
					s, base = hex, 16
				}
				a, err := strconv.ParseUint(s, base, 16)
				x.Address = uint16(a)
				return err == nil && n.Tag == "!!int"
			})
		}},
		{name: "type", required: true, read: func(r *reader, at string, n *yaml.Node, x *modbus.Identity) {
			r.checked(at, n, "u16, s16, u32, s32, u64, s64, f32, f64, bcd16, bcd32, bcd64 or ascii", func(s string) bool {
				var err error
				x.Type, err = modbus.ParseType(s)
				return err == nil
			})
		}},
		{name: "words", read: func(r *reader, at string, n *yaml.Node, x *modbus.Identity) {
			x.Words = uint16(r.integer(at, n, 1, 32))
		}},
		{name: "order", read: func(r *reader, at string, n *yaml.Node, x *modbus.Identity) {
			x.LittleEndianWords = r.oneOf(at, n, "be", "le") == "le"
		}},
	}
}

func registerFields() []field[*modbus.Identity] {
	return append(placeFields(),
		field[*modbus.Identity]{name: "channel", required: true, read: func(r *reader, at string, n *yaml.Node, x *modbus.Identity) {
			x.Channel = r.channel(at, n)
		}},
		field[*modbus.Identity]{name: "scale", read: func(r *reader, at string, n *yaml.Node, x *modbus.Identity) {
			x.Scale = int8(r.integer(at, n, -18, 18))
		}},
		field[*modbus.Identity]{name: "unit", read: func(r *reader, at string, n *yaml.Node, x *modbus.Identity) {
			r.checked(at, n, "the symbol of a unit, such as Wh, V or °C", func(s string) bool {
				var ok bool
				x.Unit, ok = meter.ParseUnit(s)
				return ok && s != ""
			})
		}},
		field[*modbus.Identity]{name: "nan", read: func(r *reader, at string, n *yaml.Node, x *modbus.Identity) {
			r.checked(at, n, "the register's bits when it has no value, such as 0xFFFF", func(s string) bool {
				var err error
				x.NaN, err = strconv.ParseUint(s, 0, 64)
				x.HasNaN = err == nil
				return err == nil && n.Tag == "!!int"
			})
		}},
		field[*modbus.Identity]{name: "limits", read: func(r *reader, at string, n *yaml.Node, x *modbus.Identity) {
			var bounds []float64
			before := len(r.problems)
			r.list(at, n, 2, func(at string, n *yaml.Node) { bounds = append(bounds, r.number(at, n)) })
			switch {
			case len(r.problems) > before:
			case len(bounds) != 2 || bounds[0] >= bounds[1]:
				r.fail(at, n, "", "want [MIN, MAX], min below max")
			default:
				x.Limits = &modbus.Limits{Min: bounds[0], Max: bounds[1]}
			}
		}},
	)
}

// identityFields are those of a register that shows the kind of the meter.
func identityFields() []field[*modbus.Identity] {
	values := func(into func(*modbus.Identity) *[]string) func(*reader, string, *yaml.Node, *modbus.Identity) {
		return func(r *reader, at string, n *yaml.Node, x *modbus.Identity) {
			r.list(at, n, maxIdentity, func(at string, n *yaml.Node) {
				s := r.checked(at, n, "a value that the register shows", func(s string) bool { return s != "" && isPrintable(s) })
				*into(x) = append(*into(x), s)
			})
		}
	}
	return append(placeFields(),
		field[*modbus.Identity]{name: "want", read: values(func(x *modbus.Identity) *[]string { return &x.Want })},
		field[*modbus.Identity]{name: "not", read: values(func(x *modbus.Identity) *[]string { return &x.Not })},
	)
}

func checkFields() []field[*modbus.Check] {
	return []field[*modbus.Check]{
		{name: "channel", required: true, read: func(r *reader, at string, n *yaml.Node, c *modbus.Check) {
			c.Channel = r.channel(at, n)
		}},
		{name: "min", required: true, read: func(r *reader, at string, n *yaml.Node, c *modbus.Check) {
			c.Min = r.number(at, n)
		}},
		{name: "max", required: true, read: func(r *reader, at string, n *yaml.Node, c *modbus.Check) {
			c.Max = r.number(at, n)
		}},
	}
}

// registerMap checks what the keys of a register map cannot check alone.
func (r *reader) registerMap(m *rawModel, top *yaml.Node, has nodes) {
	if len(m.rows) == 0 && has["registers"] != nil {
		r.fail("registers", top, "", "has none; nothing could be read")
	}
	identity := m.identity
	if m.serial != nil {
		identity = append([]rawRegister{*m.serial}, identity...)
		m.Serial = &m.serial.Register
	}
	for i, x := range identity {
		r.fits(x, m.MaxRegs)
		for _, o := range identity[:i] {
			if x.sound && o.sound && overlap(x.Register, o.Register) {
				r.fail(x.at, x.node, "", "its registers are partly those of %s at line %d", o.at, o.node.Line)
			}
		}
	}
	for _, x := range m.identity {
		r.values(&x)
		m.Identity = append(m.Identity, x.Identity)
	}
	for i, x := range m.rows {
		r.fits(x, m.MaxRegs)
		r.suits(x)
		for _, o := range m.rows[:i] {
			switch {
			case x.Channel != "" && x.Channel == o.Channel:
				r.fail(x.at, x.node, string(x.Channel), "is also the channel at line %d", o.node.Line)
			case x.sound && o.sound && overlap(x.Register, o.Register):
				r.fail(x.at, x.node, "", "its registers are partly those of %s at line %d", o.Channel.Short(), o.node.Line)
			}
		}
		m.Registers = append(m.Registers, x.Register)
	}
	for _, c := range m.checks {
		if c.Channel != "" && !slices.ContainsFunc(m.Registers, func(x modbus.Register) bool { return x.Channel == c.Channel }) {
			r.fail(c.at, c.node, string(c.Channel), "is no channel of this model")
		}
		if c.sound && c.Min >= c.Max {
			r.fail(c.at, c.node, "", "want min below max")
		}
		m.Checks = append(m.Checks, c.Check)
	}
}

// fits checks that one request can read x.
func (r *reader) fits(x rawRegister, maxRegs int) {
	size := 16 * int(x.Len())
	switch {
	case !x.sound:
	case x.Type == modbus.ASCII && x.Words == 0:
		r.fail(x.at, x.node, "", "a text needs words, the number of its registers")
	case x.Type != modbus.ASCII && x.Words != 0:
		r.fail(x.at, x.node, "", "words is for type ascii only; %s has %d", x.Type, x.Len())
	case int(x.Len()) > maxRegs:
		r.fail(x.at, x.node, "", "has %d registers; max_regs is %d", x.Len(), maxRegs)
	case int(x.Address)+int(x.Len()) > 0x10000:
		r.fail(x.at, x.node, "", "goes past the last register, 65535")
	case x.HasNaN && (x.Type == modbus.ASCII || size < 64 && x.NaN>>size != 0):
		r.fail(x.at, x.node, "", "nan has more bits than %s", x.Type)
	}
}

// suits checks that the unit of x is that of its OBIS code.
func (r *reader) suits(x rawRegister) {
	code, _, _, isCode := x.Channel.Attribute()
	want, known := unitOf(code[0], code[2], code[3])
	if x.sound && isCode && known && x.Type != modbus.ASCII && x.Unit != want {
		symbol := "a plain number, without a unit"
		if want != meter.NoUnit {
			symbol = "in " + want.String()
		}
		r.fail(x.at, x.node, "", "unit %q: %s is %s", x.Unit.String(), x.Channel.Short(), symbol)
	}
}

// unitOf gives the unit of an electricity register by the groups A, C and D of
// its code (IEC 62056-6-1, 5.4 and 5.5).
func unitOf(medium, quantity, processing byte) (meter.Unit, bool) {
	isEnergy := processing == 8 || processing == 9
	if medium != 1 || !isEnergy && processing != 7 && processing != 4 && processing != 6 {
		return 0, false
	}
	pick := func(energy, power meter.Unit) (meter.Unit, bool) {
		if isEnergy {
			return energy, true
		}
		return power, true
	}
	if slices.Contains([]byte{131, 151, 171, 191}, quantity) {
		return pick(meter.VarHour, meter.Var)
	}
	if quantity == 0 || quantity > 80 {
		return 0, false
	}
	switch (quantity-1)%20 + 1 { // the same for all phases together and each
	case 1, 2, 15, 16, 17, 18, 19, 20:
		return pick(meter.WattHour, meter.Watt)
	case 3, 4, 5, 6, 7, 8:
		return pick(meter.VarHour, meter.Var)
	case 9, 10:
		return pick(meter.VAHour, meter.VoltAmpere)
	case 11:
		return meter.Ampere, !isEnergy
	case 12:
		return meter.Volt, !isEnergy
	case 13:
		return meter.NoUnit, !isEnergy
	case 14:
		return meter.Hertz, !isEnergy
	}
	return 0, false
}

// values checks what an identity register may show, and writes numbers as the
// driver does.
func (r *reader) values(x *rawRegister) {
	if !x.sound {
		return
	}
	if len(x.Want)+len(x.Not) == 0 {
		r.fail(x.at, x.node, "", "has neither want nor not; it would tell nothing")
	}
	if x.Type == modbus.ASCII {
		return
	}
	for _, list := range [][]string{x.Want, x.Not} {
		for i, s := range list {
			number, err := strconv.ParseUint(s, 0, 64)
			if err != nil {
				r.fail(x.at, x.node, s, "want a whole number, as the register shows it")
			}
			list[i] = strconv.FormatUint(number, 10)
		}
	}
}

func overlap(a, b modbus.Register) bool {
	return a.Function == b.Function &&
		int(a.Address) < int(b.Address)+int(b.Len()) && int(b.Address) < int(a.Address)+int(a.Len())
}
