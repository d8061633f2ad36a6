package configs

import (
	"errors"
	"io/fs"
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
	files, err := fs.ReadDir(models, "models")
	if err != nil || len(files) != len(names) {
		t.Fatalf("%d files, %d models, %v", len(files), len(names), err)
	}
	for _, want := range []string{"eastron-sdm120", "eastron-sdm630"} {
		if !strings.Contains(" "+strings.Join(names, " ")+" ", " "+want+" ") {
			t.Errorf("no model %s in %q", want, names)
		}
	}
	for _, name := range names {
		m, err := Model(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if m.Name != name || len(m.Registers) == 0 {
			t.Errorf("%s: %+v", name, m)
		}
	}
	if _, err := Model("none"); err == nil || !strings.Contains(err.Error(), "want one of eastron-sdm120, eastron-sdm630") {
		t.Errorf("a model that is not there: %v", err)
	}
	if _, err := Model("../reference"); err == nil {
		t.Error("a model outside its folder was read")
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
registers:
  - {channel: "1-0:1.8.0", function: 4, address: 72, type: f32, unit: Wh, scale: 3}
  - {channel: thd.l1, function: 4, address: 74, type: ascii, words: 2}
  - {channel: "1-0:32.7.0", function: 3, address: 72, type: u16, unit: V, scale: -1}
checks:
  - {channel: "1-0:32.7.0", min: 80, max: 480.5}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &modbus.Model{
		Name: "acme", MaxRegs: 40, Turnaround: 5 * time.Millisecond,
		Serial: &modbus.Register{Function: 3, Address: 64512, Type: modbus.U32, LittleEndianWords: true},
		Registers: []modbus.Register{
			{Channel: "1-0:1.8.0*255/3:2", Function: 4, Address: 72, Type: modbus.F32, Unit: meter.WattHour, Scale: 3},
			{Channel: "thd.l1", Function: 4, Address: 74, Type: modbus.ASCII, Words: 2},
			{Channel: "1-0:32.7.0*255/3:2", Function: 3, Address: 72, Type: modbus.U16, Unit: meter.Volt, Scale: -1},
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
