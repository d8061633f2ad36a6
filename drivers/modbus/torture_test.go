package modbus

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// badWire is a serial line with one meter, unit 1, in simulated
// time, on which everything goes wrong at random. The meter answers in the
// order of the requests, however late. It needs no goroutine.
type badWire struct {
	rng      *rand.Rand
	char     time.Duration                            // one character
	trouble  func(w *badWire, request, answer []byte) // puts on the wire what is to arrive
	deadline time.Time
	arriving []arrival // by time
	heard    []byte    // by the meter
	free     time.Time // when the meter has answered what it was asked before
	at       time.Time // when what is put on the wire next begins to arrive

	requests, damaged int
}

type arrival struct {
	at    time.Time
	bytes []byte
}

func (w *badWire) Write(p []byte) (int, error) {
	w.heard = append(w.heard, p...)
	w.at = time.Now().Add(time.Duration(len(p)) * w.char)
	for len(w.heard) >= requestLen {
		request := slices.Clone(w.heard[:requestLen])
		if !checked(request) {
			w.heard = w.heard[1:]
			continue
		}
		w.heard = w.heard[requestLen:]
		w.requests++
		if w.at.Before(w.free) {
			w.at = w.free
		}
		w.trouble(w, request, (&rig{}).answer(request))
		w.free = w.at
	}
	return len(p), nil
}

// put sends a frame after a pause, a character at a time.
func (w *badWire) put(pause time.Duration, frame []byte) {
	w.at = w.at.Add(pause)
	for i := range frame {
		w.at = w.at.Add(w.char)
		w.arriving = append(w.arriving, arrival{w.at, frame[i : i+1]})
	}
}

func (w *badWire) Read(p []byte) (int, error) {
	for {
		wait := 24 * time.Hour
		if !w.deadline.IsZero() {
			if wait = time.Until(w.deadline); wait <= 0 {
				return 0, os.ErrDeadlineExceeded
			}
		}
		if len(w.arriving) > 0 {
			first := &w.arriving[0]
			next := time.Until(first.at)
			if next <= 0 {
				n := copy(p, first.bytes)
				if first.bytes = first.bytes[n:]; len(first.bytes) == 0 {
					w.arriving = w.arriving[1:]
				}
				return n, nil
			}
			wait = min(wait, next)
		}
		idle(wait)
	}
}

func (w *badWire) SetDeadline(t time.Time) error { w.deadline = t; return nil }
func (w *badWire) Discard() error                { return nil }
func (w *badWire) Apply(line.Settings) error     { return nil }
func (w *badWire) Stale() bool                   { return false }
func (w *badWire) Close() error                  { return nil }

func (w *badWire) pause(most time.Duration) time.Duration {
	return time.Duration(w.rng.Int64N(int64(most)))
}

func (w *badWire) noise(most int) []byte {
	b := make([]byte, w.rng.IntN(most+1))
	for i := range b {
		b[i] = byte(w.rng.Uint32())
	}
	return b
}

// burst spoils up to 16 bits in a row, the first and the last of them surely.
func (w *badWire) burst(frame []byte) []byte {
	bad := slices.Clone(frame)
	length := 1 + w.rng.IntN(16)
	first := w.rng.IntN(8*len(bad) - length + 1)
	pattern := w.rng.Uint32() | 1 | 1<<(length-1)
	for i := range length {
		if pattern>>i&1 == 1 {
			bad[(first+i)/8] ^= 1 << ((first + i) % 8)
		}
	}
	w.damaged++
	return bad
}

// scramble puts random bytes in place of some or all.
func (w *badWire) scramble(frame []byte) []byte {
	bad := slices.Clone(frame)
	first := w.rng.IntN(len(bad))
	for i := first; i < first+1+w.rng.IntN(len(bad)-first); i++ {
		bad[i] = byte(w.rng.Uint32())
	}
	if !slices.Equal(bad, frame) {
		w.damaged++
	}
	return bad
}

// foreign is an answer of another unit, or a question to one, like ours.
func (w *badWire) foreign(request, answer []byte) []byte {
	other := slices.Clone(answer[:len(answer)-crcLen])
	if w.rng.IntN(3) == 0 {
		other = slices.Clone(request[:len(request)-crcLen])
	}
	other[0] = byte(2 + w.rng.IntN(200))
	other[len(other)-1] ^= byte(1 + w.rng.IntN(255))
	return frame(other...)
}

// everything is every trouble there is, often more than one at a time.
func everything(w *badWire, request, answer []byte) {
	often := func(percent int) bool { return w.rng.IntN(100) < percent }
	spoil := func(b []byte) []byte {
		if often(20) {
			return w.burst(b)
		}
		return b
	}
	if often(10) {
		w.put(0, spoil(request)) // its echo
	}
	if often(5) {
		return // silence
	}
	w.at = w.at.Add(w.pause(20 * time.Millisecond))
	if often(5) { // late: not before the asker gave up, as often as not
		w.at = w.at.Add(w.pause(time.Second))
	}
	if often(10) {
		w.put(0, w.noise(6))
	}
	if often(10) {
		w.put(w.pause(3*time.Millisecond), spoil(w.foreign(request, answer)))
	}
	if often(3) {
		answer = frame(request[0], request[1]|exceptionBit, []byte{2, 4, 6}[w.rng.IntN(3)])
	}
	first := spoil(answer)
	switch {
	case often(5): // truncated
		w.put(0, first[:w.rng.IntN(len(first))])
	case often(10): // split
		at := w.rng.IntN(len(first))
		w.put(0, first[:at])
		w.put(w.pause(100*time.Millisecond), first[at:])
	default:
		w.put(0, first)
	}
	if often(5) { // duplicated: the same again at once
		w.put(w.pause(w.char), spoil(answer))
	}
	if often(10) {
		w.put(w.pause(3*time.Millisecond), spoil(w.foreign(request, answer)))
	}
	if often(10) {
		w.put(0, w.noise(6))
	}
}

// scrambled damages every other answer at random.
func scrambled(w *badWire, _, answer []byte) {
	w.at = w.at.Add(w.pause(10 * time.Millisecond))
	if w.rng.IntN(2) == 0 {
		answer = w.scramble(answer)
	}
	w.put(0, answer)
}

func (w *badWire) line() *line.Line {
	return line.Of("wire", func(context.Context, line.Settings) (line.Medium, error) { return w, nil })
}

// torture visits a meter on a bad wire until it was asked n times, and gives
// how many values came, right and wrong, by lane.
func torture(t *testing.T, w *badWire, n int) (right, wrong map[meter.Lane]int) {
	t.Helper()
	right, wrong = map[meter.Lane]int{}, map[meter.Lane]int{}
	model := modelOf(addresses()...)
	m := New(Config{ID: "m", Unit: 1, Transport: RTU, Settings: settings, Model: model, Timeout: 200 * time.Millisecond, Now: clock()}, closing(t, w.line()))
	for i := 0; w.requests < n; i++ {
		a := ask(channelAt(addresses()[i%len(addresses())]))
		if i%4 == 0 {
			a.Groups[0].Lane = meter.Billing
		}
		got, _ := m.Visit(t.Context(), a)
		for _, row := range got.Rows {
			r, f := count(model, []meter.Row{row})
			right[row.Lane] += r
			wrong[row.Lane] += f
			if f > 0 && row.Lane == meter.Billing {
				t.Errorf("request %d: wrong value %v of %s for a bill", w.requests, row.Value, row.Channel)
			}
		}
	}
	return right, wrong
}

// tortured runs n exchanges with every trouble, and n with random damage.
func tortured(t *testing.T, n int) {
	t.Helper()
	t.Run("bursts of up to 16 bits, late, split, duplicated, truncated, echoed, foreign", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := &badWire{char: settings.CharTime(), rng: rand.New(rand.NewPCG(1, 1)), trouble: everything}
			right, wrong := torture(t, w, n)
			t.Logf("%d exchanges, %d damaged frames; right %v, wrong %v", w.requests, w.damaged, right, wrong)
			if wrong[meter.Instant]+wrong[meter.Billing] > 0 || right[meter.Instant] < n/10 || right[meter.Billing] < n/50 {
				t.Error("wrong values, or too few right ones")
			}
		})
	})
	t.Run("random damage", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := &badWire{char: settings.CharTime(), rng: rand.New(rand.NewPCG(2, 2)), trouble: scrambled}
			right, wrong := torture(t, w, n)
			t.Logf("%d exchanges, %d damaged frames (2^-16 of them: %.1f); right %v, wrong %v", w.requests, w.damaged, float64(w.damaged)/65536, right, wrong)
			if wrong[meter.Instant] > w.damaged/65536 || wrong[meter.Billing] > 0 || right[meter.Instant] < n/10 {
				t.Error("more wrong values than the checksum lets pass, or too few right ones")
			}
		})
	})
}

func TestTorture(t *testing.T) {
	t.Parallel()
	n := 50_000
	if raceEnabled { // 30 times slower
		n = 5_000
	}
	tortured(t, n)
}

// The negative control: who takes the first sound frame of the unit and the
// function for the answer gets wrong values on the same wire.
func TestTortureControl(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &badWire{char: settings.CharTime(), rng: rand.New(rand.NewPCG(1, 1)), trouble: everything}
		right, wrong := 0, 0
		var buf []byte
		for i := 0; w.requests < 10_000; i++ {
			a := addresses()[i%len(addresses())]
			_, _ = w.Write(encode(1, 4, a, 1)) // it takes everything
			_ = w.SetDeadline(time.Now().Add(200 * time.Millisecond))
			var in [64]byte
			for got := false; !got; {
				n, err := w.Read(in[:])
				if err != nil {
					break
				}
				for buf = append(buf, in[:n]...); len(buf) >= answerLen(1) && !got; buf = buf[1:] {
					if got = buf[0] == 1 && buf[1] == 4 && buf[2] == 2 && checked(buf[:7]); !got {
						continue
					}
					if binary.BigEndian.Uint16(buf[3:]) == word(4, a) {
						right++
					} else {
						wrong++
					}
				}
			}
		}
		t.Logf("%d exchanges: %d right and %d wrong values", w.requests, right, wrong)
		if wrong == 0 || right == 0 {
			t.Error("the control gives no wrong values: the wire is not bad")
		}
	})
}
