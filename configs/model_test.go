package configs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gridgate/drivers/modbus"
	"gridgate/internal/meter"
)

// Every register map that is built in is sound, and every file beside them is
// one.
func TestModels(t *testing.T) {
	t.Parallel()
	names := ModelNames()
	files, err := os.ReadDir("models")
	if others := DLMSModelNames(); err != nil || len(files) != len(names)+len(others) {
		t.Fatalf("%d files, %d and %d models, %v", len(files), len(names), len(others), err)
	}
	for _, name := range names {
		m, err := Model(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if m.Name != name || len(m.Registers) == 0 || m.File != "models/"+name+".yaml" {
			t.Errorf("%s: %+v", name, m)
		}
	}
	if _, err := Model("none"); err == nil || !strings.Contains(err.Error(), "want one of abb-b23, ") {
		t.Errorf("a model that is not there: %v", err)
	}
	if _, err := Model("../reference"); err == nil {
		t.Error("a model outside its folder was read")
	}
}

// What is built in is what stands in the folder.
func TestModelsArePacked(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("models/*.yaml")
	if err != nil || len(files) != len(modelTexts()) {
		t.Fatalf("%d files, %d packed, %v", len(files), len(modelTexts()), err)
	}
	for i, m := range modelTexts() {
		want, err := os.ReadFile(files[i])
		if err != nil {
			t.Fatal(err)
		}
		if files[i] != "models/"+m.name+".yaml" || m.text != string(want) {
			t.Errorf("models.bin has another %s than the folder: run go generate ./configs", m.name)
		}
	}
}

func TestReferenceIsPacked(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("reference.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(Reference(), want) {
		t.Error("reference.bin is not reference.yaml: run go generate ./configs")
	}
}

func TestParseModel(t *testing.T) {
	t.Parallel()
	got, err := ParseModel("x/acme.yaml", []byte(`
name: acme
max_regs: 40
holes: forbidden
turnaround: 5ms
serial: {function: 3, address: 0xFC00, type: u32, order: le}
identity:
  - {function: 3, address: 0, type: ascii, words: 4, want: ["ACME*", OEM]}
  - {function: 3, address: 11, type: u32, not: [0x10, 7]}
registers:
  - {channel: "1-0:1.8.0", function: 4, address: 72, type: bcd32, unit: Wh, scale: 3, nan: 0xFFFFFFFF, limits: [0, 1e9]}
  - {channel: thd.l1, function: 4, address: 74, type: ascii, words: 2}
  - {channel: "1-0:32.7.0", function: 3, address: 72, type: u16, unit: V, scale: -1}
checks:
  - {channel: "1-0:32.7.0", min: 80, max: 480.5}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &modbus.Model{
		Name: "acme", File: "x/acme.yaml", MaxRegs: 40, Turnaround: 5 * time.Millisecond,
		Serial: &modbus.Register{Function: 3, Address: 64512, Type: modbus.U32, LittleEndianWords: true, Line: 6},
		Identity: []modbus.Identity{
			{Register: modbus.Register{Function: 3, Type: modbus.ASCII, Words: 4, Line: 8}, Want: []string{"ACME*", "OEM"}},
			{Register: modbus.Register{Function: 3, Address: 11, Type: modbus.U32, Line: 9}, Not: []string{"16", "7"}},
		},
		Registers: []modbus.Register{
			{Channel: "1-0:1.8.0*255/3:2", Function: 4, Address: 72, Type: modbus.BCD32, Unit: meter.WattHour, Scale: 3, HasNaN: true, NaN: 0xFFFFFFFF, Limits: &modbus.Limits{Max: 1e9}, Line: 11},
			{Channel: "thd.l1", Function: 4, Address: 74, Type: modbus.ASCII, Words: 2, Line: 12},
			{Channel: "1-0:32.7.0*255/3:2", Function: 3, Address: 72, Type: modbus.U16, Unit: meter.Volt, Scale: -1, Line: 13},
		},
		Checks: []modbus.Check{{Channel: "1-0:32.7.0*255/3:2", Min: 80, Max: 480.5}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	got, err = ParseModel("m.yaml", []byte("name: m\nregisters: [{channel: a, function: 3, address: 0, type: u16}]"))
	if err != nil || got.MaxRegs != 125 || !got.Holes || got.Serial != nil || got.Turnaround != 0 {
		t.Errorf("defaults: %+v, %v", got, err)
	}
}

func TestParseModelRefuses(t *testing.T) {
	t.Parallel()
	reg := func(s string) string {
		return "name: m¦registers:¦  - {channel: a, function: 3, address: 0, type: u16}¦" + s
	}
	tests := []struct{ doc, want string }{
		{"", "m.yaml: the file is empty"},
		{"name: m", "m.yaml:1: registers: missing"},
		{"name: m¦registers: []", "m.yaml:1: registers: has none"},
		{strings.Replace(reg(""), "name: m", "name: n", 1), `m.yaml:1: name: "n": want m, as the file is called`},
		{reg("max_regs: 126"), `m.yaml:4: max_regs: "126": want a whole number, 1 to 125`},
		{reg("max_regs: 1.5"), `m.yaml:4: max_regs: "1.5": want a whole number`},
		{reg("holes: true"), `m.yaml:4: holes: "true": want allowed or forbidden`},
		{reg("turnaround: 5"), `m.yaml:4: turnaround: "5": want a duration`},
		{reg("serial: {function: 3, address: 1}"), "m.yaml:4: serial.type: missing"},
		{reg("serial: {function: 3, address: 1, type: u16, unit: V}"), "m.yaml:4: serial.unit: unknown key"},
		{reg("serial: {function: 3, address: 65535, type: u32}"), "m.yaml:4: serial: goes past the last register"},
		{reg("  - {channel: b, function: 5, address: 1, type: u16}"), `registers[1].function: "5": want a whole number, 3 to 4`},
		{reg("  - {channel: b, function: 3, address: 65536, type: u16}"), `registers[1].address: "65536": want the address`},
		{reg("  - {channel: b, function: 3, address: 0x10000, type: u16}"), `registers[1].address: "0x10000": want the address`},
		{reg("  - {channel: b, function: 3, address: '1', type: u16}"), `registers[1].address: "1": want the address`},
		{reg("  - {channel: b, function: 3, address: 1, type: u8}"), `registers[1].type: "u8": want u16`},
		{reg("  - {channel: b, function: 3, address: 1, type: ascii}"), "registers[1]: a text needs words"},
		{reg("  - {channel: b, function: 3, address: 1, type: u16, words: 2}"), "registers[1]: words is for type ascii only; u16 has 1"},
		{reg("  - {channel: b, function: 3, address: 1, type: ascii, words: 33}"), `registers[1].words: "33": want`},
		{reg("  - {channel: b, function: 3, address: 1, type: u64}¦max_regs: 3"), "registers[1]: has 4 registers; max_regs is 3"},
		{reg("  - {channel: b, function: 3, address: 1, type: u16, order: me}"), `registers[1].order: "me": want be or le`},
		{reg("  - {channel: b, function: 3, address: 1, type: u16, scale: 19}"), `registers[1].scale: "19": want`},
		{reg("  - {channel: b, function: 3, address: 1, type: u16, unit: kWh}"), `registers[1].unit: "kWh": want the symbol of a unit`},
		{reg("  - {channel: '1', function: 3, address: 1, type: u16}"), `registers[1].channel: "1": want an OBIS code`},
		{reg("  - {channel: a, function: 3, address: 1, type: u16}"), `m.yaml:4: registers[1]: "a": is also the channel at line 3`},
		{reg("  - {channel: b, function: 3, address: 0, type: u16}"), "m.yaml:4: registers[1]: its registers are partly those of a at line 3"},
		{reg("  - {channel: '1-0:1.8.0', function: 3, address: 1, type: u16, unit: V}"), `m.yaml:4: registers[1]: unit "V": 1-0:1.8.0 is in Wh`},
		{reg("  - {channel: '1-0:33.7.0', function: 3, address: 1, type: u16, unit: V}"), `unit "V": 1-0:33.7.0 is a plain number`},
		{reg("  - {channel: '1-0:151.8.0', function: 3, address: 1, type: u16, unit: Wh}"), `unit "Wh": 1-0:151.8.0 is in varh`},
		{reg("  - {channel: '1-0:72.7.0', function: 3, address: 1, type: u16}"), `unit "": 1-0:72.7.0 is in V`},
		{reg("  - {channel: b, function: 3, address: 1, type: u16, nan: 0x10000}"), "registers[1]: nan has more bits than u16"},
		{reg("  - {channel: b, function: 3, address: 1, type: u16, nan: x}"), `registers[1].nan: "x": want the register's bits`},
		{reg("  - {channel: b, function: 3, address: 1, type: u16, limits: [1]}"), "registers[1].limits: want [MIN, MAX]"},
		{reg("  - {channel: b, function: 3, address: 1, type: u16, limits: [2, 1]}"), "registers[1].limits: want [MIN, MAX], min below max"},
		{reg("identity: [{function: 3, address: 1, type: u16}]"), "m.yaml:4: identity[0]: has neither want nor not"},
		{reg("identity: [{function: 3, address: 1, type: u16, want: [EM*]}]"), `identity[0]: "EM*": want a whole number`},
		{reg("identity: [{function: 3, address: 1, type: u16, scale: 1}]"), "identity[0].scale: unknown key"},
		{
			reg("identity: [{function: 3, address: 1, type: u32, want: [1]}, {function: 3, address: 2, type: u16, want: [1]}]"),
			"m.yaml:4: identity[1]: its registers are partly those of identity[0] at line 4",
		},
		{
			reg("serial: {function: 3, address: 1, type: u32}¦identity: [{function: 3, address: 2, type: u16, want: [1]}]"),
			"m.yaml:5: identity[0]: its registers are partly those of serial at line 4",
		},
		{reg("checks: [{channel: b, min: 0, max: 1}]"), `checks[0]: "b": is no channel of this model`},
		{reg("checks: [{channel: a, min: 1, max: 1}]"), "checks[0]: want min below max"},
		{reg("checks: [{channel: a, min: x, max: 1}]"), `checks[0].min: "x": want a number`},
	}
	for _, tt := range tests {
		_, err := ParseModel("m.yaml", []byte(strings.ReplaceAll(tt.doc, "¦", "\n")))
		var ps Problems
		if !errors.As(err, &ps) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q\n got %v\nwant %s", tt.doc, err, tt.want)
		}
	}
	// Function 4 has registers of its own: the same numbers are others.
	if _, err := ParseModel("m.yaml", []byte(strings.ReplaceAll(reg("  - {channel: b, function: 4, address: 0, type: u16}"), "¦", "\n"))); err != nil {
		t.Error(err)
	}
}

// What is wrong with a map is told all at once, each with its line, and
// nothing that only follows from it.
func TestParseModelTellsAllProblemsAtOnce(t *testing.T) {
	t.Parallel()
	_, err := ParseModel("etc/m.yaml", []byte(`name: m
max_regs: 0
colour: red
serial: {function: 3, address: 100, type: u32}
identity:
  - {function: 3, address: 101, type: u16, want: [7]}
registers:
  - {channel: "1-0:1.8.0", function: 3, address: 0, type: f32, unit: kWh}
  - {channel: "1-0:2.8.0", function: 3, address: 2, type: f23, unit: Wh}
  - {channel: "1-0:3.8.0", function: 3, address: 4, type: f32, unit: Wh}
  - {channel: "1-0:14.7.0", function: 3, address: 65535, type: u32, unit: Hz}
  - {channel: "1-0:14.7.0", function: 3, address: 8, type: u16, unit: Hz}
`))
	want := `etc/m.yaml:2: max_regs: "0": want a whole number, 1 to 125
etc/m.yaml:3: colour: unknown key; want one of name, max_regs, holes, turnaround, serial, identity, clock, registers, checks
etc/m.yaml:6: identity[0]: its registers are partly those of serial at line 4
etc/m.yaml:8: registers[0].unit: "kWh": want the symbol of a unit, such as Wh, V or °C
etc/m.yaml:9: registers[1].type: "f23": want u16, s16, u32, s32, u64, s64, f32, f64, bcd16, bcd32, bcd64 or ascii
etc/m.yaml:10: registers[2]: unit "Wh": 1-0:3.8.0 is in varh
etc/m.yaml:11: registers[3]: goes past the last register, 65535
etc/m.yaml:12: registers[4]: "1-0:14.7.0*255/3:2": is also the channel at line 11`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestUnknownModelNamesThoseNearIt(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"eastron-sdm360":       "did you mean eastron-sdm630? near it are eastron-sdm120, eastron-sdm630, eastron-sdm72d, eastron-sdm72d-v2",
		"janitza-x":            "; near it are janitza-b23, janitza-umg96rme",
		"easton-sdm":           "; near it are eastron-sdm120, eastron-sdm630, eastron-sdm72d, eastron-sdm72d-v2",
		"sdm630":               "; near it are eastron-sdm630",
		"gavazzi-em340":        "; near it are carlo-gavazzi-em24-din, carlo-gavazzi-em24-e1, carlo-gavazzi-em340",
		"none":                 "; want one of abb-b23, ",
		"../reference":         "; want one of abb-b23, ",
		"eastron-sdm630/../..": "no model",
	} {
		_, err := Model(name)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v\nwant %s", name, err, want)
		}
	}
}

// A directory on the gateway has maps of its own, and such that stand in place
// of built-in ones.
func TestModelsDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const one = "registers:\n  - {channel: \"1-0:14.7.0\", function: 3, address: %s, type: u16, unit: Hz, scale: -2}\n"
	document := func(models ...string) string {
		text := "version: 1\nsite: s\ngateway: g\nuplink: {broker: tcp://h}\nmodels: " + dir +
			"\ngroups: {g: {lane: instant, every: 1m, channels: [1-0:14.7.0]}}\nmeters:\n"
		for i, m := range models {
			text += fmt.Sprintf("  - {id: m%d, url: modbus+tcp://h%d?unit=1&model=%s, groups: [g]}\n", i, i, m)
		}
		return text
	}
	write("acme", "name: acme\n"+strings.ReplaceAll(one, "%s", "7"))
	write("abb-b23", "name: abb-b23\n"+strings.ReplaceAll(one, "%s", "8"))
	cfg, err := Parse("c.yaml", []byte(document("acme", "abb-b23", "eastron-sdm630")))
	if err != nil {
		t.Fatal(err)
	}
	for name, address := range map[string]uint16{"acme": 7, "abb-b23": 8, "eastron-sdm630": 0} {
		m, err := cfg.Model(name)
		if err != nil || m.Registers[0].Address != address {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	if m, err := Model("abb-b23"); err != nil || len(m.Registers) < 10 {
		t.Errorf("the built-in one: %v", err)
	}

	// A map that says something else changes the line of its meters alone.
	write("acme", "name: acme\n"+strings.ReplaceAll(one, "%s", "9"))
	again, err := Parse("c.yaml", []byte(document("acme", "abb-b23", "eastron-sdm630")))
	if err != nil {
		t.Fatal(err)
	}
	if d := Compare(cfg, again); !slices.Equal(d.LinesChanged, []string{"h0:502"}) || len(d.LinesAdded)+len(d.LinesRemoved)+len(d.Restart) > 0 {
		t.Errorf("got %+v", d)
	}

	write("acme", "name: acme\nholes: no\n"+strings.ReplaceAll(one, "%s", "x"))
	_, err = Parse("c.yaml", []byte(document("acme", "acme", "acne")))
	want := fmt.Sprintf(`c.yaml:8: meters[0].url: the key model: %[1]s/acme.yaml has errors
c.yaml:9: meters[1].url: the key model: %[1]s/acme.yaml has errors
c.yaml:10: meters[2].url: the key model: no model "acne"; did you mean acme? near it are acme
%[1]s/acme.yaml:2: holes: "no": want allowed or forbidden
%[1]s/acme.yaml:4: registers[0].address: "x": want the address on the wire, 0 to 65535 or 0x0000 to 0xFFFF`, dir)
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	dir = filepath.Join(dir, "none")
	if _, err = Parse("c.yaml", []byte(document("abb-b23"))); err == nil || !strings.Contains(err.Error(), "c.yaml:5: models: ") {
		t.Errorf("a directory that is not there: %v", err)
	}
}
