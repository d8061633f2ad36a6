package dlms

import (
	"bytes"
	"context"
	"fmt"

	"gridgate/dlms/axdr"
)

// WriteNames writes by short names, with as few requests as the model's list
// maximum and the meter's PDU allow, and gives for each nil or an AccessError.
// A value that is too long for one APDU goes in blocks. Any other error leaves
// open what was written.
func (c *Client) WriteNames(ctx context.Context, list []NamedValue) ([]error, error) {
	if err := c.may(Write, "writing by short names"); err != nil {
		return nil, err
	}
	results := make([]error, 0, len(list))
	for len(results) < len(list) {
		rest := list[len(results):]
		n := c.fit(len(rest), writeNameHead, func(i int) int { return rest[i].len() })
		some, err := c.writeNames(ctx, rest[:n])
		if err != nil {
			return results, fmt.Errorf("write of %d from %04X: %w", n, rest[0].Name, err)
		}
		results = append(results, some...)
	}
	return results, nil
}

// WriteNamesUnconfirmed writes by short names in one request that the meter does
// not answer: nobody learns what became of it.
func (c *Client) WriteNamesUnconfirmed(ctx context.Context, list []NamedValue) error {
	if err := c.may(UnconfirmedWrite, "writing unconfirmed"); err != nil {
		return err
	}
	out, err := AppendWrite(c.out[:0], list)
	if err != nil {
		return err
	}
	c.out = out
	c.out[0] = tagUnconfirmedWrite
	sealed, err := c.seal(c.out)
	if err != nil {
		return err
	}
	if limit := c.maxPDU(); limit != 0 && len(sealed) > limit {
		return fmt.Errorf("an unconfirmed write of %d octets is %w: the meter takes %d", len(sealed), ErrNotGranted, limit)
	}
	return c.transport.Send(ctx, sealed)
}

func (v *NamedValue) len() int {
	if v.Parameter == nil {
		return 3 + encodedLen(&v.Value)
	}
	return 4 + encodedLen(v.Parameter) + encodedLen(&v.Value)
}

func (c *Client) writeNames(ctx context.Context, list []NamedValue) ([]error, error) {
	out, err := AppendWrite(c.out[:0], list)
	if err != nil {
		return nil, err
	}
	c.out = out
	is := func(apdu []byte) bool { return apdu[0] == tagWriteResponse }
	const head = 3 + 4 + 1 + 1 + 3 // tag, count and choice; last and number; count, tag and length of the octets
	err = c.shortBlocks(ctx, head, is, writeNext, func(b []byte, last bool, n uint16, octets []byte) []byte {
		b = append(b, tagWriteRequest, 1, specWritePart, flag(last), byte(n>>8), byte(n), 1, byte(axdr.TagOctetString))
		return append(axdr.AppendLength(b, len(octets)), octets...)
	})
	if err != nil {
		return nil, err
	}
	apdu, err := c.exchange(ctx, is)
	if err != nil {
		return nil, err
	}
	r := reader{b: apdu}
	r.u8()
	items, err := parseItems(&r, len(list), func(r *reader) (axdr.Value, error) {
		refused, err := parseRefusal(r)
		if err == nil && refused != nil {
			err = *refused
		}
		return axdr.Value{}, err
	})
	if err != nil {
		return nil, err
	}
	results := make([]error, 0, len(items))
	for _, item := range items {
		results = append(results, item.Err)
	}
	return results, nil
}

// readInBlocks sends the read-request in c.out in blocks, where it is too long
// for one APDU, but for the last: that is in c.out then.
func (c *Client) readInBlocks(ctx context.Context) error {
	const head = 3 + 3 + 3
	is := func(apdu []byte) bool { return apdu[0] == tagReadResponse }
	return c.shortBlocks(ctx, head, is, readNext, func(b []byte, last bool, n uint16, octets []byte) []byte {
		b = append(b, tagReadRequest, 1, specReadPart, flag(last), byte(n>>8), byte(n))
		return append(axdr.AppendLength(b, len(octets)), octets...)
	})
}

// shortBlocks sends what is in c.out, from after its tag, in blocks that part
// makes, with head octets at most beside their contents, each after an answer
// that names the one before in the choice more:
//
//	tag  01  more  number 2
//
// The last is left in c.out, to be sent. What fits in one APDU stays as it is,
// and what may go in general blocks.
func (c *Client) shortBlocks(ctx context.Context, head int, is func([]byte) bool, more byte,
	part func(b []byte, last bool, n uint16, octets []byte) []byte,
) error {
	limit := c.plainMax()
	if limit == 0 || len(c.out) <= limit || c.granted.Conformance.Has(GeneralBlockTransfer) {
		return nil
	}
	room := limit - head
	if room < blockMin {
		return fmt.Errorf("a request of %d octets is %w: it takes %d", len(c.out), ErrNotGranted, c.maxPDU())
	}
	rest := bytes.Clone(c.out[1:])
	for n := uint16(1); ; n++ {
		some := rest[:min(room, len(rest))]
		rest = rest[len(some):]
		c.out = part(c.out[:0], len(rest) == 0, n, some)
		switch {
		case len(rest) == 0:
			return nil
		case n == 0xFFFF:
			return fmt.Errorf("a request of over %d blocks is %w", n, ErrNotGranted)
		}
		apdu, err := c.exchange(ctx, is)
		if err != nil {
			return err
		}
		if len(apdu) != 5 || apdu[1] != 1 || apdu[2] != more {
			return refusalOfBlock(apdu, n)
		}
		if got := uint16(apdu[3])<<8 | uint16(apdu[4]); got != n {
			return malformed("the answer to block %d is to block %d", n, got)
		}
	}
}

// refusalOfBlock gives the reason why a block of a request was not taken.
func refusalOfBlock(apdu []byte, n uint16) error {
	r := reader{b: apdu}
	r.u8()
	if count, ok := r.count(); ok && count > 0 {
		if refused, err := parseRefusal(&r); err == nil && refused != nil {
			return *refused
		}
	}
	return malformed("the answer to block %d is no answer to a block: %.16x", n, apdu)
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// AppendWrite appends a write-request:
//
//	06  n  n × (02 short name 2, or 04 short name 2 selector data)  n  n × data
func AppendWrite(b []byte, list []NamedValue) ([]byte, error) {
	b = axdr.AppendLength(append(b, tagWriteRequest), len(list))
	for _, v := range list {
		if v.Parameter == nil {
			b = append(b, specName, byte(v.Name>>8), byte(v.Name))
			continue
		}
		var err error
		if b, err = v.Parameter.AppendBinary(append(b, specParameter, byte(v.Name>>8), byte(v.Name), v.Selector)); err != nil {
			return nil, fmt.Errorf("parameter of %04X: %w", v.Name, err)
		}
	}
	b = axdr.AppendLength(b, len(list))
	for _, v := range list {
		var err error
		if b, err = v.Value.AppendBinary(b); err != nil {
			return nil, fmt.Errorf("value of %04X: %w", v.Name, err)
		}
	}
	return b, nil
}
