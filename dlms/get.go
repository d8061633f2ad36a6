package dlms

import (
	"bytes"
	"context"
	"fmt"

	"gridgate/dlms/axdr"
)

// The service APDUs (IEC 62056-5-3, 9.5) that the client sends and takes.
const (
	tagReadRequest       = 0x05
	tagWriteRequest      = 0x06
	tagReadResponse      = 0x0C
	tagWriteResponse     = 0x0D
	tagDataNotification  = 0x0F
	tagUnconfirmedWrite  = 0x16
	tagInformationReport = 0x18
	tagGetRequest        = 0xC0
	tagSetRequest        = 0xC1
	tagEventNotification = 0xC2
	tagActionRequest     = 0xC3
	tagGetResponse       = 0xC4
	tagSetResponse       = 0xC5
	tagActionResponse    = 0xC7
	tagException         = 0xD8
	tagAccessRequest     = 0xD9
	tagAccessResponse    = 0xDA
	tagGeneralBlock      = 0xE0
)

// The forms of requests and responses.
const (
	formNormal = 1
	formNext   = 2 // request: the next block
	formBlock  = 2 // response: with a block
	formList   = 3
)

const (
	// priorityConfirmed is what goes with the invoke id: high priority, confirmed.
	priorityConfirmed = 0xC0
	invokeMask        = 0x0F
)

// Get reads an attribute. The meter's refusal is an AccessError.
func (c *Client) Get(ctx context.Context, a Attribute) (axdr.Value, error) {
	return c.get(ctx, a, selection{})
}

// GetRange reads the rows of a profile's buffer that are in the range. It asks
// for them whatever the association grants: meters serve selective access
// that they do not grant. One that does not may refuse or give all rows.
func (c *Client) GetRange(ctx context.Context, a Attribute, rows Range) (axdr.Value, error) {
	return c.get(ctx, a, selection{rows: &rows})
}

// GetEntries reads the rows of a profile's buffer by their number, as GetRange.
func (c *Client) GetEntries(ctx context.Context, a Attribute, rows Entries) (axdr.Value, error) {
	return c.get(ctx, a, selection{entries: &rows})
}

func (c *Client) get(ctx context.Context, a Attribute, s selection) (axdr.Value, error) {
	read := c.read
	if c.options.ShortNames {
		read = c.readByName
	}
	v, err := read(ctx, a, s)
	if err != nil {
		return axdr.Value{}, fmt.Errorf("get %v: %w", a, err)
	}
	return v, nil
}

func (c *Client) read(ctx context.Context, a Attribute, s selection) (axdr.Value, error) {
	if err := c.may(Get, "reading"); err != nil {
		return axdr.Value{}, err
	}
	invoke := c.nextInvoke()
	c.out = appendGet(c.out[:0], invoke, a, s)
	octets, err := c.blocks(ctx, invoke, formNormal)
	if err != nil {
		return axdr.Value{}, err
	}
	return parseData(octets)
}

// blocks sends the get-request in c.out and gives the octets of its answer,
// all blocks of it: data for the normal form, results for the list. They are
// good until the next exchange.
func (c *Client) blocks(ctx context.Context, invoke, form byte) ([]byte, error) {
	c.answer = c.answer[:0]
	for n := uint32(1); ; n++ {
		apdu, err := c.exchange(ctx, c.isBlock(invoke, n))
		for tries := 0; c.again(ctx, err, tries) && c.options.InvokeID == 0; tries++ {
			if n == 1 { // the answer to the first is no answer to the second
				invoke = c.nextInvoke()
				c.out[2] = priorityConfirmed | invoke
			}
			apdu, err = c.repeat(ctx, tries, c.isBlock(invoke, n))
		}
		if err != nil {
			return nil, err
		}
		p, err := parseGetResponse(apdu)
		switch {
		case err != nil:
			return nil, err
		case !p.block && n > 1:
			return nil, malformed("after %d blocks came an answer without blocks", n-1)
		case !p.block && p.form != form:
			return nil, malformed("get response of form %d, asked for in form %d", p.form, form)
		case !p.block:
			return p.octets, nil
		}
		if err := c.gather(p, n); err != nil {
			return nil, err
		}
		if p.last {
			return c.answer, nil
		}
		c.out = appendNext(c.out[:0], invoke, n)
	}
}

// isBlock tells the answer to a get-request: all of it, or block n. Where
// requests are repeated, blocks before n may come twice. A first block that is
// not the one we have is an answer all the same, and a wrong one: the meter has
// begun anew.
func (c *Client) isBlock(invoke byte, n uint32) func([]byte) bool {
	is := answers(tagGetResponse, invoke)
	if !c.options.Repeat {
		return is
	}
	return func(apdu []byte) bool {
		if !is(apdu) {
			return false
		}
		p, err := parseGetResponse(apdu)
		return err != nil || !p.block || p.n >= n || p.n == 1 && !bytes.HasPrefix(c.answer, p.octets)
	}
}

// gather adds the block of an answer to those before, if it is number n.
func (c *Client) gather(p part, n uint32) error {
	switch {
	case p.n != n:
		return malformed("block %d came where block %d was asked for", p.n, n)
	case len(c.answer)+len(p.octets) > c.options.MaxAnswer:
		return fmt.Errorf("%w: over %d octets", ErrTooLarge, c.options.MaxAnswer)
	case len(p.octets) == 0 && !p.last:
		return malformed("block %d of several is empty", n)
	}
	c.answer = append(c.answer, p.octets...)
	return nil
}

// AppendGet appends a get-request-normal. It allocates nothing when b has room
// for 13 octets, or 64 with a selection.
//
//	C0 01 invoke-id  class 2  OBIS code 6  attribute 1  00
//	                                                    01 selector: with rows, if not nil
func AppendGet(b []byte, invoke uint8, a Attribute, rows *Range) []byte {
	return appendGet(b, invoke, a, selection{rows: rows})
}

func appendGet(b []byte, invoke uint8, a Attribute, s selection) []byte {
	b = a.append(append(b, tagGetRequest, formNormal, priorityConfirmed|invoke&invokeMask))
	return s.append(b)
}

// appendNext appends a get-request-next: C0 02 invoke-id block-number 4.
func appendNext(b []byte, invoke uint8, block uint32) []byte {
	return append(b, tagGetRequest, formNext, priorityConfirmed|invoke&invokeMask,
		byte(block>>24), byte(block>>16), byte(block>>8), byte(block))
}

// part is one get-response: all of the answer or a block of it.
type part struct {
	form   byte
	block  bool
	last   bool
	n      uint32 // number of the block
	octets []byte // encoded data or results, aliasing the APDU
}

// parseGetResponse decodes a get-response:
//
//	C4 01 invoke-id                    00 data, or 01 result
//	C4 02 invoke-id last block-number  00 length octets, or 01 result
//	C4 03 invoke-id results            count, then so many 00 data, or 01 result
//
// A refusal is an AccessError.
func parseGetResponse(apdu []byte) (part, error) {
	r := reader{b: apdu}
	r.u8()
	p := part{form: r.u8(), last: true}
	r.u8()
	switch p.form {
	case formNormal:
	case formBlock:
		p.block, p.last, p.n = true, r.u8() != 0, r.u32()
	case formList:
		if r.short {
			return part{}, malformed("get response cut short")
		}
		p.octets = r.b
		return p, nil
	default:
		return part{}, malformed("get response of form %d", p.form)
	}
	refused, err := parseRefusal(&r)
	switch {
	case err != nil:
		return part{}, err
	case refused != nil:
		return part{}, *refused
	case p.block:
		p.octets = r.counted()
	default:
		p.octets = r.b
	}
	if r.short {
		return part{}, malformed("get response cut short")
	}
	return p, nil
}

// parseRefusal takes the choice between data (nil) and a result.
func parseRefusal(r *reader) (*AccessError, error) {
	switch choice := r.u8(); {
	case r.short:
		return nil, malformed("response cut short")
	case choice == 0:
		return nil, nil
	case choice == 1:
		e := AccessError(r.u8())
		if r.short || e == 0 {
			return nil, malformed("response with neither data nor a reason")
		}
		return &e, nil
	default:
		return nil, malformed("response with choice %d", choice)
	}
}

// parseData decodes the data that an answer starts with. What follows it is
// not looked at: some meters pad their answers.
func parseData(b []byte) (axdr.Value, error) {
	v, _, err := axdr.Parse(b)
	if err != nil {
		return axdr.Value{}, malformed("%w", err)
	}
	return v, nil
}
