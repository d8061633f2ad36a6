package hdlc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/dlms/dlmstest"
)

// faults is how often in a thousand frames a line does what.
type faults struct{ drop, duplicate, flip, cut, noise, late, echo int }

// wire is one direction of a line: octets on their way, in order.
type wire struct {
	mu      sync.Mutex
	sent    [][]byte // still on its way
	queue   []byte
	closed  bool
	last    time.Time     // when what was written last arrives
	arrived chan struct{} // has a token when there is something new
}

func newWire() *wire { return &wire{arrived: make(chan struct{}, 1)} }

func (w *wire) put(b []byte, after time.Duration) {
	w.mu.Lock()
	at := time.Now().Add(after)
	if at.Before(w.last) {
		at = w.last
	}
	w.last = at
	w.sent = append(w.sent, bytes.Clone(b))
	w.mu.Unlock()
	time.AfterFunc(time.Until(at), func() {
		w.mu.Lock()
		w.queue = append(w.queue, w.sent[0]...)
		w.sent = w.sent[1:]
		w.mu.Unlock()
		w.wake()
	})
}

func (w *wire) wake() {
	select {
	case w.arrived <- struct{}{}:
	default:
	}
}

func (w *wire) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.wake()
}

func (w *wire) get(b []byte, deadline time.Time) (int, error) {
	var timeout <-chan time.Time
	if !deadline.IsZero() {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		timeout = timer.C
	}
	for {
		w.mu.Lock()
		n := copy(b, w.queue)
		w.queue = w.queue[n:]
		closed := w.closed
		w.mu.Unlock()
		if n > 0 {
			return n, nil
		}
		if closed {
			return 0, io.EOF
		}
		select {
		case <-w.arrived:
		case <-timeout:
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// end is one end of a line: what is written to it suffers.
type end struct {
	in, out  *wire
	faults   faults
	rand     *rand.Rand
	deadline time.Time
	written  int
	// forges makes the checks of what was flipped right again, as if nobody
	// looked at them.
	forges bool
}

func (e *end) SetTimeout(d time.Duration) error {
	e.deadline = time.Now().Add(d)
	return nil
}

func (e *end) Read(b []byte) (int, error) { return e.in.get(b, e.deadline) }

// Write takes a Write for a frame, as both stations write them; a window of
// frames suffers as one.
func (e *end) Write(b []byte) (int, error) {
	e.written += len(b)
	hit := func(n int) bool { return e.rand.IntN(1000) < n }
	took := 2 * time.Millisecond
	if hit(e.faults.late) {
		took += time.Duration(e.rand.IntN(1000)) * time.Millisecond
	}
	if hit(e.faults.echo) {
		e.in.put(b, 0)
	}
	if hit(e.faults.noise) {
		noise := make([]byte, 1+e.rand.IntN(20))
		for i := range noise {
			noise[i] = byte(e.rand.Uint32())
		}
		if hit(500) {
			noise = append(noise, flag, formatType|byte(e.rand.IntN(8)))
		}
		e.out.put(noise, took)
	}
	if hit(e.faults.drop) {
		return len(b), nil
	}
	sent := bytes.Clone(b)
	if f, err := ParseFrame(sent); e.forges && hit(e.faults.flip) && err == nil && len(f.Info) > 3 {
		f.Info[3+e.rand.IntN(len(f.Info)-3)] ^= 1 << e.rand.IntN(8)
		sent, _ = f.AppendBinary(nil)
	} else if hit(e.faults.flip) {
		for range 1 + e.rand.IntN(3) { // as many as the check always finds
			sent[e.rand.IntN(len(sent))] ^= 1 << e.rand.IntN(8)
		}
	}
	if hit(e.faults.cut) {
		at := e.rand.IntN(len(sent))
		sent = append(sent[:at], sent[min(len(sent), at+1+e.rand.IntN(3)):]...)
	}
	e.out.put(sent, took)
	if hit(e.faults.duplicate) {
		e.out.put(sent, 0)
	}
	return len(b), nil
}

// question makes a request that no other is like, and answerTo what a meter
// answers to it: of all lengths, and wrong if one octet of either is.
func question(n int, r *rand.Rand) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(n))
	for range r.IntN(600) {
		b = append(b, byte(r.Uint32()))
	}
	return b
}

func answerTo(request []byte) []byte {
	sum := uint64(14695981039346656037)
	for _, o := range request {
		sum = (sum ^ uint64(o)) * 1099511628211
	}
	r := rand.New(rand.NewPCG(sum, 1))
	b := binary.BigEndian.AppendUint64(nil, sum)
	for range r.IntN(900) {
		b = append(b, byte(r.Uint32()))
	}
	return b
}

// talk has requests answered over a line, and counts what came of them.
type talk struct {
	config   Config
	station  dlmstest.Station
	faults   faults
	seed     uint64
	requests int
	forges   bool
}

type outcome struct {
	good, wrong, failed, octets int
	why                         map[string]int // why they failed
}

func (c talk) run(t *testing.T) (o outcome) {
	up, down := newWire(), newWire()
	us := &end{in: down, out: up, faults: c.faults, rand: rand.New(rand.NewPCG(c.seed, 2))}
	meter := &end{in: up, out: down, faults: c.faults, rand: rand.New(rand.NewPCG(c.seed, 3))}
	meter.faults.echo, meter.forges = 0, c.forges
	c.station.Answer = func(_ byte, apdu []byte) []byte { return answerTo(apdu) }
	done := make(chan error)
	go func() { done <- c.station.Serve(meter) }()
	c.config.Client, c.config.Server = one(16), one(1)
	c.config.Timeout, c.config.InterOctet = time.Second, 200*time.Millisecond
	l := NewLink(us, c.config)
	r := rand.New(rand.NewPCG(c.seed, 4))
	ctx := t.Context()
	for n := range c.requests {
		apdu, err := question(n, r), error(nil)
		if !l.connected {
			err = l.Connect(ctx)
		}
		var got []byte
		if err == nil {
			err = l.Send(ctx, apdu)
		}
		if err == nil {
			got, err = l.Receive(ctx, nil)
		}
		switch {
		case err != nil:
			o.failed++
			if o.why == nil {
				o.why = map[string]int{}
			}
			o.why[err.Error()]++
		case bytes.Equal(got, answerTo(apdu)):
			o.good++
		default:
			o.wrong++
		}
	}
	_ = l.Disconnect(ctx)
	up.close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	o.octets = us.written + meter.written
	return o
}

func windows() map[string]talk {
	return map[string]talk{
		"128/1":         {},
		"128/7":         {config: Config{Propose: Parameters{WindowTx: 7, WindowRx: 7}}, station: dlmstest.Station{Window: 7}},
		"512/3":         {config: Config{Propose: Parameters{512, 512, 3, 3}}, station: dlmstest.Station{MaxInfo: 512, Window: 3}},
		"2030/7":        {config: Config{Propose: Parameters{2030, 2030, 7, 7}}, station: dlmstest.Station{MaxInfo: 2030, Window: 7}},
		"32/7 and busy": {config: Config{Propose: Parameters{32, 32, 7, 7}}, station: dlmstest.Station{Window: 7, Busy: 2, NotReady: true}},
		"48/1 and busy": {config: Config{Propose: Parameters{48, 48, 1, 1}}, station: dlmstest.Station{Busy: 1}},
	}
}

func TestGoodLine(t *testing.T) {
	t.Parallel()
	for name, c := range windows() {
		for _, echo := range []int{0, 1000} {
			synctest.Test(t, func(t *testing.T) {
				c := c
				c.requests, c.faults.echo = 100, echo
				if o := c.run(t); o.good != 100 {
					t.Errorf("%s: %+v", name, o)
				}
			})
		}
	}
}

// TestBadLine holds that what a line does to frames may cost time, and never
// changes, swaps or repeats an APDU.
func TestBadLine(t *testing.T) {
	t.Parallel()
	for name, c := range windows() {
		for what, f := range map[string]faults{
			"drop":      {drop: 100},
			"duplicate": {duplicate: 300},
			"flip":      {flip: 150},
			"cut":       {cut: 150},
			"noise":     {noise: 300},
			"late":      {late: 300},
			"all":       {drop: 40, duplicate: 40, flip: 40, cut: 40, noise: 40, late: 40, echo: 40},
		} {
			for seed := range uint64(3) {
				t.Run(fmt.Sprintf("%s/%s/%d", name, what, seed), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						c := c
						c.requests, c.faults, c.seed = 150, f, seed
						o := c.run(t)
						if o.wrong > 0 || o.good < 75 {
							t.Errorf("%+v", o)
						}
						t.Logf("%+v", o)
					})
				})
			}
		}
	}
}

// TestBadLineWithoutChecks is the control of TestBadLine: where the checks say
// nothing, wrong APDUs come through, and are seen.
func TestBadLineWithoutChecks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := talk{requests: 150, faults: faults{flip: 150}, forges: true}.run(t)
		if o.wrong == 0 {
			t.Errorf("%+v", o)
		}
	})
}

// TestCancelledOnLine gives the caller the line back at once, and the next
// connection works.
func TestCancelledOnLine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		up, down := newWire(), newWire()
		us, meter := &end{in: down, out: up, rand: rand.New(rand.NewPCG(1, 1))}, &end{in: up, out: down, rand: rand.New(rand.NewPCG(1, 1))}
		silent := true
		station := dlmstest.Station{Answer: func(_ byte, apdu []byte) []byte {
			if silent {
				return nil
			}
			return answerTo(apdu)
		}}
		done := make(chan error)
		go func() { done <- station.Serve(meter) }()
		l := NewLink(us, Config{Client: one(16), Server: one(1)})
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if err := errors.Join(l.Connect(ctx), l.Send(ctx, []byte{1})); err != nil {
			t.Fatal(err)
		}
		// The meter says RR for ever; whoever owns the line interrupts the read.
		stop := context.AfterFunc(ctx, func() { down.put(nil, 0) })
		defer stop()
		if _, err := l.Receive(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("cancelled: %v", err)
		}
		silent = false
		if err := errors.Join(l.Disconnect(t.Context()), l.Connect(t.Context()), l.Send(t.Context(), []byte{2})); err != nil {
			t.Error(err)
		}
		if got, err := l.Receive(t.Context(), nil); err != nil || !bytes.Equal(got, answerTo([]byte{2})) {
			t.Errorf("%x, %v", got, err)
		}
		up.close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
