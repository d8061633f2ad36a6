// Package modee brings a meter with an optical head or a current loop from
// IEC 62056-21 to HDLC: the hand-over of mode E (IEC 62056-21, annex B).
//
//	300 bit/s, 7E1
//	/?!              →          who is there?
//	                 ←  /GRX5\2…  an Identification
//	ACK 2 5 2        →          HDLC, at 9600 bit/s
//	9600 bit/s, 7E1
//	                 ←  ACK 2 5 2
//	9600 bit/s, 8N1
//	SNRM             →          dlms/hdlc goes on
//
// A meter that does not know mode E may send its readout all the same: ErrReadout.
package modee

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// What meters do that do not hand over.
var (
	// ErrReadout says that the meter sends its registers as text: it has no mode E.
	ErrReadout = errors.New("the meter sends a readout: it does not know mode E")
	// ErrRefused says that the meter answered NAK.
	ErrRefused = errors.New("the meter refused mode E (NAK)")
	// ErrRate says that the meter lets nobody choose a rate: it is one of mode A, B or D.
	ErrRate = errors.New("the meter offers no rate of mode E")
	// ErrGarbled says that what the meter sends has no line in it.
	ErrGarbled = errors.New("no line comes, but other octets")
	// ErrAddress says that a device address has characters that cannot be in one.
	ErrAddress = errors.New("not a device address: want up to 32 digits and letters")
)

// Format is how octets are on the line.
type Format uint8

// The formats of a hand-over.
const (
	SevenE1 Format = iota // 7 data bits, even parity, 1 stop bit
	EightN1               // 8 data bits, no parity, 1 stop bit
)

func (f Format) String() string {
	if f == SevenE1 {
		return "7E1"
	}
	return "8N1"
}

// Stream is the line.
type Stream interface {
	io.ReadWriter
	// SetTimeout makes reads and writes give up d from now, with an error
	// whose Timeout method says true.
	SetTimeout(d time.Duration) error
}

// Config is how to sign on. The zero value asks whoever is there, at the rate
// that the meter offers.
type Config struct {
	Address string // of the device, up to 32 digits and letters; "" is any
	// Switch sets the line to a rate and format. It first waits until what was
	// written is out. nil is a line that needs none: a serial server.
	Switch func(baud int, format Format) error
	// SignOn is the rate of the sign-on, in bit/s; 0 is the 300 of the standard.
	SignOn int
	// MaxBaud is the highest rate taken, in bit/s; 0 is any.
	MaxBaud int
	// Timeout is how long an answer may take to begin; 0 is 3 s.
	Timeout time.Duration
	// InterOctet is how long the line may be silent within an answer; 0 is
	// the 1.5 s of the standard.
	InterOctet time.Duration
	// Pause is how long the meter is left alone before it is written to, and
	// after the rate has changed; 0 is the 200 ms of the standard.
	Pause time.Duration
}

// Result is what came of a hand-over.
type Result struct {
	Identification Identification
	Baud           int // the rate of the line now, in bit/s
	// Confirmed says that the meter gave the acknowledgement back. Some do not.
	Confirmed bool
}

const (
	ack = 0x06
	nak = 0x15
	stx = 0x02

	maxSkipped = 512 // octets that are passed over to find an answer
	maxAddress = 32
)

// HandOver signs on and asks for HDLC. It takes from the stream nothing that
// is HDLC's. After an error the line has whatever settings it had last.
func HandOver(ctx context.Context, s Stream, c Config) (Result, error) {
	if c.Switch == nil {
		c.Switch = func(int, Format) error { return nil }
	}
	if c.SignOn <= 0 {
		c.SignOn = 300
	}
	c.Timeout = orElse(c.Timeout, 3*time.Second)
	c.InterOctet = orElse(c.InterOctet, 1500*time.Millisecond)
	c.Pause = orElse(c.Pause, 200*time.Millisecond)
	h := handOver{Config: c, stream: s}
	r, err := h.run(ctx)
	if err != nil {
		return r, fmt.Errorf("mode E: %w", err)
	}
	return r, nil
}

func orElse(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}

type handOver struct {
	Config
	stream Stream
}

func (h *handOver) run(ctx context.Context) (r Result, err error) {
	if len(h.Address) > maxAddress || !isAddress(h.Address) {
		return r, ErrAddress
	}
	if err := h.change(h.SignOn, SevenE1); err != nil {
		return r, err
	}
	request := []byte("/?" + h.Address + "!\r\n")
	if err := h.write(ctx, request); err != nil {
		return r, err
	}
	if r.Identification, err = h.identification(ctx, request); err != nil {
		return r, fmt.Errorf("sign-on: %w", err)
	}
	rate, baud, err := h.choose(r.Identification)
	if err != nil {
		return r, err
	}
	r.Baud = baud
	if err := h.rest(ctx); err != nil {
		return r, err
	}
	choice := []byte{ack, '2', rate, '2', '\r', '\n'}
	if err := h.write(ctx, choice); err != nil {
		return r, err
	}
	if err := h.change(r.Baud, SevenE1); err != nil {
		return r, err
	}
	if r.Confirmed, err = h.confirmation(ctx, choice); err != nil {
		return r, err
	}
	if err := h.change(r.Baud, EightN1); err != nil {
		return r, err
	}
	return r, h.rest(ctx)
}

func isAddress(s string) bool {
	return strings.Trim(s, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz ") == ""
}

func (h *handOver) change(baud int, f Format) error {
	if err := h.Switch(baud, f); err != nil {
		return fmt.Errorf("switch to %d bit/s %v: %w", baud, f, err)
	}
	return nil
}

// choose gives the highest rate that the meter and the caller can do.
func (h *handOver) choose(i Identification) (rate byte, baud int, err error) {
	offered, ok := i.Baud()
	if !ok {
		return 0, 0, fmt.Errorf("%w: it is %v", ErrRate, i)
	}
	for n, baud := range slices.Backward(bauds()) {
		if baud <= offered && (h.MaxBaud <= 0 || baud <= h.MaxBaud) {
			return byte('0' + n), baud, nil
		}
	}
	return 0, 0, fmt.Errorf("%w: at most %d bit/s", ErrRate, h.MaxBaud)
}

func (h *handOver) write(ctx context.Context, b []byte) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := h.stream.SetTimeout(h.Timeout); err != nil {
		return err
	}
	_, err := h.stream.Write(b)
	return err
}

// identification waits for the line of a meter. An echo of the request, and
// what is not a line, is passed over.
func (h *handOver) identification(ctx context.Context, request []byte) (Identification, error) {
	line, wait := []byte(nil), h.Timeout
	for range maxSkipped {
		c, err := h.read(ctx, wait)
		if err != nil {
			return Identification{}, err
		}
		wait = h.InterOctet
		if c == '/' {
			line = line[:0]
		} else if len(line) == 0 {
			continue
		}
		if line = append(line, c); c != '\n' {
			continue
		}
		if bytes.Equal(line, request) {
			line, wait = line[:0], h.Timeout
			continue
		}
		return ParseIdentification(line)
	}
	return Identification{}, fmt.Errorf("%w: %q", ErrGarbled, line[:min(len(line), maxDevice)])
}

// confirmation waits for the acknowledgement to come back, behind whatever noise
// the change of the rate makes. A meter that is silent is one that does not confirm.
func (h *handOver) confirmation(ctx context.Context, choice []byte) (bool, error) {
	const leastLine = 8 // octets of text with an end: the change of the rate may cost an STX
	at, text, wait := 0, 0, h.Timeout
	for range maxSkipped {
		c, err := h.read(ctx, wait)
		switch {
		case isTimeout(err):
			return false, nil
		case err != nil:
			return false, err
		}
		wait = h.InterOctet
		switch {
		case c == choice[at]:
			if at++; at == len(choice) {
				return true, nil
			}
		case c == ack:
			at = 1
		case c == nak:
			return false, ErrRefused
		case c == stx, c == '\r' && text >= leastLine:
			return false, ErrReadout
		default:
			at = 0
		}
		if text++; c < ' ' || c > '~' {
			text = 0
		}
	}
	return false, ErrGarbled
}

// read takes one octet. What a serial server without parity gives has the
// parity bit in it.
func (h *handOver) read(ctx context.Context, d time.Duration) (byte, error) {
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	if err := h.stream.SetTimeout(d); err != nil {
		return 0, err
	}
	var b [1]byte
	if _, err := io.ReadFull(h.stream, b[:]); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return 0, err
	}
	return b[0] & 0x7F, nil
}

// rest leaves the meter alone for a while; what comes meanwhile is noise of
// the change, or the echo of what was written.
func (h *handOver) rest(ctx context.Context) error {
	for range maxSkipped {
		if _, err := h.read(ctx, h.Pause); isTimeout(err) {
			return context.Cause(ctx)
		} else if err != nil {
			return err
		}
	}
	return ErrGarbled
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
