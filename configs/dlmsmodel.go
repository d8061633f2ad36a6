package configs

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"gridgate/dlms"
	"gridgate/dlms/obis"
	"gridgate/drivers/cosem"
	"gridgate/internal/meter"
)

// DLMSStandard is the model of DLMS meters whose address names none. It says
// nothing beyond the standard.
const DLMSStandard = "dlms-standard"

// DLMSModel is what is known of the DLMS meters of a model. It is not changed
// once made, and shared by the meters that have it.
type DLMSModel struct {
	cosem.Model
	Groups []Group     // in the order of the file
	Clock  ClockPolicy // how their clocks are put right where they are to be; "" is by writing the time
}

// maxEvents bounds the names of one model, of a kind.
const maxEvents = 1000

// DLMSModelIn gives the model of that name: DIR/NAME.yaml, or the built-in one
// where there is no such file or no directory is named; "" is DLMSStandard. What
// is wrong with its file are Problems.
func DLMSModelIn(dir, name string) (*DLMSModel, error) {
	if name == "" {
		name = DLMSStandard
	}
	file, data, err := modelFile(dir, name, DLMSModelNames())
	if err != nil {
		return nil, err
	}
	return ParseDLMSModel(file, data)
}

// DLMSModel gives the model that DLMS meters of the configuration have by this
// name, "" for none. It was read with the configuration.
func (c *Config) DLMSModel(name string) (*DLMSModel, error) {
	if m, ok := c.models[dlmsKey(name)]; ok {
		return m.dlms, m.err
	}
	return DLMSModelIn(c.Models, name)
}

// dlmsKey tells the models of a configuration apart from register maps.
func dlmsKey(name string) string {
	if name == "" {
		name = DLMSStandard
	}
	return "dlms/" + name
}

// dlmsModel gives a model, read once for all meters that have it. What is wrong
// with its file is among the problems.
func (r *reader) dlmsModel(d *document, name string) (*DLMSModel, error) {
	key := dlmsKey(name)
	m := r.load(d, key, strings.TrimPrefix(key, "dlms/"), DLMSModelNames(), func(m *loadedModel, file string, data []byte) (err error) {
		m.dlms, err = ParseDLMSModel(file, data)
		return err
	})
	return m.dlms, m.err
}

// ParseDLMSModel reads a model of DLMS meters. file stands for it in problems.
// The error is Problems.
func ParseDLMSModel(file string, data []byte) (*DLMSModel, error) {
	r := &reader{file: file}
	top := r.document(data)
	if top == nil {
		return nil, r.err()
	}
	m := &DLMSModel{}
	has := mapping(r, "", top, dlmsModelFields(), m)
	if want := strings.TrimSuffix(file[strings.LastIndexByte(file, '/')+1:], ".yaml"); m.Name != "" && m.Name != want {
		r.fail("name", has["name"], m.Name, "want %s, as the file is called", want)
	}
	for i, g := range m.Groups {
		if twin := followed(m.Groups[:i], g.Profile); twin != "" {
			r.fail(join("groups", string(g.Name)), has["groups"], "", "follows the profile of %s; want a profile in one group only", twin)
		}
		for _, c := range g.Channels {
			if _, _, _, ok := c.Attribute(); !ok && c != "" {
				r.fail(join("groups", string(g.Name)), has["groups"], string(c), "is no OBIS code; DLMS meters have OBIS codes only")
			}
		}
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	m.File = file
	return m, nil
}

func dlmsModelFields() []field[*DLMSModel] {
	return []field[*DLMSModel]{
		{name: "protocol", required: true, read: func(r *reader, at string, n *yaml.Node, _ *DLMSModel) {
			r.oneOf(at, n, "dlms")
		}},
		{name: "name", required: true, read: func(r *reader, at string, n *yaml.Node, m *DLMSModel) {
			m.Name = string(r.id(at, n))
		}},
		{name: "clock", read: func(r *reader, at string, n *yaml.Node, m *DLMSModel) {
			m.Clock = r.clockPolicy(at, n)
		}},
		section("quirks", false, quirkFields(), func(m *DLMSModel) *cosem.Model { return &m.Model }),
		{name: "groups", below: paths("groups.*.", groupFields()), read: func(r *reader, at string, n *yaml.Node, m *DLMSModel) {
			m.Groups, _ = r.groups(at, n)
		}},
		{name: "events", read: func(r *reader, at string, n *yaml.Node, m *DLMSModel) {
			m.Events.Codes = readNames(r, at, n, 96, 11, 1<<32-1, func(n uint64) uint64 { return n })
		}},
		{name: "alarms", read: func(r *reader, at string, n *yaml.Node, m *DLMSModel) {
			m.Events.Bits = readNames(r, at, n, 97, 98, 63, func(n uint64) uint8 { return uint8(n) })
		}},
	}
}

func quirkFields() []field[*cosem.Model] {
	flag := func(name string, into func(*cosem.Model) *bool) field[*cosem.Model] {
		return field[*cosem.Model]{name: name, read: func(r *reader, at string, n *yaml.Node, m *cosem.Model) {
			*into(m) = r.boolean(at, n)
		}}
	}
	return []field[*cosem.Model]{
		{name: "list_max", read: func(r *reader, at string, n *yaml.Node, m *cosem.Model) {
			m.Quirks.ListMax = int(r.integer(at, n, 1, 255))
		}},
		{name: "selector", read: func(r *reader, at string, n *yaml.Node, m *cosem.Model) {
			m.Quirks.Selector = map[string]dlms.Selector{"entry": dlms.ByEntry, "whole": dlms.Whole}[r.oneOf(at, n, "time", "entry", "whole")]
		}},
		flag("null_unchanged", func(m *cosem.Model) *bool { return &m.Quirks.NullUnchanged }),
		flag("ratios", func(m *cosem.Model) *bool { return &m.Quirks.Ratios }),
		flag("invert_deviation", func(m *cosem.Model) *bool { return &m.Quirks.InvertDeviation }),
		{name: "counter", read: func(r *reader, at string, n *yaml.Node, m *cosem.Model) {
			r.checked(at, n, "the OBIS code of the invocation counter, such as 0-0:43.1.0", func(s string) bool {
				code, err := obis.Parse(s)
				m.Quirks.CounterObject = code
				return err == nil
			})
		}},
		{name: "max_pdu", read: func(r *reader, at string, n *yaml.Node, m *cosem.Model) {
			m.Quirks.MaxPDU = uint16(r.integer(at, n, 64, 65535))
		}},
		{name: "address_length", read: func(r *reader, at string, n *yaml.Node, m *cosem.Model) {
			m.Quirks.AddressLength = map[string]uint8{"1": 1, "2": 2, "4": 4}[r.oneOf(at, n, "1", "2", "4")]
		}},
		{name: "info", read: func(r *reader, at string, n *yaml.Node, m *cosem.Model) {
			m.Info = int(r.integer(at, n, 32, 2030))
		}},
		{name: "window", read: func(r *reader, at string, n *yaml.Node, m *cosem.Model) {
			m.Window = int(r.integer(at, n, 1, 7))
		}},
		flag("one_client", func(m *cosem.Model) *bool { return &m.Release }),
	}
}

// readNames reads what numbers mean by the object that holds them, whose code is
// 0-b:C.D.e.
func readNames[N comparable](r *reader, at string, n *yaml.Node, c, d byte, most uint64, number func(uint64) N) map[obis.Code]map[N]string {
	if !r.kind(at, n, yaml.MappingNode, "objects with the names of their numbers") {
		return nil
	}
	all := map[obis.Code]map[N]string{}
	r.eachKey(at, n, func(k, v *yaml.Node) {
		code, err := obis.Parse(k.Value)
		if err != nil || code[0] != 0 || code[2] != c || code[3] != d {
			r.fail(at, k, k.Value, "want an object 0-b:%d.%d.e, such as 0-0:%d.%d.0", c, d, c, d)
			return
		}
		at := join(at, k.Value)
		if _, twice := all[code]; twice {
			r.fail(at, k, "", "is there already")
			return
		}
		if !r.kind(at, v, yaml.MappingNode, "numbers with names") {
			return
		}
		names := map[N]string{}
		if all[code] = names; len(v.Content)/2 > maxEvents {
			r.fail(at, v, "", "has %d names; want at most %d", len(v.Content)/2, maxEvents)
			return
		}
		r.eachKey(at, v, func(k, v *yaml.Node) {
			value, err := strconv.ParseUint(k.Value, 10, 64)
			if err != nil || value > most {
				r.fail(at, k, k.Value, "want a number, 0 to %d", most)
				return
			}
			if _, twice := names[number(value)]; twice {
				r.fail(at, k, k.Value, "is there already")
			}
			names[number(value)] = r.checked(join(at, k.Value), v, "a name of 1 to 48 characters of a-z, 0-9 and '-'", isEventName)
		})
	})
	return all
}

// isEventName says whether s may stand behind "event.".
func isEventName(s string) bool {
	_, err := meter.ParseChannel(string(cosem.EventChannel(s)))
	return err == nil && s != "" && len(s) <= 48 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && s[0] != '-'
}
