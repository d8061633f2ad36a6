package dlmstest_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/dlms/dlmstest"
)

// played is a stream of what clients send, one piece a read; before each read
// it notes what came back.
type played struct {
	sent  [][]byte
	got   []string
	wrote bytes.Buffer
	pause func(n int) // before the read of that number
}

func (p *played) Read(b []byte) (int, error) {
	if len(p.got) < len(p.sent)+1 {
		p.got = append(p.got, fmt.Sprintf("%x", p.wrote.Bytes()))
		p.wrote.Reset()
	}
	n := len(p.got) - 1
	if n == len(p.sent) {
		return 0, io.EOF
	}
	if p.pause != nil {
		p.pause(n)
	}
	return copy(b, p.sent[n]), nil
}

func (p *played) Write(b []byte) (int, error) { return p.wrote.Write(b) }

// hdlcFrame makes a frame of a client.
func hdlcFrame(to []byte, client, control byte, info ...byte) []byte {
	body := append([]byte{0, 0}, to...)
	body = append(body, client, control)
	n := len(body) + 2
	if len(info) > 0 {
		n += len(info) + 2
	}
	body[0], body[1] = 0xA0|byte(n>>8), byte(n)
	check := func() {
		r := uint16(0xFFFF)
		for _, o := range body {
			for bit := range 8 {
				if (r^uint16(o)>>bit)&1 == 1 {
					r = r>>1 ^ 0x8408
				} else {
					r >>= 1
				}
			}
		}
		body = append(body, byte(^r), byte(^r>>8))
	}
	check()
	if len(info) > 0 {
		body = append(body, info...)
		check()
	}
	return append(append([]byte{0x7E}, body...), 0x7E)
}

// TestStation has clients send what they may, and looks at what they get.
func TestStation(t *testing.T) {
	t.Parallel()
	const snrm, disc, rr, ui = 0x93, 0x53, 0x11, 0x13
	one := []byte{3}
	ua := "7ea01e210373c37a818012050180060180070400000001080400000001533b7e"
	long := bytes.Repeat([]byte{7}, 200)
	rejects := 0
	answer := func(_ byte, apdu []byte) []byte {
		if apdu[0] == 0xFF {
			return long
		}
		return append([]byte{0xAA}, apdu...)
	}
	i := func(ns, nr byte, apdu ...byte) []byte {
		return hdlcFrame(one, 0x21, nr<<5|0x10|ns<<1, append([]byte{0xE6, 0xE6, 0}, apdu...)...)
	}
	for name, c := range map[string]struct {
		station dlmstest.Station
		sent    [][]byte
		want    []string // parts of what comes back; "" is nothing
	}{
		"of the vectors": {sent: [][]byte{octets(t, "7EA0070321930F017E"), octets(t, "7EA00703215303C77E")}, want: []string{ua, "7ea007210373"}},
		"larger fields than it has": {
			sent: [][]byte{hdlcFrame(one, 0x21, snrm, octets(t, "818014 050207EE 060207EE 070400000007 080400000007")...)}, want: []string{ua},
		},
		"never more than was proposed": {
			station: dlmstest.Station{MaxInfo: 2030, Window: 7},
			sent: [][]byte{
				hdlcFrame(one, 0x21, snrm), hdlcFrame(one, 0x21, snrm, octets(t, "818014 05020400 06020200 070400000003 080400000002")...),
				hdlcFrame(one, 0x21, snrm, octets(t, "818006 050140 060130")...),
			},
			want: []string{ua, "818014" + "05020200" + "06020400" + "070400000002" + "080400000003", "050130" + "060140"},
		},
		"parameters that make no sense": {
			sent: [][]byte{
				hdlcFrame(one, 0x21, snrm, octets(t, "818006 050100 060100")...), hdlcFrame(one, 0x21, snrm, octets(t, "8180FF 0508FFFFFFFFFFFFFFFF 06")...),
				hdlcFrame(one, 0x21, snrm, 1), i(0, 0, 0xFF),
			},
			want: []string{ua, ua, ua, "e6e700" + strings.Repeat("07", 125)},
		},
		"nothing before a connection": {
			sent: [][]byte{i(0, 0, 1), hdlcFrame(one, 0x21, rr), hdlcFrame(one, 0x21, disc)},
			want: []string{"7ea00721031f", "7ea00721031f", "7ea00721031f"},
		},
		"again": {
			sent: [][]byte{hdlcFrame(one, 0x21, snrm), i(0, 0, 1), hdlcFrame(one, 0x21, snrm), i(0, 0, 2), hdlcFrame(one, 0x21, disc), i(1, 1, 2)},
			want: []string{ua, "e6e700aa01", ua, "e6e700aa02", "7ea007210373", "7ea00721031f"},
		},
		"repeated": {
			sent: [][]byte{hdlcFrame(one, 0x21, snrm), i(0, 0, 1), i(0, 0, 1), hdlcFrame(one, 0x21, rr), hdlcFrame(one, 0x21, rr|1<<5)},
			want: []string{ua, "e6e700aa01", "e6e700aa01", "e6e700aa01", "7ea0072103" + "31"},
		},
		"segments": {
			sent: [][]byte{hdlcFrame(one, 0x21, snrm), i(0, 0, 0xFF), hdlcFrame(one, 0x21, rr|1<<5), i(1, 2, 5)},
			want: []string{ua, "7ea889210330", "7ea0", "aa05"},
		},
		"an answer that is not fetched": {
			sent: [][]byte{hdlcFrame(one, 0x21, snrm), i(0, 0, 0xFF), i(1, 1, 5), hdlcFrame(one, 0x21, rr|2<<5)},
			want: []string{ua, "7ea889210330", "e6e700aa05", "7ea0072103" + "51"},
		},
		"two clients": {
			sent: [][]byte{hdlcFrame(one, 0x21, snrm), hdlcFrame(one, 0x23, snrm), i(0, 0, 1), hdlcFrame(one, 0x23, disc), i(1, 1, 2)},
			want: []string{ua, "7ea01e230373", "aa01", "7ea007230373", "aa02"},
		},
		"rejected": {
			station: dlmstest.Station{Rejects: func() bool { rejects++; return rejects == 2 }},
			sent:    [][]byte{hdlcFrame(one, 0x21, snrm), i(0, 0, 1), i(1, 1, 2), hdlcFrame(one, 0x21, rr), hdlcFrame(one, 0x21, snrm), i(0, 0, 3)},
			want:    []string{ua, "aa01", "7ea00c210397", "7ea00c210397", ua, "aa03"},
		},
		"wrong numbers": {
			sent: [][]byte{hdlcFrame(one, 0x21, snrm), hdlcFrame(one, 0x21, rr|5<<5), hdlcFrame(one, 0x21, disc)},
			want: []string{ua, "7ea00c210397", "7ea007210373"},
		},
		"not ready": {
			sent: [][]byte{hdlcFrame(one, 0x21, snrm), i(0, 0, 0xFF), hdlcFrame(one, 0x21, 0x15|1<<5), hdlcFrame(one, 0x21, rr|1<<5)},
			want: []string{ua, "7ea889210330", "7ea0072103" + "31", "070707"},
		},
		"unnumbered": {
			sent: [][]byte{hdlcFrame(one, 0x21, ui, 0xE6, 0xE6, 0, 9), hdlcFrame(one, 0x21, 0x03, 0xE6, 0xE6, 0, 9), hdlcFrame(one, 0x21, ui, 1, 2)},
			want: []string{"e6e700aa09", "", ""},
		},
		"other forms of the address": {
			station: dlmstest.Station{AnyForm: true},
			sent: [][]byte{
				hdlcFrame([]byte{2, 0x23}, 0x21, snrm), hdlcFrame([]byte{0, 2, 0, 0x23}, 0x21, snrm), hdlcFrame([]byte{2, 0xFF}, 0x21, snrm), hdlcFrame([]byte{0, 2, 0xFE, 0xFF}, 0x21, snrm),
				hdlcFrame([]byte{2, 0xFD}, 0x21, snrm), hdlcFrame([]byte{2, 1}, 0x21, snrm), hdlcFrame([]byte{4, 0x23}, 0x21, snrm), hdlcFrame([]byte{0, 2, 0x23}, 0x21, snrm),
			},
			want: []string{"7ea01f21022373", "7ea0212100020023" + "73", "7ea01f21022173", "7ea0212100020021" + "73", "7ea01f21022173", "", "", ""},
		},
		"other forms, with a physical address": {
			station: dlmstest.Station{AnyForm: true, Server: []byte{2, 0x23}},
			sent: [][]byte{
				hdlcFrame([]byte{2, 0x23}, 0x21, snrm), hdlcFrame([]byte{0, 2, 0, 0x23}, 0x21, snrm), hdlcFrame([]byte{2, 0x25}, 0x21, snrm), hdlcFrame([]byte{0, 2, 0xFE, 0xFF}, 0x21, snrm), hdlcFrame(one, 0x21, snrm),
			},
			want: []string{"7ea01f21022373", "7ea0212100020023" + "73", "", "7ea0212100020023" + "73", ua},
		},
		"noise": {
			sent: [][]byte{octets(t, "00FF7E7E A0 20"), append(octets(t, "7EA01B03"), hdlcFrame(one, 0x21, snrm)...), i(0, 0, 1)},
			want: []string{"", ua, "aa01"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &played{sent: c.sent}
			c.station.Answer = answer
			if err := c.station.Serve(p); err != nil {
				t.Fatal(err)
			}
			for n, want := range c.want {
				if got := p.got[n+1]; !strings.Contains(got, want) || want == "" && got != "" {
					t.Errorf("%x was answered %q, want %q in it", c.sent[n], got, want)
				}
			}
		})
	}
}

// TestInactivity ends connections that are not used.
func TestInactivity(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one := []byte{3}
		p := &played{
			sent:  [][]byte{hdlcFrame(one, 0x21, 0x93), hdlcFrame(one, 0x21, 0x11), hdlcFrame(one, 0x21, 0x11)},
			pause: func(n int) { time.Sleep([]time.Duration{0, 119 * time.Second, 121 * time.Second}[n]) },
		}
		ended := 0
		s := dlmstest.Station{Inactivity: 2 * time.Minute, Ended: func(byte) { ended++ }}
		if err := s.Serve(p); err != nil || ended != 1 || !strings.HasPrefix(p.got[2], "7ea007210311") || !strings.HasPrefix(p.got[3], "7ea00721031f") {
			t.Errorf("%v, %d, %q", err, ended, p.got)
		}
	})
}

// TestBus has two meters on one line.
func TestBus(t *testing.T) {
	t.Parallel()
	var stations []dlmstest.Station
	for n := range byte(2) {
		stations = append(stations, dlmstest.Station{Server: []byte{2, (17+n)<<1 | 1}, Answer: func(byte, []byte) []byte { return []byte{n} }})
	}
	p := &played{sent: [][]byte{
		hdlcFrame([]byte{2, 0x23}, 0x21, 0x93), hdlcFrame([]byte{2, 0x25}, 0x21, 0x93),
		hdlcFrame([]byte{2, 0x23}, 0x21, 0x10, 0xE6, 0xE6, 0, 1), hdlcFrame([]byte{2, 0x25}, 0x21, 0x10, 0xE6, 0xE6, 0, 1), hdlcFrame([]byte{2, 0x27}, 0x21, 0x93),
	}}
	if err := dlmstest.ServeBus(p, stations...); err != nil {
		t.Fatal(err)
	}
	for n, want := range []string{"7ea01f21022373", "7ea01f21022573", "e6e70000", "e6e70001", ""} {
		if got := p.got[n+1]; !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("frame %d: %q, want %q", n, got, want)
		}
	}
}

// TestStationTraces has meters on HDLC answer what clients of the traces sent
// on the line, octet by octet, as far as it does not hang on the time.
func TestStationTraces(t *testing.T) {
	t.Parallel()
	for name, client := range map[string]uint16{
		"10-hdlc-wrong-password.txt": 17, "15-hdlc-ln-hls3-md5.txt": 19, "16-hdlc-ln-hls4-sha1.txt": 20, "17-hdlc-ln-hls6-sha256.txt": 22,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, err := os.Open("../testdata/" + name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			trace, err := dlmstest.ParseTrace(f)
			if err != nil {
				t.Fatal(err)
			}
			p := &played{}
			var want []string
			for n, step := range trace {
				if !step.FromMeter {
					p.sent = append(p.sent, step.Bytes)
					want = append(want, fmt.Sprintf("%x", trace[min(n+1, len(trace)-1)].Bytes))
				}
			}
			login := dlmstest.Login{Mechanism: uint8(client - 16), Secret: gurux, Conformance: 0x401E5D}
			o := dlmstest.Options{Clients: map[uint16]dlmstest.Login{client: login}, MaxPDU: 512}
			m := captured(t, strings.Repeat("ab", 16), "07EA0B16070828AF00000000", "12007E", o)
			if err := m.ServeHDLC(p, dlmstest.Station{}); err != nil {
				t.Fatal(err)
			}
			same := 0
			for n, got := range p.got[1:] {
				const from, to = 6, 12 // addresses and control
				switch {
				case len(got) < to, got[from+4:to] == "97", got[from+4:to] == "1f":
					t.Errorf("%x was answered %q, want %q", p.sent[n], got, want[n])
				case got[from:to] == want[n][from:to]:
					same++
				}
			}
			if all := len(want); same < all {
				t.Errorf("%d of %d frames are answered with the control that they were", same, all)
			}
		})
	}
}
