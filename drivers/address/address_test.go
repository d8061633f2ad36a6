package address

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func secretOf(t *testing.T, s string) Secret {
	t.Helper()
	got, err := ParseSecret(s)
	if err != nil {
		t.Fatalf("ParseSecret(%q): %v", s, err)
	}
	return got
}

func TestParse(t *testing.T) {
	t.Parallel()
	open := Security{Protection: Unprotected}
	dlms := Address{Scheme: DLMSWrapper, Line: "127.0.0.1:4059", Client: 16, Server: 1, Auth: AuthNone, Ref: "ln", Security: open}
	hdlc := dlms
	hdlc.Scheme, hdlc.Line, hdlc.Baud, hdlc.DataBits, hdlc.Parity, hdlc.StopBits = DLMSHDLC, "/dev/ttyUSB0", 9600, 8, 'N', 1
	rtu := Address{
		Scheme: ModbusRTU, Line: "/dev/ttyS1", Baud: 9600, DataBits: 8, Parity: 'N', StopBits: 1,
		Unit: 7, Model: "sdm120",
	}
	tests := []struct {
		in   string
		want Address
	}{
		{"dlms+wrapper://127.0.0.1", dlms},
		{"DLMS+Wrapper://127.0.0.1:4059/", dlms},
		{"dlms+wrapper://127.0.0.1:14059?client=17&server=2&auth=lls&password=hunter2&ref=ln&timeout=1500ms", Address{
			Scheme: DLMSWrapper, Line: "127.0.0.1:14059", Client: 17, Server: 2, Auth: AuthLLS,
			Password: secretOf(t, "hunter2"), Ref: "ln", Security: open, Timeout: 1500 * time.Millisecond,
		}},
		{"dlms+wrapper://Meter1.Example?auth=lls&password=file:/etc/gridgate/meter%201", Address{
			Scheme: DLMSWrapper, Line: "meter1.example:4059", Client: 16, Server: 1, Auth: AuthLLS,
			Password: secretOf(t, "file:/etc/gridgate/meter 1"), Ref: "ln", Security: open,
		}},
		{"dlms+wrapper://h?auth=lls&password=a%26b%25c+d%23", Address{
			Scheme: DLMSWrapper, Line: "h:4059", Client: 16, Server: 1, Auth: AuthLLS,
			Password: secretOf(t, "a&b%c+d#"), Ref: "ln", Security: open,
		}},
		{"dlms+wrapper://h?ref=sn", Address{
			Scheme: DLMSWrapper, Line: "h:4059", Client: 16, Server: 1, Auth: AuthNone, Ref: "sn", Security: open,
		}},
		{"dlms+wrapper://[FE80:0::1%25eth0]:1", Address{
			Scheme: DLMSWrapper, Line: "[fe80::1%eth0]:1", Client: 16, Server: 1, Auth: AuthNone, Ref: "ln", Security: open,
		}},
		{"dlms+udp://[2001:DB8::7]?client=1", Address{
			Scheme: DLMSUDP, Line: "[2001:db8::7]:4059", Client: 1, Server: 1, Auth: AuthNone, Ref: "ln", Security: open,
		}},
		{"dlms+modee:///dev/ttyUSB1", Address{
			Scheme: DLMSModeE, Line: "/dev/ttyUSB1", SignOn: 300, Client: 16, Server: 1, Auth: AuthNone, Ref: "ln", Security: open,
		}},
		{"dlms+modee:///dev/ttyUSB1?signon=2400&baud=9600&address=0012%20aB&physical=17", Address{
			Scheme: DLMSModeE, Line: "/dev/ttyUSB1", SignOn: 2400, Baud: 9600, Device: "0012 aB", Physical: 17,
			Client: 16, Server: 1, Auth: AuthNone, Ref: "ln", Security: open,
		}},
		{"dlms+modee://Serial.Server:4001?baud=300", Address{
			Scheme: DLMSModeE, Line: "serial.server:4001", Baud: 300, Client: 16, Server: 1, Auth: AuthNone, Ref: "ln", Security: open,
		}},
		{"iec21:///dev/ttyUSB1", Address{
			Scheme: IEC21, Line: "/dev/ttyUSB1", SignOn: 300, DataBits: 7, Parity: 'E', StopBits: 1,
		}},
		{"iec21:///dev/ttyUSB1?signon=9600&baud=4800&address=12&mode=p&password=pass&format=8n1&timeout=3s", Address{
			Scheme: IEC21, Line: "/dev/ttyUSB1", SignOn: 9600, Baud: 4800, Device: "12", Mode: ModeP, Password: secretOf(t, "pass"),
			DataBits: 8, Parity: 'N', StopBits: 1, Timeout: 3 * time.Second,
		}},
		{"iec21://h:4001?baud=300&mode=c", Address{Scheme: IEC21, Line: "h:4001", Baud: 300, Mode: ModeC}},
		{"dlms+hdlc:///dev/ttyUSB0", hdlc},
		{"modbus+rtu:///dev/ttyS1?unit=1&model=m&rs485=low", Address{
			Scheme: ModbusRTU, Line: "/dev/ttyS1", Baud: 9600, DataBits: 8, Parity: 'N', StopBits: 1, RS485: RS485Low, Unit: 1, Model: "m",
		}},
		{"dlms+hdlc:///dev/ttyUSB0?baud=300&format=8E1&client=17&server=1&physical=17&addrlen=4", Address{
			Scheme: DLMSHDLC, Line: "/dev/ttyUSB0", Baud: 300, DataBits: 8, Parity: 'E', StopBits: 1,
			Client: 17, Server: 1, Physical: 17, AddrLen: 4, Auth: AuthNone, Ref: "ln", Security: open,
		}},
		{"dlms+hdlc://./rs485?server=16383&physical=16383", Address{
			Scheme: DLMSHDLC, Line: "./rs485", Baud: 9600, DataBits: 8, Parity: 'N', StopBits: 1,
			Client: 16, Server: 16383, Physical: 16383, Auth: AuthNone, Ref: "ln", Security: open,
		}},
		{"dlms+hdlc://Serial.Server:4001?addrlen=1", Address{
			Scheme: DLMSHDLC, Line: "serial.server:4001", Client: 16, Server: 1, AddrLen: 1, Auth: AuthNone, Ref: "ln", Security: open,
		}},
		{"modbus+tcp://127.0.0.1?unit=1&model=sdm630", Address{
			Scheme: ModbusTCP, Line: "127.0.0.1:502", Unit: 1, Model: "sdm630",
		}},
		{"modbus+tcp://[::ffff:127.0.0.1]?unit=255&model=sdm630", Address{
			Scheme: ModbusTCP, Line: "127.0.0.1:502", Unit: 255, Model: "sdm630",
		}},
		{"modbus+rtuovertcp://host_1:26?unit=247&model=m", Address{
			Scheme: ModbusRTUOverTCP, Line: "host_1:26", Unit: 247, Model: "m",
		}},
		{"modbus+rtu:///dev/ttyS1?unit=7&model=sdm120", rtu},
		{"modbus+rtu:////dev/../dev/./ttyS1?baud=9600&format=8n1&unit=7&model=sdm120", rtu},
		{"modbus+rtu://./demo-run/rs485?baud=115200&format=8E2&unit=1&model=sdm120", Address{
			Scheme: ModbusRTU, Line: "./demo-run/rs485", Baud: 115200, DataBits: 8, Parity: 'E', StopBits: 2,
			Unit: 1, Model: "sdm120",
		}},
		{"modbus+rtu://./a/../../b?unit=1&model=m", Address{
			Scheme: ModbusRTU, Line: "../b", Baud: 9600, DataBits: 8, Parity: 'N', StopBits: 1, Unit: 1, Model: "m",
		}},
	}
	for _, tt := range tests {
		got, err := Parse(tt.in)
		if err != nil {
			t.Errorf("Parse(%q): %v", tt.in, err)
			continue
		}
		if got != tt.want {
			t.Errorf("Parse(%q)\n got %+v\nwant %+v", tt.in, got, tt.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ in, want string }{
		{"", "want SCHEME://…, with the scheme one of dlms+wrapper, dlms+hdlc, dlms+udp, dlms+modee, iec21, modbus+tcp, modbus+rtu, modbus+rtuovertcp, plc+gateway, plc+prime, plc+g3"},
		{"127.0.0.1:4059", "want SCHEME://"},
		{strings.Repeat("x", maxLength+1), "is longer than 4096 bytes"},
		{"http://h", "unknown scheme"},
		{"dlms+wrapper://h?meter=12345", "meter: want 16 hexadecimal digits, or 8 characters: the system title of the meter"},
		{"dlms+udp:///dev/ttyS1", "the host is neither"},
		{"dlms+udp://h?baud=9600", "baud: does not belong to dlms+udp"},
		{"dlms+udp://h?physical=1", "physical: does not belong to dlms+udp"},
		{"dlms+modee://h", "the port: want 1 to 65535, as in dlms+modee://HOST:PORT"},
		{"dlms+modee://h:1?rs485=high", "rs485: is of serial ports"},
		{"dlms+hdlc:///dev/ttyS1?rs485=yes", "rs485: want high or low"},
		{"dlms+wrapper://h?rs485=high", "rs485: does not belong to dlms+wrapper"},
		{"dlms+modee://h:1?signon=300", "signon: is of serial ports"},
		{"dlms+modee:///dev/ttyS1?signon=38400", "signon: want one of 300 600 1200 2400 4800 9600 19200"},
		{"dlms+modee:///dev/ttyS1?baud=38400", "baud: want one of 300 600 1200 2400 4800 9600 19200"},
		{"dlms+udp://h?ref=sn", "ref: sn is not for UDP"},
		{"dlms+udp://h?window=1", "window: does not belong to dlms+udp"},
		{"dlms+hdlc:///dev/ttyS1?info=31", "info: want a number, 32 to 2030"},
		{"dlms+hdlc:///dev/ttyS1?info=2031", "info: want a number, 32 to 2030"},
		{"dlms+modee:///dev/ttyS1?window=8", "window: want a number, 1 to 7"},
		{"dlms+modee:///dev/ttyS1?format=8N1", "format: does not belong to dlms+modee"},
		{"dlms+modee:///dev/ttyS1?address=12!", "address: want the meter's device address"},
		{"dlms+modee:///dev/ttyS1?address=" + strings.Repeat("1", 33), "address: want"},
		{"dlms+modee:///dev/ttyS1?client=200", "client: want 1 to 127 over HDLC"},
		{"dlms+hdlc:///dev/ttyS1?address=1", "address: does not belong to dlms+hdlc"},
		{"iec21:///dev/ttyS1?mode=d", "mode: want a, b or c"},
		{"iec21:///dev/ttyS1?format=8E1", "format: want 7E1, or 8N1"},
		{"iec21:///dev/ttyS1?baud=38400", "baud: want one of 300 600 1200 2400 4800 9600 19200"},
		{"iec21:///dev/ttyS1?client=1", "client: does not belong to iec21"},
		{"iec21:///dev/ttyS1?mode=a&password=1", "password: is given, but mode=a"},
		{"iec21://h:1?format=7E1", "format: is of serial ports"},
		{"iec21://h", "the port: want 1 to 65535"},
		{"dlms+modee:///dev/ttyS1?mode=c", "mode: does not belong to dlms+modee"},
		{"serial:///dev/ttyS1", "serial is not in this version"},
		{"dlms+wrapper://h#x", "write it as %23"},

		{"dlms+wrapper://", "no host: want dlms+wrapper://HOST[:4059]"},
		{"dlms+wrapper:///h", "the host is neither"},
		{"dlms+wrapper:///", "no host: want dlms+wrapper://HOST[:4059], with two slashes"},
		{"dlms+wrapper://u:hunter2@h", "credentials do not stand before the host"},
		{"dlms+wrapper://h:0", "the port: want 1 to 65535"},
		{"dlms+wrapper://h:65536", "the port: want 1 to 65535"},
		{"dlms+wrapper://h:+1", "the port: want 1 to 65535"},
		{"dlms+wrapper://h:", "the port: want 1 to 65535"},
		{"dlms+wrapper://h/x", "the host is neither"},
		{"dlms+wrapper://a b", "the host is neither"},
		{"dlms+wrapper://-h", "the host is neither"},
		{"dlms+wrapper://1.2.3", "the host is neither"},
		{"dlms+wrapper://fe80::1", "an IPv6 address in [brackets]"},
		{"dlms+wrapper://[1.2.3.4]", "the host is neither"},
		{"dlms+wrapper://[::1", "the host is neither"},
		{"dlms+wrapper://[::1%25a/b]", "the host is neither"},
		{"dlms+wrapper://h%2", "the host: a '%' is not followed by two hexadecimal digits"},
		{"dlms+hdlc://h", "the port: want 1 to 65535, as in dlms+hdlc://HOST:PORT"},
		{"dlms+hdlc://dev/ttyUSB0", "the port: want 1 to 65535"},
		{"dlms+hdlc:///dev/?client=1", "not one of a device"},
		{"dlms+hdlc://h:1?baud=9600", "baud: is of serial ports"},
		{"dlms+hdlc://h:1?format=8N1", "format: is of serial ports"},
		{"dlms+hdlc://h:1?client=128", "client: want 1 to 127 over HDLC"},
		{"dlms+hdlc://h:1?server=16384", "server: want 1 to 16383 over HDLC"},
		{"dlms+hdlc://h:1?server=128&addrlen=1", "server: want 1 to 127 over HDLC with addrlen=1"},
		{"dlms+hdlc://h:1?physical=1&addrlen=1", "physical: has no room in an address of one octet"},
		{"dlms+hdlc://h:1?physical=128&addrlen=2", "physical: want 1 to 127 with addrlen=2"},
		{"dlms+hdlc://h:1?physical=16384", "physical: want a number, 1 to 16383"},
		{"dlms+hdlc://h:1?addrlen=3", "addrlen: want 1, 2 or 4"},
		{"dlms+wrapper://h?physical=1", "physical: does not belong to dlms+wrapper"},
		{"modbus+rtuovertcp://h?unit=1&model=m", "the port: want 1 to 65535, as in modbus+rtuovertcp://HOST:PORT"},

		{"modbus+rtu://?unit=1&model=m", "no serial port: want modbus+rtu:///dev/ttyS1"},
		{"modbus+rtu://dev/ttyS1?unit=1&model=m", "an absolute path after three slashes"},
		{"modbus+rtu:///dev/?unit=1&model=m", "not one of a device"},
		{"modbus+rtu:///dev%00?unit=1&model=m", "not one of a device"},
		{"modbus+rtu:///dev%zz?unit=1&model=m", "the serial port's path: a '%' is not followed"},
		{"modbus+rtu://./..?unit=1&model=m", "is a directory"},
		{"modbus+rtu:///..?unit=1&model=m", "is a directory"},

		{"dlms+wrapper://h?client=0", "client: want a number, 1 to 65535"},
		{"dlms+wrapper://h?client=65536", "client: want a number, 1 to 65535"},
		{"dlms+wrapper://h?client=x", "client: want a number"},
		{"dlms+wrapper://h?client=+1", "client: want a number"},
		{"dlms+wrapper://h?client=", "client: has no value"},
		{"dlms+wrapper://h?client", "client: has no value"},
		{"dlms+wrapper://h?client=%zz", "client: a '%' is not followed"},
		{"dlms+wrapper://h?client=1&client=1", "client: is given twice"},
		{"dlms+wrapper://h?server=0", "server: want a number, 1 to 65535"},
		{"dlms+wrapper://h?auth=hls", "auth: want one of none, lls, hls2, md5, sha1, gmac, sha256, ecdsa"},
		{"dlms+wrapper://h?auth=lls", "password: missing: auth=lls needs password=file:/PATH"},
		{"dlms+wrapper://h?password=x", "password: is given, but auth is none"},
		{"dlms+wrapper://h?auth=lls&password=file:", "password: names no file"},
		{"dlms+wrapper://h?auth=lls&password=env:A-B", "password: names no environment variable"},
		{"dlms+wrapper://h?auth=lls&password=secret:A", "password: names no entry"},
		{"dlms+wrapper://h?auth=lls&password=" + strings.Repeat("x", 1025), "password: is longer than 1024 bytes"},
		{"dlms+wrapper://h?auth=lls&password=hun&ter=2", "what follows password is no key; in a secret write '&' as %26"},
		{"dlms+wrapper://h?auth=lls&password=hun&ter2", "what follows password is no key; in a secret write '&' as %26"},
		{"dlms+wrapper://h?ref=x", "ref: want ln or sn"},
		{"dlms+wrapper://h?clinet=1", "clinet: unknown key; dlms+wrapper has client, server, auth, password, security, suite, title, meter, ek, ak, sk, pk, ic, ref, model, timeout"},
		{"dlms+wrapper://h?Ab1=1", "part 1 of the query: unknown key"},
		{"dlms+wrapper://h?&", "part 1 of the query: unknown key"},
		{"dlms+wrapper://h?unit=1", "unit: does not belong to dlms+wrapper"},
		{"dlms+wrapper://h?baud=9600", "baud: does not belong to dlms+wrapper"},
		{"dlms+wrapper://h?timeout=5", "timeout: want a duration with a unit, 50ms to 2m0s"},
		{"dlms+wrapper://h?timeout=1ms", "timeout: want a duration with a unit"},
		{"dlms+wrapper://h?timeout=1h", "timeout: want a duration with a unit"},

		{"modbus+tcp://h", "unit: missing"},
		{"modbus+tcp://h?unit=1", "model: missing"},
		{"modbus+tcp://h?unit=256&model=m", "unit: want a number, 0 to 255"},
		{"modbus+tcp://h?unit=1&model=SDM", "model: want the name"},
		{"modbus+tcp://h?unit=1&model=" + strings.Repeat("m", 33), "model: want the name"},
		{"modbus+tcp://h?unit=1&model=m&client=1", "client: does not belong to modbus+tcp; it has unit, model, timeout"},
		{"modbus+rtu:///dev/ttyS1?unit=0&model=m", "unit: want a number, 1 to 247"},
		{"modbus+rtu:///dev/ttyS1?unit=248&model=m", "unit: want a number, 1 to 247"},
		{"modbus+rtu:///dev/ttyS1?unit=1&model=m&baud=9601", "baud: want one of 300 600"},
		{"modbus+rtu:///dev/ttyS1?unit=1&model=m&baud=+9600", "baud: want one of"},
		{"modbus+rtu:///dev/ttyS1?unit=1&model=m&format=7E1", "format: want 8N1"},
		{"modbus+rtu:///dev/ttyS1?unit=1&model=m&format=8N3", "format: want 8N1"},
		{"modbus+rtu:///dev/ttyS1?unit=1&model=m&format=8N", "format: want 8N1"},
		{"modbus+rtuovertcp://h:1?unit=1&model=m&baud=9600", "baud: does not belong to modbus+rtuovertcp"},
	}
	for _, tt := range tests {
		a, err := Parse(tt.in)
		if err == nil {
			t.Errorf("Parse(%q) = %v, want an error with %q", tt.in, a, tt.want)
			continue
		}
		if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Parse(%q): %v\nwant an error with %q", tt.in, err, tt.want)
		}
		if a != (Address{}) {
			t.Errorf("Parse(%q) gave %v beside an error", tt.in, a)
		}
		for _, piece := range []string{"hunter2", "hun", "ter"} {
			if strings.Contains(tt.in, "hun") && strings.Contains(strings.ReplaceAll(err.Error(), "characters", ""), piece) {
				t.Errorf("Parse(%q): the error shows %q: %v", tt.in, piece, err)
			}
		}
		var k *KeyError
		if !errors.As(err, &k) {
			t.Errorf("Parse(%q): %T has no *KeyError", tt.in, err)
		}
	}
}

// All problems come at once.
func TestParseJoinsProblems(t *testing.T) {
	t.Parallel()
	_, err := Parse("modbus+rtu://dev?unit=900&bad=1&timeout=3&client=1")
	if err == nil {
		t.Fatal("accepted")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 6 {
		t.Errorf("%d problems, want 6 (port, unit, bad, timeout, client, model):\n%v", len(lines), err)
	}
}

func TestString(t *testing.T) {
	t.Parallel()
	tests := []struct{ in, want string }{
		{
			"dlms+wrapper://h?auth=lls&password=hunter2",
			"dlms+wrapper://h:4059?client=16&server=1&auth=lls&password=***&ref=ln&security=none",
		},
		{
			"modbus+rtu:///dev/a%3Fb?unit=1&model=m&timeout=2s",
			"modbus+rtu:///dev/a%3Fb?baud=9600&format=8N1&unit=1&model=m&timeout=2s",
		},
		{
			"dlms+modee://h:1?window=1&info=128",
			"dlms+modee://h:1?client=16&server=1&auth=none&ref=ln&security=none&info=128&window=1",
		},
		{
			"dlms+wrapper://h?meter=4752470000000001",
			"dlms+wrapper://h:4059?client=16&server=1&auth=none&ref=ln&security=none&meter=4752470000000001",
		},
		{
			"dlms+modee:///dev/x?address=7",
			"dlms+modee:///dev/x?signon=300&address=7&client=16&server=1&auth=none&ref=ln&security=none",
		},
	}
	for _, tt := range tests {
		a, err := Parse(tt.in)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.String(); got != tt.want {
			t.Errorf("String of %q\n got %s\nwant %s", tt.in, got, tt.want)
		}
	}
}

// FuzzParse: what Parse accepts, String writes so that Parse gives the same
// again (a literal password apart); what it refuses, it refuses without
// showing the password.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"dlms+wrapper://127.0.0.1:4059?client=17&auth=lls&",
		"dlms+wrapper://[fe80::1%25eth0]?auth=lls&",
		"dlms+wrapper://h?auth=gmac&title=GRG12345&ak=x&ic=none&",
		"dlms+wrapper://h?auth=ecdsa&suite=2&security=authenc&title=4752470000000001&ak=env:A&sk=x&pk=file:/p&ic=0-0:43.1.1&",
		"modbus+tcp://h?unit=1&model=sdm630&timeout=2s&",
		"dlms+modee:///dev/x?signon=600&baud=1200&address=a%20b&", "dlms+modee://h:1?baud=300&", "dlms+udp://h?", "dlms+hdlc://h:1?info=2030&window=7&",
		"modbus+rtu://./x/../y?unit=1&model=sdm630&format=8E1&",
		"modbus+rtuovertcp://h:1?unit=1&model=m&",
		"plc+g3://", "dlms+wrapper://user:", "dlms+modee:///", "",
	} {
		f.Add(s, "")
		f.Add(s, "&client=1")
		f.Add(s, "&x")
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		const password = "S3cr3tXYZ"
		for _, in := range []string{before, before + after, before + "password=" + password + after, before + "ek=" + password + after} {
			a, err := Parse(in)
			if err != nil {
				if strings.Contains(err.Error(), password) && !strings.Contains(before+after, password) {
					t.Fatalf("the error shows the password: %v", err)
				}
				continue
			}
			inQuery := strings.Contains(before, "?") // before it, it is a part of a path
			if strings.Contains(a.String(), password) && inQuery && !strings.Contains(before, password) {
				t.Fatalf("String shows the password: %s", a)
			}
			for _, s := range []*Secret{&a.Password, &a.Security.EK, &a.Security.AK, &a.Security.SigningKey, &a.Security.MeterKey} {
				if s.IsLiteral() {
					*s, _ = ParseSecret(redacted)
				}
			}
			again, err := Parse(a.String())
			if err != nil || again != a {
				t.Fatalf("Parse(%q)\n got %+v, %v\nwant %+v", a, again, err, a)
			}
		}
	})
}
