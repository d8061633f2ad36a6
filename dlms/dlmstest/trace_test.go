package dlmstest_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/security"
)

// exchanges gives the APDUs of a captured conversation: wrapper frames, or HDLC
// frames of one segment. What comes in several is left out.
func exchanges(t testing.TB, name string) (pairs [][2][]byte) {
	t.Helper()
	f, err := os.Open("../testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	trace, err := dlmstest.ParseTrace(f)
	if err != nil {
		t.Fatal(err)
	}
	apdu := func(b []byte) []byte {
		switch {
		case b[0] == 0:
			return b[8:]
		case len(b) > 14 && b[5]&1 == 0:
			return b[11 : len(b)-3]
		}
		return nil
	}
	for i := 0; i+1 < len(trace); i++ {
		if sent := apdu(trace[i].Bytes); !trace[i].FromMeter && trace[i+1].FromMeter && sent != nil {
			pairs = append(pairs, [2][]byte{sent, apdu(trace[i+1].Bytes)})
		}
	}
	return pairs
}

// captured is the meter of the traces, at the time of one of them.
func captured(t testing.TB, challenge, clock, energy string, o dlmstest.Options) *dlmstest.Meter {
	t.Helper()
	register := axdr.LongUnsigned(0x12)
	if energy != "" {
		v, _, err := axdr.Parse(octets(t, energy))
		if err != nil {
			t.Fatal(err)
		}
		register = v
	}
	scaler := uint8(0x1E)
	if o.MaxPDU == 0 {
		scaler = 0
	}
	rows := func(s *dlmstest.Selection) []axdr.Value {
		var rows []axdr.Value
		at := time.Date(2026, 11, 15, 17, 0, 0, 0, time.UTC)
		for i := range 160 {
			if t := at.Add(time.Duration(i) * time.Hour); s == nil || !t.Before(s.From) && !t.After(s.To) {
				stamp := []byte(dlmstest.DateTime(t))
				stamp[8] = 0xFF
				rows = append(rows, axdr.Structure(axdr.OctetString(string(stamp)), axdr.DoubleLong(0x2671+int32(i))))
			}
		}
		return rows
	}
	columns := []dlmstest.Column{{8, code("0-0:1.0.0"), 2}, {3, code("1-1:21.25.0"), 2}}
	o.Random = bytes.NewReader(octets(t, challenge))
	o.Objects = []dlmstest.Object{
		dlmstest.Attributes(8, code("0-0:1.0.0"), map[int8]func() axdr.Value{2: dlmstest.Fixed(axdr.OctetString(string(octets(t, clock))))}),
		dlmstest.Register(code("1-1:21.25.0"), int8(-2*int(scaler/0x1E)), scaler, dlmstest.Fixed(register)),
		dlmstest.Profile(code("1-0:99.1.0"), columns, 3600, rows),
		dlmstest.Disconnector(code("0-0:96.3.10"), nil),
	}
	return dlmstest.NewMeter(o)
}

// TestTraces has the meter answer what the clients of the traces sent: as the
// meters did, octet by octet, but for what is said.
func TestTraces(t *testing.T) {
	t.Parallel()
	const none = "0000000000000000"
	for name, c := range map[string]struct {
		client           uint16
		challenge, clock string
		energy           string
		o                dlmstest.Options
		login            dlmstest.Login
		skip             int // exchanges at the end that are not compared
		differs          map[int]string
	}{
		"15-hdlc-ln-hls3-md5.txt": {
			client: 19, challenge: "08112510426142321834156e24227327", clock: "07EA0B160708333754000000",
			login: dlmstest.Login{Mechanism: 3, Secret: gurux, Conformance: 0x401E5D},
		},
		"16-hdlc-ln-hls4-sha1.txt": {
			client: 20, challenge: "4444661e07572c2e576851603c243959", clock: "",
			login: dlmstest.Login{Mechanism: 4, Secret: gurux, Conformance: 0x401E5D},
		},
		"17-hdlc-ln-hls6-sha256.txt": {
			client: 22, challenge: "2868053479252e30061d32762d1e2d34", clock: "07EA0B160708333926000000",
			o:     dlmstest.Options{Security: dlmstest.Security{Title: security.Title(octets(t, "4752580000000001"))}},
			login: dlmstest.Login{Mechanism: 6, Secret: gurux, Conformance: 0x401E5D},
		},
		"18-wrapper-ln-lls-exception.txt": {
			client: 17, challenge: none, clock: "07EA0B160708333926000000",
			login:   dlmstest.Login{Mechanism: 1, Secret: gurux, Conformance: 0x021C04 | 0x10},
			differs: map[int]string{0: "6129A109060760857405080101A203020100A305A103020100BE10040E0800065F1F0400 001C14 04000007", 3: "6303800100"},
		},
		"10-hdlc-wrong-password.txt": {
			client: 17, challenge: none, clock: "07EA0B160708333926000000",
			login:   dlmstest.Login{Mechanism: 1, Secret: "another", Conformance: 0x401E5D},
			differs: map[int]string{0: "6117A109060760857405080101A203020101A305A10302010D"}, // without user information
		},
		"12-wrapper-ln-hls2-gbt-access.txt": {
			client: 18, challenge: "37620012363D4E73064F18694F3F4B04", clock: "07EA0B160708333537000000", energy: "0500000133",
			login: dlmstest.Login{Mechanism: 2, Secret: gurux, Conformance: 0x601E5D}, skip: 5,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pairs := exchanges(t, name)
			if c.clock == "" { // as the meter said at the end
				last := pairs[len(pairs)-1][1]
				c.clock = fmt.Sprintf("%x", last[len(last)-12:])
			}
			c.o.Clients = map[uint16]dlmstest.Login{c.client: c.login}
			session := captured(t, c.challenge, c.clock, c.energy, c.o).NewSession()
			for i, pair := range pairs[:len(pairs)-c.skip] {
				want := fmt.Sprintf("[%x]", pair[1])
				if other, ok := c.differs[i]; ok {
					want = "[" + strings.ToLower(strings.ReplaceAll(other, " ", "")) + "]"
				}
				if out := session.Answer(c.client, pair[0]); fmt.Sprintf("%x", out) != want {
					t.Errorf("exchange %d: %x\nanswered %x\nwant     %s", i, pair[0], out, want)
				}
			}
			for i, pair := range pairs[len(pairs)-c.skip:] { // general blocks: the meter of the trace made them two octets longer
				out := session.Answer(c.client, pair[0])
				if len(out) != 1 || out[0][0] != pair[1][0] || len(out[0]) > 1024 || out[0][0] == 0xE0 && !bytes.Equal(out[0][2:6], pair[1][2:6]) {
					t.Errorf("block %d: answered %.40x", i, out)
				}
				if i == 0 && !bytes.Equal(out[0][12:15], []byte{0, 1, 0x81}) || i == 0 && !bytes.Equal(out[0][16:900], pair[1][16:900]) {
					t.Errorf("first block: %x", out)
				}
			}
		})
	}
}

// TestTraceOfCiphering has the meter take what the client of trace 07 sent,
// protected. What it answers has other counters than in the trace, where one
// was left out; in the clear it is the same.
func TestTraceOfCiphering(t *testing.T) {
	t.Parallel()
	s, _ := meterSecurity(t, security.Suite0)
	o := dlmstest.Options{
		Security: s, MaxPDU: 512,
		Clients: map[uint16]dlmstest.Login{
			16: {Conformance: 0x1218},
			1:  {Mechanism: 5, Policy: security.AuthenticatedEncrypted, Conformance: 0x401E1D},
		},
	}
	session := captured(t, "1B0D8643211088C4E271B8DCEE773B9D", "07EA0B160708282800000000", "120062", o).NewSession()
	seen := security.Receiver{
		Suite: security.Suite0, Policy: security.AuthenticatedEncrypted, Title: s.Title, Keys: s.Keys,
		Direction: security.FromServer, Window: &security.Window{},
	}
	notes, err := os.ReadFile("../testdata/07-wrapper-ln-hls5-gmac.plaintext.txt")
	if err != nil {
		t.Fatal(err)
	}
	const noted = 52             // the notes have the starts of what is long
	plain := map[string]string{} // by what was sent, what it was answered in the clear
	asked := ""
	for line := range strings.Lines(string(notes)) {
		f := strings.Fields(line)
		switch f[0] {
		case "TX":
			asked = strings.ToLower(f[len(f)-3])[:noted]
		case "RX":
			plain[asked] = strings.ToLower(f[len(f)-1])
		}
	}
	count := map[string]int{}
	for i, pair := range exchanges(t, "07-wrapper-ln-hls5-gmac.txt") {
		client := uint16(1)
		if i < 3 {
			client = 16
		}
		out := session.Answer(client, pair[0])
		if len(out) != 1 || len(out[0]) > 512 {
			t.Fatalf("exchange %d: %x", i, out)
		}
		got := out[0]
		if got[0] == 0x63 && pair[1][0] == 0xD8 { // which wants the release protected
			continue
		}
		if got[0] != pair[1][0] {
			t.Fatalf("exchange %d: answered %x, want %x", i, got, pair[1])
		}
		if !security.IsProtected(got[0]) {
			count["clear"]++
			continue
		}
		text, err := seen.Unprotect(nil, got)
		if err != nil {
			t.Fatalf("exchange %d: %v", i, err)
		}
		want := plain[fmt.Sprintf("%x", pair[0])[:noted]]
		switch got := fmt.Sprintf("%x", text); {
		case want != "" && strings.HasPrefix(got, want):
			count["same"]++
		case want == "" || got[:6] != want[:6]:
			t.Errorf("exchange %d: %s, want %s", i, got, want)
		default:
			count["kind"]++
		}
	}
	if count["same"] < 10 {
		t.Errorf("%v", count)
	}
}

// FuzzAnswer feeds a session what any client might send. It answers within the
// client's PDU, with something that is an answer, and protects what it must.
func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"12-wrapper-ln-hls2-gbt-access.txt", "18-wrapper-ln-lls-exception.txt", "01-wrapper-ln-none-clock-range.txt"} {
		var all []byte
		for _, pair := range exchanges(f, name) {
			all = append(append(all, byte(len(pair[0])>>8), byte(len(pair[0]))), pair[0]...)
		}
		f.Add(uint16(16), all)
	}
	hello := octets(f, "001F 601DA109060760857405080101BE10040E01000000065F1F0400FFFFFF0040")
	short := octets(f, "001F 601DA109060760857405080102BE10040E01000000065F1F0400FFFFFF0040")
	for _, s := range []string{
		"0011 C102C1 0001 0000600D00FF 02 00 00 00000001 02 0904", "0008 C103C1 01 00000002 04 61626364", "000F C304C1 0046 000060030AFF 01 00", "0010 E0410001000007C001C1000801000000",
		"000D C001C1000F0000280000FF0200", "0010 C004", "000A 05010402001B58FFFF", "0008 0502 02FA00 02FA08",
	} {
		f.Add(uint16(16), append(bytes.Clone(hello), octets(f, s)...))
		f.Add(uint16(30), append(bytes.Clone(short), octets(f, s)...))
	}
	f.Fuzz(func(t *testing.T, client uint16, sent []byte) {
		clients := everyone()
		clients[16] = dlmstest.Login{}
		clients[30] = dlmstest.Login{Conformance: dlmstest.ShortNames}
		session := full(dlmstest.Options{Clients: clients}).NewSession()
		for n := 0; len(sent) > 2 && n < 50; n++ {
			length := min(int(sent[0])<<8|int(sent[1]), len(sent)-2)
			apdu := sent[2 : 2+length]
			sent = sent[2+length:]
			for _, out := range session.Answer(client, apdu) {
				if len(out) < 2 || !bytes.Contains([]byte("\x61\x63\xC4\xC5\xC7\xD8\xDA\xE0\x0C\x0D\x0E"), out[:1]) {
					t.Fatalf("%x was answered %x", apdu, out)
				}
				if len(out) > 1024 {
					t.Fatalf("%x was answered with %d octets", apdu, len(out))
				}
			}
		}
	})
}
