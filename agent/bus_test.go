package agent

import (
	"context"
	"io/fs"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"gridgate/drivers/line"
)

// bus is a line of meters in simulated time: octets pass at its rate, and who
// is on it answers frames that are for it. Its adapter may be unplugged.
type bus struct {
	char   time.Duration // of one octet
	answer func(request []byte) (reply []byte, after time.Duration)

	mu       sync.Mutex
	deadline time.Time
	changed  chan struct{} // closed when the deadline or the input changes
	input    []octet
	free     time.Time // when the medium falls silent
	busy     time.Duration
	gone     bool // the adapter is
	plugged  int  // how often it was unplugged
	opened   int
}

// fifo is how many octets come at a time.
const fifo = 8

type octet struct {
	b  byte
	at time.Time
}

func newBus(s line.Settings, answer func([]byte) ([]byte, time.Duration)) *bus {
	return &bus{char: s.CharTime(), answer: answer, changed: make(chan struct{})}
}

func (b *bus) line() *line.Line {
	return line.Of("bus", func(context.Context, line.Settings) (line.Medium, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.gone {
			return nil, &fs.PathError{Op: "lstat", Path: "/dev/serial/by-id/adapter", Err: syscall.ENOENT}
		}
		b.opened++
		return &adapter{bus: b, plugged: b.plugged}, nil
	})
}

func (b *bus) stir() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// unplug has what is open fail as a port does whose adapter is gone, now and
// for ever, and what is opened until plug.
func (b *bus) unplug() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gone, b.input = true, nil
	b.plugged++
	b.stir()
}

func (b *bus) plug() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gone = false
}

// adapter is a bus that was opened.
type adapter struct {
	*bus
	plugged int // when it was opened
}

func (a *adapter) isGone() bool { return a.plugged != a.bus.plugged }

func (a *adapter) Write(p []byte) (int, error) {
	b := a.bus
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.isGone() {
		return 0, syscall.EIO
	}
	now := time.Now()
	if b.free.Before(now) {
		b.free = now
	}
	wire := time.Duration(len(p)) * b.char
	b.free = b.free.Add(wire)
	reply, after := b.answer(slices.Clone(p))
	if reply == nil {
		return len(p), nil
	}
	b.busy += wire + after + time.Duration(len(reply))*b.char
	at := b.free.Add(after)
	for piece := range slices.Chunk(reply, fifo) {
		at = at.Add(time.Duration(len(piece)) * b.char)
		for _, c := range piece {
			b.input = append(b.input, octet{c, at})
		}
	}
	b.free = at
	b.stir()
	return len(p), nil
}

func (a *adapter) Read(p []byte) (int, error) {
	b := a.bus
	for {
		b.mu.Lock()
		now := time.Now()
		n := 0
		for n < len(p) && len(b.input) > 0 && !b.input[0].at.After(now) {
			p[n], b.input = b.input[0].b, b.input[1:]
			n++
		}
		next, deadline, changed, gone := now.Add(time.Hour), b.deadline, b.changed, a.isGone()
		if len(b.input) > 0 {
			next = b.input[0].at
		}
		b.mu.Unlock()
		switch {
		case gone:
			return 0, syscall.EIO
		case n > 0:
			return n, nil
		case !deadline.IsZero() && !deadline.After(now):
			return 0, os.ErrDeadlineExceeded
		case !deadline.IsZero() && deadline.Before(next):
			next = deadline
		}
		timer := time.NewTimer(next.Sub(now))
		select {
		case <-timer.C:
		case <-changed:
		}
		timer.Stop()
	}
}

func (a *adapter) SetDeadline(t time.Time) error {
	b := a.bus
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deadline = t
	b.stir()
	return nil
}

func (a *adapter) Discard() error {
	b := a.bus
	b.mu.Lock()
	defer b.mu.Unlock()
	b.input = slices.DeleteFunc(b.input, func(o octet) bool { return !o.at.After(time.Now()) })
	return nil
}

func (a *adapter) Stale() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.isGone()
}

func (a *adapter) Apply(line.Settings) error { return nil }
func (a *adapter) Close() error              { return nil }
