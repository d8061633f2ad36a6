package ppp

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Conf is what ppp.conf says.
type Conf struct {
	Device   string // of the modem, as /dev/ttyUSB2
	Baud     int
	APN      string // empty: as the modem or the SIM has it
	Number   string
	User     string
	Password string
	PIN      string // of the SIM; empty: none is entered
	RTSCTS   bool   // the line has flow control by wires
}

const confMost = 64 << 10 // octets

// ParseConf reads lines KEY=VALUE; empty ones and ones that begin with # say nothing.
// name is the file's, for errors, of which all are given at once. Secrets are in none.
func ParseConf(name string, b []byte) (Conf, error) {
	c := Conf{Baud: 115200, Number: "*99***1#"}
	if len(b) > confMost {
		return c, fmt.Errorf("%s: over %d octets", name, confMost)
	}
	var errs []error
	seen := map[string]int{}
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")) // as editors of Windows begin
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		var err error
		switch before := seen[key]; {
		case !ok:
			err = errors.New("want KEY=VALUE")
		case before > 0:
			err = fmt.Errorf("%s is in line %d already", key, before)
		default:
			seen[key] = n
			err = c.set(key, value)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", name, n, err))
		}
	}
	if seen["device"] == 0 {
		errs = append(errs, fmt.Errorf("%s: device is missing, as device=/dev/ttyUSB2", name))
	}
	return c, errors.Join(errs...)
}

func (c *Conf) set(key, value string) error {
	for _, r := range value {
		if r < ' ' || r == 0x7f {
			return fmt.Errorf("%s: control characters", key)
		}
	}
	switch key {
	case "device":
		if !strings.HasPrefix(value, "/dev/") || len(value) > 200 || strings.Contains(value, "..") {
			return fmt.Errorf("device: %q: want a path, as /dev/ttyUSB2", value)
		}
		c.Device = value
	case "baud":
		n, err := strconv.Atoi(value)
		if err != nil || speeds()[n] == 0 {
			return fmt.Errorf("baud: %q: want 9600, 19200, 38400, 57600, 115200, 230400, 460800 or 921600", value)
		}
		c.Baud = n
	case "apn":
		if len(value) > 100 || strings.ContainsAny(value, " \",;") {
			return fmt.Errorf("apn: %q: want a name, as internet.example", value)
		}
		c.APN = value
	case "number":
		if value == "" || len(value) > 64 || strings.Trim(value, "0123456789*#+ABCDPTWabcdptw,") != "" {
			return fmt.Errorf("number: %q: want what is dialled, as *99***1#", value)
		}
		c.Number = value
	case "user", "password":
		if len(value) > 255 {
			return fmt.Errorf("%s: over 255 octets", key)
		}
		if key == "user" {
			c.User = value
		} else {
			c.Password = value
		}
	case "pin":
		if value != "" && (len(value) < 4 || len(value) > 8 || strings.Trim(value, "0123456789") != "") {
			return errors.New("pin: want 4 to 8 digits")
		}
		c.PIN = value
	case "flow":
		if value != "none" && value != "rtscts" {
			return fmt.Errorf("flow: %q: want none or rtscts", value)
		}
		c.RTSCTS = value == "rtscts"
	default:
		return fmt.Errorf("unknown key %q; there are device, baud, flow, apn, number, user, password, pin", clip([]byte(key), 40))
	}
	return nil
}

func speeds() map[int]uint32 {
	return map[int]uint32{
		9600: unix.B9600, 19200: unix.B19200, 38400: unix.B38400, 57600: unix.B57600,
		115200: unix.B115200, 230400: unix.B230400, 460800: unix.B460800, 921600: unix.B921600,
	}
}
