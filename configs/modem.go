package configs

import (
	"path"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"gridgate/drivers/address"
)

// Modem says how a mobile modem is minded. The zero value is none.
type Modem struct {
	Port       string         // path of the port on which it takes AT commands; empty for none
	PIN        address.Secret // of the SIM; a reference, or none
	PINTry     int            // a number that is raised to have the same PIN tried once more
	Every      time.Duration  // between looks
	ResetAfter time.Duration  // for how long the fog is away before the first reset; 0 for none
	ResetMost  time.Duration  // the longest pause between resets
	Reset      ResetLine
}

// ResetLine is the line that resets a modem. The zero value is none.
type ResetLine struct {
	Path string        // a file of sysfs, or a gpiochip device
	Line int           // of a gpiochip device; -1 of a file
	Low  bool          // it resets while it is low
	Hold time.Duration // for how long
}

// Led is a lamp that shows how the gateway does.
type Led struct {
	Path    string     // a directory below /sys/class/leds
	Pattern [3]Pattern // while the gateway is healthy, degraded, at fault
}

// Pattern is what a lamp does.
type Pattern string

// The patterns.
const (
	PatternOff  Pattern = "off"
	PatternOn   Pattern = "on"
	PatternSlow Pattern = "slow" // a second on, a second off
	PatternFast Pattern = "fast" // an eighth of a second each
)

const maxLeds = 8

func defaultModem() Modem {
	return Modem{PINTry: 1, Every: time.Minute, ResetAfter: 15 * time.Minute, ResetMost: 12 * time.Hour, Reset: ResetLine{Line: -1, Hold: 500 * time.Millisecond}}
}

func modemFields() []field[*Modem] {
	return []field[*Modem]{
		{name: "port", required: true, read: func(r *reader, at string, n *yaml.Node, m *Modem) {
			m.Port = r.path(at, n, 4096)
		}},
		{name: "pin", read: func(r *reader, at string, n *yaml.Node, m *Modem) {
			m.PIN = r.secret(at, n)
		}},
		{name: "pin_try", read: func(r *reader, at string, n *yaml.Node, m *Modem) {
			m.PINTry = int(r.integer(at, n, 1, 1000))
		}},
		{name: "every", read: func(r *reader, at string, n *yaml.Node, m *Modem) {
			m.Every = r.duration(at, n, time.Second, time.Hour)
		}},
		{name: "reset_after", read: func(r *reader, at string, n *yaml.Node, m *Modem) {
			m.ResetAfter = r.duration(at, n, 0, day)
		}},
		{name: "reset_pause_max", read: func(r *reader, at string, n *yaml.Node, m *Modem) {
			m.ResetMost = r.duration(at, n, time.Second, 7*day)
		}},
		{name: "reset_line", read: func(r *reader, at string, n *yaml.Node, m *Modem) {
			r.checked(at, n, "a file, /sys/class/gpio/gpio17/value, or a line of a chip, /dev/gpiochip0:17", func(s string) bool {
				m.Reset.Path, m.Reset.Line = s, -1
				if chip, line, ok := strings.Cut(s, ":"); ok && strings.HasPrefix(s, "/dev/gpiochip") {
					i, err := strconv.ParseUint(line, 10, 10)
					m.Reset.Path, m.Reset.Line = chip, int(i)
					return err == nil
				}
				return path.IsAbs(s) && isPrintable(s) && !strings.HasPrefix(s, "/dev/gpiochip")
			})
		}},
		{name: "reset_level", read: func(r *reader, at string, n *yaml.Node, m *Modem) {
			m.Reset.Low = r.oneOf(at, n, "low", "high") == "low"
		}},
		{name: "reset_hold", read: func(r *reader, at string, n *yaml.Node, m *Modem) {
			m.Reset.Hold = r.duration(at, n, 10*time.Millisecond, 30*time.Second)
		}},
	}
}

// modem checks what the keys of the modem cannot check alone.
func (r *reader) modem(d *document, n *yaml.Node) {
	for _, m := range d.Meters {
		if m.Address.Line == d.Modem.Port && d.Modem.Port != "" {
			r.fail("modem.port", n, d.Modem.Port, "is the line of meter %s too; want another port of the modem", m.ID)
			return
		}
	}
}

func ledFields() []field[*Led] {
	pattern := func(name string, i int) field[*Led] {
		return field[*Led]{name: name, read: func(r *reader, at string, n *yaml.Node, l *Led) {
			l.Pattern[i] = Pattern(r.oneOf(at, n, string(PatternOff), string(PatternOn), string(PatternSlow), string(PatternFast)))
		}}
	}
	return []field[*Led]{
		{name: "path", required: true, read: func(r *reader, at string, n *yaml.Node, l *Led) {
			l.Path = r.path(at, n, 4096)
		}},
		pattern("healthy", 0), pattern("degraded", 1), pattern("fault", 2),
	}
}

// readLeds reads the list of lamps.
func readLeds(r *reader, at string, n *yaml.Node, d *document) {
	r.list(at, n, maxLeds, func(at string, n *yaml.Node) {
		l := Led{Pattern: [3]Pattern{PatternOn, PatternSlow, PatternFast}}
		mapping(r, at, n, ledFields(), &l)
		for _, other := range d.Leds {
			if other.Path == l.Path && l.Path != "" {
				r.fail(at, n, l.Path, "is in the list already")
			}
		}
		d.Leds = append(d.Leds, l)
	})
}
