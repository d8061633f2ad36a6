package address

import (
	"strings"
	"testing"
)

func TestParsePLC(t *testing.T) {
	t.Parallel()
	dlms := func(a Address) Address {
		a.Client, a.Server, a.Auth, a.Ref = 16, 1, AuthNone, "ln"
		a.Security.Protection = Unprotected
		return a
	}
	for in, want := range map[string]Address{
		"plc+prime://H?node=ZIV0034704705": dlms(Address{
			Scheme: PLCPrime, Line: "h:4059", PLC: PLC{Node: "ZIV0034704705", Parallel: 4},
		}),
		"plc+prime://10.0.0.9:4060?node=00:80:E1:00:00:07&parallel=8&timeout=1m": dlms(Address{
			Scheme: PLCPrime, Line: "10.0.0.9:4060", PLC: PLC{Node: "00:80:E1:00:00:07", Parallel: 8}, Timeout: 60e9,
		}),
		"plc+gateway://h:1?network=3&node=0a1b": dlms(Address{
			Scheme: PLCGateway, Line: "h:1", PLC: PLC{Node: "0A1B", Network: 3, Parallel: 4},
		}),
		"plc+gateway:///dev/ttyS2?baud=19200&node=01&physical=17&addrlen=4": dlms(Address{
			Scheme: PLCGateway, Line: "/dev/ttyS2", Baud: 19200, DataBits: 8, Parity: 'N', StopBits: 1, Physical: 17, AddrLen: 4,
			PLC: PLC{Node: "01"},
		}),
		"plc+g3://[FD00:0:0:7::A1]": dlms(Address{
			Scheme: PLCG3, Line: "fd00:0:0:7::/64", PLC: PLC{Node: "[fd00:0:0:7::a1]:4059", Parallel: 4},
		}),
		"plc+g3://[fe80::1%25eth0]:61616": dlms(Address{
			Scheme: PLCG3, Line: "fe80::/64", PLC: PLC{Node: "[fe80::1%eth0]:61616", Parallel: 4},
		}),
		"plc+g3://127.0.0.1:61616": dlms(Address{
			Scheme: PLCG3, Line: "127.0.0.1", PLC: PLC{Node: "127.0.0.1:61616", Parallel: 4},
		}),
	} {
		got, err := Parse(in)
		if err != nil || got != want {
			t.Errorf("Parse(%q)\n got %+v, %v\nwant %+v", in, got, err, want)
			continue
		}
		if again, err := Parse(got.String()); err != nil || again != got {
			t.Errorf("%s: written as %s it is %+v, %v", in, got, again, err)
		}
	}
}

func TestParseRefusesPLC(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plc+prime://h":                                 "node: missing: want node=…",
		"plc+gateway://h":                               "node: missing",
		"plc+prime://":                                  "no host: want plc+prime://HOST[:4059]",
		"plc+prime:///dev/ttyS1?node=1":                 "the host is neither",
		"plc+g3:///dev/ttyS1":                           "the host is neither",
		"plc+g3://[::1]?node=1":                         "node: does not belong to plc+g3",
		"plc+prime://h?node=a b":                        "node: want the meter's serial number",
		"plc+prime://h?node=" + strings.Repeat("1", 65): "node: want the meter's serial number",
		"plc+gateway://h?node=xy":                       "node: want the meter's physical device address",
		"plc+gateway://h?node=012":                      "node: want the meter's physical device address",
		"plc+gateway://h?node=1234&network=256":         "network: want a number, 0 to 255",
		"plc+prime://h?node=1&network=1":                "network: does not belong to plc+prime",
		"plc+prime://h?node=1&parallel=0":               "parallel: want a number, 1 to 32",
		"plc+prime://h?node=1&server=2":                 "server: a PRIME base node",
		"plc+prime://h?node=1&ref=sn":                   "ref: answers by short names have no number",
		"plc+prime://h?node=1&baud=9600":                "baud: does not belong",
		"plc+gateway://h?node=01&baud=9600":             "baud: is of serial ports",
		"plc+gateway://h?node=01&physical=7":            "physical: is of a gateway on a serial port",
		"plc+gateway:///dev/ttyS1?node=01&parallel=2":   "parallel: a serial port has one",
		"plc+gateway:///dev/ttyS1?node=01&client=200":   "client: want 1 to 127 over HDLC",
		"dlms+wrapper://h?node=1":                       "node: does not belong to dlms+wrapper",
		"modbus+tcp://h?unit=1&model=m&parallel=2":      "parallel: does not belong",
	} {
		if _, err := Parse(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\nwant %q", in, err, want)
		}
	}
	if a, err := ParseLine("plc+prime://h"); err != nil || a.Line != "h:4059" || a.Parallel != DefaultParallel {
		t.Errorf("%+v, %v", a, err)
	}
}
