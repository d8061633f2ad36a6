package configs

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"gridgate/drivers/address"
	"gridgate/drivers/modbus"
	"gridgate/internal/meter"
)

// readMeters reads the list of meters.
func readMeters(r *reader, at string, n *yaml.Node, d *document) {
	r.list(at, n, maxMeters, func(at string, n *yaml.Node) {
		m := rawMeter{at: at, node: n}
		m.nodes = mapping(r, at, n, meterFields(), &m)
		d.rawMeters = append(d.rawMeters, m)
	})
}

// readURL reads a meter's address. What is wrong with it is told key by key;
// the address itself is not shown, since it may have a secret in it.
func readURL(r *reader, at string, n *yaml.Node, m *rawMeter) {
	s, ok := r.text(at, n, "an address, such as modbus+tcp://HOST?unit=1&model=eastron-sdm630")
	if !ok {
		return
	}
	a, err := address.Parse(s)
	if joined, many := err.(interface{ Unwrap() []error }); many {
		for _, e := range joined.Unwrap() {
			r.fail(at, n, "", "%s", addressProblem(e))
		}
		return
	}
	if err != nil {
		r.fail(at, n, "", "%s", addressProblem(err))
		return
	}
	literal := false
	for _, s := range a.Secrets() {
		if s.Secret.IsLiteral() {
			r.fail(at, n, "", "%s", literalAdvice(s.Key+"="))
			literal = true
		}
		r.refer(at, s.Key+"=", n, s.Secret)
	}
	if !literal {
		m.Address = a
	}
}

// readFuse reads what is before a meter: 63A, or 3x63A for three phases.
func readFuse(r *reader, at string, n *yaml.Node, m *rawMeter) {
	r.checked(at, n, "the fuse before the meter, such as 63A, or 3x63A for three phases", func(s string) bool {
		m.Fuse.Phases = 1
		amperes, three := strings.CutPrefix(s, "3x")
		if three {
			m.Fuse.Phases = 3
		}
		amperes, unit := strings.CutSuffix(amperes, "A")
		a, err := strconv.ParseUint(amperes, 10, 16)
		m.Fuse.Amperes = float64(a)
		return unit && err == nil && a > 0 && a <= 10000
	})
}

func addressProblem(err error) string {
	var k *address.KeyError
	if errors.As(err, &k) && k.Key != "" {
		return "the key " + k.Error()
	}
	return err.Error()
}

// meters checks the meters against one another, the groups and the models, and
// puts them together.
func (r *reader) meters(d *document) {
	ids, serials := map[meter.ID]rawMeter{}, map[string]rawMeter{}
	places, lines := map[string]rawMeter{}, map[string]rawMeter{}
	for _, m := range d.rawMeters {
		if first, ok := ids[m.ID]; ok && m.ID != "" {
			r.fail(m.at+".id", m.nodes["id"], string(m.ID), "is also the id of the meter at line %d", first.nodes["id"].Line)
		} else {
			ids[m.ID] = m
		}
		if first, ok := serials[m.Serial]; ok && m.Serial != "" {
			r.fail(m.at+".serial", m.nodes["serial"], m.Serial, "is also the serial number of the meter at line %d", first.nodes["serial"].Line)
		} else {
			serials[m.Serial] = m
		}
		if m.Address.Line != "" {
			r.place(m, places, lines)
		}
		if m.timeout != 0 && m.Address.Timeout != 0 {
			r.fail(m.at+".timeout", m.nodes["timeout"], m.nodes["timeout"].Value, "is given in the url, too; want it once")
		} else if m.timeout != 0 {
			m.Address.Timeout = m.timeout
		}
		r.meterGroups(d, &m)
		d.Meters = append(d.Meters, m.Meter)
	}
}

// place checks that no two meters are in the same place, and that one line has
// one protocol.
func (r *reader) place(m rawMeter, places, lines map[string]rawMeter) {
	a, n := m.Address, m.nodes["url"]
	where, who := a.Line, fmt.Sprintf("unit %d", a.Unit)
	switch {
	case a.Scheme.IsDLMS():
		who = fmt.Sprintf("server %d", a.Server)
	case a.Scheme == address.IEC21 && a.Device == "":
		who = "without a device address"
	case a.Scheme == address.IEC21:
		who = "device address " + a.Device
	}
	if a.Scheme == address.DLMSModeE && a.Device != "" {
		who += ", device address " + a.Device
	}
	if a.Physical != 0 {
		who += fmt.Sprintf(", physical %d", a.Physical)
	}
	if a.Node != "" {
		who += fmt.Sprintf(", network %d, node %s", a.Network, a.Node)
	}
	if first, ok := lines[where]; !ok {
		lines[where] = m
	} else if first.Address.Scheme != a.Scheme {
		r.fail(m.at+".url", n, "", "%s is %s here and %s at line %d; want one of them",
			where, a.Scheme, first.Address.Scheme, first.nodes["url"].Line)
		return
	}
	if first := lines[where]; first.Address.RS485 != a.RS485 {
		r.fail(m.at+".url", n, "", "%s has rs485=%q here and %q at line %d; want the same: it is the port's", where, a.RS485, first.Address.RS485, first.nodes["url"].Line)
	}
	where += " " + who
	if first, ok := places[where]; ok {
		r.fail(m.at+".url", n, "", "%s is also the meter at line %d", where, first.nodes["url"].Line)
		return
	}
	places[where] = m
}

// meterGroups resolves the groups of m and checks that the meter can have what
// they ask for.
func (r *reader) meterGroups(d *document, m *rawMeter) {
	var model *modbus.Model
	var dlmsModel *DLMSModel
	var err error
	switch {
	case m.Address.Scheme.IsModbus():
		model, err = r.model(d, m.Address.Model)
	case m.Address.Scheme.IsDLMS():
		dlmsModel, err = r.dlmsModel(d, m.Address.Model)
	}
	if err != nil {
		r.fail(m.at+".url", m.nodes["url"], "", "the key model: %v", err)
	}
	r.meterClock(m, model)
	known, names := d.Groups, d.groupNames
	if dlmsModel != nil && m.Address.Model != "" {
		known = slices.Concat(known, dlmsModel.Groups) // those of the document go first
		for _, g := range dlmsModel.Groups {
			names = append(slices.Clip(names), string(g.Name))
		}
	}
	r.unlistedGroups(m, dlmsModel)
	for i, g := range m.groups {
		if slices.ContainsFunc(m.groups[:i], func(o groupName) bool { return o.name == g.name }) {
			r.fail(g.at, g.node, g.name, "is in the list already")
			continue
		}
		at := slices.IndexFunc(known, func(o Group) bool { return string(o.Name) == g.name })
		if at < 0 {
			r.fail(g.at, g.node, g.name, "%s", unknownGroup(g.name, names))
			continue
		}
		if twin := followed(m.Groups, known[at].Profile); twin != "" {
			r.fail(g.at, g.node, g.name, "follows the profile %s as %s does; want a profile in one group of a meter only: it is read once, from where it was left",
				known[at].Profile.Short(), twin)
		}
		m.Groups = append(m.Groups, known[at])
		switch {
		case m.Address.Scheme.IsDLMS(), m.Address.Scheme == address.IEC21:
			r.dlmsGroup(g, known[at])
		case model != nil:
			r.modbusGroup(g, known[at], model)
		}
	}
}

// groupsAuto stands for what the meter's own list of objects has.
const groupsAuto = "auto"

// unlistedGroups says what a meter is read that lists no groups: those of its
// model, or what it has by its own list of objects.
func (r *reader) unlistedGroups(m *rawMeter, model *DLMSModel) {
	n := m.nodes["groups"]
	auto := n != nil && n.Kind == yaml.ScalarNode && n.Value == groupsAuto
	switch {
	case n != nil && !auto:
	case m.Address.Line == "" || m.Address.Scheme.IsDLMS() && model == nil: // has problems of its own
		if n == nil && m.nodes["url"] == nil && m.node.Kind == yaml.MappingNode {
			r.fail(m.at+".groups", m.node, "", "missing; it has no default")
		}
	case !m.Address.Scheme.IsDLMS() && auto:
		r.fail(m.at+".groups", n, n.Value, "is for DLMS meters, which have a list of what they have; want a list of groups")
	case !m.Address.Scheme.IsDLMS():
		r.fail(m.at+".groups", m.node, "", "missing; it has no default but with DLMS meters")
	case !auto && m.Address.Model != "" && len(model.Groups) > 0:
		m.Groups = slices.Clone(model.Groups)
	default:
		m.Auto = true
	}
}

// followed gives the group that follows the profile, "" when none does.
func followed(groups []Group, profile meter.Channel) meter.ID {
	for _, g := range groups {
		if profile != "" && g.Profile == profile {
			return g.Name
		}
	}
	return ""
}

func unknownGroup(name string, known []string) string {
	if s, ok := suggest(name, known); ok {
		return "no such group; did you mean " + s + "?"
	}
	if len(known) == 0 {
		return "no such group; there are none under groups"
	}
	return "no such group; want one of " + strings.Join(known, ", ")
}

func (r *reader) dlmsGroup(g groupName, group Group) {
	for _, c := range group.Channels {
		if _, _, _, ok := c.Attribute(); !ok && c != "" {
			r.fail(g.at, g.node, g.name, "has the channel %s, which is no OBIS code; DLMS and IEC 62056-21 meters have OBIS codes only", c)
		}
	}
}

func (r *reader) modbusGroup(g groupName, group Group, model *modbus.Model) {
	if group.Profile != "" {
		r.fail(g.at, g.node, g.name, "reads a profile, which Modbus meters do not have")
	}
	for _, c := range group.Channels {
		has := slices.ContainsFunc(model.Registers, func(x modbus.Register) bool { return x.Channel == c })
		if !has && c != "" {
			r.fail(g.at, g.node, g.name, "has the channel %s, which model %s does not; it has %s",
				c.Short(), model.Name, channelList(model))
		}
	}
}

func channelList(model *modbus.Model) string {
	const limit = 12
	var names []string
	for _, x := range model.Registers[:min(limit, len(model.Registers))] {
		names = append(names, x.Channel.Short())
	}
	if more := len(model.Registers) - limit; more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}
