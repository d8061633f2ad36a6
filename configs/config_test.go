package configs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"gridgate/drivers/address"
	"gridgate/internal/meter"
)

// minimal is the least that a configuration has.
const minimal = `version: 1
site: s
gateway: g
uplink: {broker: "tcp://127.0.0.1:1883"}
`

func parse(t *testing.T, doc string) *Config {
	t.Helper()
	c, err := Parse("test.yaml", []byte(doc))
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, doc)
	}
	return c
}

func mustAddress(t *testing.T, s string) address.Address {
	t.Helper()
	a, err := address.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestParseGivesEverything(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	got := parse(t, `
version: 1
site: zone3
gateway: gw-1
time_zone: Europe/Berlin
models: .
buffer: {path: /b, max_size: 8MiB, max_age: 10d, lanes: {instant: {max_size: 1MiB}, alarm: {max_age: 90d}}}
intake: {window: 1m30s, window_offline: 20m, max_waiting: 1MB}
poll: {parallel: 3}
mains: {voltage: 120, frequency: 60}
time: {servers: [a, "192.0.2.1:124", "nts://c", "2001:db8::1", "[2001:db8::2]:123"], discipline: agent, min_poll: 16s, max_poll: 1d, step: 1s, max_error: 10s, hardware_clock: /dev/rtc1, modem: /dev/ttyUSB2, ca: /t}
meter_clocks: {policy: set, threshold: 8s, limit: 5m, guard: 90s}
push: {listen: ["udp://"], title: "0102030405060708"}
uplink:
  broker: ssl://fog.example
  client_id: me
  username: u
  password: env:PW
  ca: /ca
  certificate: /cert
  key: /key
  keep_alive: 15m
  confirm: fog
  delta: true
  max_message: 1KiB
  brokers: [ssl://b, "ssl://c:1"]
  interfaces: [wwan0, 192.0.2.1]
  start_jitter: 1m
  budget: {day: 5MB, month: 100MB}
  lanes: {billing: {latency: 1h}, interval: {latency: 15m, windows: ["22:30-06:00", "12:00-24:00"]}}
control: {socket: /c.sock}
trust: {file: /t, groups: [north, all], prove: 1h}
groups:
  now: {lane: instant, every: 1d12h, align: true, channels: [1-0:1.8.0, "1-0:1.6.0*255/4:5"]}
  load: {lane: billing, every: 31d, profile: 1-0:99.1.0, back: 100d}
  alarms: {lane: alarm, every: 1m, channels: [0-0:97.98.0], clear: true}
meters:
  - {id: m1, url: "dlms+wrapper://h?auth=lls&password=file:/p", serial: 000123, groups: [load, now], timeout: 3s, fuse: 3x35A, clock: shift}
  - {id: m2, url: "dlms+wrapper://h?server=2", groups: [now]}
`)
	now := Group{
		Name: "now", Lane: meter.Instant, Every: 36 * time.Hour, Align: true,
		Channels: []meter.Channel{"1-0:1.8.0*255/3:2", "1-0:1.6.0*255/4:5"},
	}
	load := Group{Name: "load", Lane: meter.Billing, Every: 31 * day, Profile: "1-0:99.1.0*255/7:2", Back: 100 * day}
	alarms := Group{Name: "alarms", Lane: meter.Alarm, Every: time.Minute, Channels: []meter.Channel{"0-0:97.98.0*255/1:2"}, Clear: true}
	password, _ := address.ParseSecret("env:PW")
	want := &Config{
		Site: "zone3", Gateway: "gw-1", TimeZone: berlin,
		Models: ".",
		Buffer: Buffer{Path: "/b", All: Limit{8 << 20, 10 * day}, Lanes: [4]Limit{
			{2 << 20, 90 * day}, {6 << 20, 0}, {24 << 20, 400 * day}, {1 << 20, 31 * day},
		}},
		Intake: Intake{Window: 90 * time.Second, Offline: 20 * time.Minute, MaxWaiting: 1e6},
		Poll:   Poll{Parallel: 3},
		Mains:  Mains{Voltage: 120, Frequency: 60},

		MeterClocks: MeterClocks{Set: true, Threshold: 8 * time.Second, Limit: 5 * time.Minute, Guard: 90 * time.Second},
		Time: Time{
			Servers:    []TimeServer{{"a", false}, {"192.0.2.1:124", false}, {"c", true}, {"2001:db8::1", false}, {"[2001:db8::2]:123", false}},
			Discipline: DisciplineAgent, MinPoll: 16 * time.Second, MaxPoll: day, Step: time.Second, MaxError: 10 * time.Second,
			Hardware: "/dev/rtc1", Modem: "/dev/ttyUSB2", CA: "/t",
		},
		Push: Push{
			Listen: []Listen{{Text: "udp://", Listen: address.Listen{Network: "udp", Host: ":4059"}}},
			Title:  address.Title{1, 2, 3, 4, 5, 6, 7, 8},
		},
		Uplink: Uplink{
			Broker: "ssl://fog.example:8883", Brokers: []string{"ssl://fog.example:8883", "ssl://b:8883", "ssl://c:1"},
			Interfaces: []string{"wwan0", "192.0.2.1"}, StartJitter: time.Minute, Budget: Budget{5e6, 100e6},
			Lanes: Schedules{
				Billing: Schedule{Latency: time.Hour},
				Interval: Schedule{15 * time.Minute, []Window{
					{22*time.Hour + 30*time.Minute, 6 * time.Hour}, {12 * time.Hour, 24 * time.Hour},
				}},
			},
			ClientID: "me", Username: "u", Password: password,
			CA: "/ca", Certificate: "/cert", Key: "/key", KeepAlive: 15 * time.Minute, Confirm: ConfirmFog, Delta: true, MaxMessage: 1024,
		},
		Control: Control{Socket: "/c.sock"},
		Trust:   Trust{File: "/t", Groups: []meter.ID{"north", "all"}, Prove: time.Hour},
		Update:  Update{Path: "/firmware", Prove: time.Hour},
		Modem:   defaultModem(),
		Groups:  []Group{now, load, alarms},
		Meters: []Meter{
			{
				ID: "m1", Serial: "000123", Groups: []Group{load, now}, Clock: ClockShift, Fuse: Fuse{Phases: 3, Amperes: 35},
				Address: mustAddress(t, "dlms+wrapper://h?auth=lls&password=file:/p&timeout=3s"),
			},
			{ID: "m2", Groups: []Group{now}, Address: mustAddress(t, "dlms+wrapper://h?server=2")},
		},
		hash: got.Hash(), models: got.models,
	}
	equal := cmp.Options{
		cmp.AllowUnexported(Config{}),
		cmp.Comparer(func(a, b loadedModel) bool { return a.sum == b.sum }),
		cmp.Comparer(func(a, b address.Address) bool { return a == b }),
		cmp.Comparer(func(a, b address.Secret) bool { return a == b }),
		cmp.Comparer(func(a, b *time.Location) bool { return a.String() == b.String() }),
	}
	if d := cmp.Diff(want, got, equal); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if !got.Uplink.TLS() {
		t.Error("ssl is no TLS")
	}
	if len(got.Hash()) != 64 {
		t.Errorf("hash %q", got.Hash())
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c := parse(t, minimal)
	want := Uplink{
		Broker: "tcp://127.0.0.1:1883", Brokers: []string{"tcp://127.0.0.1:1883"}, ClientID: "s_g", KeepAlive: 5 * time.Minute,
		StartJitter: 10 * time.Second, Confirm: ConfirmBroker, MaxMessage: 16384,
	}
	if d := cmp.Diff(want, c.Uplink, cmp.Comparer(func(a, b address.Secret) bool { return a == b })); d != "" {
		t.Errorf("uplink (-want +got)\n%s", d)
	}
	if c.Uplink.TLS() || c.TimeZone != time.UTC || len(c.Meters) != 0 || len(c.Lines()) != 0 {
		t.Errorf("%+v", c)
	}
}

func TestLines(t *testing.T) {
	t.Parallel()
	c := parse(t, minimal+`
groups: {g: {lane: instant, every: 1m, channels: [1-0:1.8.0]}}
meters:
  - {id: a, url: "modbus+rtu:///dev/ttyS1?unit=1&model=eastron-sdm120", groups: [g]}
  - {id: b, url: "modbus+tcp://h?unit=1&model=eastron-sdm630", groups: [g]}
  - {id: c, url: "modbus+rtu:///dev//ttyS1?unit=2&model=eastron-sdm120&format=8E1", groups: [g]}
  - {id: d, url: "modbus+tcp://H:502?unit=2&model=eastron-sdm630", groups: [g]}
`)
	var got []string
	for _, l := range c.Lines() {
		s := l.Key
		if l.Serial {
			s += " serial"
		}
		for _, m := range l.Meters {
			s += " " + string(m.ID)
		}
		got = append(got, s)
	}
	if want := []string{"/dev/ttyS1 serial a c", "h:502 b d"}; !slices.Equal(got, want) {
		t.Errorf("lines %q, want %q", got, want)
	}
	if m, ok := c.Meter("c"); !ok || m.Address.Unit != 2 {
		t.Errorf("meter c: %v, %v", m, ok)
	}
	if _, ok := c.Meter("e"); ok {
		t.Error("there is no meter e")
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "none.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("a directory was read")
	}
	name := filepath.Join(dir, "c.yaml")
	if err := os.WriteFile(name, []byte(minimal), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(name); err != nil || c.Site != "s" {
		t.Errorf("%v, %v", c, err)
	}
	if err := os.WriteFile(name, append([]byte(minimal), strings.Repeat("#", maxSize)...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(name); err == nil || !strings.Contains(err.Error(), "want at most 1048576") {
		t.Errorf("a file over the limit: %v", err)
	}
}

func TestDemo(t *testing.T) {
	t.Parallel()
	c, err := Parse("demo.yaml", Demo())
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Meters) != 20 || len(c.Lines()) != 16 {
		t.Errorf("%d meters on %d lines, want 20 on 16", len(c.Meters), len(c.Lines()))
	}
}

// The reference names every key that exists, explains it and shows the default
// where there is one.
func TestReference(t *testing.T) {
	t.Parallel()
	got, err := Parse("reference.yaml", Reference())
	if err != nil {
		t.Fatal(err)
	}
	want := newDocument()
	if got.TimeZone != want.TimeZone || got.Buffer != want.Buffer || got.Intake != want.Intake || got.Control != want.Control {
		t.Errorf("the reference shows other defaults than there are:\n got %+v\nwant %+v", got, want.Config)
	}
	u, w := got.Uplink, want.Uplink
	if u.KeepAlive != w.KeepAlive || u.StartJitter != w.StartJitter || u.Confirm != w.Confirm || u.Delta != w.Delta || u.MaxMessage != w.MaxMessage ||
		u.ClientID != string(got.Site)+"_"+string(got.Gateway) {
		t.Errorf("the reference shows other defaults of the uplink than there are:\n got %+v\nwant %+v", u, w)
	}
	named := referenceKeys(t)
	keys := paths("", documentFields())
	if len(keys) < 30 || !slices.Contains(keys, "groups.*.every") || !slices.Contains(keys, "meters[].url") {
		t.Fatalf("the key table has %d keys only: %q", len(keys), keys)
	}
	for _, k := range keys {
		if !named[k] {
			t.Errorf("reference.yaml does not name the key %s", k)
		}
	}
}

// referenceKeys gives the paths of the keys in reference.yaml, with * for the
// names of groups and outputs and [] for places in a list.
func referenceKeys(t *testing.T) map[string]bool {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Load(Reference(), &doc); err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	var walk func(at string, n *yaml.Node)
	walk = func(at string, n *yaml.Node) {
		for i := 0; n.Kind == yaml.MappingNode && i < len(n.Content); i += 2 {
			key := n.Content[i].Value
			if at == "groups" || at == "outputs" {
				key = "*"
			}
			path := join(at, key)
			named[path] = true
			walk(path, n.Content[i+1])
		}
		for i := 0; n.Kind == yaml.SequenceNode && i < len(n.Content); i++ {
			walk(at+"[]", n.Content[i])
		}
	}
	walk("", doc.Content[0])
	return named
}
