package dlms

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"gridgate/dlms/axdr"
)

// General block transfer (IEC 62056-5-3, 9.5, General-Block-Transfer) carries
// any APDU, ciphered or not, in blocks:
//
//	E0  control        80 the last block, 40 more follow without waiting,
//	                   lower 6 bits: so many blocks its sender takes in a row
//	    number 2       of the block, from 1; of one that only acknowledges it
//	                   is 0 or the number acknowledged, as makes differ
//	    acknowledged 2 the last block that came in order
//	    length octets  none in a block that only acknowledges
const (
	blockLast      = 0x80
	blockStreaming = 0x40
	blockWindow    = 0x3F
)

type block struct {
	last, streaming bool
	window          uint8
	n, ack          uint16
	octets          []byte
}

func (k block) append(b []byte) []byte {
	control := k.window & blockWindow
	if k.last {
		control |= blockLast
	}
	if k.streaming {
		control |= blockStreaming
	}
	b = append(b, tagGeneralBlock, control, byte(k.n>>8), byte(k.n), byte(k.ack>>8), byte(k.ack))
	return append(axdr.AppendLength(b, len(k.octets)), k.octets...)
}

// parseBlock decodes a block; its octets alias apdu.
func parseBlock(apdu []byte) (block, error) {
	r := reader{b: apdu}
	r.u8()
	control := r.u8()
	k := block{
		last: control&blockLast != 0, streaming: control&blockStreaming != 0, window: control & blockWindow,
		n: r.u16(), ack: r.u16(), octets: r.counted(),
	}
	if r.short {
		return block{}, malformed("general block cut short: %.16x", apdu)
	}
	return k, nil
}

// Assembler puts the blocks of general block transfer together. The zero value
// takes one block at a time and APDUs of up to 1 MiB.
type Assembler struct {
	Window uint8 // how many blocks may come in a row, 1 to 63; 0 is 1
	Max    int   // how long an APDU may become, in octets; 0 is 1 MiB

	whole []byte
	got   uint16 // the last block that came in order
	since uint8  // blocks since the last acknowledgement
}

// Add takes an APDU. An APDU that is no block is given back as whole; of blocks
// whole is nil until the last has come, then what they make up, good until the
// next call. ack, if not nil, is to be sent before the next block comes, unless
// the sender waits for none, as of a push. Blocks that come twice are passed
// over, and those after one that was lost are asked for again.
func (a *Assembler) Add(apdu []byte) (whole, ack []byte, err error) {
	if len(apdu) == 0 {
		return nil, nil, malformed("an empty apdu")
	}
	if apdu[0] != tagGeneralBlock {
		return apdu, nil, nil
	}
	k, err := parseBlock(apdu)
	if err != nil {
		return nil, nil, err
	}
	return a.add(k)
}

func (a *Assembler) add(k block) (whole, ack []byte, err error) {
	if k.n == 1 && a.got > 0 && !bytes.HasPrefix(a.whole, k.octets) {
		a.Reset() // the sender has begun anew
	}
	limit := a.Max
	if limit <= 0 {
		limit = defaultMaxAnswer
	}
	switch {
	case len(k.octets) == 0 && (!k.last || k.n != a.got+1 || a.got == 0):
		return nil, nil, nil // acknowledges only
	case k.n != a.got+1:
		a.since++
		return nil, a.ackIfDue(k), nil
	case len(a.whole)+len(k.octets) > limit:
		return nil, nil, fmt.Errorf("%w: over %d octets", ErrTooLarge, limit)
	case k.n == 0xFFFF && !k.last:
		return nil, nil, malformed("over %d general blocks", k.n)
	}
	a.whole = append(a.whole, k.octets...)
	a.got = k.n
	a.since++
	if !k.last {
		return nil, a.ackIfDue(k), nil
	}
	whole = a.whole
	a.Reset()
	if len(whole) == 0 {
		return nil, nil, malformed("an empty apdu")
	}
	return whole, nil, nil
}

// ackIfDue gives the acknowledgement where the sender of k waits for one: it
// says so, or has sent as many blocks as it may.
func (a *Assembler) ackIfDue(k block) []byte {
	if k.streaming && !k.last && a.since < max(a.Window, 1) {
		return nil
	}
	return a.Ack()
}

// Started says whether blocks have come, and not yet the last.
func (a *Assembler) Started() bool { return a.got > 0 }

// Ack gives the block that acknowledges what has come in order; the sender
// goes on after it. Send it also when blocks stay away.
func (a *Assembler) Ack() []byte {
	a.since = 0
	return block{last: true, window: min(max(a.Window, 1), blockWindow), ack: a.got}.append(nil)
}

// Reset forgets the blocks that have come.
func (a *Assembler) Reset() { a.whole, a.got, a.since = a.whole[:0], 0, 0 }

// maxResend is how often in a row blocks are sent or asked for again.
const maxResend = 3

// gbt is the state of general block transfer in both directions.
type gbt struct {
	in      Assembler
	waiting []byte // an APDU that came while blocks were sent

	out    []byte // what goes to the meter in blocks
	size   int    // octets of a block; 0 when there is nothing in blocks
	window int    // blocks that the meter takes in a row
}

// count is how many blocks go to the meter.
func (g *gbt) count() int { return (len(g.out) + g.size - 1) / g.size }

// send sends an APDU whole, or in blocks where it is too long for the meter.
func (c *Client) send(ctx context.Context, apdu []byte) error {
	g := &c.gbt
	g.in.Window, g.in.Max = c.options.Window, c.options.MaxAnswer
	g.in.Reset()
	g.waiting, g.size = nil, 0
	limit := c.maxPDU()
	if (limit == 0 || len(apdu) <= limit) && !c.asksInBlocks(apdu) {
		return c.transport.Send(ctx, apdu)
	}
	const head = 9 // with a length of three octets
	if limit == 0 {
		limit = head + len(apdu)
	}
	if !c.granted.Conformance.Has(GeneralBlockTransfer) || limit <= head {
		return fmt.Errorf("a request of %d octets is %w: it takes %d", len(apdu), ErrNotGranted, limit)
	}
	g.out, g.size, g.window = append(g.out[:0], apdu...), limit-head, 1
	if n := g.count(); n > 0xFFFF {
		return fmt.Errorf("a request of %d blocks is %w", n, ErrNotGranted)
	}
	for sent, tries := 0, 0; ; {
		upto, err := c.sendWindow(ctx, sent)
		if err != nil || upto == g.count() {
			return err
		}
		apdu, err := c.transport.Receive(ctx, c.in[:0])
		switch {
		case err != nil && isTimeout(ctx, err) && tries < maxResend:
			tries++
			continue
		case err != nil:
			return err
		}
		c.in = apdu
		if len(apdu) == 0 || apdu[0] != tagGeneralBlock {
			g.waiting = apdu
			return nil
		}
		k, err := parseBlock(apdu)
		if err != nil {
			return err
		}
		if tries++; int(k.ack) > sent && int(k.ack) <= upto {
			sent, tries = int(k.ack), 0
		}
		if tries > maxResend {
			return malformed("the meter takes no block after %d of %d", sent, g.count())
		}
		g.window = max(1, int(k.window))
	}
}

// asksInBlocks says whether a request goes in general blocks though it is short.
func (c *Client) asksInBlocks(apdu []byte) bool {
	return c.options.GeneralBlocks && c.proved && c.granted.Conformance.Has(GeneralBlockTransfer) &&
		len(apdu) > 0 && apdu[0] != tagRLRQ && apdu[0] != tagAARQ
}

// sendWindow sends the blocks after so many, as many as the meter takes in a
// row, and gives the number of the last.
func (c *Client) sendWindow(ctx context.Context, sent int) (upto int, err error) {
	g := &c.gbt
	upto = min(sent+g.window, g.count())
	for n := sent + 1; n <= upto; n++ {
		k := block{
			last: n == g.count(), streaming: n < upto, window: max(c.options.Window, 1), n: uint16(n),
			octets: g.out[(n-1)*g.size : min(n*g.size, len(g.out))],
		}
		if err := c.transport.Send(ctx, k.append(nil)); err != nil {
			return 0, err
		}
	}
	return upto, nil
}

// receive waits for the next APDU, all blocks of it; it is good until the next
// call.
func (c *Client) receive(ctx context.Context) ([]byte, error) {
	g := &c.gbt
	for tries := 0; tries <= maxResend+maxStray; {
		apdu, err := c.next(ctx)
		switch {
		case err != nil && g.in.Started() && isTimeout(ctx, err) && tries < maxResend:
			tries++
			if err := c.transport.Send(ctx, g.in.Ack()); err != nil {
				return nil, err
			}
			continue
		case err != nil:
			return nil, err
		case len(apdu) == 0:
			return nil, malformed("an empty apdu")
		case apdu[0] != tagGeneralBlock:
			return apdu, nil
		case c.repeated:
			return nil, malformed("general blocks, that may be of either answer")
		}
		k, err := parseBlock(apdu)
		if err != nil {
			return nil, err
		}
		if len(k.octets) == 0 && !g.in.Started() && g.size > 0 && int(k.ack) < g.count() {
			if _, err := c.sendWindow(ctx, int(k.ack)); err != nil { // blocks were lost on their way
				return nil, err
			}
		}
		before := g.in.got
		whole, ack, err := g.in.add(k)
		if err != nil || whole != nil {
			return whole, err
		}
		if ack != nil {
			if err := c.transport.Send(ctx, ack); err != nil {
				return nil, err
			}
		}
		switch {
		case g.in.got > before:
			tries = 0
		case ack != nil || len(k.octets) == 0: // what is streamed behind a lost block is one try in all
			tries++
		}
	}
	return nil, malformed("general blocks that lead nowhere, after block %d", g.in.got)
}

// next gives the APDU that came while blocks were sent, or waits for one.
func (c *Client) next(ctx context.Context) ([]byte, error) {
	if apdu := c.gbt.waiting; apdu != nil {
		c.gbt.waiting = nil
		return apdu, nil
	}
	apdu, err := c.transport.Receive(ctx, c.in[:0])
	if err == nil {
		c.in = apdu
	}
	return apdu, err
}

// isTimeout says whether nothing came in time, so that it is worth asking again.
func isTimeout(ctx context.Context, err error) bool {
	var timeout interface{ Timeout() bool }
	return ctx.Err() == nil && errors.As(err, &timeout) && timeout.Timeout()
}

// maxPDU is the longest APDU that the meter takes, in octets; 0 is no limit.
func (c *Client) maxPDU() int {
	if !c.open {
		return 0
	}
	limit := int(c.granted.MaxPDU)
	if q := int(c.options.Quirks.MaxPDU); q != 0 && (limit == 0 || q < limit) {
		limit = q
	}
	return limit
}
