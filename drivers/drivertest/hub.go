package drivertest

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// Hub hangs several meters on one line: each hears all that comes, and what they
// say at the same time destroys itself, as on a bus where the low level wins.
type Hub struct {
	stream io.ReadWriter
	ends   []*hubEnd

	mu      sync.Mutex
	said    [][]byte      // by end
	talking chan struct{} // has a token when something was said
}

// together is within what time answers begin together.
const together = 3 * time.Millisecond

type hubEnd struct {
	queue
	hub    *Hub
	number int
}

// NewHub gives n ends on a stream. Nothing passes before Run.
func NewHub(stream io.ReadWriter, n int) *Hub {
	h := &Hub{stream: stream, talking: make(chan struct{}, 1), said: make([][]byte, n)}
	for i := range n {
		e := &hubEnd{hub: h, number: i}
		e.changed = make(chan struct{})
		h.ends = append(h.ends, e)
	}
	return h
}

// End gives the i-th meter's end.
func (h *Hub) End(i int) io.ReadWriter { return h.ends[i] }

func (e *hubEnd) Write(b []byte) (int, error) {
	e.hub.mu.Lock()
	defer e.hub.mu.Unlock()
	e.hub.said[e.number] = append(e.hub.said[e.number], b...)
	select {
	case e.hub.talking <- struct{}{}:
	default:
	}
	return len(b), nil
}

// Run passes on what is said until the stream ends or ctx does. The stream's Read
// must end with ctx.
func (h *Hub) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { cancel(h.talk(ctx)) })
	defer func() {
		for _, e := range h.ends {
			e.close()
		}
	}()
	buf := make([]byte, 256)
	for {
		n, err := h.stream.Read(buf)
		for _, e := range h.ends {
			_, _ = e.put(buf[:n])
		}
		if err != nil {
			cancel(err)
			return err
		}
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
			return cause
		}
	}
}

// talk puts what is said on the line.
func (h *Hub) talk(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.talking:
		}
		_ = wait(ctx, together) // a bus that ends loses what is said last
		h.mu.Lock()
		said := h.said
		h.said = make([][]byte, len(said))
		h.mu.Unlock()
		if _, err := h.stream.Write(Collide(said...)); err != nil {
			return err
		}
	}
}

// Collide gives what is heard of those who talk at the same time.
func Collide(said ...[]byte) (heard []byte) {
	for _, b := range said {
		for i, c := range b {
			if i < len(heard) {
				heard[i] &= c
			} else {
				heard = append(heard, c)
			}
		}
	}
	return heard
}
