package hdlc

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
)

// badLine is a line with a simulated meter at its end, on which everything goes
// wrong at random. It has a clock of its own that moves when the client writes
// or waits, and runs in one goroutine. What is on the line stays in order.
type badLine struct {
	rng      *rand.Rand
	trouble  func(w *badLine, frame []byte, put func(pause time.Duration, octets []byte))
	forges   bool // as if nobody looked at checks and addresses
	hurried  bool // answers are asked after that take longer than usual
	now      time.Duration
	deadline time.Duration
	free     time.Duration // when what was put last has arrived
	arriving []arriving    // at the client
	meter    *strand

	frames, damaged, passed int
}

type arriving struct {
	at     time.Duration
	octets []byte
}

const (
	tortureChar    = 10 * time.Second / 19200
	tortureTimeout = 200 * time.Millisecond
	fifo           = 16 // octets that come at a time
)

func (w *badLine) SetTimeout(d time.Duration) error { w.deadline = w.now + d; return nil }

func (w *badLine) Read(b []byte) (int, error) {
	if len(w.arriving) == 0 || w.arriving[0].at > w.deadline {
		w.now = max(w.now, w.deadline)
		return 0, os.ErrDeadlineExceeded
	}
	first := &w.arriving[0]
	w.now = max(w.now, first.at)
	n := copy(b, first.octets)
	if first.octets = first.octets[n:]; len(first.octets) == 0 {
		w.arriving = w.arriving[1:]
	}
	return n, nil
}

// Write has the meter hear what becomes of b, and the client what becomes of
// its answers.
func (w *badLine) Write(b []byte) (int, error) {
	w.now += time.Duration(len(b)) * tortureChar
	w.free = max(w.free, w.now)
	if w.hit(5) {
		w.arrive(0, w.spoil(b)) // its echo
	}
	w.trouble(w, b, func(pause time.Duration, octets []byte) {
		w.free += pause
		for _, frame := range w.meter.hear(octets) {
			w.trouble(w, frame, w.arrive)
		}
	})
	return len(b), nil
}

func (w *badLine) arrive(pause time.Duration, octets []byte) {
	w.free += pause
	for piece := range slices.Chunk(octets, fifo) {
		w.free += time.Duration(len(piece)) * tortureChar
		w.arriving = append(w.arriving, arriving{w.free, piece})
	}
}

func (w *badLine) hit(percent int) bool { return w.rng.IntN(100) < percent }

func (w *badLine) pause(most time.Duration) time.Duration {
	return time.Duration(w.rng.Int64N(int64(most)))
}

func (w *badLine) noise() []byte {
	b := make([]byte, 1+w.rng.IntN(8))
	for i := range b {
		b[i] = byte(w.rng.Uint32())
	}
	if w.hit(30) {
		b = append(b, flag, formatType|byte(w.rng.IntN(8)))
	}
	return b
}

// spoil is, now and then, a burst of up to 16 bits, the first and the last of
// them surely wrong.
func (w *badLine) spoil(frame []byte) []byte {
	if !w.hit(20) {
		return frame
	}
	bad := bytes.Clone(frame)
	length := 1 + w.rng.IntN(min(16, 8*len(bad)))
	first := w.rng.IntN(8*len(bad) - length + 1)
	pattern := w.rng.Uint32() | 1 | 1<<(length-1)
	for i := range length {
		if pattern>>i&1 == 1 {
			bad[(first+i)/8] ^= 1 << ((first + i) % 8)
		}
	}
	return w.count(frame, bad)
}

// scramble puts random octets in place of some or all.
func (w *badLine) scramble(frame []byte) []byte {
	bad := bytes.Clone(frame)
	first := w.rng.IntN(len(bad))
	for i := first; i < first+1+w.rng.IntN(len(bad)-first); i++ {
		bad[i] = byte(w.rng.Uint32())
	}
	return w.count(frame, bad)
}

// count counts damage, and what of it the checks do not see.
func (w *badLine) count(frame, bad []byte) []byte {
	if bytes.Equal(frame, bad) {
		return bad
	}
	w.damaged++
	if w.forges {
		bad = forged(frame, bad)
	}
	if _, err := ParseFrame(bad); err == nil {
		w.passed++
	}
	return bad
}

// forged is a frame with the damage of its information under checks that are
// right.
func forged(frame, bad []byte) []byte {
	f, err := ParseFrame(frame)
	if err != nil || len(f.Info) == 0 {
		return bad
	}
	end := len(frame) - 1 - checkLen
	f.Info = bad[end-len(f.Info) : end]
	sealed, err := f.AppendBinary(nil)
	if err != nil {
		return bad
	}
	return sealed
}

// foreign is a frame like this one, with another value at its end: of another
// meter, for another client, or from another client.
func (w *badLine) foreign(frame []byte) []byte {
	f, err := ParseFrame(frame)
	if err != nil {
		return w.noise()
	}
	f.Info = bytes.Clone(f.Info)
	if len(f.Info) > 0 {
		f.Info[len(f.Info)-1] ^= byte(1 + w.rng.IntN(255))
	}
	other := uint16(17 + w.rng.IntN(80))
	switch {
	case w.forges:
	case w.hit(40):
		f.Source.Upper = other
	case w.hit(40):
		f.Destination.Upper = other
	default:
		f.Destination, f.Source = Address{Upper: f.Source.Upper, Size: 1}, Address{Upper: other, Size: 1}
	}
	b, err := f.AppendBinary(nil)
	if err != nil {
		return w.noise()
	}
	return b
}

// everything is every trouble there is, often more than one at a time. A Write
// is one frame or more.
func everything(w *badLine, frame []byte, put func(time.Duration, []byte)) {
	w.frames++
	if w.hit(3) {
		return // lost
	}
	pause := w.pause(10 * time.Millisecond)
	if w.hit(4) { // late: not before the client asked again, as often as not
		pause += w.pause(5 * tortureTimeout)
	}
	if w.hit(5) {
		put(0, w.noise())
	}
	if w.hit(5) {
		put(w.pause(3*time.Millisecond), w.spoil(w.foreign(frame)))
	}
	first := w.spoil(frame)
	switch {
	case w.hit(3): // truncated
		put(pause, first[:w.rng.IntN(len(first))])
	case w.hit(8): // split
		at := w.rng.IntN(len(first))
		put(pause, first[:at])
		put(w.pause(100*time.Millisecond), first[at:])
	default:
		put(pause, first)
	}
	if w.hit(5) { // duplicated
		put(w.pause(3*time.Millisecond), w.spoil(frame))
	}
	if w.hit(5) {
		put(w.pause(3*time.Millisecond), w.spoil(w.foreign(frame)))
	}
	if w.hit(5) {
		put(0, w.noise())
	}
}

// scrambled damages a third of the frames at random.
func scrambled(w *badLine, frame []byte, put func(time.Duration, []byte)) {
	w.frames++
	if w.hit(33) {
		frame = w.scramble(frame)
	}
	put(w.pause(10*time.Millisecond), frame)
}

// strand runs a station that hears octets and gives what it says to them, in
// the goroutine of who calls.
type strand struct {
	in   []byte
	out  [][]byte
	next func() (struct{}, bool)
	stop func()
}

func newStrand(s dlmstest.Station) *strand {
	d := &strand{}
	d.next, d.stop = iter.Pull(func(yield func(struct{}) bool) {
		_ = s.Serve(&strandEnd{d, yield}) // ends when the test stops it
	})
	d.next()
	return d
}

func (d *strand) hear(octets []byte) [][]byte {
	d.in, d.out = append(d.in, octets...), nil
	d.next()
	return d.out
}

type strandEnd struct {
	*strand
	yield func(struct{}) bool
}

func (e *strandEnd) Read(b []byte) (int, error) {
	for len(e.in) == 0 {
		if !e.yield(struct{}{}) {
			return 0, io.EOF
		}
	}
	n := copy(b, e.in)
	e.in = e.in[:copy(e.in, e.in[n:])]
	return n, nil
}

func (e *strandEnd) Write(b []byte) (int, error) {
	e.out = append(e.out, bytes.Clone(b))
	return len(b), nil
}

// tortured reads a meter on a bad line, and counts what comes.
type tortured struct {
	line     *badLine
	link     *Link
	client   *dlms.Client
	moment   uint64 // what values are of
	answered [][]byte

	exchanges, failed, connects, strange int
	right, wrong                         [kinds]int
}

// The kinds of reading.
const (
	short = iota // of a register
	long         // of several segments and blocks
	twice        // of a register, and again: for a bill
	kinds
)

const registersOfTortured = 20

func tortureCode(i int) obis.Code { return obis.Code{1, 0, byte(i), 8, 0, 255} }

// valueAt is what object i shows at a moment.
func valueAt(i int, moment uint64) axdr.Value {
	r := rand.NewPCG(uint64(i), moment)
	if i < registersOfTortured {
		return axdr.DoubleLongUnsigned(uint32(r.Uint64()))
	}
	b := make([]byte, 200+r.Uint64()%400)
	for j := range b {
		b[j] = byte(r.Uint64())
	}
	return axdr.OctetString(string(b))
}

func newTortured(t *testing.T, w *badLine) *tortured {
	t.Helper()
	d := &tortured{line: w}
	var objects []dlmstest.Object
	for i := range registersOfTortured + 1 {
		objects = append(objects, dlmstest.Data(tortureCode(i), func() axdr.Value { return valueAt(i, d.moment) }))
	}
	meter := dlmstest.NewMeter(dlmstest.Options{Objects: objects, MaxPDU: 250})
	station := meter.Station(dlmstest.Station{MaxInfo: 128, Window: 3})
	answers := station.Answers
	station.Answers = func(client byte, apdu []byte) [][]byte {
		out := answers(client, apdu)
		if client == 16 {
			d.answered = append(d.answered, out...)
		}
		return out
	}
	w.meter = newStrand(station)
	t.Cleanup(w.meter.stop)
	c := Config{
		Client: one(16), Server: one(1), Timeout: tortureTimeout, InterOctet: tortureTimeout / 2,
		Propose: Parameters{MaxInfoTx: 128, MaxInfoRx: 128, WindowTx: 3, WindowRx: 3},
	}
	if w.hurried {
		c.Wait = func() time.Duration { return tortureTimeout / 16 }
	}
	d.link = NewLink(w, c)
	return d
}

// get reads object i once. It connects where it has to.
func (d *tortured) get(t *testing.T, i int) (axdr.Value, bool) {
	t.Helper()
	d.exchanges++
	d.answered = d.answered[max(0, len(d.answered)-lately):]
	ctx := t.Context()
	if d.client == nil {
		d.connects++
		if d.link.Connect(ctx) != nil {
			d.failed++
			return axdr.Value{}, false
		}
		client := dlms.NewClient(d, dlms.Options{})
		if _, err := client.Associate(ctx); err != nil {
			d.failed++
			return axdr.Value{}, false
		}
		d.client = client
	}
	v, err := d.client.Get(ctx, dlms.Attribute{Class: 1, Code: tortureCode(i), ID: 2})
	if err != nil {
		d.client = nil
		d.failed++
	}
	return v, err == nil
}

// lately is of how many answers of the meter, beside those to the request in
// hand, a client may be given one: an answer that is later than Connect waits
// is told by its number, if it is of reading, and else by nothing.
const lately = 16

// Send and Receive are the link's. What is received must be what the meter
// answered.
func (d *tortured) Send(ctx context.Context, apdu []byte) error { return d.link.Send(ctx, apdu) }

func (d *tortured) Receive(ctx context.Context, b []byte) ([]byte, error) {
	b, err := d.link.Receive(ctx, b)
	if err == nil && !slices.ContainsFunc(d.answered, func(a []byte) bool { return bytes.Equal(a, b) }) {
		d.strange++
	}
	return b, err
}

// run makes n exchanges.
func (d *tortured) run(t *testing.T, n int) {
	t.Helper()
	for d.exchanges < n {
		d.moment++
		i, kind := d.line.rng.IntN(registersOfTortured), short
		switch {
		case d.line.hit(5):
			i, kind = registersOfTortured, long
		case d.line.hit(25):
			kind = twice
		}
		v, ok := d.get(t, i)
		if ok && kind == twice {
			var again axdr.Value
			if again, ok = d.get(t, i); !ok || !again.Equal(v) {
				continue
			}
		}
		switch {
		case !ok:
		case v.Equal(valueAt(i, d.moment)):
			d.right[kind]++
		default:
			d.wrong[kind]++
		}
	}
}

func (d *tortured) String() string {
	w := d.line
	return fmt.Sprintf("%d exchanges, %d without a value, %d connections, %v simulated; %d frames, %d damaged (2^-16 of them: %.1f), "+
		"%d passed the checks; wrong APDUs %d; registers %d right, %d wrong; long %d, %d; read twice %d, %d",
		d.exchanges, d.failed, d.connects, w.now.Round(time.Second), w.frames, w.damaged, float64(w.damaged)/65536,
		w.passed, d.strange, d.right[short], d.wrong[short], d.right[long], d.wrong[long], d.right[twice], d.wrong[twice])
}

// torture makes n exchanges with every trouble, and n with random damage.
func torture(t *testing.T, n int) {
	t.Helper()
	for title, hurried := range map[string]bool{"": false, ", in a hurry": true} {
		t.Run("bursts of up to 16 bits, late, split, duplicated, truncated, echoed, foreign"+title, func(t *testing.T) {
			t.Parallel()
			d := newTortured(t, &badLine{rng: rand.New(rand.NewPCG(1, 1)), trouble: everything, hurried: hurried})
			d.run(t, n)
			t.Log(d)
			if d.wrong != [kinds]int{} || d.strange > 0 {
				t.Error("wrong values")
			}
			if d.right[short] < n/3 || d.right[long] < n/200 || d.right[twice] < n/50 {
				t.Error("too few right ones")
			}
		})
	}
	t.Run("random damage", func(t *testing.T) {
		t.Parallel()
		d := newTortured(t, &badLine{rng: rand.New(rand.NewPCG(2, 2)), trouble: scrambled})
		d.run(t, n)
		t.Log(d)
		if most := (d.line.damaged + 65535) / 65536; d.line.passed > most || d.strange > most || d.wrong[short]+d.wrong[long] > most || d.wrong[twice] > 0 {
			t.Error("more wrong values than the checks let pass")
		}
		if d.right[short] < n/3 || d.right[long] < n/200 || d.right[twice] < n/50 {
			t.Error("too few right ones")
		}
	})
}

// TestTorture holds that no trouble of a line makes a value that the meter did
// not give to this very request.
func TestTorture(t *testing.T) {
	t.Parallel()
	n := 20_000
	if raceEnabled { // 10 times slower
		n = 4_000
	}
	torture(t, n)
}

// The negative control: where checks and addresses say nothing, wrong values
// come through on the same line, and are seen.
func TestTortureControl(t *testing.T) {
	t.Parallel()
	d := newTortured(t, &badLine{rng: rand.New(rand.NewPCG(1, 1)), trouble: everything, forges: true})
	d.run(t, 2_000)
	t.Log(d)
	if d.wrong[short] == 0 || d.right[short] == 0 {
		t.Error("the control gives no wrong values: the line is not bad")
	}
}
