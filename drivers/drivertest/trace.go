// Package drivertest has what the tests of drivers need beside a real meter:
// Record writes down what passes on a line, Playback acts it out again and
// fails when the driver writes something else or leaves a part unread, and Pty
// makes a pseudo-terminal to put a simulated meter on.
//
// Traces are text, one turn a line; TX is the client's side. A time may stand
// before the bytes. Every other line is a comment.
//
//	TX: 01 04 00 00 00 02 71 CB
//	RX: 08:40:23 01 04 04 43 66 33 34 1B 38
package drivertest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"gridgate/drivers/line"
)

// Turn is a stretch of bytes in one direction.
type Turn struct {
	Sent  bool // by the client
	Bytes []byte
}

// ParseTrace reads a trace. Lines may be up to 1 MiB long.
func ParseTrace(r io.Reader) ([]Turn, error) {
	var turns []Turn
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		side, rest, ok := strings.Cut(lines.Text(), ":")
		if !ok || side != "TX" && side != "RX" {
			continue
		}
		digits := strings.Fields(rest)
		if len(digits) > 0 && strings.Contains(digits[0], ":") {
			digits = digits[1:]
		}
		b, err := hex.DecodeString(strings.Join(digits, ""))
		if err != nil {
			return nil, fmt.Errorf("trace line %d: %w", n, err)
		}
		turns = append(turns, Turn{Sent: side == "TX", Bytes: b})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	return turns, nil
}

// Record gives a medium that passes everything on to m and writes a trace of
// it to w. What was read together stands in one line; the client knows no
// frames.
func Record(m line.Medium, w io.Writer) line.Medium { return &recorder{Medium: m, w: w} }

type recorder struct {
	line.Medium
	mu sync.Mutex
	w  io.Writer
}

func (r *recorder) note(side string, b []byte) {
	if len(b) > 0 {
		r.mu.Lock()
		defer r.mu.Unlock()
		fmt.Fprintf(r.w, "%s: % X\n", side, b)
	}
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Medium.Read(p)
	r.note("RX", p[:n])
	return n, err
}

func (r *recorder) Write(p []byte) (int, error) {
	n, err := r.Medium.Write(p)
	r.note("TX", p[:n])
	return n, err
}

// ErrScript says that the driver left the script.
var ErrScript = errors.New("not what the script has")

// Player acts out a trace as a line.Medium. A read beyond what the script has
// for now is a time-out at once, without waiting.
type Player struct {
	mu     sync.Mutex
	turns  []Turn
	at     int // turns done
	within int // bytes done of turns[at]
	err    error
	closed bool
}

// Playback gives the medium that acts out turns. Call Done at the end of the
// test.
func Playback(turns []Turn) *Player { return &Player{turns: turns} }

// Line gives a line over p. It can be opened again after it was dropped; the
// script goes on where it was.
func (p *Player) Line() *line.Line {
	return line.Of("playback", func(context.Context, line.Settings) (line.Medium, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.closed = false
		return p, nil
	})
}

// Write checks b against the script.
func (p *Player) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n := 0; n < len(b); {
		if p.at == len(p.turns) || !p.turns[p.at].Sent {
			return n, p.fail("turn %d: sent % X where the script has the meter speak or ends", p.at, b[n:])
		}
		want := p.turns[p.at].Bytes[p.within:]
		k := min(len(want), len(b)-n)
		if !bytes.Equal(want[:k], b[n:n+k]) {
			return n, p.fail("turn %d: sent % X, want % X", p.at, b[n:], want)
		}
		n += k
		p.advance(k)
	}
	return len(b), nil
}

// Read gives what the script has the meter say now.
func (p *Player) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at == len(p.turns) || p.turns[p.at].Sent {
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(b, p.turns[p.at].Bytes[p.within:])
	p.advance(n)
	return n, nil
}

func (p *Player) advance(n int) {
	p.within += n
	for p.at < len(p.turns) && p.within == len(p.turns[p.at].Bytes) {
		p.at, p.within = p.at+1, 0
	}
}

func (p *Player) fail(format string, args ...any) error {
	err := fmt.Errorf("%w: %s", ErrScript, fmt.Sprintf(format, args...))
	p.err = errors.Join(p.err, err)
	return err
}

// SetDeadline does nothing: reads never wait.
func (p *Player) SetDeadline(time.Time) error { return nil }

// Discard does nothing: what the script has was not sent before it was asked for.
func (p *Player) Discard() error { return nil }

// Apply does nothing.
func (p *Player) Apply(line.Settings) error { return nil }

// Stale is true once p was closed, so that a line opens it again.
func (p *Player) Stale() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// Close ends the use of p by a line.
func (p *Player) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return nil
}

// Done gives what went wrong: where the driver left the script, or what it
// left undone.
func (p *Player) Done() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at < len(p.turns) {
		t := p.turns[p.at]
		side := "the meter would say"
		if t.Sent {
			side = "the client was to send"
		}
		return errors.Join(p.err, fmt.Errorf("%w: %d turns left, the first at byte %d of what %s: % X",
			ErrScript, len(p.turns)-p.at, p.within, side, t.Bytes))
	}
	return p.err
}
