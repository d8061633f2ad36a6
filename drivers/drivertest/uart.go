package drivertest

import (
	"context"
	"io"
	"time"

	"gridgate/drivers/line"
)

// Heard gives what a receiver at some settings makes of characters that were sent
// at others, one right behind the other, as a UART does: it waits for the edge of a
// start bit, looks at the middle of each bit, and takes a character whose stop bit
// is not there for 00. With parity on it drops what has the wrong one, as a meter
// does. At the same settings everything is heard.
func Heard(b []byte, sent, heard line.Settings) []byte {
	if sent == heard || len(b) == 0 {
		return b
	}
	bits := levels(b, sent)
	// Where time counts in so many parts of a second, both bits are whole.
	sentBit, heardBit := heard.Baud, sent.Baud
	at := func(t int) bool { // the line's level; it is high when nobody sends
		i := t / sentBit
		return i >= len(bits) || bits[i]
	}
	var out []byte
	end := len(bits) * sentBit
	for t := 0; t < end; {
		if at(t) {
			t = (t/sentBit + 1) * sentBit // edges are between bits
			continue
		}
		if at(t + heardBit/2) {
			t += sentBit // a spike, no start bit
			continue
		}
		c, ok, took := character(heard, func(n int) bool { return at(t + heardBit/2 + n*heardBit) })
		if ok {
			out = append(out, c)
		}
		t += heardBit/2 + took*heardBit
	}
	return out
}

// levels gives the line's level bit by bit.
func levels(b []byte, s line.Settings) (bits []bool) {
	for _, c := range b {
		bits = append(bits, false)
		odd := false
		for i := range s.DataBits {
			bit := c>>i&1 == 1
			bits = append(bits, bit)
			odd = odd != bit
		}
		switch s.Parity {
		case 'E':
			bits = append(bits, odd)
		case 'O':
			bits = append(bits, !odd)
		}
		for range s.StopBits {
			bits = append(bits, true)
		}
	}
	return bits
}

// character reads one: bit 0 is the start bit. took is how many bits it has behind
// that, the first stop bit with them.
func character(s line.Settings, bit func(n int) bool) (c byte, ok bool, took int) {
	odd := false
	for i := range s.DataBits {
		if bit(1 + i) {
			c |= 1 << i
			odd = !odd
		}
	}
	took, ok = s.DataBits+1, true
	switch s.Parity {
	case 'E':
		ok = bit(took) == odd
		took++
	case 'O':
		ok = bit(took) != odd
		took++
	}
	if !bit(took) {
		return 0, true, took
	}
	return c, ok, took
}

// UART is the meter's end of a line as slow as a real one, and as deaf to other
// settings: what comes at others is garbage, and so is what it sends. Reads and
// writes may be concurrent; their waits end with an error when the context does.
type UART struct {
	ctx    context.Context //nolint:containedctx // Read and Write have none
	stream io.ReadWriter
	own    line.Settings
	far    func() line.Settings
}

// NewUART gives the end of a stream at settings of its own; far gives those of the
// other end.
func NewUART(ctx context.Context, stream io.ReadWriter, own line.Settings, far func() line.Settings) *UART {
	return &UART{ctx: ctx, stream: stream, own: own, far: far}
}

// Read gives octets once they would have come, as they are heard.
func (u *UART) Read(b []byte) (int, error) {
	for {
		n, err := u.stream.Read(b)
		far := u.far()
		if n > 0 {
			if werr := wait(u.ctx, time.Duration(n)*far.CharTime()); werr != nil {
				return 0, werr
			}
		}
		if n = copy(b, Heard(b[:n], far, u.own)); n > 0 || err != nil {
			return n, err
		}
	}
}

// piece is in what time a UART passes octets on together.
const piece = 20 * time.Millisecond

// Write passes octets on as fast as the line does, as they are heard.
func (u *UART) Write(b []byte) (int, error) {
	at := max(1, int(piece/u.own.CharTime()))
	for done := 0; done < len(b); done += at {
		part := b[done:min(len(b), done+at)]
		if err := wait(u.ctx, time.Duration(len(part))*u.own.CharTime()); err != nil {
			return done, err
		}
		if _, err := u.stream.Write(Heard(part, u.own, u.far())); err != nil {
			return done, err
		}
	}
	return len(b), nil
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
