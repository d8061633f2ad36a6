package line

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// Port is the line in the hands of one exchange. It is not safe for concurrent
// use, and void when the exchange ends (ErrClosed).
type Port interface {
	// Read gives what has arrived, at least one byte, or waits for it.
	// os.ErrDeadlineExceeded is a time-out; the context's cause is a
	// cancellation; any other error means that the medium is gone, and the
	// line drops it by itself.
	io.Reader
	io.Writer
	// SetDeadline limits reads and writes from now on; the zero time lifts
	// the limit.
	SetDeadline(t time.Time) error
	// Apply changes the settings for the rest of the exchange, once what was
	// written is out. The next Do applies its own.
	Apply(s Settings) error
	// Discard drops input that has arrived and was not read.
	Discard() error
	// Farewell has the line say something after the exchange, before it goes
	// to the next one: to the meter that an end of ctx left in the middle of a
	// conversation. Do does not wait for it. say has the line for limit at
	// most, and nothing but that and Close interrupts it; when it fails, the
	// medium is dropped. It is the last word: only the last counts.
	Farewell(limit time.Duration, say func(context.Context, Port) error)
	// Drop closes the medium, since what may still arrive on it cannot be
	// trusted. The next Do opens it anew.
	Drop()
	// Doubt is Drop for exchanges whose frames tell whom they are from, so that
	// what arrives late is taken for nobody else's answer. It spares the sessions
	// that others have on the medium: it drops input that has arrived, and the
	// medium only where that may be at fault. That is a serial port on which
	// nothing has come for a minute of doubts, and a connection on which nothing
	// came in the minute before the exchange.
	Doubt()
}

// deafAfter is for how long a medium is held to be well on which nothing comes.
const deafAfter = time.Minute

// bus is a Medium that cannot be gone at its other end.
type bus interface{ IsBus() }

// held is the Port of one exchange.
type held struct {
	line   *Line
	medium Medium
	ctx    context.Context // the exchange's, for the cause of an interruption
	stop   func() bool     // no interruption any more
	last   *farewell       // nil for none
	began  time.Time
	heard  time.Time // when something came before; the zero time is never

	mu          sync.Mutex
	interrupted bool
	over        bool // the exchange has ended or dropped the medium
}

// farewell is what is said after an exchange.
type farewell struct {
	limit time.Duration
	say   func(context.Context, Port) error

	began, heard time.Time // of the exchange before it
}

func (h *held) Farewell(limit time.Duration, say func(context.Context, Port) error) {
	if !h.isOver() {
		h.last = &farewell{limit: limit, say: say, began: h.began, heard: h.heard}
	}
}

// interrupt makes all I/O return, now and later.
func (h *held) interrupt() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.over {
		h.interrupted = true
		_ = h.medium.SetDeadline(time.Unix(1, 0))
	}
}

func (h *held) end() {
	h.stop()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
}

func (h *held) isOver() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.over
}

func (h *held) SetDeadline(t time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.over:
		return ErrClosed
	case h.interrupted:
		return nil
	}
	return h.medium.SetDeadline(t)
}

func (h *held) Read(p []byte) (int, error) {
	if h.isOver() {
		return 0, ErrClosed
	}
	n, err := h.medium.Read(p)
	if n > 0 {
		h.line.quiet = time.Now()
		h.line.heard, h.line.deaf = h.line.quiet, time.Time{}
		h.line.pass(false, p[:n])
		return n, nil // an error comes again with the next read
	}
	if err == nil && len(p) > 0 {
		err = io.ErrNoProgress
	}
	return 0, h.judge(err)
}

func (h *held) Write(p []byte) (int, error) {
	if h.isOver() {
		return 0, ErrClosed
	}
	n, err := h.medium.Write(p)
	h.line.pass(true, p[:max(n, 0)])
	h.line.quiet = time.Now().Add(time.Duration(n) * h.line.settings.CharTime())
	return n, h.judge(err)
}

func (h *held) Discard() error {
	if h.isOver() {
		return ErrClosed
	}
	return h.judge(h.medium.Discard())
}

// applyMargin is for what an adapter keeps back when it counts as sent.
const applyMargin = 20 * time.Millisecond

func (h *held) Apply(s Settings) error {
	s, err := s.normal()
	switch {
	case err != nil:
		return err
	case h.isOver():
		return ErrClosed
	case s == h.line.settings:
		return nil
	}
	if rest := time.Until(h.line.quiet); rest > 0 {
		wait := time.NewTimer(rest + applyMargin)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-h.ctx.Done():
			return context.Cause(h.ctx)
		}
	}
	if err := h.medium.Apply(s); err != nil {
		h.Drop()
		return fmt.Errorf("set %v: %w", s, markGone(err))
	}
	h.line.settings = s
	return nil
}

// judge tells time-outs and cancellations from a medium that is gone, and
// drops the latter.
func (h *held) judge(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		if cause := context.Cause(h.ctx); cause != nil {
			return cause
		}
		return os.ErrDeadlineExceeded
	}
	h.Drop()
	return markGone(err)
}

func (h *held) Drop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.over {
		h.over = true
		h.line.drop()
	}
}

func (h *held) Doubt() {
	if h.isOver() {
		return
	}
	now := time.Now()
	if h.line.deaf.IsZero() {
		h.line.deaf = now
	}
	well := now.Sub(h.line.deaf) < deafAfter
	if _, ok := h.medium.(bus); !ok {
		well = !h.heard.IsZero() && h.began.Sub(h.heard) < deafAfter
	}
	if !well || h.medium.Discard() != nil {
		h.Drop()
	}
}
