package address

import (
	"strings"
	"testing"
)

func TestParseBare(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Bare{
		"serial:///dev/ttyS1":                       {Line: Address{Line: "/dev/ttyS1", Baud: 9600, DataBits: 8, Parity: 'N', StopBits: 1}},
		"SERIAL:///dev/ttyS1?baud=300&format=7E1":   {Line: Address{Line: "/dev/ttyS1", Baud: 300, DataBits: 7, Parity: 'E', StopBits: 1}, HasBaud: true, HasFormat: true},
		"serial://./tty?format=8E1":                 {Line: Address{Line: "./tty", Baud: 9600, DataBits: 8, Parity: 'E', StopBits: 1}, HasFormat: true},
		"tcp://Meter.example:4001":                  {Line: Address{Line: "meter.example:4001"}},
		"modbus+rtu:///dev/ttyS1?baud=19200":        {Scheme: ModbusRTU, Line: Address{Line: "/dev/ttyS1", Baud: 19200, DataBits: 8, Parity: 'N', StopBits: 1}, HasBaud: true},
		"modbus+tcp://10.0.0.7":                     {Scheme: ModbusTCP, Line: Address{Line: "10.0.0.7:502"}},
		"dlms+wrapper://10.0.0.7":                   {Scheme: DLMSWrapper, Line: Address{Line: "10.0.0.7:4059"}},
		"modbus+rtu:///dev/ttyS1?unit=1&model=name": {Scheme: ModbusRTU, Line: Address{Line: "/dev/ttyS1", Baud: 9600, DataBits: 8, Parity: 'N', StopBits: 1}},
	} {
		got, err := ParseBare(text)
		l := got.Line
		same := l.Line == want.Line.Line && l.Baud == want.Line.Baud && l.DataBits == want.Line.DataBits && l.Parity == want.Line.Parity && l.StopBits == want.Line.StopBits
		if err != nil || !same || got.Scheme != want.Scheme || got.HasBaud != want.HasBaud || got.HasFormat != want.HasFormat {
			t.Errorf("%s: %v, %+v, want %+v", text, err, got, want)
		}
	}
	for text, want := range map[string]string{
		"/dev/ttyS1": "want serial:///dev/ttyUSB0", "": "want serial:///dev/ttyUSB0", "serial://ttyS1": "three slashes", "serial://": "three slashes",
		"tcp://": "tcp://HOST:PORT", "tcp://host": "port", "tcp:///dev/ttyS1": "two slashes", "knx://x": "unknown scheme",
		"serial:///dev/ttyS1?baud=0": "baud", "serial:///dev/ttyS1?unit=1": "unit",
	} {
		if _, err := ParseBare(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	// A meter's own address still wants all of it.
	if _, err := Parse("modbus+rtu:///dev/ttyS1?baud=9600"); err == nil {
		t.Error("a meter without unit and model is taken")
	}
}
