package drivertest

import (
	"context"
	"io"
	"os"
	"sync"
	"time"

	"gridgate/drivers/line"
)

// Wire is a serial line in memory: the client's end is a line.Medium, the meter's
// a paced UART. Its time is that of package time, so that it may be simulated.
type Wire struct {
	up, down queue
	own      line.Settings

	mu  sync.Mutex
	far line.Settings
}

// NewWire gives a line whose meters have these settings, all fields filled in.
func NewWire(own line.Settings) *Wire {
	w := &Wire{own: own}
	w.up.changed, w.down.changed = make(chan struct{}), make(chan struct{})
	return w
}

// Line gives the client's end, which may be opened again and again.
func (w *Wire) Line() *line.Line {
	return line.Of("wire", func(_ context.Context, s line.Settings) (line.Medium, error) {
		m := &wireEnd{w}
		return m, m.Apply(s)
	})
}

// Meter gives the meter's end.
func (w *Wire) Meter(ctx context.Context) io.ReadWriter {
	return NewUART(ctx, wireMeter{w}, w.own, w.settings)
}

// Close ends what meters read.
func (w *Wire) Close() error {
	w.up.close()
	w.down.close()
	return nil
}

func (w *Wire) settings() line.Settings {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.far
}

type wireMeter struct{ w *Wire }

func (m wireMeter) Read(b []byte) (int, error)  { return m.w.up.Read(b) }
func (m wireMeter) Write(b []byte) (int, error) { return m.w.down.put(b) }

type wireEnd struct{ w *Wire }

func (e *wireEnd) Read(b []byte) (int, error)  { return e.w.down.Read(b) }
func (e *wireEnd) Write(b []byte) (int, error) { return e.w.up.put(b) }
func (e *wireEnd) IsBus()                      {}
func (e *wireEnd) Stale() bool                 { return false }
func (e *wireEnd) Close() error                { return nil }

func (e *wireEnd) SetDeadline(t time.Time) error {
	e.w.down.setDeadline(t)
	return nil
}

func (e *wireEnd) Discard() error {
	e.w.down.mu.Lock()
	defer e.w.down.mu.Unlock()
	e.w.down.buf = nil
	return nil
}

func (e *wireEnd) Apply(s line.Settings) error {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	e.w.far = s
	return nil
}

// queue is octets under way.
type queue struct {
	mu       sync.Mutex
	buf      []byte
	closed   bool
	deadline time.Time
	changed  chan struct{} // closed and made anew with each change
}

func (q *queue) change() {
	close(q.changed)
	q.changed = make(chan struct{})
}

func (q *queue) put(b []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return 0, io.ErrClosedPipe
	}
	q.buf = append(q.buf, b...)
	q.change()
	return len(b), nil
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.change()
}

func (q *queue) setDeadline(t time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.deadline = t
	q.change()
}

// Read waits for octets, or for the deadline.
func (q *queue) Read(b []byte) (int, error) {
	for {
		q.mu.Lock()
		n := copy(b, q.buf)
		q.buf = q.buf[n:]
		closed, until, changed := q.closed, q.deadline, q.changed
		q.mu.Unlock()
		switch {
		case n > 0:
			return n, nil
		case closed:
			return 0, io.EOF
		case until.IsZero():
			<-changed
			continue
		case !time.Now().Before(until):
			return 0, os.ErrDeadlineExceeded
		}
		t := time.NewTimer(time.Until(until))
		select {
		case <-changed:
		case <-t.C:
		}
		t.Stop()
	}
}
