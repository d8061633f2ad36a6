package configs

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const diffBase = `version: 1
site: s
gateway: g
uplink: {broker: "tcp://h:1", password: env:P, username: u}
groups:
  a: {lane: instant, every: 1m, channels: [1-0:1.8.0]}
  b: {lane: instant, every: 5m, channels: [1-0:2.8.0]}
  unused: {lane: instant, every: 5m, channels: [1-0:2.8.0]}
meters:
  - {id: m1, url: "dlms+wrapper://h1", groups: [a], serial: S1}
  - {id: m2, url: "dlms+wrapper://h2?auth=lls&password=env:P2", groups: [a, b]}
  - {id: m3, url: "dlms+wrapper://h3", groups: [b]}
  - {id: m4, url: "dlms+wrapper://h3?server=2", groups: [b]}
`

func TestCompare(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		edit []string // pairs for strings.NewReplacer
		want Diff
	}{
		{"nothing", nil, Diff{}},
		{"a comment", []string{"version: 1", "version: 1 # yes"}, Diff{}},
		{"the order of a meter's groups", []string{"[a, b]", "[b, a]"}, Diff{}},
		{"a group that nobody uses", []string{"unused: {lane: instant, every: 5m", "unused: {lane: instant, every: 6m"}, Diff{}},
		{"a default written out", []string{"dlms+wrapper://h1", "dlms+wrapper://h1:4059?client=16"}, Diff{}},
		{"a group", []string{"every: 5m, channels: [1-0:2.8.0]}\n  unused", "every: 6m, channels: [1-0:2.8.0]}\n  unused"}, Diff{LinesChanged: []string{"h2:4059", "h3:4059"}}},
		{"a group's channels", []string{"[1-0:1.8.0]", "[1-0:1.8.0, 1-0:1.7.0]"}, Diff{LinesChanged: []string{"h1:4059", "h2:4059"}}},
		{"alignment", []string{"every: 1m", "every: 1m, align: true"}, Diff{LinesChanged: []string{"h1:4059", "h2:4059"}}},
		{"a serial number", []string{"S1", "S2"}, Diff{LinesChanged: []string{"h1:4059"}}},
		{"an id", []string{"m1", "m9"}, Diff{LinesChanged: []string{"h1:4059"}}},
		{"a secret's reference", []string{"env:P2", "env:P3"}, Diff{LinesChanged: []string{"h2:4059"}}},
		{"a time-out", []string{"server=2", "server=2&timeout=9s"}, Diff{LinesChanged: []string{"h3:4059"}}},
		{"a meter less on a line", []string{"  - {id: m4, url: \"dlms+wrapper://h3?server=2\", groups: [b]}\n", ""}, Diff{LinesChanged: []string{"h3:4059"}}},
		{"another line", []string{"//h1", "//h9"}, Diff{LinesAdded: []string{"h9:4059"}, LinesRemoved: []string{"h1:4059"}}},
		{"the time zone", []string{"site: s", "site: s\ntime_zone: Asia/Tokyo"}, Diff{LinesChanged: []string{"h1:4059", "h2:4059", "h3:4059"}}},
		{"the broker", []string{"tcp://h:1", "tcp://h:2"}, Diff{Uplink: true}},
		{"another broker", []string{"uplink: {", "uplink: {brokers: [\"tcp://x\"], "}, Diff{Uplink: true}},
		{"deltas", []string{"uplink: {", "uplink: {confirm: fog, delta: true, "}, Diff{Uplink: true}},
		{"a window", []string{"uplink: {", "uplink: {lanes: {interval: {windows: [\"01:00-02:00\"]}}, "}, Diff{Uplink: true}},
		{"the broker's password", []string{"env:P,", "env:Q,"}, Diff{Uplink: true}},
		{"the intake", []string{"site: s", "site: s\nintake: {window: 1m}"}, Diff{Intake: true}},
		{"the time", []string{"site: s", "site: s\ntime: {servers: [a]}"}, Diff{Time: true}},
		{"the modem", []string{"site: s", "site: s\nmodem: {port: /m}"}, Diff{Time: true, Modem: true}},
		{"lamps", []string{"site: s", "site: s\nleds: [{path: /l}]"}, Diff{Leds: true}},
		{"what is done about clocks", []string{"site: s", "site: s\nmeter_clocks: {policy: set}"}, Diff{LinesChanged: []string{"h1:4059", "h2:4059", "h3:4059"}}},
		{"a default of the time written out", []string{"site: s", "site: s\ntime: {discipline: observe, min_poll: 64s}"}, Diff{}},
		{"the buffer's size", []string{"site: s", "site: s\nbuffer: {max_size: 8MiB, max_age: 3d, lanes: {alarm: {max_age: 4d}}}"}, Diff{Restart: []string{"buffer.max_size", "buffer.max_age", "buffer.lanes"}}},
		{"the buffer", []string{"site: s", "site: s\nbuffer: {path: x}"}, Diff{Restart: []string{"buffer.path"}}},
		{"where firmware lies", []string{"site: s", "site: s\nupdate: {path: x}"}, Diff{Restart: []string{"update.path"}}},
		{"the socket", []string{"site: s", "site: s\ncontrol: {socket: x}"}, Diff{Restart: []string{"control.socket"}}},
		{"who it is", []string{"site: s", "site: z", "gateway: g", "gateway: y"}, Diff{Uplink: true, Restart: []string{"site", "gateway"}}},
	}
	from := parse(t, diffBase)
	for _, tt := range tests {
		doc := strings.NewReplacer(tt.edit...).Replace(diffBase)
		if len(tt.edit) > 0 && doc == diffBase {
			t.Errorf("%s: the edit changed nothing", tt.name)
		}
		got := Compare(from, parse(t, doc))
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.name, d)
		}
		if got.Empty() != (cmp.Diff(Diff{}, got) == "") {
			t.Errorf("%s: Empty is %v of %+v", tt.name, got.Empty(), got)
		}
	}
}

// A fingerprint stands for who a meter is and how it is spoken with, not for
// what is read of it.
func TestFingerprint(t *testing.T) {
	t.Parallel()
	of := func(edit ...string) [3]Fingerprint {
		c := parse(t, strings.NewReplacer(edit...).Replace(diffBase))
		return [3]Fingerprint{c.Meters[0].Fingerprint(), c.Meters[1].Fingerprint(), c.Meters[2].Fingerprint()}
	}
	base := of()
	if base[0] == base[1] || base[1] == base[2] || base[0] == (Fingerprint{}) {
		t.Errorf("meters share a fingerprint: %x", base)
	}
	if got := of("every: 1m", "every: 2m", "[a, b]", "[b]"); got != base {
		t.Error("what is read changes the fingerprint")
	}
	for _, edit := range [][]string{{"S1", "S2"}, {"m1", "m9"}, {"//h1", "//h9"}, {"//h1", "//h1?client=17"}} {
		if got := of(edit...); got[0] == base[0] || got[2] != base[2] {
			t.Errorf("%q: changed %v, want only the first meter's", edit, got != base)
		}
	}
	if got := of("env:P2", "env:P3"); got[1] == base[1] {
		t.Error("another secret reference does not change the fingerprint")
	}
	a, b := parse(t, minimal), parse(t, minimal+"# more")
	if a.Hash() == b.Hash() || a.Hash() != parse(t, minimal).Hash() {
		t.Error("the hash is not the document's")
	}
}
