package configs

import (
	"strings"
	"testing"
	"time"
)

const modemBase = `version: 1
site: s
gateway: g
uplink: {broker: "tcp://h"}
groups: {a: {lane: instant, every: 15m, channels: [1-0:1.8.0]}}
meters: [{id: m, groups: [a], url: "modbus+rtu:///dev/ttyS1?unit=1&model=eastron-sdm120"}]
`

func TestModemAndLeds(t *testing.T) {
	t.Parallel()
	c, err := Parse("c", []byte(modemBase+`modem: {port: /dev/ttyUSB2, pin: file:/p, pin_try: 2, every: 30s, reset_after: 1h, reset_pause_max: 2d, reset_line: "/dev/gpiochip1:17", reset_level: low, reset_hold: 1s}
leds: [{path: /sys/class/leds/a}, {path: /sys/class/leds/b, healthy: off, degraded: off, fault: fast}]
`))
	if err != nil {
		t.Fatal(err)
	}
	m := c.Modem
	if m.Port != "/dev/ttyUSB2" || m.PIN.String() != "file:/p" || m.PINTry != 2 || m.Every != 30*time.Second || m.ResetAfter != time.Hour ||
		m.ResetMost != 48*time.Hour || m.Reset != (ResetLine{Path: "/dev/gpiochip1", Line: 17, Low: true, Hold: time.Second}) {
		t.Errorf("%+v", m)
	}
	if len(c.Leds) != 2 || c.Leds[0].Pattern != [3]Pattern{"on", "slow", "fast"} || c.Leds[1].Pattern != [3]Pattern{"off", "off", "fast"} {
		t.Errorf("%+v", c.Leds)
	}
	c, err = Parse("c", []byte(modemBase+"modem: {port: /dev/ttyUSB2, reset_line: /sys/class/gpio/gpio17/value}\n"))
	if err != nil || c.Modem.Reset != (ResetLine{Path: "/sys/class/gpio/gpio17/value", Line: -1, Hold: 500 * time.Millisecond}) {
		t.Errorf("%+v, %v", c.Modem.Reset, err)
	}
}

func TestWrongModemsAndLeds(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"modem: {}":                                             "c:7: modem.port: missing",
		"modem: {port: /dev/ttyS1}":                             `c:7: modem.port: "/dev/ttyS1": is the line of meter m too`,
		"modem: {port: /p, pin: 1234}":                          "modem.pin: a secret has no place in a configuration",
		"modem: {port: /p, pin_try: 0}":                         `modem.pin_try: "0": want a whole number, 1 to 1000`,
		"modem: {port: /p, every: 1ms}":                         `modem.every: "1ms": want a duration`,
		"modem: {port: /p, reset_line: gpio17}":                 `modem.reset_line: "gpio17": want a file`,
		"modem: {port: /p, reset_line: /dev/gpiochip0}":         "want a file",
		"modem: {port: /p, reset_line: \"/dev/gpiochip0:x\"}":   "want a file",
		"modem: {port: /p, reset_level: up}":                    "want low or high",
		"modem: {port: /p, rest_after: 1h}":                     "reset_after",
		"leds: [{healthy: on}]":                                 "leds[0].path: missing",
		"leds: [{path: /a, fault: blink}]":                      `leds[0].fault: "blink": want off or on or slow or fast`,
		"leds: [{path: /a}, {path: /a}]":                        "is in the list already",
		"leds: {path: /a}":                                      "want a list",
		"leds: [1]":                                             "leds[0]",
		"leds: [" + strings.Repeat("{path: /a},", 9) + "]":      "has 9 entries; want at most 8",
		"modem: {port: [a]}\nleds: [{path: /a, healthy: []}]\n": "modem.port",
	} {
		if _, err := Parse("c", []byte(modemBase+text+"\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", text, err, want)
		}
	}
	if _, err := Parse("c", []byte(modemBase+"modem: {port: /p, pin: 9753}\n")); err == nil || strings.Contains(err.Error(), "9753") {
		t.Errorf("%v", err)
	}
}
