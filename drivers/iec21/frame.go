package iec21

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// The control characters.
const (
	soh = 0x01
	stx = 0x02
	etx = 0x03
	eot = 0x04
	ack = 0x06
	nak = 0x15
)

const (
	maxNoise  = 1024    // octets passed over before a message
	maxBlock  = 1 << 18 // octets of a message
	maxDrain  = 1 << 18 // octets thrown away until the line is silent
	interChar = 1500 * time.Millisecond
)

// errGarbled is what every damage of a message is.
var errGarbled = meter.ErrGarbled

// frame is one message of a meter.
//
//	SOH command [STX body] ETX BCC     command: P0, B0
//	STX body ETX|EOT BCC               EOT: a partial block, more follow
//	ACK, NAK                           alone
//	body                               without a frame, ended by ! CR LF; modes A and B
type frame struct {
	kind    byte // soh, stx, ack, nak, or 0 for a body without a frame
	command string
	body    []byte
	partial bool
	arrived []arrival // when the lines of body did
}

// arrival is when the octets of a body up to end had come.
type arrival struct {
	end   int
	stamp meter.Stamp
}

// at gives when the octet at i of the body had come.
func (f *frame) at(i int) meter.Stamp {
	for _, a := range f.arrived {
		if i < a.end {
			return a.stamp
		}
	}
	if n := len(f.arrived); n > 0 {
		return f.arrived[n-1].stamp
	}
	return meter.Stamp{}
}

// conn is the line in the hands of one session.
type conn struct {
	port    line.Port
	now     meter.Now
	char    time.Duration // one character at the rate of the line
	timeout time.Duration // until an answer begins, beyond its time on the wire

	buf  [512]byte
	in   []byte        // of buf, not yet taken
	wire time.Duration // that what was written last takes on the wire

	// What a line without parity shows of the meter's parity bit.
	marked, odd int
}

// octet takes one octet. Where the port has no parity, the parity bit of the
// meter comes as the highest bit; it is checked when a message ends.
func (c *conn) octet(ctx context.Context, wait time.Duration) (byte, error) {
	if len(c.in) == 0 {
		if err := context.Cause(ctx); err != nil {
			return 0, err
		}
		if err := c.port.SetDeadline(time.Now().Add(wait)); err != nil {
			return 0, err
		}
		n, err := c.port.Read(c.buf[:])
		if err != nil {
			return 0, err
		}
		c.in = c.buf[:n]
	}
	b := c.in[0]
	c.in = c.in[1:]
	if b&0x80 != 0 {
		c.marked++
	}
	ones := 0
	for x := b; x != 0; x &= x - 1 {
		ones++
	}
	c.odd += ones & 1
	return b & 0x7F, nil
}

// parity tells whether the octets since the last reset have the even parity of
// the standard: all of them, or none shows one at all.
func (c *conn) parity() error {
	if c.marked > 0 && c.odd > 0 {
		return fmt.Errorf("%w: parity", errGarbled)
	}
	return nil
}

func (c *conn) resetParity() { c.marked, c.odd = 0, 0 }

// write sends b.
func (c *conn) write(ctx context.Context, b []byte) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	c.wire = time.Duration(len(b)) * c.char
	if err := c.port.SetDeadline(time.Now().Add(c.timeout + c.wire)); err != nil {
		return err
	}
	_, err := c.port.Write(b)
	return err
}

// pause lets d pass.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// hush waits until the line is silent for d.
func (c *conn) hush(ctx context.Context, d time.Duration) error {
	c.in = nil
	for range maxDrain {
		_, err := c.octet(ctx, d)
		c.in = nil // a read costs one turn
		switch {
		case isTimeout(err):
			c.resetParity()
			return context.Cause(ctx)
		case err != nil:
			return err
		}
	}
	return fmt.Errorf("%w: the line does not fall silent", errGarbled)
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// inside makes silence within a message damage.
func inside(err error) error {
	if isTimeout(err) {
		return fmt.Errorf("%w: it breaks off", errGarbled)
	}
	return err
}

// frame takes the next message. plain allows one without a frame. Silence
// before it is os.ErrDeadlineExceeded, any damage errGarbled. What comes before
// a message and our own, echoed by the line, is passed over.
func (c *conn) frame(ctx context.Context, plain bool) (frame, error) {
	c.resetParity()
	wait := c.timeout + c.wire
	for range maxNoise {
		b, err := c.octet(ctx, wait)
		if err != nil {
			return frame{}, err
		}
		switch {
		case b == ack || b == nak:
			return frame{kind: b}, nil
		case b == stx:
			c.resetParity()
			f := frame{kind: stx}
			return f, c.body(ctx, &f, 0)
		case b == soh:
			c.resetParity()
			f, err := c.command(ctx)
			if !errors.Is(err, errOwn) {
				return f, err
			}
		case plain && b > ' ' && b <= '~':
			f := frame{body: []byte{b}}
			return f, c.text(ctx, &f)
		}
	}
	return frame{}, fmt.Errorf("%w: noise", errGarbled)
}

// errOwn says that a message is one of ours: the line echoes.
var errOwn = errors.New("echo")

// command takes a message behind its SOH.
func (c *conn) command(ctx context.Context) (frame, error) {
	f := frame{kind: soh}
	var sum byte
	for {
		b, err := c.octet(ctx, interChar)
		if err != nil {
			return f, inside(err)
		}
		sum ^= b
		switch {
		case b == stx:
			err := c.body(ctx, &f, sum)
			if f.isOwn() {
				err = errOwn
			}
			return f, err
		case b == etx:
			return f, c.check(ctx, sum)
		case len(f.command) == 2:
			return f, fmt.Errorf("%w: no command", errGarbled)
		}
		f.command += string(rune(b))
	}
}

// isOwn says whether a command is one that only we send.
func (f *frame) isOwn() bool {
	return len(f.command) == 2 && (f.command[0] == 'R' || f.command == "P1")
}

// body takes what is behind STX up to the check character.
func (c *conn) body(ctx context.Context, f *frame, sum byte) error {
	damaged := false
	for {
		b, err := c.octet(ctx, interChar)
		if err != nil {
			return inside(err)
		}
		sum ^= b
		switch {
		case b == etx || b == eot:
			f.partial = b == eot
			f.arrived = append(f.arrived, arrival{len(f.body) + 1, c.now()})
			if err := c.check(ctx, sum); err != nil {
				return err
			}
			if damaged {
				return fmt.Errorf("%w: control characters", errGarbled)
			}
			return nil
		case b == '\n':
			f.arrived = append(f.arrived, arrival{len(f.body) + 1, c.now()})
		case b < ' ' && b != '\r' && b != '\t' || b == 0x7F:
			damaged = true
		}
		if len(f.body) == maxBlock {
			return fmt.Errorf("%w: longer than %d octets", errGarbled, maxBlock)
		}
		f.body = append(f.body, b)
	}
}

// check takes the block check character: the exclusive or of all that is
// behind SOH or STX up to ETX (IEC 62056-21, 5.8 item 8).
func (c *conn) check(ctx context.Context, sum byte) error {
	b, err := c.octet(ctx, interChar)
	switch {
	case err != nil:
		return inside(err)
	case b != sum:
		return fmt.Errorf("%w: check character %#02x, want %#02x", errGarbled, b, sum)
	}
	return c.parity()
}

// text takes a body without a frame: it ends with '!' and a line end.
func (c *conn) text(ctx context.Context, f *frame) error {
	for {
		b, err := c.octet(ctx, interChar)
		if err != nil {
			return inside(err)
		}
		n := len(f.body)
		f.body = append(f.body, b)
		switch {
		case b == '\n':
			f.arrived = append(f.arrived, arrival{n + 1, c.now()})
			if n >= 1 && f.body[n-1] == '!' || n >= 2 && f.body[n-1] == '\r' && f.body[n-2] == '!' {
				return c.parity()
			}
		case b < ' ' && b != '\r':
			return fmt.Errorf("%w: control characters", errGarbled)
		case n == maxBlock:
			return fmt.Errorf("%w: longer than %d octets", errGarbled, maxBlock)
		}
	}
}

// appendCommand appends a message of ours: SOH command [STX data] ETX BCC.
func appendCommand(b []byte, command, data string) []byte {
	start := len(b)
	b = append(append(b, soh), command...)
	if data != "" {
		b = append(append(b, stx), data...)
	}
	b = append(b, etx)
	var sum byte
	for _, c := range b[start+1:] {
		sum ^= c
	}
	return append(b, sum)
}
