package configs

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gridgate/dlms"
	"gridgate/dlms/obis"
	"gridgate/drivers/cosem"
	"gridgate/internal/meter"
)

// Every model of DLMS meters that is built in is sound, and what it names are
// channels.
func TestDLMSModels(t *testing.T) {
	t.Parallel()
	names := DLMSModelNames()
	if !slices.Equal(names, []string{"dlms-standard", "idis", "is-15959"}) {
		t.Errorf("models %v", names)
	}
	for _, name := range names {
		m, err := DLMSModelIn("", name)
		if err != nil {
			t.Error(err)
			continue
		}
		if m.Name != name || m.File != "models/"+name+".yaml" || len(m.Events.Codes) == 0 != (name == DLMSStandard) || len(m.Groups) == 0 != (name == DLMSStandard) {
			t.Errorf("%s: %+v", name, m)
		}
	}
	if m, err := DLMSModelIn("", ""); err != nil || m.Name != DLMSStandard {
		t.Errorf("without a name: %v", err)
	}
	if _, err := DLMSModelIn("", "idos"); err == nil || !strings.Contains(err.Error(), `no model "idos"; did you mean idis?`) {
		t.Error(err)
	}
	if _, err := Model("idis"); err == nil {
		t.Error("a model of DLMS meters is a register map")
	}
}

// Nothing is named of a meter that nobody knows: profiles give one number
// different meanings.
func TestEventsAreNamedByTheirModelOnly(t *testing.T) {
	t.Parallel()
	const standardLog, alarms = "0-0:96.11.0*255/1:2", "0-0:97.98.0*255/1:2"
	for name, named := range map[string]string{"": "", "idis": "event.power-down event.fraud-attempt", "is-15959": "event.voltage-missing-l1"} {
		m, err := DLMSModelIn("", name)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		if c, ok := m.Events.Code(standardLog, 1); ok {
			got = append(got, string(c))
		}
		if c, ok := m.Events.Bit(alarms, 13); ok {
			got = append(got, string(c))
		}
		if strings.Join(got, " ") != named {
			t.Errorf("%q: 1 and bit 13 are %q, want %q", name, got, named)
		}
	}
}

const acme = `
protocol: dlms
name: acme
quirks:
  list_max: 7
  selector: entry
  null_unchanged: true
  ratios: true
  invert_deviation: true
  counter: 0-0:43.1.3
  max_pdu: 500
  address_length: 2
  info: 128
  window: 1
  one_client: true
groups:
  load: {lane: interval, every: 1h, align: true, profile: 1-0:99.1.0, back: 5d}
  alarms: {lane: alarm, every: 1m, channels: [0-0:97.98.0], clear: true}
events:
  0-0:96.11.1: {40: terminal-cover-opened, 4294967295: last}
alarms:
  0-1:97.98.20: {0: undervoltage-l1, 63: last}
`

func TestParseDLMSModel(t *testing.T) {
	t.Parallel()
	got, err := ParseDLMSModel("x/acme.yaml", []byte(acme))
	if err != nil {
		t.Fatal(err)
	}
	want := &DLMSModel{
		Model: cosem.Model{
			Name: "acme", File: "x/acme.yaml", Info: 128, Window: 1, Release: true,
			Quirks: dlms.Quirks{
				ListMax: 7, Selector: dlms.ByEntry, NullUnchanged: true, Ratios: true, InvertDeviation: true,
				CounterObject: obis.Code{0, 0, 43, 1, 3, 255}, MaxPDU: 500, AddressLength: 2,
			},
			Events: cosem.Events{
				Codes: map[obis.Code]map[uint64]string{{0, 0, 96, 11, 1, 255}: {40: "terminal-cover-opened", 1<<32 - 1: "last"}},
				Bits:  map[obis.Code]map[uint8]string{{0, 1, 97, 98, 20, 255}: {0: "undervoltage-l1", 63: "last"}},
			},
		},
		Groups: []Group{
			{Name: "load", Lane: meter.Interval, Every: time.Hour, Align: true, Profile: "1-0:99.1.0*255/7:2", Back: 5 * day},
			{Name: "alarms", Lane: meter.Alarm, Every: time.Minute, Channels: []meter.Channel{"0-0:97.98.0*255/1:2"}, Clear: true},
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestParseDLMSModelRefuses(t *testing.T) {
	t.Parallel()
	const head = "protocol: dlms\nname: acme\n"
	for _, c := range [][2]string{
		{"name: acme\n", "protocol: missing"},
		{"protocol: modbus\nname: acme\n", `protocol: "modbus": want dlms`},
		{"protocol: dlms\nname: other\n", "want acme, as the file is called"},
		{head + "quirk: {}\n", "quirk: unknown key; did you mean quirks?"},
		{head + "registers: []\n", "registers: unknown key"},
		{head + "quirks: {list_max: 0}\n", `quirks.list_max: "0": want`},
		{head + "quirks: {selector: number}\n", `quirks.selector: "number": want time or entry or whole`},
		{head + "quirks: {counter: 43}\n", `quirks.counter: "43": want the OBIS code`},
		{head + "quirks: {address_length: 3}\n", `want 1 or 2 or 4`},
		{head + "groups: {a: {lane: instant, every: 1m, channels: [thd.l1]}}\n", "is no OBIS code"},
		{head + "groups: {a: {lane: instant, every: 1m}}\n", "has neither channels nor a profile"},
		{head + "groups: {a: {lane: alarm, every: 1m, profile: 0-0:99.98.0}, b: {lane: alarm, every: 1m, profile: 0-0:99.98.0}}\n", "follows the profile of a"},
		{head + "events: {0-0:97.98.0: {1: a}}\n", "want an object 0-b:96.11.e"},
		{head + "alarms: {0-0:96.11.0: {1: a}}\n", "want an object 0-b:97.98.e"},
		{head + "alarms: {0-0:97.98.0: {64: a}}\n", "want a number, 0 to 63"},
		{head + "events: {0-0:96.11.0: {x: a}}\n", "want a number, 0 to 4294967295"},
		{head + "events: {0-0:96.11.0: {1: a, 01: b}}\n", "is there already"},
		{head + "events: {0-0:96.11.0: {}, 0-0:96.11.0*255: {}}\n", "is there already"},
		{head + "events: {0-0:96.11.0: {1: Power Down}}\n", "want a name of 1 to 48 characters"},
		{head + "events: {0-0:96.11.0: {1: -a}}\n", "want a name of 1 to 48 characters"},
		{head + "events: [1]\n", "is a list; want objects"},
	} {
		if _, err := ParseDLMSModel("models/acme.yaml", []byte(c[0])); err == nil || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%q: %v\nwant %s", c[0], err, c[1])
		}
	}
	if _, err := ParseModel("models/acme.yaml", []byte(acme)); err == nil || !strings.Contains(err.Error(), "for models of DLMS meters") {
		t.Error(err)
	}
}

// What a meter is read: the groups that it names, of the document or the model;
// without any those of its model, and without that what it has itself.
func TestGroupsOfAMeter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "acme.yaml"), []byte(acme), 0o600); err != nil {
		t.Fatal(err)
	}
	parse := func(t *testing.T) *Config {
		t.Helper()
		cfg, err := Parse("t.yaml", []byte("version: 1\nsite: s\ngateway: g\nuplink: {broker: \"tcp://h\"}\nmodels: "+dir+`
push: {listen: ["udp://"]}
groups:
  load: {lane: interval, every: 2h, profile: 1-0:99.1.0}
  now: {lane: instant, every: 1m, channels: [1-0:1.8.0]}
meters:
  - {id: a, url: "dlms+wrapper://a?model=acme"}
  - {id: b, url: "dlms+wrapper://b?model=acme", groups: [alarms, load, now]}
  - {id: c, url: "dlms+wrapper://c?model=acme", groups: auto}
  - {id: d, url: "dlms+wrapper://d"}
  - {id: e, url: "dlms+wrapper://e?model=dlms-standard"}
  - {id: f, url: "dlms+wrapper://f", groups: [now]}
`))
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	cfg := parse(t)
	for i, want := range []string{"load/1h0m0s alarms/1m0s", "alarms/1m0s load/2h0m0s now/1m0s", "auto", "auto", "auto", "now/1m0s"} {
		m := cfg.Meters[i]
		var got []string
		for _, g := range m.Groups {
			got = append(got, string(g.Name)+"/"+g.Every.String())
		}
		if m.Auto {
			got = append(got, "auto")
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("meter %s: %s, want %s", m.ID, s, want)
		}
	}
	if m, err := cfg.DLMSModel("acme"); err != nil || m.Quirks.ListMax != 7 {
		t.Errorf("%v %+v", err, m)
	}
	if m, err := cfg.DLMSModel(""); err != nil || m.Name != DLMSStandard {
		t.Errorf("%v %+v", err, m)
	}

	// Another file is another configuration, of those that have it.
	if err := os.WriteFile(filepath.Join(dir, "acme.yaml"), []byte(strings.Replace(acme, "list_max: 7", "list_max: 8", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if d := Compare(cfg, parse(t)); !slices.Equal(d.LinesChanged, []string{"a:4059", "b:4059", "c:4059"}) || !d.Push {
		t.Errorf("%+v", d)
	}
	if d := Compare(cfg, cfg); !d.Empty() {
		t.Errorf("%+v", d)
	}
	if err := os.WriteFile(filepath.Join(dir, "acme.yaml"), []byte("protocol: dlms\nname: acme\nx: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Parse("t.yaml", []byte("version: 1\nsite: s\ngateway: g\nuplink: {broker: \"tcp://h\"}\nmodels: "+dir+`
meters:
  - {id: a, url: "dlms+wrapper://a?model=acme"}
`))
	if err == nil || !strings.Contains(err.Error(), "acme.yaml has errors") || !strings.Contains(err.Error(), "acme.yaml:3: x: unknown key") {
		t.Error(err)
	}
}
