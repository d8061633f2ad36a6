package configs

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"gridgate/drivers/modbus"
	"gridgate/internal/meter"
)

//go:embed models/*.yaml
var models embed.FS

// maxRegisters bounds the register map of one model.
const maxRegisters = 500

// ModelNames lists the register maps that are built in, sorted.
func ModelNames() []string {
	files, _ := fs.Glob(models, "models/*.yaml") // the pattern is good
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = strings.TrimSuffix(strings.TrimPrefix(f, "models/"), ".yaml")
	}
	return names
}

// Model gives the register map of that name. It is a new one each time.
func Model(name string) (*modbus.Model, error) {
	names := ModelNames()
	if !slices.Contains(names, name) {
		if s, ok := suggest(name, names); ok {
			return nil, fmt.Errorf("no model %q; did you mean %s?", name, s)
		}
		return nil, fmt.Errorf("no model %q; want one of %s", name, strings.Join(names, ", "))
	}
	file := "models/" + name + ".yaml"
	data, err := models.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("model %q: %w", name, err)
	}
	return ParseModel(file, data)
}

// ParseModel reads a register map. file stands for it in problems. The error
// is Problems.
func ParseModel(file string, data []byte) (*modbus.Model, error) {
	r := &reader{file: file}
	top := r.document(data)
	if top == nil {
		return nil, r.err()
	}
	m := &rawModel{}
	m.MaxRegs = 125 // Modbus application protocol V1.1b3, 6.3
	m.Holes = true
	has := mapping(r, "", top, modelFields(), m)
	if want := strings.TrimSuffix(file[strings.LastIndexByte(file, '/')+1:], ".yaml"); m.Name != "" && m.Name != want {
		r.fail("name", has["name"], m.Name, "want %s, as the file is called", want)
	}
	if len(r.problems) == 0 {
		r.model(m, top, has)
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return &m.Model, nil
}

// rawModel is a register map on the way.
type rawModel struct {
	modbus.Model
	rows   []rawRegister
	checks []rawCheck
}

type rawRegister struct {
	modbus.Register
	at   string
	node *yaml.Node
}

type rawCheck struct {
	modbus.Check
	at   string
	node *yaml.Node
}

func modelFields() []field[rawModel] {
	return []field[rawModel]{
		{name: "name", required: true, read: func(r *reader, at string, n *yaml.Node, m *rawModel) {
			m.Name = string(r.id(at, n))
		}},
		{name: "max_regs", read: func(r *reader, at string, n *yaml.Node, m *rawModel) {
			m.MaxRegs = int(r.integer(at, n, 1, 125))
		}},
		{name: "holes", read: func(r *reader, at string, n *yaml.Node, m *rawModel) {
			m.Holes = r.oneOf(at, n, "allowed", "forbidden") == "allowed"
		}},
		{name: "turnaround", read: func(r *reader, at string, n *yaml.Node, m *rawModel) {
			m.Turnaround = r.duration(at, n, 0, time.Second)
		}},
		{name: "serial", read: func(r *reader, at string, n *yaml.Node, m *rawModel) {
			m.Serial = &modbus.Register{}
			mapping(r, at, n, placeFields(), m.Serial)
		}},
		{name: "registers", required: true, below: paths("registers[].", registerFields()), read: func(r *reader, at string, n *yaml.Node, m *rawModel) {
			r.list(at, n, maxRegisters, func(at string, n *yaml.Node) {
				x := rawRegister{at: at, node: n}
				mapping(r, at, n, registerFields(), &x.Register)
				m.rows = append(m.rows, x)
			})
		}},
		{name: "checks", below: paths("checks[].", checkFields()), read: func(r *reader, at string, n *yaml.Node, m *rawModel) {
			r.list(at, n, maxRegisters, func(at string, n *yaml.Node) {
				x := rawCheck{at: at, node: n}
				mapping(r, at, n, checkFields(), &x.Check)
				m.checks = append(m.checks, x)
			})
		}},
	}
}

// placeFields say where a quantity stands and how it is coded.
func placeFields() []field[modbus.Register] {
	return []field[modbus.Register]{
		{name: "function", required: true, read: func(r *reader, at string, n *yaml.Node, x *modbus.Register) {
			x.Function = uint8(r.integer(at, n, 3, 4))
		}},
		{name: "address", required: true, read: func(r *reader, at string, n *yaml.Node, x *modbus.Register) {
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
		{name: "type", required: true, read: func(r *reader, at string, n *yaml.Node, x *modbus.Register) {
			r.checked(at, n, "u16, s16, u32, s32, u64, s64, f32, f64 or ascii", func(s string) bool {
				var err error
				x.Type, err = modbus.ParseType(s)
				return err == nil
			})
		}},
		{name: "words", read: func(r *reader, at string, n *yaml.Node, x *modbus.Register) {
			x.Words = uint16(r.integer(at, n, 1, 32))
		}},
		{name: "order", read: func(r *reader, at string, n *yaml.Node, x *modbus.Register) {
			x.LittleEndianWords = r.oneOf(at, n, "be", "le") == "le"
		}},
	}
}

func registerFields() []field[modbus.Register] {
	return append(placeFields(),
		field[modbus.Register]{name: "channel", required: true, read: func(r *reader, at string, n *yaml.Node, x *modbus.Register) {
			x.Channel = r.channel(at, n)
		}},
		field[modbus.Register]{name: "scale", read: func(r *reader, at string, n *yaml.Node, x *modbus.Register) {
			x.Scale = int8(r.integer(at, n, -18, 18))
		}},
		field[modbus.Register]{name: "unit", read: func(r *reader, at string, n *yaml.Node, x *modbus.Register) {
			r.checked(at, n, "the symbol of a unit, such as Wh, V or °C", func(s string) bool {
				var ok bool
				x.Unit, ok = meter.ParseUnit(s)
				return ok && s != ""
			})
		}},
	)
}

func checkFields() []field[modbus.Check] {
	return []field[modbus.Check]{
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

// model checks what the keys of a register map cannot check alone.
func (r *reader) model(m *rawModel, top *yaml.Node, has nodes) {
	if len(m.rows) == 0 {
		r.fail("registers", top, "", "has none; nothing could be read")
	}
	if m.Serial != nil {
		r.fits("serial", has["serial"], *m.Serial, m.MaxRegs)
	}
	for i, x := range m.rows {
		r.fits(x.at, x.node, x.Register, m.MaxRegs)
		for _, o := range m.rows[:i] {
			switch {
			case x.Channel != "" && x.Channel == o.Channel:
				r.fail(x.at, x.node, string(x.Channel), "is also the channel at line %d", o.node.Line)
			case overlap(x.Register, o.Register):
				r.fail(x.at, x.node, "", "its registers are partly those of %s at line %d", o.Channel.Short(), o.node.Line)
			}
		}
		m.Registers = append(m.Registers, x.Register)
	}
	for _, c := range m.checks {
		if !slices.ContainsFunc(m.Registers, func(x modbus.Register) bool { return x.Channel == c.Channel }) {
			r.fail(c.at, c.node, string(c.Channel), "is no channel of this model")
		}
		if c.Min >= c.Max {
			r.fail(c.at, c.node, "", "want min below max")
		}
		m.Checks = append(m.Checks, c.Check)
	}
}

// fits checks that one request can read x.
func (r *reader) fits(at string, n *yaml.Node, x modbus.Register, maxRegs int) {
	switch {
	case x.Type == modbus.ASCII && x.Words == 0:
		r.fail(at, n, "", "a text needs words, the number of its registers")
	case x.Type != modbus.ASCII && x.Words != 0:
		r.fail(at, n, "", "words is for type ascii only; %s has %d", x.Type, x.Len())
	case int(x.Len()) > maxRegs:
		r.fail(at, n, "", "has %d registers; max_regs is %d", x.Len(), maxRegs)
	case int(x.Address)+int(x.Len()) > 0x10000:
		r.fail(at, n, "", "goes past the last register, 65535")
	}
}

func overlap(a, b modbus.Register) bool {
	return a.Function == b.Function &&
		int(a.Address) < int(b.Address)+int(b.Len()) && int(b.Address) < int(a.Address)+int(a.Len())
}
