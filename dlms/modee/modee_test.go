package modee

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"gridgate/dlms/dlmstest"
	"gridgate/dlms/hdlc"
)

// line is a stream that keeps no time: it times out when it has nothing.
type line struct{ io.ReadWriter }

func (line) SetTimeout(time.Duration) error { return nil }

func trace(t *testing.T) dlmstest.Trace {
	t.Helper()
	f, err := os.Open("testdata/09-modeE-hdlc-lls.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tr, err := dlmstest.ParseTrace(f)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// TestTrace09 has the conversation again: hand-over, and then HDLC with a
// password. Each octet sent is compared with the trace.
func TestTrace09(t *testing.T) {
	t.Parallel()
	tr := trace(t)
	replay := dlmstest.NewReplay(tr)
	var switches []string
	got, err := HandOver(t.Context(), line{replay}, Config{Switch: func(baud int, f Format) error {
		switches = append(switches, fmt.Sprint(baud, " ", f))
		return nil
	}})
	want := Result{Identification: Identification{Maker: "GRX", Rate: '5', Device: "12345678"}, Baud: 9600, Confirmed: true}
	if err != nil || got != want {
		t.Fatalf("got %+v, %v", got, err)
	}
	if want := []string{"300 7E1", "9600 7E1", "9600 8N1"}; !slices.Equal(switches, want) {
		t.Errorf("switched %q, want %q", switches, want)
	}
	l := hdlc.NewLink(line{replay}, hdlc.Config{Client: hdlc.ClientAddress(17), Server: hdlc.Address{Upper: 1, Size: 1}})
	if err := l.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	requests := 0
	for i, step := range tr {
		f, err := hdlc.ParseFrame(step.Bytes)
		if err != nil || step.FromMeter || f.Control&1 != 0 {
			continue
		}
		requests++
		if err := l.Send(t.Context(), f.Info[3:]); err != nil {
			t.Fatal(err)
		}
		answer, err := hdlc.ParseFrame(tr[i+1].Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if apdu, err := l.Receive(t.Context(), nil); err != nil || !bytes.Equal(apdu, answer.Info[3:]) {
			t.Fatalf("%x was answered %x, %v", f.Info, apdu, err)
		}
	}
	if err := errors.Join(l.Disconnect(t.Context()), replay.Close()); err != nil || requests != 4 {
		t.Errorf("%d requests: %v", requests, err)
	}
}

// script is a meter that says the nth answer after the nth Write.
type script struct {
	answers []string
	wrote   []string
	in      io.Reader
}

func (s *script) Write(b []byte) (int, error) {
	s.wrote = append(s.wrote, string(b))
	s.in = strings.NewReader("")
	if len(s.answers) > 0 {
		s.in, s.answers = strings.NewReader(s.answers[0]), s.answers[1:]
	}
	return len(b), nil
}

func (s *script) Read(b []byte) (int, error) {
	n, err := s.in.Read(b)
	if err != nil {
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

func (s *script) SetTimeout(time.Duration) error { return nil }

func TestHandOver(t *testing.T) {
	t.Parallel()
	const ask, id = "/?!\r\n", "/LGZ4\\2ZMD310\r\n"
	parity := func(s string) string { // as 8N1 shows 7E1
		b := []byte(s)
		for i, c := range b {
			for c &= 0x7F; c != 0; c &= c - 1 {
				b[i] ^= 0x80
			}
		}
		return string(b)
	}
	for name, c := range map[string]struct {
		says      []string
		config    Config
		wrote     string // the second Write
		baud      int
		confirmed bool
		want      error
	}{
		"confirmed":           {[]string{id, "\x06242\r\n"}, Config{}, "\x06242\r\n", 4800, true, nil},
		"not confirmed":       {[]string{id, ""}, Config{}, "\x06242\r\n", 4800, false, nil},
		"echoed":              {[]string{ask + id, "\x06242\r\n\x06242\r\n"}, Config{}, "\x06242\r\n", 4800, true, nil},
		"parity in the octet": {[]string{parity(id), parity("\x06242\r\n")}, Config{}, "\x06242\r\n", 4800, true, nil},
		"noise":               {[]string{"\x00\x7f\r\n/?" + id, "\x00\x7f\x06\x062\x06242\r\n"}, Config{}, "\x06242\r\n", 4800, true, nil},
		"slower":              {[]string{id, "\x06232\r\n"}, Config{MaxBaud: 4799}, "\x06232\r\n", 2400, true, nil},
		"faster than offered": {[]string{id, "\x06242\r\n"}, Config{MaxBaud: 19200}, "\x06242\r\n", 4800, true, nil},
		"readout":             {[]string{id, "\x02F.F(00)\r\n1.8.0(000012.3*kWh)\r\n!\r\n\x03\x11"}, Config{}, "\x06242\r\n", 0, false, ErrReadout},
		"readout without STX": {[]string{id, "0.0.0(123)\r\n"}, Config{}, "\x06242\r\n", 0, false, ErrReadout},
		"noise of the change": {[]string{id, "L\x00~x)(\x1b\x06242\r\n"}, Config{}, "\x06242\r\n", 4800, true, nil},
		"noise alone":         {[]string{id, "L(1)\x00~x"}, Config{}, "\x06242\r\n", 4800, false, nil},
		"noise and a readout": {[]string{id, "L~\x02F.F(00)\r\n!\r\n\x03\x11"}, Config{}, "\x06242\r\n", 0, false, ErrReadout},
		"noise and NAK":       {[]string{id, "L~\x15"}, Config{}, "\x06242\r\n", 0, false, ErrRefused},
		"NAK":                 {[]string{id, "\x15"}, Config{}, "\x06242\r\n", 0, false, ErrRefused},
		"mode B":              {[]string{"/ABBC1234\r\n"}, Config{}, "", 0, false, ErrRate},
		"mode A":              {[]string{"/ABB 1234\r\n"}, Config{}, "", 0, false, ErrRate},
		"too slow a caller":   {[]string{id}, Config{MaxBaud: 299}, "", 0, false, ErrRate},
		"silence":             {[]string{""}, Config{}, "", 0, false, os.ErrDeadlineExceeded},
		"cut short":           {[]string{id[:len(id)-1]}, Config{}, "", 0, false, os.ErrDeadlineExceeded},
		"no identification":   {[]string{"/1\r\n"}, Config{}, "", 0, false, ErrIdentification},
		"noise without end":   {[]string{strings.Repeat("x", 600)}, Config{}, "", 0, false, ErrGarbled},
		"a line without end":  {[]string{"/" + strings.Repeat("x", 600)}, Config{}, "", 0, false, ErrGarbled},
		"noise for an answer": {[]string{id, strings.Repeat("\x7f", 600)}, Config{}, "\x06242\r\n", 0, false, ErrGarbled},
		"address":             {nil, Config{Address: "12!"}, "", 0, false, ErrAddress},
	} {
		s := &script{answers: c.says}
		r, err := HandOver(t.Context(), s, c.config)
		if !errors.Is(err, c.want) || c.want == nil && (err != nil || r.Baud != c.baud || r.Confirmed != c.confirmed || !r.Identification.HasHDLC()) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if len(s.wrote) > 0 && s.wrote[0] != ask || c.wrote == "" != (len(s.wrote) < 2) || len(s.wrote) == 2 && s.wrote[1] != c.wrote {
			t.Errorf("%s: wrote %q", name, s.wrote)
		}
	}
	s := &script{}
	if _, err := HandOver(t.Context(), s, Config{Address: "00123456"}); !errors.Is(err, os.ErrDeadlineExceeded) || s.wrote[0] != "/?00123456!\r\n" {
		t.Errorf("with an address: wrote %q, %v", s.wrote, err)
	}
}

func TestSwitchFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("no such rate")
	for n := range 3 {
		s := &script{answers: []string{"/LGZ4\\2ZMD310\r\n", "\x06242\r\n"}}
		calls := 0
		_, err := HandOver(t.Context(), s, Config{Switch: func(int, Format) error {
			if calls++; calls == n+1 {
				return broken
			}
			return nil
		}})
		if !errors.Is(err, broken) || calls != n+1 {
			t.Errorf("switch %d: %v", n, err)
		}
	}
}

// TestAnswersCutAnywhere: with every answer cut at every octet the hand-over
// ends, and takes nothing that is not there.
func TestAnswersCutAnywhere(t *testing.T) {
	t.Parallel()
	const id, confirmation = "/LGZ4\\2ZMD310\r\n", "\x06242\r\n"
	for n := range len(id) {
		if _, err := HandOver(t.Context(), &script{answers: []string{id[:n]}}, Config{}); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("identification cut at %d: %v", n, err)
		}
		if i, err := ParseIdentification([]byte(id[:n])); !errors.Is(err, ErrIdentification) {
			t.Errorf("identification cut at %d: %+v, %v", n, i, err)
		}
	}
	for n := range len(confirmation) {
		r, err := HandOver(t.Context(), &script{answers: []string{id, confirmation[:n]}}, Config{})
		if err != nil || r.Confirmed {
			t.Errorf("confirmation cut at %d: %+v, %v", n, r, err)
		}
	}
	hangUp := struct {
		io.Reader
		io.Writer
	}{iotest.DataErrReader(strings.NewReader(id[:5])), io.Discard}
	if _, err := HandOver(t.Context(), line{hangUp}, Config{}); !errors.Is(err, io.EOF) {
		t.Errorf("hung up: %v", err)
	}
}

// silent is a line on which nothing comes; it keeps time.
type silent struct{ deadline time.Time }

func (s *silent) Write(b []byte) (int, error) { return len(b), nil }

func (s *silent) SetTimeout(d time.Duration) error {
	s.deadline = time.Now().Add(d)
	return nil
}

func (s *silent) Read([]byte) (int, error) {
	time.Sleep(time.Until(s.deadline))
	return 0, os.ErrDeadlineExceeded
}

func TestTimeOuts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := HandOver(t.Context(), &silent{}, Config{Timeout: 7 * time.Second})
		if took := time.Since(began); !errors.Is(err, os.ErrDeadlineExceeded) || took != 7*time.Second {
			t.Errorf("%v after %v", err, took)
		}
		enough := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(enough)
		if _, err := HandOver(ctx, &silent{}, Config{}); !errors.Is(err, enough) {
			t.Errorf("cancelled: %v", err)
		}
	})
}

func TestIdentification(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]Identification{
		"/GRX512345678\r\n":         {"GRX", '5', "", "12345678"},
		"/LGZ4\\2ZMD310.B32\r\n":    {"LGZ", '4', "2", "ZMD310.B32"},
		"/ISk5\\@\\2MT382-1000\r\n": {"ISk", '5', "@2", "MT382-1000"},
		"/ABCA\r\n":                 {"ABC", 'A', "", ""},
	} {
		got, err := ParseIdentification([]byte(s))
		if err != nil || got != want || got.String()+"\r\n" != s {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{
		"", "/\r\n", "GRX5\r\n", "/GRX\r\n", "/GR15ab\r\n", "/GRX5ab\n", "/GRX5ab\r\n ", "/GRX5\x01\r\n", "/GRX5\\\r\n", "/GRX5a/b\r\n",
		"/GRX5" + strings.Repeat("x", 49) + "\r\n",
	} {
		if got, err := ParseIdentification([]byte(s)); !errors.Is(err, ErrIdentification) {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
	for _, i := range []Identification{{}, {"GR", '5', "", ""}, {"GRX", '5', "", `\2`}, {"GRX", '5', "", "a\r\n"}} {
		if b, err := i.AppendBinary(nil); !errors.Is(err, ErrIdentification) {
			t.Errorf("%+v: %q, %v", i, b, err)
		}
	}
	for rate, want := range map[byte]int{'0': 300, '1': 600, '2': 1200, '3': 2400, '4': 4800, '5': 9600, '6': 19200, '7': 0, 'A': 0} {
		if baud, ok := (Identification{Rate: rate}).Baud(); baud != want || ok != (want > 0) {
			t.Errorf("rate %c: %d, %v", rate, baud, ok)
		}
	}
}

func FuzzParseIdentification(f *testing.F) {
	f.Add([]byte("/ISk5\\@\\2MT382-1000\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := ParseIdentification(b)
		if err != nil {
			return
		}
		if again, err := i.AppendBinary(nil); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%q is %+v, which is encoded %q, %v", b, i, again, err)
		}
	})
}

func FuzzHandOver(f *testing.F) {
	f.Add("/LGZ4\\2ZMD310\r\n", "\x06242\r\n")
	f.Fuzz(func(t *testing.T, first, second string) {
		s := &script{answers: []string{first, second}}
		r, err := HandOver(t.Context(), s, Config{})
		if err != nil {
			return
		}
		offered, ok := r.Identification.Baud()
		if !ok || r.Baud != offered || len(s.wrote) != 2 || r.Confirmed && !strings.Contains(string(mask(second)), s.wrote[1]) {
			t.Fatalf("%q, %q: %+v, wrote %q", first, second, r, s.wrote)
		}
	})
}

func mask(s string) []byte {
	b := []byte(s)
	for i := range b {
		b[i] &= 0x7F
	}
	return b
}
