package configs

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
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
	h := sha256.New()
	m.identify(h)
	return Fingerprint(h.Sum(nil)[:16])
}

// identify writes what Fingerprint is made of, each part quoted so that parts
// cannot run into one another.
func (m Meter) identify(w io.Writer) {
	fmt.Fprintf(w, "meter %q %q %q\n", m.ID, m.Address, m.Serial)
}

// fingerprint identifies everything that the poller of a line uses. The order
// of meters and of their groups is no part of it.
func (c *Config) fingerprint(l Line) Fingerprint {
	h := sha256.New()
	fmt.Fprintf(h, "line %q %q\n", l.Key, c.TimeZone)
	for _, m := range slices.SortedFunc(slices.Values(l.Meters), func(a, b Meter) int { return cmp.Compare(a.ID, b.ID) }) {
		m.identify(h)
		for _, g := range slices.SortedFunc(slices.Values(m.Groups), func(a, b Group) int { return cmp.Compare(a.Name, b.Name) }) {
			fmt.Fprintf(h, "group %q %v %v %v %q %q\n", g.Name, g.Lane, g.Every, g.Align, g.Channels, g.Profile)
		}
	}
	return Fingerprint(h.Sum(nil)[:16])
}

// Diff is what a running agent has to do to get from one configuration to
// another. The zero value is nothing.
type Diff struct {
	LinesAdded   []string // keys of lines, in the order of the new configuration
	LinesRemoved []string // in the order of the old one
	LinesChanged []string // in the order of the new one
	Uplink       bool
	Intake       bool
	// Restart has the keys of the document that changed and take effect only
	// when the agent starts anew.
	Restart []string
}

// Empty says that there is nothing to do.
func (d Diff) Empty() bool {
	return len(d.LinesAdded)+len(d.LinesRemoved)+len(d.LinesChanged)+len(d.Restart) == 0 && !d.Uplink && !d.Intake
}

// Compare gives the way from one configuration to the other. A line is changed
// when anything that its poller uses is: its meters, their addresses, groups
// and serial numbers, the time zone.
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
	d.Uplink = from.Uplink != to.Uplink
	d.Intake = from.Intake != to.Intake
	for _, c := range []struct {
		key     string
		changed bool
	}{
		{"site", from.Site != to.Site},
		{"gateway", from.Gateway != to.Gateway},
		{"buffer.path", from.Buffer != to.Buffer},
		{"control.socket", from.Control != to.Control},
	} {
		if c.changed {
			d.Restart = append(d.Restart, c.key)
		}
	}
	return d
}
