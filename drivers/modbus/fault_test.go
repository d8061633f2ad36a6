package modbus

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goburrow/modbus"

	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// fault is one way in which a line goes wrong.
type fault struct {
	name string
	// spoil gives what is sent for a request; late answers are kept in held.
	spoil func(n int, request, answer []byte, held *[]byte) [][]byte
	// least is how many of the values must come at the least, in percent: what
	// a fault leaves readable must be read.
	least int
}

// rarely makes every fifth request the fault's.
func rarely(n int) bool { return n%5 == 1 }

func faultRows() []fault {
	plain := func(answer []byte) [][]byte { return [][]byte{answer} }
	return []fault{
		// The answer comes when the next question does. A meter that is asked
		// the same quantity again gives what looks like the answer.
		{"late reply", func(n int, _, answer []byte, held *[]byte) [][]byte {
			if *held != nil {
				both := [][]byte{*held, answer}
				*held = nil
				return both
			}
			if rarely(n) {
				*held = answer
				return nil
			}
			return plain(answer)
		}, 30},
		{"split reply", func(_ int, _, answer []byte, _ *[]byte) [][]byte {
			return [][]byte{answer[:4], answer[4:]}
		}, 100},
		{"noise before", func(n int, _, answer []byte, _ *[]byte) [][]byte {
			noise := []byte{0x00, 0xFF, 1, 4, byte(n)}
			return plain(slices.Concat(noise[:1+n%5], answer))
		}, 100},
		{"noise after", func(n int, _, answer []byte, _ *[]byte) [][]byte {
			noise := []byte{0x13, byte(n), 1, 4, 2}
			return [][]byte{answer, noise[:1+n%5]}
		}, 100},
		{"foreign unit", func(_ int, _, answer []byte, _ *[]byte) [][]byte {
			other := slices.Clone(answer[:len(answer)-crcLen])
			other[0], other[len(other)-1] = 2, other[len(other)-1]^0x55
			return plain(slices.Concat(frame(other...), answer))
		}, 100},
		// The second half of the exception comes after a pause; who does not
		// wait for it takes it for the beginning of the next answer.
		{"exception split in two", func(n int, request, answer []byte, _ *[]byte) [][]byte {
			if !rarely(n) {
				return plain(answer)
			}
			refused := frame(request[0], request[1]|exceptionBit, 4)
			return [][]byte{refused[:4], refused[4:]}
		}, 30},
		{"echo", func(_ int, request, answer []byte, _ *[]byte) [][]byte {
			return [][]byte{request, answer}
		}, 100},
		{"silence", func(n int, _, answer []byte, _ *[]byte) [][]byte {
			if rarely(n) {
				return nil
			}
			return plain(answer)
		}, 30},
	}
}

func (f fault) rig() *rig {
	var held []byte
	return &rig{spoil: func(n int, request, answer []byte) [][]byte { return f.spoil(n, request, answer, &held) }}
}

// addresses of the registers that are read: far enough apart that each is a
// request of its own, and all requests look alike.
func addresses() []uint16 {
	var list []uint16
	for i := range uint16(20) {
		list = append(list, 100+30*i)
	}
	return list
}

// timeout is short where answers fail to come, for the test's sake, and long
// where they all do, for a busy machine's.
func (f fault) timeout() time.Duration {
	if f.least == 100 {
		return 2 * time.Second
	}
	return 120 * time.Millisecond
}

var settings = line.Settings{Baud: 19200}

// Whatever the line does, a value that is given is the right one; and with
// faults that leave the answer whole, all values are given.
func TestFaultsNeverGiveAWrongValue(t *testing.T) {
	t.Parallel()
	for _, f := range faultRows() {
		for _, transport := range []Transport{RTU, RTUOverTCP} {
			t.Run(f.name+map[Transport]string{RTU: "/serial", RTUOverTCP: "/tcp"}[transport], func(t *testing.T) {
				t.Parallel()
				g := f.rig()
				var l *line.Line
				if transport == RTU {
					l = serialLine(t, g.onPty(t))
				} else {
					l = closing(t, line.TCP(onTCP(t, g.serve), line.Options{}))
				}
				model := modelOf(addresses()...)
				m := New(Config{ID: "m", Unit: 1, Transport: transport, Settings: settings, Model: model, Timeout: f.timeout(), Now: clock()}, l)
				var rows []meter.Row
				for _, a := range addresses() {
					got, err := m.Visit(t.Context(), ask(channelAt(a)))
					if err != nil && f.least == 100 {
						t.Errorf("register %d: %v", a, err)
					}
					rows = append(rows, got.Rows...)
				}
				right, wrong := count(model, rows)
				if wrong > 0 || right*100 < f.least*len(addresses()) {
					t.Errorf("%d right and %d wrong values of %d", right, wrong, len(addresses()))
				}
			})
		}
	}
}

// The same with all registers in one visit, where a meter that has answered is
// asked again.
func TestFaultsWithinAVisit(t *testing.T) {
	t.Parallel()
	for _, f := range faultRows() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			g := f.rig()
			model := modelOf(addresses()...)
			m := New(Config{ID: "m", Unit: 1, Transport: RTU, Settings: settings, Model: model, Timeout: f.timeout(), Now: clock()}, serialLine(t, g.onPty(t)))
			right, wrong := 0, 0
			for range 2 {
				got, err := m.Visit(t.Context(), ask())
				if err != nil && f.least == 100 {
					t.Error(err)
				}
				r, w := count(model, got.Rows)
				right, wrong = right+r, wrong+w
			}
			if wrong > 0 || right == 0 || f.least == 100 && right != 2*len(addresses()) {
				t.Errorf("%d right and %d wrong values", right, wrong)
			}
		})
	}
}

// A meter that answers late and refuses any other quantity is not asked before
// the late answer cannot come any more.
func TestLateRepliesOfAMeterThatRefusesOtherQuantities(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := faultRows()[0].rig()
		g.refuse = func(_ uint8, _, count uint16) bool { return count != 1 }
		model := modelOf(addresses()...)
		m := simulated(t, g, Config{Model: model, Settings: settings})
		right, wrong := 0, 0
		for range 10 {
			for _, a := range addresses() {
				got, _ := m.Visit(t.Context(), ask(channelAt(a)))
				r, w := count(model, got.Rows)
				right, wrong = right+r, wrong+w
				idle(time.Second)
			}
		}
		if wrong > 0 || right < 3*len(addresses()) {
			t.Errorf("%d right and %d wrong values of %d", right, wrong, 10*len(addresses()))
		}
	})
}

// The negative control: the library's own RTU transporter gives wrong values
// on the same lines, or fails requests that were answered without a fault.
func TestControlGivesWrongValues(t *testing.T) {
	t.Parallel()
	poisonedRows, wrongRows := 0, 0
	for _, f := range faultRows() {
		g := f.rig()
		spoil := g.spoil
		faulty := map[int]bool{}
		g.spoil = func(n int, request, answer []byte) [][]byte {
			parts := spoil(n, request, answer)
			faulty[n] = len(parts) != 1 || !slices.Equal(parts[0], answer)
			return parts
		}
		handler := modbus.NewRTUClientHandler(g.onPty(t))
		handler.BaudRate, handler.DataBits, handler.Parity, handler.StopBits = 19200, 8, "N", 1
		handler.SlaveId, handler.Timeout = 1, 120*time.Millisecond
		client := modbus.NewClient(handler)
		wrong, poisoned := 0, 0
		for _, a := range addresses() {
			b, err := client.ReadInputRegisters(a, 1)
			g.mu.Lock()
			spoiled := faulty[g.n-1]
			g.mu.Unlock()
			switch {
			case err == nil && (len(b) != 2 || uint16(b[0])<<8|uint16(b[1]) != word(4, a)):
				wrong++
			case err != nil && !spoiled:
				poisoned++
			}
		}
		_ = handler.Close()
		t.Logf("%-22s %2d wrong values, %2d failed without a fault, of %d", f.name, wrong, poisoned, len(addresses()))
		if wrong > 0 {
			wrongRows++
		}
		if poisoned > 0 {
			poisonedRows++
		}
	}
	if wrongRows == 0 || poisonedRows == 0 {
		t.Errorf("the control gives wrong values in %d rows and poisoned reads in %d: the faults are none", wrongRows, poisonedRows)
	}
}
