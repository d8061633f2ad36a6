package drivertest_test

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"gridgate/drivers/drivertest"
	"gridgate/drivers/line"
)

const script = `# a comment
## another: with a colon
TX: 01 02 03
RX: 08:40:23	0A 0B
RX: 0C
value 12
TX: 04
RX: 0D
`

func parse(t *testing.T, s string) []drivertest.Turn {
	t.Helper()
	turns, err := drivertest.ParseTrace(strings.NewReader(s))
	if err != nil {
		t.Fatal(err)
	}
	return turns
}

func TestPlaybackFollowsTheScript(t *testing.T) {
	t.Parallel()
	p := drivertest.Playback(parse(t, script))
	buf := make([]byte, 2)
	if _, err := p.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read before the question: %v, want a time-out", err)
	}
	for _, b := range [][]byte{{1}, {2, 3}} { // a driver may write in parts
		if _, err := p.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := io.ReadAll(io.LimitReader(p, 3)); err != nil || string(b) != "\x0a\x0b\x0c" {
		t.Fatalf("read % X, %v", b, err)
	}
	if _, err := p.Write([]byte{4}); err != nil {
		t.Fatal(err)
	}
	if err := p.Done(); err == nil {
		t.Fatal("an unread script passed")
	}
	if n, err := p.Read(buf); n != 1 || err != nil || buf[0] != 0x0d {
		t.Fatalf("read %d, %v", n, err)
	}
	if err := p.Done(); err != nil {
		t.Fatal(err)
	}
}

func TestPlaybackFailsOnOtherWrites(t *testing.T) {
	t.Parallel()
	for name, writes := range map[string][][]byte{
		"wrong byte":      {{1, 9, 3}},
		"too much":        {{1, 2, 3, 4}},
		"out of its turn": {{1, 2, 3}, {4}},
	} {
		p := drivertest.Playback(parse(t, script))
		var err error
		for _, b := range writes {
			_, err = p.Write(b)
		}
		if !errors.Is(err, drivertest.ErrScript) || !errors.Is(p.Done(), drivertest.ErrScript) {
			t.Errorf("%s: write %v, done %v", name, err, p.Done())
		}
	}
}

func TestParseTraceNamesTheLine(t *testing.T) {
	t.Parallel()
	if _, err := drivertest.ParseTrace(strings.NewReader("# x\nTX: 0G\n")); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Fatalf("got %v", err)
	}
}

// What Record writes, Playback acts out, on a real pseudo-terminal.
func TestRecordIsPlayable(t *testing.T) {
	t.Parallel()
	tty, err := drivertest.Pty()
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	var trace strings.Builder
	client, err := os.OpenFile(tty.Path, os.O_RDWR|0x900, 0) // O_NOCTTY|O_NONBLOCK
	if err != nil {
		t.Fatal(err)
	}
	m := drivertest.Record(medium{client}, &trace)
	talk := func(m io.ReadWriter, answer func()) string {
		if _, err := m.Write([]byte{0x00, 0x0d, 0x11, 0xff}); err != nil { // bytes that a cooked terminal would change
			t.Fatal(err)
		}
		answer()
		b, err := io.ReadAll(io.LimitReader(m, 3))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	got := talk(m, func() {
		b := make([]byte, 4)
		if _, err := io.ReadFull(tty, b); err != nil || string(b) != "\x00\x0d\x11\xff" {
			t.Fatalf("the meter read % X, %v", b, err)
		}
		if _, err := tty.Write([]byte{0x03, 0x0a, 0x7f}); err != nil {
			t.Fatal(err)
		}
	})
	p := drivertest.Playback(parse(t, trace.String()))
	if again := talk(p, func() {}); again != got || got != "\x03\x0a\x7f" {
		t.Fatalf("read % X, played back % X\n%s", got, again, trace.String())
	}
	if err := p.Done(); err != nil {
		t.Fatal(err)
	}
}

type medium struct{ *os.File }

func (m medium) SetDeadline(time.Time) error { return nil }
func (m medium) Discard() error              { return nil }
func (m medium) Apply(line.Settings) error   { return nil }
func (m medium) Stale() bool                 { return false }

func TestPlayerAsALine(t *testing.T) {
	t.Parallel()
	p := drivertest.Playback(parse(t, "TX: 01\nRX: 02\nTX: 03\n"))
	l := p.Line()
	for i, b := range []byte{1, 3} {
		err := l.Do(t.Context(), line.Settings{}, func(_ context.Context, port line.Port) error {
			_, err := port.Write([]byte{b})
			if i == 0 {
				_, rerr := port.Read(make([]byte, 1))
				err = errors.Join(err, rerr)
			}
			port.Drop() // the line opens it again, and the script goes on
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(p.Done(), l.Close()); err != nil {
		t.Fatal(err)
	}
}
