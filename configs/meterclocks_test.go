package configs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gridgate/drivers/modbus"
	"gridgate/internal/meter"
)

// TestMeterClock: a meter's own word goes first, then the utility's, then the
// model's; nothing is set unless somebody said so.
func TestMeterClock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"shifty": "protocol: dlms\nname: shifty\nclock: shift\n",
		"never":  "protocol: dlms\nname: never\nclock: observe\n",
		"timed": "name: timed\nclock: {function: 3, address: 0x10, format: words, zone: utc, write: allowed}\n" +
			"registers:\n  - {channel: \"1-0:14.7.0\", function: 3, address: 0, type: u16, unit: Hz}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	document := func(top, url, own string) string {
		return "version: 1\nsite: s\ngateway: g\nuplink: {broker: \"tcp://h\"}\nmodels: " + dir + "\n" + top +
			"groups: {g: {lane: instant, every: 1m, channels: [1-0:14.7.0]}}\nmeters:\n  - {id: m, url: \"" + url + "\", groups: [g]" + own + "}\n"
	}
	const set = "meter_clocks: {policy: set}\n"
	for _, c := range []struct {
		top, url, own string
		set           bool
		method        meter.ClockMethod
		problem       string
	}{
		{url: "dlms+wrapper://h"},
		{url: "dlms+wrapper://h?model=shifty"},
		{top: set, url: "dlms+wrapper://h", set: true},
		{top: set, url: "dlms+wrapper://h?model=shifty", set: true, method: meter.ShiftTime},
		{top: set, url: "dlms+wrapper://h?model=never"},
		{top: set, url: "dlms+wrapper://h?model=never", own: ", clock: set", set: true},
		{top: set, url: "dlms+wrapper://h", own: ", clock: observe"},
		{url: "dlms+wrapper://h", own: ", clock: shift", set: true, method: meter.ShiftTime},
		{top: set, url: "modbus+tcp://h?unit=1&model=timed", set: true},
		{top: set, url: "modbus+tcp://h?unit=1&model=abb-b23"},
		{url: "modbus+tcp://h?unit=1&model=abb-b23", own: ", clock: set", problem: "the model abb-b23 has no clock that can be written"},
		{url: "modbus+tcp://h?unit=1&model=timed", own: ", clock: shift", problem: "is for DLMS meters"},
		{top: set, url: "iec21://h:1", set: true},
		{url: "iec21://h:1", own: ", clock: shift", problem: "is for DLMS meters"},
	} {
		cfg, err := Parse("t.yaml", []byte(document(c.top, c.url, c.own)))
		if c.problem != "" || err != nil {
			if c.problem == "" || err == nil || !strings.Contains(err.Error(), c.problem) {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		}
		if set, method := cfg.MeterClock(cfg.Meters[0]); set != c.set || method != c.method {
			t.Errorf("%+v: %v, %v", c, set, method)
		}
	}
}

func TestClockOfARegisterMap(t *testing.T) {
	t.Parallel()
	const registers = "\nregisters:\n  - {channel: \"1-0:14.7.0\", function: 3, address: 0, type: u16, unit: Hz}\n"
	m, err := ParseModel("m.yaml", []byte("name: m\nclock: {function: 3, address: 0x0734, format: unix, order: le, zone: utc, write: allowed}"+registers))
	want := modbus.Clock{Function: 3, Address: 0x734, Format: modbus.ClockUnix, LittleEndianWords: true, UTC: true, Writable: true}
	if err != nil || m.Clock == nil || *m.Clock != want {
		t.Errorf("%v, %+v", err, m)
	}
	for text, problem := range map[string]string{
		"{function: 3, address: 0}":                                    "clock.format: missing",
		"{function: 3, address: 65535, format: unix}":                  "goes past the last register",
		"{function: 4, address: 0, format: words, write: allowed}":     "cannot be written",
		"{function: 3, address: 0, format: words, order: le}":          "for the format unix only",
		"{function: 3, address: 0, format: julian}":                    "want unix, words, bytes, iec870",
		"{function: 3, address: 0, format: unix, zone: Europe/Berlin}": "want utc or local",
		"{function: 3, address: 0, format: words}\nmax_regs: 3":        "",
	} {
		_, err := ParseModel("m.yaml", []byte("name: m\nclock: "+text+registers))
		if problem != "" && (err == nil || !strings.Contains(err.Error(), problem)) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
