package main

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"gridgate/configs"
	"gridgate/drivers/drivertest"
	"gridgate/drivers/line"
	"gridgate/drivers/modbus"
	"gridgate/internal/cli"
)

// kinds gives the register maps that the meters have in turn.
func (o *modbusOptions) kinds() (models []*modbus.Model, err error) {
	for name := range strings.SplitSeq(o.model, ",") {
		m, err := configs.ModelIn(o.models, name)
		if err != nil {
			return nil, cli.Usagef("modbus: %v", err)
		}
		models = append(models, m)
	}
	return models, nil
}

// numbers gives the units.
func (o *modbusOptions) numbers() (units []byte, err error) {
	if o.units == "" {
		for i := range min(max(o.count, 0), 248) {
			units = append(units, byte(i+1))
		}
		return units, nil
	}
	for text := range strings.SplitSeq(o.units, ",") {
		n, err := strconv.ParseUint(text, 10, 8)
		if err != nil || n < 1 || n > 247 {
			return nil, cli.Usagef("modbus: -units %q: want numbers from 1 to 247 with commas between them", o.units)
		}
		units = append(units, byte(n))
	}
	return units, nil
}

// pace gives the settings of a paced line; a rate of 0 is none.
func (o *modbusOptions) pace() (s line.Settings, err error) {
	if o.baud == 0 {
		return s, nil
	}
	f := o.format
	switch {
	case !o.pty:
		return s, cli.Usagef("modbus: -baud is for -pty")
	case o.baud < 300 || o.baud > 4000000:
		return s, cli.Usagef("modbus: -baud %d: want 300 to 4000000", o.baud)
	case len(f) != 3 || f[0] < '7' || f[0] > '8' || !strings.ContainsRune("NEO", rune(f[1])) || f[2] < '1' || f[2] > '2':
		return s, cli.Usagef("modbus: -format %q: want 8N1, 8E1, 8O1 or 8N2", f)
	}
	return line.Settings{Baud: o.baud, DataBits: int(f[0] - '0'), Parity: f[1], StopBits: int(f[2] - '0')}, nil
}

// terminalSettings gives those that the client set its end of a pseudo-terminal to.
// Linux keeps neither parity nor data bits of one: they are taken as own.
func terminalSettings(tty *drivertest.Terminal, own line.Settings) func() line.Settings {
	return func() line.Settings {
		s := own
		raw, err := tty.SyscallConn()
		if err != nil {
			return s
		}
		_ = raw.Control(func(fd uintptr) { // a terminal that is gone reads nothing more
			t, err := unix.IoctlGetTermios(int(fd), unix.TCGETS2)
			if err != nil {
				return
			}
			if baud := int(t.Ospeed); baud > 0 {
				s.Baud = baud
			}
			s.StopBits = 1
			if t.Cflag&unix.CSTOPB != 0 {
				s.StopBits = 2
			}
		})
		return s
	}
}

// identity is what the meter says of itself by function 43/14: the vendor and the
// kind, as the map is named.
func (m *modbusMeter) identity(request []byte) []byte {
	const deviceID, basic = 0x0E, 0x01
	if len(request) != 4 || request[1] != deviceID || request[2] != basic {
		return []byte{encapsulated | 0x80, illegalValue}
	}
	vendor, product, _ := strings.Cut(m.model.Name, "-")
	answer := []byte{encapsulated, deviceID, basic, 1, 0, 0, 3}
	for i, text := range []string{vendor, product, fmt.Sprintf("V%d", m.serial%10)} {
		answer = append(append(answer, byte(i), byte(len(text))), text...)
	}
	return answer
}

// encapsulated is the function of which the identification is a part.
const encapsulated = 0x2B
