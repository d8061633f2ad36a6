package dlmstest_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/dlms/dlmstest"
)

func even(s string) []byte {
	b := []byte(s)
	for i, o := range b {
		b[i] |= byte(bits.OnesCount8(o)%2) << 7
	}
	return b
}

// TestModeE signs on to a meter as clients may.
func TestModeE(t *testing.T) {
	t.Parallel()
	e := dlmstest.ModeE{Address: "00012345", Device: "GRG000001", Readout: func() []string { return []string{"0.0.0(12345)"} }}
	ident, confirm := `/GRX5\2GRG000001`+"\r\n", "\x06252\r\n"
	snrm := string(hdlcFrame([]byte{3}, 0x23, 0x93))
	ua := "7ea01e230373"
	hexOf := func(s string) string { return hex.EncodeToString([]byte(s)) }
	for name, c := range map[string]struct {
		e          func(*dlmstest.ModeE)
		sent, want []string // what comes back, its beginning
	}{
		"handed over":       {sent: []string{"/?!\r\n", confirm, snrm}, want: []string{hexOf(ident), hexOf(confirm), ua}},
		"with parity":       {sent: []string{string(even("/?!\r\n")), string(even(confirm)), snrm}, want: []string{hex.EncodeToString(even(ident)), hex.EncodeToString(even(confirm)), ua}},
		"by address":        {sent: []string{"/?12345!\r\n", "/?0000012345!\r\n", "/?99!\r\n"}, want: []string{hexOf(ident), hexOf(ident), ""}},
		"in pieces":         {sent: []string{"\x00\x00\x00", "/", "?!\r", "\n", "\x062", "52\r\n", snrm[:3], snrm[3:]}, want: []string{"", "", "", hexOf(ident), "", hexOf(confirm), "", ua}},
		"HDLC unasked":      {sent: []string{snrm}, want: []string{""}},
		"HDLC if open":      {e: func(e *dlmstest.ModeE) { e.Open = true }, sent: []string{snrm}, want: []string{ua}},
		"at a lower rate":   {sent: []string{"/?!\r\n", "\x06222\r\n", snrm}, want: []string{hexOf(ident), hexOf("\x06222\r\n"), ua}},
		"at a higher rate":  {sent: []string{"/?!\r\n", "\x06262\r\n", snrm}, want: []string{hexOf(ident), "15", ""}},
		"programming":       {sent: []string{"/?!\r\n", "\x06051\r\n", snrm}, want: []string{hexOf(ident), "15", ""}},
		"readout":           {sent: []string{"/?!\r\n", "\x06050\r\n", "/?!\r\n"}, want: []string{hexOf(ident), hexOf("\x020.0.0(12345)\r\n!\r\n\x03\x22"), hexOf(ident)}},
		"again, after HDLC": {sent: []string{"/?!\r\n", confirm, snrm, "/?!\r\n", confirm, snrm}, want: []string{hexOf(ident), hexOf(confirm), ua, hexOf(ident), hexOf(confirm), ua}},
		"offers 300":        {e: func(e *dlmstest.ModeE) { e.Baud = 300 }, sent: []string{"/?!\r\n", "\x06202\r\n", snrm}, want: []string{hexOf(strings.Replace(ident, "X5", "X0", 1)), hexOf("\x06202\r\n"), ua}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := e
			if c.e != nil {
				c.e(&e)
			}
			p := &played{}
			for _, s := range c.sent {
				p.sent = append(p.sent, []byte(s))
			}
			if err := dlmstest.ServeModeE(p, e, dlmstest.Station{}); err != nil {
				t.Fatal(err)
			}
			for n, want := range c.want {
				if got := p.got[n+1]; !strings.HasPrefix(got, want) || want == "" && got != "" {
					t.Errorf("%q was answered %q, want %q", c.sent[n], got, want)
				}
			}
		})
	}
	if err := dlmstest.ServeModeE(&played{}, dlmstest.ModeE{Baud: 38400}); err == nil {
		t.Error("a rate that there is not")
	}
}

// TestModeETrace plays the client of a captured conversation, octet by octet.
func TestModeETrace(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../modee/testdata/09-modeE-hdlc-lls.txt")
	if err != nil {
		t.Fatal(err)
	}
	p := &played{sent: [][]byte{[]byte("/?!\r\n")}}
	want := []string{hex.EncodeToString([]byte("/GRX512345678\r\n"))}
	for line := range strings.Lines(string(text)) {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), "\t")
		b, err := hex.DecodeString(strings.ReplaceAll(rest, " ", ""))
		switch {
		case strings.HasPrefix(kind, "TX:") && err == nil && len(b) > 0:
			p.sent = append(p.sent, b)
		case strings.HasPrefix(kind, "RX:") && err == nil && len(b) > 0:
			want = append(want, hex.EncodeToString(b))
		case strings.Contains(rest, `\x06252`):
			want = append(want, hex.EncodeToString([]byte("\x06252\r\n")))
		}
	}
	if len(want) != len(p.sent) || len(want) < 8 {
		t.Fatalf("%d of the client, %d of the meter", len(p.sent), len(want))
	}
	m := captured(t, "", "07EA0B160708282E00000000", "12007E", dlmstest.Options{
		MaxPDU: 512, Clients: map[uint16]dlmstest.Login{17: {Mechanism: 1, Secret: gurux, Conformance: 0x001E1D}},
	})
	if err := dlmstest.ServeModeE(p, dlmstest.ModeE{Device: "12345678"}, m.Station(dlmstest.Station{})); err != nil {
		t.Fatal(err)
	}
	for n := range want {
		switch got := p.got[n+1]; {
		case n == 0 && got != strings.Replace(want[0], "3531", "355c3231", 1), // it marks HDLC
			n == len(want)-1 && !strings.HasPrefix(got, "7ea007230373"): // and has no parameters where there are none
			t.Errorf("%x was answered %s", p.sent[n], got)
		case n > 0 && n < len(want)-1 && got != want[n]:
			t.Errorf("%x was answered\n%s, want\n%s", p.sent[n], got, want[n])
		}
	}
}

// TestModeERates has a client on a line whose rate the meter sees.
func TestModeERates(t *testing.T) {
	t.Parallel()
	rate, told := 0, ""
	snrm := hdlcFrame([]byte{3}, 0x23, 0x93)
	p := &played{sent: [][]byte{[]byte("/?!\r\n"), []byte("/?!\r\n"), []byte("\x06252\r\n"), snrm, snrm, []byte("/?!\r\n"), []byte("/?!\r\n")}}
	p.pause = func(n int) { rate = []int{9600, 300, 300, 300, 9600, 9600, 300}[n] }
	e := dlmstest.ModeE{Rate: func() int { return rate }, Switch: func(baud int) { told += fmt.Sprint(" ", baud) }}
	if err := dlmstest.ServeModeE(p, e, dlmstest.Station{}); err != nil {
		t.Fatal(err)
	}
	for n, answered := range []bool{false, true, true, false, true, false, true} {
		if got := p.got[n+1]; (got != "") != answered {
			t.Errorf("%d: %q", n, got)
		}
	}
	if told != " 300 300 9600 300" {
		t.Errorf("the line was set to%s", told)
	}
}

// pipe is a stream that takes what comes at once.
type pipe struct {
	in  io.Reader
	at  []time.Duration
	all bytes.Buffer
	now func() time.Duration
}

func (p *pipe) Read(b []byte) (int, error) { return p.in.Read(b) }

func (p *pipe) Write(b []byte) (int, error) {
	p.at = append(p.at, p.now())
	return p.all.Write(b)
}

// TestLine measures how long octets take.
func TestLine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		since := func() time.Duration { return time.Since(begin) }
		p := &pipe{in: bytes.NewReader(make([]byte, 30)), now: since}
		l := dlmstest.NewLine(t.Context(), p, 300, 200*time.Millisecond)
		b := make([]byte, 100)
		if n, err := l.Read(b); n != 30 || err != nil || since() != time.Second {
			t.Errorf("read %d, %v, after %v", n, err, since())
		}
		if n, err := l.Write(b[:30]); n != 30 || err != nil || since().Round(time.Millisecond) != 2200*time.Millisecond || len(p.at) != 30 {
			t.Errorf("wrote %d, %v, until %v, in %d pieces", n, err, since(), len(p.at))
		}
		l.SetBaud(9600)
		if n, err := l.Write(b[:96]); n != 96 || err != nil || since().Round(time.Millisecond) != 2300*time.Millisecond || len(p.at) > 30+6 {
			t.Errorf("wrote %d, %v, until %v, in %d pieces", n, err, since(), len(p.at)-30)
		}
		ctx, cancel := context.WithCancel(t.Context())
		stopped := dlmstest.NewLine(ctx, p, 300, 0)
		time.AfterFunc(time.Second, cancel)
		if n, err := stopped.Write(b); !errors.Is(err, context.Canceled) || n < 29 || n > 31 {
			t.Errorf("cancelled: %d, %v", n, err)
		}
		fast := dlmstest.NewLine(t.Context(), p, 0, 0)
		at := since()
		if n, err := fast.Write(b); n != len(b) || err != nil || since() != at {
			t.Errorf("no pace: %d, %v, %v", n, err, since()-at)
		}
	})
}

// FuzzModeE feeds a meter with an optical head what any client might send.
func FuzzModeE(f *testing.F) {
	f.Add([]byte("/?!\r\n\x06252\r\n"), []byte("\x7e\xa0\x07\x03\x21\x93\x0f\x01\x7e"))
	f.Add(even("/?1!\r\n"), []byte("\x06050\r\n"))
	f.Add(hdlcFrame([]byte{3}, 0x21, 0x93, 0x81, 0x80, 3, 5, 1, 0), hdlcFrame([]byte{3}, 0x21, 0x10, 0xE6, 0xE6, 0, 1))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		answer := func(_ byte, apdu []byte) []byte { return bytes.Repeat(apdu, 3) }
		p := &played{sent: [][]byte{one[:min(len(one), 512)], two[:min(len(two), 512)]}}
		if err := dlmstest.ServeModeE(p, dlmstest.ModeE{Open: true}, dlmstest.Station{AnyForm: true, Answer: answer}); err != nil {
			t.Fatal(err)
		}
		if got := len(p.got[1]) + len(p.got[2]); got > 64<<10 {
			t.Errorf("%d digits of answers", got)
		}
	})
}
