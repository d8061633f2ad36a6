package configs

import (
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Fingerprint identifies what a poller works with; equal fingerprints mean
// that nothing of it changed. It holds no secret, and what a secret reference
// leads to is no part of it: the content of a password file may change
// unnoticed.
type Fingerprint [16]byte

// Fingerprint identifies the meter behind a configured name and how it is
// spoken with: id, address, secret reference and serial number, but not what
// is read of it. Attempts that a meter refused are counted against it.
func (m Meter) Fingerprint() Fingerprint {
	h := sha256.Sum256([]byte(m.identity()))
	return Fingerprint(h[:16])
}

// identity is what Fingerprint is made of, each part quoted so that parts
// cannot run into one another.
func (m Meter) identity() string {
	return fmt.Sprintf("meter %q %q %q\n", m.ID, m.Address, m.Serial)
}

// fingerprint identifies everything that the poller of a line uses. The order
// of meters and of their groups is no part of it.
func (c *Config) fingerprint(l Line) Fingerprint {
	h := sha256.New()
	fmt.Fprintf(h, "line %q %q %v\n", l.Key, c.TimeZone, c.MeterClocks)
	meters := make([]string, len(l.Meters))
	for i, m := range l.Meters {
		groups := make([]string, len(m.Groups))
		for j, g := range m.Groups {
			groups[j] = fmt.Sprintf("group %q %v %v %v %q %q %v %v\n",
				g.Name, g.Lane, g.Every, g.Align, g.Channels, g.Profile, g.Back, g.Clear)
		}
		slices.Sort(groups)
		meters[i] = m.identity() + c.modelSum(m) + fmt.Sprintf("auto %v clock %q\n", m.Auto, m.Clock) + strings.Join(groups, "")
	}
	slices.Sort(meters)
	_, _ = io.WriteString(h, strings.Join(meters, "")) // a hash takes everything
	return Fingerprint(h.Sum(nil)[:16])
}

// modelSum identifies what the model of m says.
func (c *Config) modelSum(m Meter) string {
	switch {
	case m.Address.Scheme.IsModbus():
		return fmt.Sprintf("model %x\n", c.models[m.Address.Model].sum)
	case m.Address.Scheme.IsDLMS():
		return fmt.Sprintf("model %x\n", c.models[dlmsKey(m.Address.Model)].sum)
	}
	return ""
}

func (p Push) equal(q Push) bool {
	return p.Title == q.Title && slices.EqualFunc(p.Listen, q.Listen, func(a, b Listen) bool { return a.Text == b.Text })
}

func (t Time) equal(u Time) bool {
	servers := slices.Equal(t.Servers, u.Servers)
	t.Servers, u.Servers = nil, nil
	return servers && fmt.Sprint(t) == fmt.Sprint(u)
}

// Diff is what a running agent has to do to get from one configuration to
// another. The zero value is nothing.
type Diff struct {
	LinesAdded   []string // keys of lines, in the order of the new configuration
	LinesRemoved []string // in the order of the old one
	LinesChanged []string // in the order of the new one
	Uplink       bool
	Intake       bool
	Push         bool // where is listened, and to whom
	Limits       bool // that readings are judged by
	Time         bool // how the clock is kept
	Modem        bool
	Leds         bool
	Page         bool // where the local page is served, and to whom
	// Restart has the keys of the document that changed and take effect only
	// when the agent starts anew.
	Restart []string
}

// Empty says that there is nothing to do.
func (d Diff) Empty() bool {
	return len(d.LinesAdded)+len(d.LinesRemoved)+len(d.LinesChanged)+len(d.Restart) == 0 && !d.Uplink && !d.Intake && !d.Push && !d.Limits && !d.Time && !d.Modem && !d.Leds && !d.Page
}

// Changes says in words what takes effect while the agent runs.
func (d Diff) Changes() (all []string) {
	for _, l := range []struct {
		what string
		keys []string
	}{{"added", d.LinesAdded}, {"removed", d.LinesRemoved}, {"changed", d.LinesChanged}} {
		for _, k := range l.keys {
			all = append(all, fmt.Sprintf("line %s %s", k, l.what))
		}
	}
	for _, p := range []struct {
		what string
		is   bool
	}{{"uplink", d.Uplink}, {"intake", d.Intake}, {"push", d.Push}, {"limits", d.Limits}, {"modem", d.Modem}, {"leds", d.Leds}, {"page", d.Page}} {
		if p.is {
			all = append(all, p.what+" changed")
		}
	}
	return all
}

// Compare gives the way from one configuration to the other. A line is changed
// when anything that its poller uses is: its meters, their addresses, groups,
// register maps and serial numbers, the time zone.
func Compare(from, to *Config) Diff {
	var d Diff
	before := map[string]Fingerprint{}
	for _, l := range from.Lines() {
		before[l.Key] = from.fingerprint(l)
	}
	after := map[string]bool{}
	for _, l := range to.Lines() {
		after[l.Key] = true
		was, ok := before[l.Key]
		switch {
		case !ok:
			d.LinesAdded = append(d.LinesAdded, l.Key)
		case was != to.fingerprint(l):
			d.LinesChanged = append(d.LinesChanged, l.Key)
		}
	}
	for _, l := range from.Lines() {
		if !after[l.Key] {
			d.LinesRemoved = append(d.LinesRemoved, l.Key)
		}
	}
	d.Uplink = from.identity() != to.identity()
	d.Intake = from.Intake != to.Intake
	d.Push = !from.Push.equal(to.Push) || len(to.Push.Listen) > 0 && !slices.EqualFunc(from.Meters, to.Meters, func(a, b Meter) bool {
		return a.identity()+from.modelSum(a) == b.identity()+to.modelSum(b)
	})
	d.Page = !from.Page.equal(to.Page)
	d.Time = !from.Time.equal(to.Time) || from.Modem.Port != to.Modem.Port
	d.Modem = fmt.Sprint(from.Modem) != fmt.Sprint(to.Modem)
	d.Leds = !slices.Equal(from.Leds, to.Leds)
	d.Limits = from.Mains != to.Mains || slices.ContainsFunc(to.Meters, func(m Meter) bool {
		old, ok := from.Meter(m.ID)
		return ok && (old.Fuse != m.Fuse || old.Protected != m.Protected)
	})
	for _, c := range []struct {
		key     string
		changed bool
	}{
		{"site", from.Site != to.Site},
		{"gateway", from.Gateway != to.Gateway},
		{"buffer.path", from.Buffer.Path != to.Buffer.Path},
		{"buffer.max_size", from.Buffer.All.Size != to.Buffer.All.Size},
		{"buffer.max_age", from.Buffer.All.Age != to.Buffer.All.Age},
		{"buffer.lanes", from.Buffer.Lanes != to.Buffer.Lanes},
		{"poll", from.Poll != to.Poll},
		{"control.socket", from.Control != to.Control},
		{"trust.file", from.Trust.File != to.Trust.File},
		{"update.path", from.Update.Path != to.Update.Path && from.Buffer.Path == to.Buffer.Path}, // its default lies beside that
		{"outputs", !slices.Equal(from.Outputs, to.Outputs)},
	} {
		if c.changed {
			d.Restart = append(d.Restart, c.key)
		}
	}
	return d
}
