package configs

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"gridgate/drivers/address"
)

// Each document has one thing wrong; the problem names the place and says what
// to do. "¦" stands for a line end, groups g (channels), p (profile) and x (a
// name of its own) exist.
func TestProblems(t *testing.T) {
	t.Parallel()
	const head = "version: 1¦site: s¦gateway: g¦"
	const uplink = "uplink: {broker: \"tcp://h\"}¦"
	const groups = "groups:¦" +
		"  g: {lane: instant, every: 1m, channels: [1-0:1.8.0]}¦" +
		"  p: {lane: interval, every: 1m, profile: 1-0:99.1.0}¦" +
		"  x: {lane: instant, every: 1m, channels: [thd.l1]}¦"
	const full = head + uplink
	const site = full + groups + "meters:¦" // the meters begin at line 10
	tests := []struct{ doc, want string }{
		// The document.
		{"", "t.yaml: the file is empty; see the reference"},
		{"# nothing¦", "t.yaml: the file is empty"},
		{"x", "t.yaml:1: want keys with values at the top"},
		{"- x", "t.yaml:1: want keys with values at the top"},
		{full + "---¦a: 1", "t.yaml:5: a second document begins here"},
		{full + "buffer:¦\tpath: x", "t.yaml:6: not YAML: no value begins with this character (a tab"},
		{full + "buffer: {path: x", "t.yaml:6: not YAML: did not find expected ',' or '}' parsing a flow mapping that began at line 5"},
		{full + "buffer: {path: \"x¦¦", "t.yaml:7: not YAML: found unexpected end of stream scanning a quoted scalar that began at line 5"},
		{full + "buffer: {path: a\xff}", "t.yaml:5: a byte that is no text"},
		{full + "buffer: {path: a\x01}", "t.yaml:5: a byte that is no text"},
		{full + "buffer: &a {path: b}", "t.yaml:5: anchors and aliases have no place here"},
		{full + "buffer: *a", "t.yaml:5: anchors and aliases have no place here"},
		{full + "buffer: !!map {path: b}", "t.yaml:5: tags have no place here"},
		{full + "<<: {time_zone: UTC}", "t.yaml:5: merge keys have no place here"},
		{full + "buffer: " + strings.Repeat("[", 20) + strings.Repeat("]", 20), "t.yaml:5: nested more than 16 deep"},
		{full + "? [a]¦: 1", "t.yaml:5: a key is a list; want a name"},
		{full + "site: s", "t.yaml:5: site: the key is also at line 2"},

		// Keys and types.
		{full + "timezone: UTC", "t.yaml:5: timezone: unknown key; did you mean time_zone?"},
		{full + "colour: red", "t.yaml:5: colour: unknown key; want one of version, site, gateway, time_zone, models, buffer"},
		{head, "t.yaml:1: uplink: missing; it has no default"},
		{"site: s¦gateway: g¦" + uplink, "t.yaml:1: version: missing"},
		{"version: 2¦site: s¦gateway: g¦" + uplink, `t.yaml:1: version: "2": want 1, the version of configurations`},
		{"version: \"1\"¦site: s¦gateway: g¦" + uplink, `t.yaml:1: version: "1": want 1`},
		{"version: 1¦site: A b¦gateway: g¦" + uplink, `t.yaml:2: site: "A b": want 1 to 32 characters of a-z, 0-9 and '-'`},
		{"version: 1¦site: s¦gateway: [g]¦" + uplink, "t.yaml:3: gateway: is a list; want 1 to 32 characters"},
		{"version: 1¦site: s¦gateway:¦" + uplink, "t.yaml:3: gateway: is empty; want 1 to 32 characters"},
		{full + "time_zone: Mars/Base", `t.yaml:5: time_zone: "Mars/Base": want the name of a time zone`},
		{full + "time_zone: Local", `t.yaml:5: time_zone: "Local": want the name`},
		{full + "buffer: /var", "t.yaml:5: buffer: is a single value; want keys with values"},
		{full + "buffer: {path: ''}", "t.yaml:5: buffer.path: want a path of 1 to 4096 bytes"},
		{full + "time: {servers: [a, a]}", `t.yaml:5: time.servers[1]: "a": is in the list already`},
		{full + "time: {servers: ['a:b']}", `t.yaml:5: time.servers[0]: "a:b": want a time server: HOST, HOST:PORT, or nts://HOST[:PORT]`},
		{full + "time: {servers: ['a:0']}", "want a time server"},
		{full + "time: {servers: ['ntp://a']}", "want a time server"},
		{full + "time: {servers: ['nts://']}", "want a time server"},
		{full + "meter_clocks: {policy: shift}", `meter_clocks.policy: "shift": want observe or set`},
		{full + "meter_clocks: {threshold: 1s}", "want a duration with a unit, 2s to 10m"},
		{full + "meter_clocks: {threshold: 1m, limit: 30s}", "meter_clocks.threshold: \"1m\": want less than limit, 30s"},
		{full + "time: {discipline: agent}", `t.yaml:5: time.discipline: "agent": needs time.servers`},
		{full + "time: {discipline: chrony}", `time.discipline: "chrony": want observe or agent`},
		{full + "time: {min_poll: 1h, max_poll: 30m}", `time.min_poll: "1h": want at most max_poll, 30m`},
		{full + "time: {min_poll: 1s}", `time.min_poll: "1s": want a duration with a unit, 16s to 1h`},
		{full + "time: {servers: [a], ca: /x}", "time.ca: is for servers with nts:// only"},
		{full + "control: {socket: " + strings.Repeat("x", 108) + "}", "want a path of 1 to 107 bytes"},
		{full + "intake: {window: 4}", `t.yaml:5: intake.window: "4": want a duration with a unit, 0s to 1h`},
		{full + "intake: {window: 61m}", `intake.window: "61m": want a duration with a unit, 0s to 1h`},
		{full + "intake: {window: -1s}", `intake.window: "-1s": want a duration`},
		{full + "intake: {window: 1d1}", `intake.window: "1d1": want a duration`},
		{full + "intake: {max_waiting: 4}", `t.yaml:5: intake.max_waiting: "4": want a size with a unit, 64KiB to 256MiB`},
		{full + "intake: {max_waiting: 4 MiB}", `intake.max_waiting: "4 MiB": want a size`},
		{full + "intake: {max_waiting: 1KiB}", `intake.max_waiting: "1KiB": want a size`},

		// The uplink.
		{head + "uplink: {}", "t.yaml:4: uplink.broker: missing"},
		{head + "uplink: {broker: h}", `t.yaml:4: uplink.broker: "h": want tcp://HOST:PORT or ssl://HOST:PORT`},
		{head + "uplink: {broker: http://h}", `uplink.broker: "http://h": want tcp`},
		{head + "uplink: {broker: tcp://h:0}", `uplink.broker: "tcp://h:0": want tcp`},
		{head + "uplink: {broker: tcp://}", `uplink.broker: "tcp://": want tcp`},
		{head + "uplink: {broker: tcp://h/x}", `uplink.broker: "tcp://h/x": want tcp`},
		{head + "uplink: {broker: tcp://u:hunter2@h}", "t.yaml:4: uplink.broker: credentials do not stand in the address"},
		{head + "uplink: {broker: tcp://h, pasword: hunter2}", "t.yaml:4: uplink.pasword: unknown key; did you mean password?"},
		{head + "uplink: {broker: tcp://h, password:hunter2}", "t.yaml:4: uplink.?: unknown key"},
		{head + "uplink: {broker: tcp://h, username: u, password: hunter2}", "t.yaml:4: uplink.password: a secret has no place in a configuration: write file:/etc/gridgate/NAME or env:NAME"},
		{head + "uplink: {broker: tcp://h, username: u, password: [hunter2]}", "uplink.password: is a list; want a reference"},
		{head + "uplink: {broker: tcp://h, username: u, password: *hunter2}", "anchors and aliases"},
		{head + "uplink: {broker: tcp://h, username: u, password: &hunter2 env:X}", "anchors and aliases"},
		{head + "uplink: {broker: tcp://h, username: u, password: 'env:hunter2!'}", "uplink.password: names no environment variable"},
		{head + "uplink: {broker: tcp://h, username: u, password: ''}", "uplink.password: is empty"},
		{head + "uplink: {broker: tcp://h, delta: true}", "uplink.delta: needs confirm: fog"},
		{head + "uplink: {broker: tcp://h, delta: 1, confirm: fog}", `uplink.delta: "1": want true or false`},
		{head + "uplink: {broker: tcp://h, password: env:P}", "uplink: has a password without a username"},
		{head + "uplink: {broker: tcp://h, ca: /ca}", `uplink.broker: "tcp://h:1883": ca, certificate and key need an encrypted connection`},
		{head + "uplink: {broker: ssl://h, key: /k}", "uplink: certificate and key belong together"},
		{head + "uplink: {broker: tcp://h, client_id: a/b}", `uplink.client_id: "a/b": want 1 to 128 visible`},
		{head + "uplink: {broker: tcp://h, keep_alive: 9s}", `uplink.keep_alive: "9s": want a duration with a unit, 10s to 15m`},
		{head + "uplink: {broker: tcp://h, confirm: me}", `uplink.confirm: "me": want broker or fog`},
		{head + "uplink: {broker: tcp://h, brokers: [tcp://h]}", `uplink.brokers: "tcp://h:1883": is in broker already`},
		{head + "uplink: {brokers: [tcp://h, tcp://h]}", `uplink.brokers[1]: "tcp://h:1883": is in the list already`},
		{head + "uplink: {brokers: [tcp://h, ssl://i]}", `uplink.brokers: "ssl://i:8883": want tcp:// everywhere`},
		{head + "uplink: {brokers: []}", "uplink.broker: missing"},
		{head + "uplink: {broker: tcp://h, interfaces: [a/b]}", `uplink.interfaces[0]: "a/b": want a network interface`},
		{head + "uplink: {broker: tcp://h, start_jitter: 2h}", `uplink.start_jitter: "2h": want a duration with a unit, 0s to 1h`},
		{head + "uplink: {broker: tcp://h, budget: {day: 1MB, week: 1MB}}", "uplink.budget.week: unknown key"},
		{head + "uplink: {broker: tcp://h, budget: {day: 1kB}}", `uplink.budget.day: "1kB": want a size`},
		{head + "uplink: {broker: tcp://h, lanes: {alarm: {latency: 1m}}}", "uplink.lanes.alarm: unknown key; want one of billing, interval, instant"},
		{head + "uplink: {broker: tcp://h, lanes: {billing: {latency: 2d}}}", `uplink.lanes.billing.latency: "2d": want a duration`},
		{head + "uplink: {broker: tcp://h, lanes: {billing: {windows: [\"24:00-01:00\"]}}}", `uplink.lanes.billing.windows[0]: "24:00-01:00": want times of day such as 22:00-06:00`},
		{head + "uplink: {broker: tcp://h, lanes: {billing: {windows: [\"1:00-2:00\"]}}}", `want times of day`},
		{head + "uplink: {broker: tcp://h, lanes: {billing: {windows: [\"03:00-03:00\"]}}}", `want times of day`},
		{head + "uplink: {broker: tcp://h, max_message: 1B}", `uplink.max_message: "1B": want a size with a unit, 1KiB to 256KiB`},

		// Groups.
		{full + "groups: [g]", "t.yaml:5: groups: is a list; want groups by name"},
		{full + "groups: {A: {}}", "t.yaml:5: groups: a group's name: want 1 to 32"},
		{full + "groups: {g: {every: 1m, channels: [1-0:1.8.0]}}", "t.yaml:5: groups.g.lane: missing"},
		{full + "groups: {g: {lane: instant, channels: [1-0:1.8.0]}}", "t.yaml:5: groups.g.every: missing"},
		{full + "groups: {g: {lane: loud, every: 1m}}", `groups.g.lane: "loud": want instant or interval or billing or alarm`},
		{full + "groups: {g: {lane: billing, every: 1h, channels: [1-0:1.8.0]}}", `groups.g.every: "1h": want 1d for channels of the billing lane`},
		{full + "groups: {g: {lane: instant, every: 1h, back: 2d, channels: [1-0:1.8.0]}}", `groups.g.back: "2d": is for profiles`},
		{full + "groups: {g: {lane: instant, every: 1h, clear: true, channels: [1-0:1.8.0]}}", `groups.g.clear: "true": is for channels of the alarm lane`},
		{full + "poll: {parallel: 0}", `poll.parallel: "0": want a whole number, 1 to 256`},
		{full + "groups: {g: {lane: instant, every: 1m}}", "groups.g: has neither channels nor a profile"},
		{full + "groups: {g: {lane: instant, every: 1m, channels: []}}", "groups.g.channels: is empty"},
		{full + "groups: {g: {lane: instant, every: 1m, channels: [1-0:1.8.0], profile: 1-0:99.1.0}}", "groups.g: has channels and a profile"},
		{full + "groups: {g: {lane: interval, every: 1m, channels: [1-0:1.8.0]}}", `groups.g.lane: "interval": want instant, billing or alarm for channels`},
		{full + "groups: {g: {lane: instant, every: 1m, profile: 1-0:99.1.0}}", `groups.g.lane: "instant": want interval, billing or alarm`},
		{full + "groups: {g: {lane: billing, every: 1m, profile: 1-0:1.8.0}}", `groups.g.profile: "1-0:1.8.0": want a profile, class 7`},
		{full + "groups: {g: {lane: instant, every: 500ms, channels: [1-0:1.8.0]}}", `groups.g.every: "500ms": want a duration with a unit, 1s to 31d`},
		{full + "groups: {g: {lane: instant, every: 32d, channels: [1-0:1.8.0]}}", `groups.g.every: "32d": want a duration`},
		{full + "groups: {g: {lane: instant, every: 1m, align: yes, channels: [1-0:1.8.0]}}", `groups.g.align: "yes": want true or false`},
		{full + "groups: {g: {lane: instant, every: 1m, channels: 1-0:1.8.0}}", "groups.g.channels: is a single value; want a list"},
		{full + "groups: {g: {lane: instant, every: 1m, channels: [1-0:1.8]}}", `groups.g.channels[0]: "1-0:1.8": want an OBIS code`},
		{full + "groups: {g: {lane: instant, every: 1m, channels: [1-0:1.8.0, 1-0:1.8.0*255]}}", `groups.g.channels[1]: "1-0:1.8.0*255": is in the list already`},
		{
			full + "groups: {g: {lane: instant, every: 1m, channels: [" + strings.Repeat("1-0:1.8.0,", 65) + "]}}",
			"groups.g.channels: has 65 entries; want at most 64",
		},

		// Meters.
		{full + "meters: {id: a}", "t.yaml:5: meters: is a mapping; want a list"},
		{site + "  - x", "t.yaml:10: meters[0]: is a single value; want keys with values"},
		{site + "  - {url: dlms+wrapper://h, groups: [g]}", "t.yaml:10: meters[0].id: missing"},
		{site + "  - {id: a, groups: [g]}", "t.yaml:10: meters[0].url: missing"},
		{site + "  - {id: a, url: \"modbus+tcp://h?unit=1&model=eastron-sdm120\"}", "t.yaml:10: meters[0].groups: missing"},
		{site + "  - {id: a, url: \"iec21://h:1\", groups: auto}", `meters[0].groups: "auto": is for DLMS meters`},
		{site + "  - {id: a, url: \"dlms+wrapper://h?model=idos\"}", `meters[0].url: the key model: no model "idos"; did you mean idis?`},
		{site + "  - {id: a, url: \"dlms+wrapper://h?model=eastron-sdm120\"}", `meters[0].url: the key model: no model "eastron-sdm120"`},
		{site + "  - {id: a, url: \"dlms+wrapper://h?model=idis\", groups: [loud]}", `"loud": no such group; did you mean load?`},
		{site + "  - {id: a, url: dlms+wrapper://h, groups: [load]}", `"load": no such group; want one of g, p, x`},
		{site + "  - {id: a, url: \"dlms+wrapper://h?model=idis\", groups: [p, load]}", `meters[0].groups[1]: "load": follows the profile 1-0:99.1.0 as p does`},
		{site + "  - {id: a, url: dlms+wrapper://h, groups: []}", "t.yaml:10: meters[0].groups: is empty"},
		{site + "  - {id: a, url: dlms+wrapper://h, groups: [h1]}", `t.yaml:10: meters[0].groups[0]: "h1": no such group; want one of g, p, x`},
		{site + "  - {id: a, url: dlms+wrapper://h, groups: [g, g]}", `t.yaml:10: meters[0].groups[1]: "g": is in the list already`},
		{
			full + "groups:¦  p: {lane: interval, every: 1m, profile: 1-0:99.1.0}¦  q: {lane: billing, every: 1h, profile: 1-0:99.1.0}¦" +
				"meters:¦  - {id: m, url: \"dlms+wrapper://h\", groups: [p, q]}",
			`t.yaml:9: meters[0].groups[1]: "q": follows the profile 1-0:99.1.0 as p does`,
		},
		{site + "  - {id: a, url: dlms+wrapper://h, groups: [x]}", `meters[0].groups[0]: "x": has the channel thd.l1, which is no OBIS code`},
		{site + "  - {id: a, url: dlms+wrapper://h, groups: [g], serial: a b}", `meters[0].serial: "a b": want 1 to 64 visible`},
		{site + "  - {id: a, url: dlms+wrapper://h?timeout=1s, groups: [g], timeout: 1s}", `meters[0].timeout: "1s": is given in the url, too`},
		{site + "  - {id: a, url: dlms+wrapper://h, groups: [g], timeout: 1h}", `meters[0].timeout: "1h": want a duration with a unit, 50ms to 2m`},
		{site + "  - {id: a, url: [dlms], groups: [g]}", "meters[0].url: is a list; want an address"},
		{site + "  - {id: a, url: foo://h, groups: [g]}", "meters[0].url: unknown scheme: want one of"},
		{site + "  - {id: a, url: dlms+wrapper://h?client=x, groups: [g]}", "meters[0].url: the key client: want a number, 1 to 65535"},
		{site + "  - {id: a, url: dlms+wrapper://h?auth=lls&password=hunter2, groups: [g]}", "meters[0].url: a secret has no place in a configuration: write password=file:/etc/gridgate/NAME or password=env:NAME"},
		{site + "  - {id: a, url: 'dlms+wrapper://h?auth=gmac&title=GRG00001&ek=hunter2&ak=env:A', groups: [g]}", "meters[0].url: a secret has no place in a configuration: write ek=file:/etc/gridgate/NAME or ek=env:NAME"},
		{site + "  - {id: a, url: 'dlms+wrapper://h?auth=gmac&title=GRG00001&ek=env:E&ak=hunter2', groups: [g]}", "meters[0].url: a secret has no place in a configuration: write ak=file:/etc/gridgate/NAME or ak=env:NAME"},
		{site + "  - {id: a, url: 'dlms+wrapper://h?auth=ecdsa&suite=1&title=GRG00001&sk=hunter2&pk=env:P', groups: [g]}", "write sk=file:/etc/gridgate/NAME or sk=env:NAME"},
		{site + "  - {id: a, url: 'dlms+wrapper://h?security=authenc&ak=env:A&title=GRG00001', groups: [g]}", "meters[0].url: the key ek: missing: security=authenc needs the encryption key"},
		{site + "  - {id: a, url: dlms+wrapper://h?auth=lls&pasword=hunter2&password=env:X, groups: [g]}", "meters[0].url: pasword: unknown key"},
		{site + "  - {id: a, url: modbus+tcp://h?unit=1&model=eastron-sdm360, groups: [g]}", `meters[0].url: the key model: no model "eastron-sdm360"; did you mean eastron-sdm630?`},
		{site + "  - {id: a, url: modbus+tcp://h?unit=1&model=acme, groups: [g]}", `meters[0].url: the key model: no model "acme"; want one of abb-b23, carlo-gavazzi-em24-din`},
		{site + "  - {id: a, url: modbus+tcp://h?unit=1&model=eastron-sdm630, groups: [p]}", `meters[0].groups[0]: "p": reads a profile, which Modbus meters do not have`},
		{site + "  - {id: a, url: modbus+tcp://h?unit=1&model=eastron-sdm630, groups: [x]}", `meters[0].groups[0]: "x": has the channel thd.l1, which model eastron-sdm630 does not; it has `},
		{site + "  - {id: a, url: dlms+wrapper://h, groups: [g]}¦  - {id: a, url: dlms+wrapper://i, groups: [g]}", `t.yaml:11: meters[1].id: "a": is also the id of the meter at line 10`},
		{site + "  - {id: a, serial: S1, url: dlms+wrapper://h, groups: [g]}¦  - {id: b, serial: S1, url: dlms+wrapper://i, groups: [g]}", `t.yaml:11: meters[1].serial: "S1": is also the serial number of the meter at line 10`},
		{site + "  - {id: a, url: dlms+wrapper://h, groups: [g]}¦  - {id: b, url: dlms+wrapper://H:4059?client=17, groups: [g]}", "t.yaml:11: meters[1].url: h:4059 server 1 is also the meter at line 10"},
		{site + "  - {id: a, url: dlms+hdlc:///dev/x?physical=17, groups: [g]}¦  - {id: b, url: dlms+hdlc:///dev/x?physical=17&addrlen=4, groups: [g]}", "t.yaml:11: meters[1].url: /dev/x server 1, physical 17 is also the meter at line 10"},
		{site + "  - {id: a, url: 'iec21:///dev/x?address=7', groups: [g]}¦  - {id: b, url: 'iec21:///dev/x?address=7&mode=c', groups: [g]}", "t.yaml:11: meters[1].url: /dev/x device address 7 is also the meter at line 10"},
		{site + "  - {id: a, url: 'dlms+modee:///dev/x?address=7', groups: [g]}¦  - {id: b, url: 'dlms+modee:///dev/x?address=7', groups: [g]}", "t.yaml:11: meters[1].url: /dev/x server 1, device address 7 is also the meter at line 10"},
		{site + "  - {id: a, url: modbus+rtu:///dev/x?unit=1&model=eastron-sdm120, groups: [g]}¦  - {id: b, url: modbus+rtu:///dev//x?unit=1&model=eastron-sdm630&format=8E1, groups: [g]}", "t.yaml:11: meters[1].url: /dev/x unit 1 is also the meter at line 10"},
		{site + "  - {id: a, url: 'modbus+rtu:///dev/x?unit=1&model=eastron-sdm120&rs485=high', groups: [g]}¦  - {id: b, url: modbus+rtu:///dev/x?unit=2&model=eastron-sdm630, groups: [g]}", `meters[1].url: /dev/x has rs485="" here and "high" at line 10`},
		{site + "  - {id: a, url: modbus+tcp://h:1?unit=1&model=eastron-sdm120, groups: [g]}¦  - {id: b, url: dlms+wrapper://h:1, groups: [g]}", "t.yaml:11: meters[1].url: h:1 is dlms+wrapper here and modbus+tcp at line 10"},
		{full + "meters:¦  - {id: a, url: dlms+wrapper://h, groups: [g]}", `meters[0].groups[0]: "g": no such group; there are none under groups`},
		{full + "groups: {house: {lane: instant, every: 1m, channels: [1-0:1.8.0]}}¦meters:¦  - {id: a, url: dlms+wrapper://h, groups: [huose]}", `"huose": no such group; did you mean house?`},
	}
	for _, tt := range tests {
		doc := strings.ReplaceAll(tt.doc, "¦", "\n")
		_, err := Parse("t.yaml", []byte(doc))
		var ps Problems
		if !errors.As(err, &ps) {
			t.Errorf("%q: %v (%T), want problems with %q", tt.doc, err, err, tt.want)
			continue
		}
		if len(ps) != 1 || !strings.Contains(ps[0].Error(), tt.want) {
			t.Errorf("%q\n got %v\nwant one problem with %s", tt.doc, err, tt.want)
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the secret is shown: %v", tt.doc, err)
		}
	}
}

// All problems of a document come in one pass, in the order of its lines.
func TestProblemsInOnePass(t *testing.T) {
	t.Parallel()
	_, err := Parse("t.yaml", []byte(`version: 3
gateway: GW
buffer: {pth: x}
intake:
  window: 4
  max_waiting: lots
groups:
  a: {lane: instant, every: 15, channels: [1-0:1.8.0]}
meters:
  - {id: m1, url: "dlms+wrapper://h?client=0&bad=1", groups: [b]}
  - {id: m1, url: "modbus+tcp://h?unit=1&model=none", groups: [a]}
`))
	want := []string{
		"t.yaml:1: version: ", "t.yaml:1: site: missing", "t.yaml:1: uplink: missing", "t.yaml:2: gateway: ",
		"t.yaml:3: buffer.pth: ", "t.yaml:5: intake.window: ", "t.yaml:6: intake.max_waiting: ", "t.yaml:8: groups.a.every: ",
		"t.yaml:10: meters[0].url: the key client: ", "t.yaml:10: meters[0].url: bad: unknown key", "t.yaml:10: meters[0].groups[0]: ",
		"t.yaml:11: meters[1].id: ", "t.yaml:11: meters[1].url: the key model: ",
	}
	var ps Problems
	if !errors.As(err, &ps) || len(ps) != len(want) {
		t.Fatalf("%d problems, want %d:\n%v", len(ps), len(want), err)
	}
	text := err.Error() + "\n"
	for _, w := range want {
		if !strings.Contains("\n"+text, "\n"+w) {
			t.Errorf("nothing begins with %q in\n%s", w, text)
		}
	}
	for i := 1; i < len(ps); i++ {
		if ps[i].Line < ps[i-1].Line {
			t.Errorf("line %d after line %d", ps[i].Line, ps[i-1].Line)
		}
	}
	var p *Problem
	if !errors.As(err, &p) || p.File != "t.yaml" || p.Line != 1 || p.Column == 0 {
		t.Errorf("errors.As gives %+v", p)
	}
}

func TestProblemsAreBounded(t *testing.T) {
	t.Parallel()
	var doc strings.Builder
	doc.WriteString(minimal)
	for i := range 500 {
		fmt.Fprintf(&doc, "x%d: 1\n", i)
	}
	_, err := Parse("t.yaml", []byte(doc.String()))
	var ps Problems
	if !errors.As(err, &ps) || len(ps) != maxProblems+1 || !strings.Contains(ps[maxProblems].Error(), "and 400 more problems") {
		t.Errorf("%d problems, the last %v", len(ps), ps[len(ps)-1])
	}
	if many := minimal + "meters: [" + strings.Repeat("x,", maxMeters+1) + "]"; true {
		if _, err := Parse("t.yaml", []byte(many)); err == nil || !strings.Contains(err.Error(), "has 1001 entries; want at most 1000") {
			t.Errorf("%v", err)
		}
	}
}

func TestSuggest(t *testing.T) {
	t.Parallel()
	names := []string{"every", "lane", "channels", "ca"}
	for in, want := range map[string]string{
		"evrey": "every", "evry": "every", "lanes": "lane", "chanels": "channels", "chanel": "channels",
		"cb": "", "xyz": "", "": "", strings.Repeat("e", 100): "",
	} {
		if got, _ := suggest(in, names); got != want {
			t.Errorf("suggest(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzParse: nothing panics, a refusal is Problems that name the file, and what
// is accepted is complete: every meter has a line, a group and an id, and no
// literal secret.
func FuzzParse(f *testing.F) {
	f.Add(Reference())
	f.Add(Demo())
	f.Add([]byte(minimal))
	f.Add([]byte("version: 1\nsite: &a s\ngateway: *a\n<<: [x]\n? {}\n: -\n"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		c, err := Parse("t.yaml", doc)
		if err != nil {
			var ps Problems
			if !errors.As(err, &ps) || len(ps) == 0 || c != nil {
				t.Fatalf("%T %v beside %v", err, err, c)
			}
			for _, p := range ps {
				if p.File != "t.yaml" || p.Want == "" || strings.ContainsAny(p.Error(), "\n\x00") {
					t.Fatalf("%+v", p)
				}
			}
			return
		}
		if c.Site == "" || c.Gateway == "" || c.TimeZone == nil || c.Uplink.Broker == "" || c.Uplink.Password.IsLiteral() {
			t.Fatalf("%+v", c)
		}
		meters := 0
		for _, l := range c.Lines() {
			meters += len(l.Meters)
			for _, m := range l.Meters {
				if l.Key == "" || m.ID == "" || len(m.Groups) == 0 || slices.ContainsFunc(m.Address.Secrets(), func(s address.NamedSecret) bool { return s.Secret.IsLiteral() }) {
					t.Fatalf("%+v", m)
				}
			}
		}
		if meters != len(c.Meters) || !Compare(c, c).Empty() {
			t.Fatalf("%d meters on lines, %d in all", meters, len(c.Meters))
		}
	})
}
