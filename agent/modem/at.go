package modem

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Port is the modem's port in the hands of one exchange.
type Port interface {
	io.ReadWriter
	// SetDeadline limits reads and writes; past it they give an error.
	SetDeadline(t time.Time) error
	// Discard drops input that has arrived and was not read.
	Discard() error
	// Drop closes the port: what comes next is an answer to nothing.
	Drop()
}

var (
	// ErrSilent says that the modem does not answer.
	ErrSilent = errors.New("the modem does not answer")
	// ErrGarbled says that what the modem says is no answer.
	ErrGarbled = errors.New("the modem answers garbage")
)

// refusal is a command that the modem refused: ERROR, +CME ERROR: code.
type refusal struct{ command, code string }

func (e *refusal) Error() string {
	if e.code == "" {
		return fmt.Sprintf("the modem refuses %s", e.command)
	}
	return fmt.Sprintf("the modem refuses %s: %s", e.command, e.code)
}

// What bounds an answer.
const (
	answerTime = 3 * time.Second
	wakeTime   = time.Second // for the first command, and twice as long for each repetition
	drainTime  = 300 * time.Millisecond
	// slowTime is for what asks the network or the SIM (TS 27.007 names no limit;
	// makers say 5 to 10 s for a PIN).
	slowTime   = 15 * time.Second
	answerMost = 4096 // octets, echo and unsolicited lines included
	lineMost   = 512
)

// speak sends a command and gives the lines of the answer without the final OK.
// The echo, empty lines and what is unsolicited may be among them. An answer of
// ERROR is a refusal.
func speak(ctx context.Context, p Port, command string, limit time.Duration) (lines []string, err error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if err := p.Discard(); err != nil {
		return nil, err
	}
	if err := p.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(p, command+"\r"); err != nil {
		return nil, silent(ctx, err)
	}
	r := reader{p: p}
	name := command
	if at := strings.IndexByte(name, '='); at > 0 && strings.HasPrefix(name, "AT+CPIN=") {
		name = name[:at] // the rest is a secret
	}
	for {
		line, err := r.line()
		switch {
		case err != nil && errors.Is(err, ErrGarbled):
			return nil, err
		case err != nil && r.junk > 0:
			return nil, fmt.Errorf("%w: %d octets that are no text", ErrGarbled, r.junk)
		case err != nil:
			return nil, silent(ctx, err)
		}
		switch {
		case line == "" || strings.HasPrefix(line, command):
		case line == "OK":
			return lines, nil
		case line == "ERROR", line == "COMMAND NOT SUPPORT":
			return nil, &refusal{name, ""}
		case strings.HasPrefix(line, "+CME ERROR:"), strings.HasPrefix(line, "+CMS ERROR:"):
			return nil, &refusal{name, strings.TrimSpace(line[len("+CME ERROR:"):])}
		default:
			lines = append(lines, line)
		}
	}
}

// silent tells a time-out from a port that is gone and from a cancellation.
func silent(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return ErrSilent
	}
	return err
}

// reader gives lines, one at a time.
type reader struct {
	p     io.Reader
	rest  []byte
	total int
	junk  int // octets that stand in no line of an answer
}

// line gives the next line without what ends it. Octets that are no text are
// dropped and counted: a modem that starts talks at another rate first.
func (r *reader) line() (string, error) {
	var chunk [256]byte
	for {
		if at := bytes.IndexAny(r.rest, "\r\n"); at >= 0 {
			line := r.rest[:at]
			r.rest = r.rest[at+1:]
			if text, ok := printable(line); ok {
				return text, nil
			}
			r.junk += len(line)
			continue
		}
		if len(r.rest) > lineMost {
			r.junk += len(r.rest)
			r.rest = nil
		}
		if r.total >= answerMost {
			return "", fmt.Errorf("%w: over %d octets and no OK", ErrGarbled, answerMost)
		}
		n, err := r.p.Read(chunk[:])
		r.rest = append(r.rest, chunk[:n]...)
		r.total += n
		if err != nil && n == 0 {
			if len(r.rest) > 0 {
				if _, ok := printable(r.rest); !ok {
					r.junk += len(r.rest)
				}
			}
			return "", err
		}
	}
}

// printable gives a line of visible characters; others are no line of a modem.
func printable(b []byte) (string, bool) {
	if bytes.IndexFunc(b, func(c rune) bool { return c < ' ' || c == 0x7f || c == '\uFFFD' }) >= 0 {
		return "", false
	}
	return strings.TrimSpace(string(b)), true
}

// find gives what stands behind a prefix in the first line that has it and that
// parse takes.
func find(lines []string, prefix string, parse func(rest string) bool) bool {
	for _, l := range lines {
		if rest, ok := strings.CutPrefix(l, prefix); ok && parse(rest) {
			return true
		}
	}
	return false
}
