package drivertest_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/drivers/drivertest"
	"gridgate/drivers/line"
)

func settings(baud int, parity byte, stop int) line.Settings {
	return line.Settings{Baud: baud, DataBits: 8, Parity: parity, StopBits: stop}
}

// What is expected was drawn on paper, bit by bit: 0 is the low level, the start bit.
func TestHeardAtOtherSettings(t *testing.T) {
	t.Parallel()
	n96, e96 := settings(9600, 'N', 1), settings(9600, 'E', 1)
	for _, c := range []struct {
		name        string
		in          []byte
		sent, heard line.Settings
		want        []byte
	}{
		{"the same", []byte{0, 1, 0xFF, 0x7E}, n96, n96, []byte{0, 1, 0xFF, 0x7E}},
		// 0 1010 1010 1 at half the rate is 00 11 00 11 … 00 11: start 0, data 01100110, and no
		// stop bit: 00. Then from the next edge start 0, data 01100111, stop 1: E6.
		{"twice the rate", []byte{0x55}, settings(4800, 'N', 1), n96, []byte{0x00, 0xE6}},
		{"half the rate", []byte{0xFF}, settings(19200, 'N', 1), n96, nil},
		// A parity bit of 0 stands where the stop bit should be.
		{"parity as stop bit, 0", []byte{0x03}, e96, n96, []byte{0}},
		{"parity as stop bit, 1", []byte{0x01}, e96, n96, []byte{1}},
		// The stop bit is taken for parity: right for an odd number of ones.
		{"stop bit as parity, odd", []byte{0x07}, n96, e96, []byte{0x07}},
		{"stop bit as parity, even", []byte{0x03}, n96, e96, nil},
		{"more stop bits", []byte{0x12, 0x34}, settings(9600, 'N', 2), n96, []byte{0x12, 0x34}},
		{"nothing", nil, n96, e96, nil},
	} {
		if got := drivertest.Heard(c.in, c.sent, c.heard); !bytes.Equal(got, c.want) {
			t.Errorf("%s: % X at %v is heard as % X at %v; want % X", c.name, c.in, c.sent, got, c.heard, c.want)
		}
	}
}

// A frame is not heard at another rate or parity, whatever it is.
func TestNoFrameIsHeardAtOtherRates(t *testing.T) {
	t.Parallel()
	frame := []byte{0x01, 0x03, 0x00, 0x00, 0x00, 0x01, 0x84, 0x0A}
	all := []line.Settings{}
	for _, baud := range []int{300, 2400, 4800, 9600, 19200, 38400, 115200} {
		all = append(all, settings(baud, 'N', 1), settings(baud, 'E', 1))
	}
	for _, sent := range all {
		for _, heard := range all {
			got := drivertest.Heard(frame, sent, heard)
			if same := sent == heard; bytes.Equal(got, frame) != same {
				t.Errorf("sent at %v, heard at %v: % X", sent, heard, got)
			}
			if len(got) > 14*len(frame)*max(1, heard.Baud/sent.Baud) {
				t.Errorf("sent at %v, heard at %v: %d octets", sent, heard, len(got))
			}
		}
	}
}

// On a wire octets take their time both ways, and settings count.
func TestWireKeepsTimeAndSettings(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		own := settings(2400, 'N', 1)
		w := drivertest.NewWire(own)
		var wg sync.WaitGroup
		wg.Go(func() {
			meter := w.Meter(t.Context())
			buf := make([]byte, 64)
			for {
				n, err := meter.Read(buf)
				if err != nil {
					return
				}
				if _, err := meter.Write(buf[:n]); err != nil {
					return
				}
			}
		})
		l := w.Line()
		ask := func(s line.Settings) (got []byte, took time.Duration) {
			began := time.Now()
			err := l.Do(t.Context(), s, func(_ context.Context, port line.Port) error {
				if _, err := port.Write([]byte("0123456789")); err != nil {
					return err
				}
				for len(got) < 10 {
					if err := port.SetDeadline(time.Now().Add(time.Second)); err != nil {
						return err
					}
					var b [64]byte
					n, err := port.Read(b[:])
					if os.IsTimeout(err) {
						return nil
					}
					if err != nil {
						return err
					}
					got = append(got, b[:n]...)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			return got, time.Since(began)
		}
		// Ten characters of ten bits, there and back.
		if got, took := ask(own); string(got) != "0123456789" || took < 82*time.Millisecond || took > 85*time.Millisecond {
			t.Errorf("%q in %v", got, took)
		}
		if got, _ := ask(settings(9600, 'N', 1)); string(got) == "0123456789" {
			t.Errorf("%q at another rate", got)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		_ = w.Close()
		wg.Wait()
	})
}

// On a hub all hear the client, those who talk together garble each other, and one
// after another they do not.
func TestHubCollides(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, bus := newPipe(t)
		h := drivertest.NewHub(bus, 2)
		var wg sync.WaitGroup
		wg.Go(func() { _ = h.Run(t.Context()) })
		read := func(r io.Reader, want string) {
			t.Helper()
			buf := make([]byte, 16)
			if n, err := io.ReadAtLeast(r, buf, len(want)); err != nil || string(buf[:n]) != want {
				t.Errorf("%q, %v; want %q", buf[:n], err, want)
			}
		}
		if _, err := client.Write([]byte("who")); err != nil {
			t.Error(err)
		}
		read(h.End(0), "who")
		read(h.End(1), "who")
		for i, said := range []string{"\x0F\xFF", "\xF3\x0F\x01"} {
			if _, err := h.End(i).Write([]byte(said)); err != nil {
				t.Error(err)
			}
		}
		read(client, "\x03\x0F\x01")
		if _, err := h.End(1).Write([]byte("alone")); err != nil {
			t.Error(err)
		}
		read(client, "alone")
		_ = client.Close()
		wg.Wait()
	})
}

// newPipe gives two ends; closing the first ends the second.
func newPipe(t *testing.T) (io.ReadWriteCloser, io.ReadWriter) {
	t.Helper()
	r1, w1 := io.Pipe()
	r2, w2 := io.Pipe()
	return &ends{r1, w2}, &ends{r2, w1}
}

type ends struct {
	*io.PipeReader
	w *io.PipeWriter
}

func (e *ends) Write(b []byte) (int, error) { return e.w.Write(b) }
func (e *ends) Close() error                { return e.w.Close() }
