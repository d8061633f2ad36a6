package configs

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v4"

	"gridgate/drivers/address"
	"gridgate/internal/meter"
)

// Limits of what one gateway is for.
const (
	maxMeters   = 1000
	maxGroups   = 100
	maxChannels = 64 // of one group
	maxListen   = 16
)

// document is a configuration on the way, with the nodes that later checks
// point at.
type document struct {
	Config
	groupNames []string
	rawMeters  []rawMeter
}

// rawMeter is a meter as the document has it.
type rawMeter struct {
	Meter
	at      string
	node    *yaml.Node
	nodes   nodes
	timeout time.Duration
	groups  []groupName
}

type groupName struct {
	at   string
	node *yaml.Node
	name string
}

// DefaultModels is where register maps of the gateway's own are looked for.
const DefaultModels = "/etc/gridgate/models"

// DefaultTrust is where the first trust document is looked for.
const DefaultTrust = "/etc/gridgate/trust"

// newDocument gives a document with every default.
func newDocument() *document {
	return &document{Config: Config{
		TimeZone: time.UTC,
		Models:   DefaultModels,
		Buffer:   defaultBuffer(),
		Intake:   Intake{Window: 4 * time.Minute, Offline: 15 * time.Minute, MaxWaiting: 4 << 20},
		Poll:     Poll{Parallel: 16},
		Time:     defaultTime(),

		MeterClocks: defaultMeterClocks(),
		Uplink:      Uplink{KeepAlive: 5 * time.Minute, StartJitter: 10 * time.Second, Confirm: ConfirmBroker, MaxMessage: 16 << 10},
		Control:     Control{Socket: "/run/gridgate/control.sock"},
		Trust:       Trust{File: DefaultTrust, Prove: 15 * time.Minute},
		Modem:       defaultModem(),
	}}
}

// documentFields and the functions after it are the whole language of
// configurations.
func documentFields() []field[*document] {
	return []field[*document]{
		{name: "version", required: true, read: func(r *reader, at string, n *yaml.Node, _ *document) {
			r.checked(at, n, fmt.Sprintf("%d, the version of configurations that this program reads", Version), func(s string) bool {
				return n.Tag == "!!int" && s == strconv.Itoa(Version)
			})
		}},
		{name: "site", required: true, read: func(r *reader, at string, n *yaml.Node, d *document) {
			d.Site = r.id(at, n)
		}},
		{name: "gateway", required: true, read: func(r *reader, at string, n *yaml.Node, d *document) {
			d.Gateway = r.id(at, n)
		}},
		{name: "time_zone", read: func(r *reader, at string, n *yaml.Node, d *document) {
			d.TimeZone = r.zone(at, n)
		}},
		{name: "models", read: func(r *reader, at string, n *yaml.Node, d *document) {
			d.Models = r.path(at, n, 4096)
		}},
		section("buffer", false, bufferFields(), func(d *document) *Buffer { return &d.Buffer }),
		section("intake", false, intakeFields(), func(d *document) *Intake { return &d.Intake }),
		section("poll", false, pollFields(), func(d *document) *Poll { return &d.Poll }),
		section("mains", false, mainsFields(), func(d *document) *Mains { return &d.Mains }),
		section("time", false, timeFields(), func(d *document) *Time { return &d.Time }),
		section("meter_clocks", false, meterClocksFields(), func(d *document) *MeterClocks { return &d.MeterClocks }),
		section("push", false, pushFields(), func(d *document) *Push { return &d.Push }),
		section("uplink", true, uplinkFields(), func(d *document) *Uplink { return &d.Uplink }),
		section("control", false, controlFields(), func(d *document) *Control { return &d.Control }),
		section("page", false, pageFields(), func(d *document) *Page { return &d.Page }),
		section("trust", false, trustFields(), func(d *document) *Trust { return &d.Trust }),
		section("update", false, updateFields(), func(d *document) *Update { return &d.Update }),
		{name: "outputs", below: paths("outputs.*.", outputFields()), read: readOutputs},
		section("modem", false, modemFields(), func(d *document) *Modem { return &d.Modem }),
		{name: "leds", below: paths("leds[].", ledFields()), read: readLeds},
		{name: "groups", below: paths("groups.*.", groupFields()), read: readGroups},
		{name: "meters", below: paths("meters[].", meterFields()), read: readMeters},
	}
}

// defaultBuffer suits devices with 128 MB of flash: with room to work in, the
// file takes up to 44 MiB.
func defaultBuffer() Buffer {
	return Buffer{
		Path: "/var/lib/gridgate/buffer",
		All:  Limit{Size: 32 << 20},
		Lanes: [4]Limit{
			meter.Alarm:    {Size: 2 << 20},
			meter.Billing:  {Size: 6 << 20},
			meter.Interval: {Size: 24 << 20, Age: 400 * day},
			meter.Instant:  {Size: 8 << 20, Age: 31 * day},
		},
	}
}

func bufferFields() []field[*Buffer] {
	all := limitFields(4<<20, func(b *Buffer) *Limit { return &b.All })
	fields := append([]field[*Buffer]{
		{name: "path", read: func(r *reader, at string, n *yaml.Node, b *Buffer) {
			b.Path = r.path(at, n, 4096)
		}},
	}, all...)
	return append(fields, section("lanes", false, quotaFields(), func(b *Buffer) *Buffer { return b }))
}

func quotaFields() (fields []field[*Buffer]) {
	for _, lane := range meter.Lanes() {
		own := limitFields(256<<10, func(l *Limit) *Limit { return l })
		fields = append(fields, section(lane.String(), false, own, func(b *Buffer) *Limit { return &b.Lanes[lane] }))
	}
	return fields
}

// limitFields are the keys of a limit in what P points to.
func limitFields[P any](least int64, in func(P) *Limit) []field[P] {
	return []field[P]{
		{name: "max_size", read: func(r *reader, at string, n *yaml.Node, p P) {
			in(p).Size = r.size(at, n, least, 192<<20)
		}},
		{name: "max_age", read: func(r *reader, at string, n *yaml.Node, p P) {
			age := r.duration(at, n, 0, 3660*day)
			if in(p).Age = age; age > 0 && age < day {
				r.fail(at, n, n.Value, "want 1d or more, or 0s for ever")
			}
		}},
	}
}

func intakeFields() []field[*Intake] {
	return []field[*Intake]{
		{name: "window", read: func(r *reader, at string, n *yaml.Node, i *Intake) {
			i.Window = r.duration(at, n, 0, time.Hour)
		}},
		{name: "window_offline", read: func(r *reader, at string, n *yaml.Node, i *Intake) {
			i.Offline = r.duration(at, n, 0, time.Hour)
		}},
		{name: "max_waiting", read: func(r *reader, at string, n *yaml.Node, i *Intake) {
			i.MaxWaiting = r.size(at, n, 64<<10, 256<<20)
		}},
	}
}

func pollFields() []field[*Poll] {
	return []field[*Poll]{
		{name: "parallel", read: func(r *reader, at string, n *yaml.Node, p *Poll) {
			p.Parallel = int(r.integer(at, n, 1, 256))
		}},
	}
}

func mainsFields() []field[*Mains] {
	return []field[*Mains]{
		{name: "voltage", read: func(r *reader, at string, n *yaml.Node, m *Mains) {
			m.Voltage = float64(r.integer(at, n, 50, 500))
		}},
		{name: "frequency", read: func(r *reader, at string, n *yaml.Node, m *Mains) {
			m.Frequency = float64(r.integer(at, n, 50, 60))
		}},
	}
}

func pushFields() []field[*Push] {
	return []field[*Push]{
		{name: "listen", read: func(r *reader, at string, n *yaml.Node, p *Push) {
			r.list(at, n, maxListen, func(at string, n *yaml.Node) {
				readListen(r, at, n, p)
			})
		}},
		{name: "title", read: func(r *reader, at string, n *yaml.Node, p *Push) {
			r.checked(at, n, "the system title of this gateway, 16 hexadecimal digits", func(s string) bool {
				var err error
				p.Title, err = address.ParseTitle(s)
				return err == nil
			})
		}},
	}
}

// readListen reads where to listen. Keys of meters stand with the meters.
func readListen(r *reader, at string, n *yaml.Node, p *Push) {
	s, ok := r.text(at, n, "where to listen, such as tcp://:4059")
	if !ok {
		return
	}
	l, err := address.ParseListen(s)
	switch {
	case err != nil:
		r.fail(at, n, "", "%v", err)
	case l.Secrets != (address.Address{}) || l.Meter != (address.Title{}):
		r.fail(at, n, "", "has keys; here they stand with the meters, and title beside listen")
	case slices.ContainsFunc(p.Listen, func(o Listen) bool { return o.Text == s }):
		r.fail(at, n, s, "is in the list already")
	default:
		p.Listen = append(p.Listen, Listen{Text: s, Listen: l})
	}
}

func controlFields() []field[*Control] {
	return []field[*Control]{
		{name: "socket", read: func(r *reader, at string, n *yaml.Node, c *Control) {
			c.Socket = r.path(at, n, 107) // sun_path of unix(7)
		}},
	}
}

// maxMemberships is how many groups of gateways one may be a member of.
const maxMemberships = 16

func trustFields() []field[*Trust] {
	return []field[*Trust]{
		{name: "file", read: func(r *reader, at string, n *yaml.Node, t *Trust) {
			t.File = r.path(at, n, 4096)
		}},
		{name: "groups", read: func(r *reader, at string, n *yaml.Node, t *Trust) {
			r.list(at, n, maxMemberships, func(at string, n *yaml.Node) {
				id := r.id(at, n)
				if slices.Contains(t.Groups, id) {
					r.fail(at, n, string(id), "is in the list already")
				}
				t.Groups = append(t.Groups, id)
			})
		}},
		{name: "prove", read: func(r *reader, at string, n *yaml.Node, t *Trust) {
			t.Prove = r.duration(at, n, time.Second, day)
		}},
	}
}

func groupFields() []field[*Group] {
	return []field[*Group]{
		{name: "lane", required: true, read: func(r *reader, at string, n *yaml.Node, g *Group) {
			g.Lane, _ = meter.ParseLane(r.oneOf(at, n, "instant", "interval", "billing", "alarm"))
		}},
		{name: "every", required: true, read: func(r *reader, at string, n *yaml.Node, g *Group) {
			g.Every = r.duration(at, n, time.Second, 31*day)
		}},
		{name: "align", read: func(r *reader, at string, n *yaml.Node, g *Group) {
			g.Align = r.boolean(at, n)
		}},
		{name: "channels", read: func(r *reader, at string, n *yaml.Node, g *Group) {
			r.list(at, n, maxChannels, func(at string, n *yaml.Node) {
				c := r.channel(at, n)
				if c != "" && slices.Contains(g.Channels, c) {
					r.fail(at, n, n.Value, "is in the list already")
				}
				g.Channels = append(g.Channels, c)
			})
		}},
		{name: "profile", read: func(r *reader, at string, n *yaml.Node, g *Group) {
			g.Profile = r.channel(at, n)
			if _, class, attribute, ok := g.Profile.Attribute(); g.Profile != "" && (!ok || class != meter.ClassProfile || attribute != 2) {
				r.fail(at, n, n.Value, "want a profile, class 7 attribute 2, such as 1-0:99.1.0")
			}
		}},
		{name: "back", read: func(r *reader, at string, n *yaml.Node, g *Group) {
			g.Back = r.duration(at, n, day, 400*day)
		}},
		{name: "clear", read: func(r *reader, at string, n *yaml.Node, g *Group) {
			g.Clear = r.boolean(at, n)
		}},
	}
}

// readGroups reads the mapping of groups by name.
func readGroups(r *reader, at string, n *yaml.Node, d *document) {
	d.Groups, d.groupNames = r.groups(at, n)
}

// groups reads groups by name, and gives the names of those, too, that have
// problems.
func (r *reader) groups(at string, n *yaml.Node) (groups []Group, names []string) {
	if r.tells(at, "type", "object", "maxProperties", maxGroups, "propertyNames", map[string]any{"pattern": "^[a-z0-9-]{1,32}$"}) {
		mapping(r, join(at, "*"), n, groupFields(), &Group{})
		return nil, nil
	}
	if !r.kind(at, n, yaml.MappingNode, "groups by name") {
		return nil, nil
	}
	if len(n.Content)/2 > maxGroups {
		r.fail(at, n, "", "has %d groups; want at most %d", len(n.Content)/2, maxGroups)
		return nil, nil
	}
	r.eachKey(at, n, func(k, v *yaml.Node) {
		if !isID(k.Value) {
			r.fail(at, k, "", "a group's name: want 1 to 32 characters of a-z, 0-9 and '-'")
			return
		}
		names = append(names, k.Value)
		g := Group{Name: meter.ID(k.Value)}
		at := join(at, k.Value)
		before := len(r.problems)
		has := mapping(r, at, v, groupFields(), &g)
		if len(r.problems) == before {
			r.group(at, k, has, &g)
		}
		groups = append(groups, g)
	})
	return groups, names
}

// group checks what the keys of a group cannot check alone.
func (r *reader) group(at string, k *yaml.Node, has nodes, g *Group) {
	channels, profile := has["channels"], has["profile"]
	switch {
	case channels != nil && profile != nil:
		r.fail(at, k, "", "has channels and a profile; want one of them, and a second group for the other")
	case channels == nil && profile == nil:
		r.fail(at, k, "", "has neither channels nor a profile; nothing would be read")
	case channels != nil && len(g.Channels) == 0:
		r.fail(join(at, "channels"), channels, "", "is empty; nothing would be read")
	case channels != nil && g.Lane == meter.Interval:
		// Of the interval lane a power cut takes what waits in memory, and it is
		// read again from its cursor; a register is gone.
		r.fail(join(at, "lane"), has["lane"], g.Lane.String(), "want instant, billing or alarm for channels; interval is for profiles")
	case channels != nil && g.Lane == meter.Billing && g.Every != day:
		r.fail(join(at, "every"), has["every"], has["every"].Value, "want 1d for channels of the billing lane: they are read around midnight")
	case channels != nil && has["back"] != nil:
		r.fail(join(at, "back"), has["back"], has["back"].Value, "is for profiles: registers keep nothing of the past")
	case g.Clear && (profile != nil || g.Lane != meter.Alarm):
		r.fail(join(at, "clear"), has["clear"], has["clear"].Value, "is for channels of the alarm lane")
	case profile != nil && g.Lane == meter.Instant:
		r.fail(join(at, "lane"), has["lane"], g.Lane.String(), "want interval, billing or alarm for a profile; instant is for channels")
	}
	if profile != nil && g.Back == 0 {
		g.Back = 40 * day
	}
}

func (r *reader) channel(at string, n *yaml.Node) meter.Channel {
	const want = "an OBIS code such as 1-0:1.8.0 or 1-0:1.6.0*255/4:5, or a register's name such as thd.current.l1"
	var c meter.Channel
	r.checked(at, n, want, func(s string) bool {
		var err error
		c, err = meter.ParseChannel(s)
		return err == nil
	})
	return c
}

func meterFields() []field[*rawMeter] {
	return []field[*rawMeter]{
		{name: "id", required: true, read: func(r *reader, at string, n *yaml.Node, m *rawMeter) {
			m.ID = r.id(at, n)
		}},
		{name: "url", required: true, read: readURL},
		{name: "serial", read: func(r *reader, at string, n *yaml.Node, m *rawMeter) {
			m.Serial = r.checked(at, n, "1 to 64 visible ASCII characters", func(s string) bool {
				return isToken(s) && len(s) <= 64
			})
		}},
		{name: "fuse", read: readFuse},
		{name: "clock", read: func(r *reader, at string, n *yaml.Node, m *rawMeter) {
			m.Clock = r.clockPolicy(at, n)
		}},
		{name: "protected", read: func(r *reader, at string, n *yaml.Node, m *rawMeter) {
			m.Protected = r.boolean(at, n)
		}},
		{name: "timeout", read: func(r *reader, at string, n *yaml.Node, m *rawMeter) {
			m.timeout = r.duration(at, n, address.MinTimeout, address.MaxTimeout)
		}},
		{name: "groups", read: func(r *reader, at string, n *yaml.Node, m *rawMeter) {
			if n.Kind == yaml.ScalarNode && n.Value == groupsAuto {
				return
			}
			r.list(at, n, maxGroups, func(at string, n *yaml.Node) {
				if s, ok := r.text(at, n, "the name of a group"); ok {
					m.groups = append(m.groups, groupName{at, n, s})
				}
			})
			if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
				r.fail(at, n, "", "is empty; nothing would be read")
			}
		}},
	}
}
