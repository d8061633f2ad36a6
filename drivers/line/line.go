// Package line is one physical medium that meters hang on: a serial port, a
// TCP connection or a UDP port. A line is half-duplex and has one exchange at a
// time; who wants the line waits for it, and a cancelled context interrupts
// both the waiting and the I/O.
//
//	Do        open when needed → apply settings → run the exchange → keep open
//	Farewell  what an exchange that was cut short leaves to the line: Do
//	          returns, and the line keeps its turn until it is over
//	Drop      what an exchange calls when the medium cannot be trusted any
//	          more; the next Do opens it anew
//	Doubt     the same where late answers harm nobody: others keep their sessions
//	Tap       hears what passes, beside the exchanges
//	Lend      closes the port for another process (a technician's tool) until
//	          it is given back
//
// A Line may be shared by any number of goroutines. It opens nothing until the
// first Do, and opens again by itself after an unplugged adapter or a lost
// connection.
package line

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// ErrClosed says that the line was closed, or that a Port was used after its
// exchange or after Drop.
var ErrClosed = errors.New("closed")

// Options are what lines share. The zero value is good.
type Options struct {
	// DialTimeout limits connecting a TCP line; 0 is 10 s.
	DialTimeout time.Duration
	// LockDir is where the lock files of serial ports are; "" is /run/lock, or
	// the directory for temporary files where that cannot be written.
	LockDir string
	// Direction is for RS-485 ports whose driver the kernel has to switch.
	Direction Direction
	// Program is who BusyError names as the holder; "" is the process's name.
	Program string
	// Shared says that another program may have used the line right before. It
	// matters to power lines, where answers to it may still be under way.
	Shared bool
}

// Line is one medium. Make it with Serial, TCP, UDP or Of.
type Line struct {
	name   string
	open   func(context.Context, Settings) (Medium, error)
	counts counts
	turn   chan struct{} // has a token while somebody holds the line
	closed chan struct{}

	mu       sync.Mutex
	isClosed bool
	cancel   context.CancelCauseFunc // ends the holder's exchange or farewell; nil without one

	farewells sync.WaitGroup
	taps      taps

	// The holder's.
	medium   Medium
	settings Settings
	opened   uint64
	quiet    time.Time // when the last byte passed, or will have passed
	heard    time.Time // when the last byte came from this medium; the zero time is never
	deaf     time.Time // the first doubt since; the zero time is none
}

// Medium is what a Line drives: an open serial port or connection. Read and
// Write give os.ErrDeadlineExceeded past the deadline.
type Medium interface {
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
	SetDeadline(t time.Time) error
	// Discard drops input that has arrived and was not read.
	Discard() error
	// Apply changes the settings; a medium that has none does nothing.
	Apply(s Settings) error
	// Stale says that the medium is known to be of no use any more: the
	// adapter was unplugged, the peer hung up.
	Stale() bool
	Close() error
}

// Of gives a line over a medium of the caller's: a recording, a simulation.
func Of(name string, open func(context.Context, Settings) (Medium, error)) *Line {
	return &Line{name: name, open: open, turn: make(chan struct{}, 1), closed: make(chan struct{})}
}

// String gives the line's name: the device's path, or host:port.
func (l *Line) String() string { return l.name }

// Do takes the line, opens it when it is not open, applies s and runs
// exchange. One exchange runs at a time; the others wait, or give up when
// their ctx ends. When ctx ends during the exchange, its reads and writes
// return at once with the cause, whatever deadline is set; what is left to say
// then is said after Do has returned: see Port.Farewell. The Port is void when
// exchange returns. Errors carry the line's name; those of a port that is gone,
// or in use by another program, are meter.ErrNoLine.
func (l *Line) Do(ctx context.Context, s Settings, exchange func(context.Context, Port) error) error {
	if err := l.do(ctx, s, exchange); err != nil {
		return fmt.Errorf("line %s: %w", l.name, err)
	}
	return nil
}

func (l *Line) do(ctx context.Context, s Settings, exchange func(context.Context, Port) error) error {
	s, err := s.normal()
	if err != nil {
		return err
	}
	if err := l.take(ctx); err != nil {
		return err
	}
	last, err := l.run(ctx, s, exchange)
	if last == nil {
		l.release()
		return err
	}
	l.farewells.Go(func() {
		defer l.release()
		l.leave(context.WithoutCancel(ctx), last)
	})
	return err
}

// run runs an exchange, and gives the farewell that is to follow it.
func (l *Line) run(ctx context.Context, s Settings, exchange func(context.Context, Port) error) (*farewell, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := l.hold(cancel); err != nil {
		l.drop() // closed while we waited
		return nil, err
	}
	var h *held
	defer func() {
		if h == nil || h.last == nil {
			l.unhold() // else the farewell takes over
		}
	}()
	if err := l.ready(ctx, s); err != nil {
		return nil, err
	}
	h = l.lay(ctx)
	defer h.end()
	err := exchange(ctx, h)
	return h.last, err
}

// leave runs a farewell. One that fails leaves a line that cannot be trusted.
func (l *Line) leave(ctx context.Context, last *farewell) {
	ctx, interrupt := context.WithCancelCause(ctx)
	defer interrupt(nil)
	if l.hold(interrupt) != nil {
		l.drop()
		return
	}
	defer l.unhold()
	if l.medium == nil || l.medium.SetDeadline(time.Time{}) != nil {
		l.drop()
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, last.limit, os.ErrDeadlineExceeded)
	defer cancel()
	h := l.lay(ctx)
	defer h.end()
	h.began, h.heard = last.began, last.heard
	if last.say(ctx, h) != nil {
		h.Drop()
	}
}

// lay lays the line into the hands of an exchange, until its end.
func (l *Line) lay(ctx context.Context) *held {
	h := &held{line: l, medium: l.medium, ctx: ctx, began: time.Now(), heard: l.heard}
	h.stop = context.AfterFunc(ctx, h.interrupt)
	return h
}

// take waits for the line's turn.
func (l *Line) take(ctx context.Context) error {
	select {
	case <-l.closed:
		return ErrClosed
	default:
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.closed:
		return ErrClosed
	}
}

func (l *Line) release() { <-l.turn }

// hold makes cancel what Close calls.
func (l *Line) hold(cancel context.CancelCauseFunc) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isClosed {
		return ErrClosed
	}
	l.cancel = cancel
	return nil
}

func (l *Line) unhold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cancel = nil
}

// ready opens the medium when needed and brings it to s.
func (l *Line) ready(ctx context.Context, s Settings) error {
	if l.medium != nil && l.medium.Stale() {
		l.drop()
	}
	if l.medium == nil {
		m, err := l.open(ctx, s)
		if err != nil {
			return markGone(err)
		}
		l.medium, l.settings = m, s
		l.heard, l.deaf = time.Time{}, time.Time{}
		l.opened++
	}
	if l.settings != s {
		if err := l.medium.Apply(s); err != nil {
			l.drop()
			return fmt.Errorf("set %v: %w", s, markGone(err))
		}
		l.settings = s
	}
	if err := l.medium.SetDeadline(time.Time{}); err != nil {
		l.drop()
		return fmt.Errorf("set deadline: %w", err)
	}
	return nil
}

// drop closes the medium; what Close says of a port that is gone is no news.
func (l *Line) drop() {
	if l.medium != nil {
		_ = l.medium.Close()
		l.medium = nil
	}
}

// Opened counts how often the line was opened. A session that spans exchanges
// is void when it changes. Only for the holder, within Do.
func (l *Line) Opened() uint64 { return l.opened }

// Idle gives for how long no byte has passed; what was written counts as
// passing at the line's rate. It is negative while written bytes are still on
// their way. Only for the holder, within Do.
func (l *Line) Idle() time.Duration { return time.Since(l.quiet) }

// CharTime is how long a character takes on the wire, by the settings that
// hold now; a line that has none says 9600 8N1. Only for the holder, within Do.
func (l *Line) CharTime() time.Duration { return l.settings.CharTime() }

// Settle waits until nobody has the line, a farewell neither.
func (l *Line) Settle(ctx context.Context) error {
	if err := l.take(ctx); err != nil {
		return fmt.Errorf("line %s: %w", l.name, err)
	}
	l.release()
	return nil
}

// Lend waits for the holder, closes the port and keeps the line until giveBack
// is called, so that another process can use the device meanwhile.
func (l *Line) Lend(ctx context.Context) (giveBack func(), err error) {
	if err := l.take(ctx); err != nil {
		return nil, fmt.Errorf("line %s: %w", l.name, err)
	}
	l.drop()
	return sync.OnceFunc(l.release), nil
}

// Close interrupts the exchange or the farewell in progress, waits for its end
// and closes the port. A line that is lent is closed without waiting. Closing twice is no
// error.
func (l *Line) Close() error {
	l.mu.Lock()
	again, interrupt := l.isClosed, l.cancel
	l.isClosed = true
	l.mu.Unlock()
	if again {
		return nil
	}
	close(l.closed)
	defer l.endTaps()
	if interrupt != nil {
		interrupt(ErrClosed)
		l.turn <- struct{}{}
		l.farewells.Wait()
	} else {
		select {
		case l.turn <- struct{}{}:
		default:
			// Lent, and the port is closed; or taken by a Do that is about to
			// find the line closed, and drops the port itself.
			return nil
		}
	}
	defer l.release()
	l.drop()
	return nil
}
