// Package dlmstest has meters that are not there, to test clients against:
//
//	Replay   plays a captured conversation and checks that the client sends
//	         just what was sent then
//	Meter    a server in memory, by logical names and by short ones, written
//	         from the standard and not from this project's client
//	Station  the meter's end of HDLC; several on a bus
//	ModeE    a meter with an optical head: HDLC after a sign-on
//	Line     a stream as slow as a real line
package dlmstest

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Step is one line of a captured conversation.
type Step struct {
	Line      int  // of the trace, from 1
	FromMeter bool // else from the client
	Bytes     []byte
}

// Trace is a captured conversation between a client and a meter.
type Trace []Step

// ParseTrace reads a trace. A line that starts with "TX:" has what the client
// sent, one with "RX:" what the meter sent: the time of day, a tab, and
// hexadecimal octets with spaces between them, or, of a sign-on by IEC 62056-21,
// its text, which begins with a slash, or a byte array as Python writes it. Other
// lines are notes.
func ParseTrace(r io.Reader) (Trace, error) {
	var t Trace
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		kind, rest, _ := strings.Cut(lines.Text(), ":")
		if kind != "TX" && kind != "RX" {
			continue
		}
		_, said, ok := strings.Cut(rest, "\t")
		b, err := octets(said)
		if !ok || err != nil || len(b) == 0 {
			return nil, fmt.Errorf("line %d: want %s: TIME, a tab and octets in hexadecimal", n, kind)
		}
		t = append(t, Step{Line: n, FromMeter: kind == "RX", Bytes: b})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read trace: %w", err)
	}
	if len(t) == 0 {
		return nil, errors.New("no line of the trace starts with TX: or RX:")
	}
	return t, nil
}

// octets gives what a line of a trace says was sent.
func octets(said string) ([]byte, error) {
	if said, ok := strings.CutPrefix(said, "bytearray(b'"); ok {
		text, err := strconv.Unquote(`"` + strings.ReplaceAll(strings.TrimSuffix(said, "')"), `"`, `\"`) + `"`)
		return []byte(text), err
	}
	if strings.HasPrefix(said, "/") {
		return []byte(strings.TrimRight(said, "\r\n") + "\r\n"), nil
	}
	return hex.DecodeString(strings.ReplaceAll(said, " ", ""))
}

// ErrScript says that the client left the script.
var ErrScript = errors.New("not as in the trace")

// Replay is the meter's end of a conversation that was captured: the stream
// that a client under test writes to and reads from. What it writes must be
// what was sent then, byte for byte; it then reads what the meter answered
// then. A read with nothing left to read before the client's next turn is a
// time-out. Not safe for concurrent use.
type Replay struct {
	rest Trace
	at   int // octets of the first step that are through
	err  error
}

// NewReplay gives the meter that plays t.
func NewReplay(t Trace) *Replay { return &Replay{rest: t} }

func (r *Replay) Write(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	for n := 0; n < len(p); {
		if len(r.rest) == 0 {
			return n, r.leave("after the end the client sent %x", p[n:])
		}
		step := r.rest[0]
		want := step.Bytes[r.at:]
		got := p[n:min(len(p), n+len(want))]
		if step.FromMeter || !bytes.Equal(got, want[:len(got)]) {
			return n, r.leave("line %d: the client sent\n\t%x, the trace has\n\t%x", step.Line, p, step.Bytes)
		}
		n += len(got)
		r.advance(len(got))
	}
	return len(p), nil
}

func (r *Replay) Read(p []byte) (int, error) {
	switch {
	case r.err != nil:
		return 0, r.err
	case len(r.rest) == 0:
		return 0, io.EOF
	case !r.rest[0].FromMeter:
		return 0, fmt.Errorf("line %d: the client's turn: %w", r.rest[0].Line, os.ErrDeadlineExceeded)
	}
	n := copy(p, r.rest[0].Bytes[r.at:])
	r.advance(n)
	return n, nil
}

func (r *Replay) advance(n int) {
	if r.at += n; r.at == len(r.rest[0].Bytes) {
		r.rest, r.at = r.rest[1:], 0
	}
}

func (r *Replay) leave(format string, args ...any) error {
	r.err = fmt.Errorf("%w: "+format, append([]any{ErrScript}, args...)...)
	return r.err
}

// Close says whether the client followed the script to its end.
func (r *Replay) Close() error {
	if r.err == nil && len(r.rest) > 0 {
		return r.leave("the conversation stopped before line %d, with %d lines to go", r.rest[0].Line, len(r.rest))
	}
	return r.err
}

// Serve plays t on a stream as Replay does, and says whether the client
// followed the script to its end.
func (t Trace) Serve(stream io.ReadWriter) error {
	replay := NewReplay(t)
	for len(replay.rest) > 0 {
		step := replay.rest[0]
		if step.FromMeter {
			if _, err := stream.Write(step.Bytes); err != nil {
				return fmt.Errorf("line %d: %w", step.Line, err)
			}
			replay.advance(len(step.Bytes))
			continue
		}
		got := make([]byte, len(step.Bytes))
		n, err := io.ReadFull(stream, got)
		if _, werr := replay.Write(got[:n]); werr != nil {
			return werr
		}
		if err != nil {
			return errors.Join(replay.Close(), err)
		}
	}
	return nil
}
