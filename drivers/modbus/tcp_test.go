package modbus

import (
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// mbapServer answers Modbus TCP. spoil gives what is sent for the n-th
// request, counted over all connections; nil hangs up.
func mbapServer(spoil func(n int, request, answer []byte) [][]byte) func(io.ReadWriter) {
	g, n := &rig{}, atomic.Int64{}
	return func(rw io.ReadWriter) {
		for {
			request, err := readMBAP(rw)
			if err != nil {
				return
			}
			pdu := g.answer(slices.Concat(request[6:], []byte{0, 0}))
			pdu = pdu[1 : len(pdu)-crcLen]
			answer := slices.Concat(request[:4], []byte{0, byte(len(pdu) + 1), request[6]}, pdu)
			parts := spoil(int(n.Add(1))-1, request, answer)
			if parts == nil {
				return
			}
			for i, p := range parts {
				if i > 0 {
					pause()
				}
				if _, err := rw.Write(p); err != nil {
					return
				}
			}
		}
	}
}

func TestTCPFaults(t *testing.T) {
	t.Parallel()
	change := func(b []byte, at int, by byte) []byte {
		b = slices.Clone(b)
		b[at] ^= by
		return b
	}
	silent := [][]byte{}
	for _, c := range []struct {
		name    string
		spoil   func(n int, request, answer []byte) [][]byte
		right   int   // of two visits
		err     error // of the last visit
		text    string
		timeout time.Duration
	}{
		{"in parts", func(_ int, _, a []byte) [][]byte { return [][]byte{a[:3], a[3:9], a[9:]} }, 2, nil, "", 0},
		{"another transaction first", func(_ int, _, a []byte) [][]byte {
			return [][]byte{slices.Concat(change(change(a, 0, 1), 10, 1), a)}
		}, 2, nil, "", 0},
		{"another unit", func(_ int, _, a []byte) [][]byte { return [][]byte{change(a, 6, 3)} }, 0, meter.ErrGarbled, "answer of unit 2: is it unit 1?", 0},
		{"another function", func(_ int, _, a []byte) [][]byte { return [][]byte{change(a, 7, 7)} }, 0, meter.ErrGarbled, "answer to function 3", 0},
		{"another quantity", func(_ int, _, a []byte) [][]byte {
			return [][]byte{slices.Concat(change(a[:6], 5, 5^7), []byte{a[6], a[7], 4, 1, 2, 3, 4})}
		}, 0, meter.ErrGarbled, "4 bytes for 1 registers", 0},
		{"a false count", func(_ int, _, a []byte) [][]byte { return [][]byte{change(a, 8, 6)} }, 0, meter.ErrGarbled, "2 bytes for 1 registers", 0},
		{"another service", func(int, []byte, []byte) [][]byte { return [][]byte{[]byte("HTTP/1.1 400 Bad Request\r\n")} }, 0, meter.ErrGarbled, "is no Modbus TCP header", 0},
		{"hung up once", func(n int, _, a []byte) [][]byte {
			if n == 1 {
				return nil
			}
			return [][]byte{a}
		}, 2, nil, "", 0},
		{"hung up always", func(int, []byte, []byte) [][]byte { return nil }, 0, io.EOF, "receive: EOF", 0},
		{"silence", func(int, []byte, []byte) [][]byte { return silent }, 0, meter.ErrNoAnswer, "is it unit 1?", 50 * time.Millisecond},
		{"silence once", func(n int, _, a []byte) [][]byte {
			if n == 0 {
				return silent
			}
			return [][]byte{a}
		}, 1, nil, "", 2 * time.Second},
		{"busy once", func(n int, r, a []byte) [][]byte {
			if n == 0 {
				return [][]byte{slices.Concat(r[:5], []byte{3, r[6], r[7] | exceptionBit, 6})}
			}
			return [][]byte{a}
		}, 2, nil, "", 0},
		{"behind a gateway", func(_ int, r, _ []byte) [][]byte {
			return [][]byte{slices.Concat(r[:5], []byte{3, r[6], r[7] | exceptionBit, 11})}
		}, 0, meter.ErrNoAnswer, "the gateway got no answer from the unit", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.timeout == 0 {
				c.timeout = 5 * time.Second
			}
			model := modelOf(42)
			l := closing(t, line.TCP(onTCP(t, mbapServer(c.spoil)), line.Options{}))
			m := New(Config{ID: "m", Unit: 1, Model: model, Timeout: c.timeout, Now: clock()}, l)
			right, wrong := 0, 0
			var err error
			for range 2 {
				var got meter.Got
				got, err = m.Visit(t.Context(), ask())
				r, w := count(model, got.Rows)
				right, wrong = right+r, wrong+w
			}
			if right != c.right || wrong != 0 || !errors.Is(err, c.err) || err != nil && !strings.Contains(err.Error(), c.text) {
				t.Errorf("%d right, %d wrong, %v; want %d, 0, %v %q", right, wrong, err, c.right, c.err, c.text)
			}
		})
	}
}

func TestReadMBAPTruncated(t *testing.T) {
	t.Parallel()
	whole := []byte{0, 1, 0, 0, 0, 5, 1, 4, 2, 7, 8}
	for n := range whole {
		if b, err := readMBAP(strings.NewReader(string(whole[:n]))); err == nil {
			t.Errorf("%d bytes gave % X", n, b)
		}
	}
	if b, err := readMBAP(strings.NewReader(string(whole) + "more")); err != nil || !slices.Equal(b, whole) {
		t.Errorf("got % X, %v", b, err)
	}
}

// What is accepted is the answer to what was asked.
func FuzzMBAP(f *testing.F) {
	f.Add([]byte{0, 1, 0, 0, 0, 5, 1, 4, 2, 7, 8}, uint16(1))
	f.Add([]byte{0, 1, 0, 0, 0, 3, 1, 0x84, 2}, uint16(3))
	f.Fuzz(func(t *testing.T, in []byte, n uint16) {
		n = 1 + n%maxRegs
		request := []byte{0, 1, 0, 0, 0, 6, 1, 4, 0, 0, byte(n >> 8), byte(n)}
		answer, err := readMBAP(strings.NewReader(string(in)))
		if err != nil || isAnswer(request, answer) != nil {
			return
		}
		if answer[6] != 1 || answer[7]&^exceptionBit != 4 || int(binary.BigEndian.Uint16(answer[4:])) != len(answer)-6 {
			t.Fatalf("accepted % X", answer)
		}
		if answer[7] == 4 && len(answer) != 9+2*int(n) || answer[7] != 4 && len(answer) != 9 {
			t.Fatalf("accepted % X for %d registers", answer, n)
		}
	})
}
