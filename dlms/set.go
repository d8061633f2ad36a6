package dlms

import (
	"context"
	"fmt"

	"gridgate/dlms/axdr"
)

// The forms of a set-request and a set-response that are not those of a get.
const (
	setFormFirstBlock     = 2 // request: with the first block
	setFormBlock          = 3 // request: with a block
	setFormList           = 4 // request
	setFormListFirstBlock = 5 // request: a list with the first block

	setFormNext      = 2 // response: the next block of the request
	setFormLast      = 3 // response: to the last block
	setFormLastList  = 4 // response: to the last block of a list
	setFormListReply = 5 // response: to a list
)

// Assignment is an attribute and the value that it is set to.
type Assignment struct {
	Attribute Attribute
	Value     axdr.Value
}

// Set writes an attribute, in blocks where the value is too long for one APDU.
// The meter's refusal is an AccessError. Any other error leaves open whether
// the attribute was set.
func (c *Client) Set(ctx context.Context, a Attribute, v axdr.Value) error {
	return c.assign(ctx, a, v, selection{})
}

// SetRange writes the rows of a profile's buffer that are in the range, as Set.
// Few meters let anybody.
func (c *Client) SetRange(ctx context.Context, a Attribute, rows Range, v axdr.Value) error {
	return c.assign(ctx, a, v, selection{rows: &rows})
}

// SetEntries writes the rows of a profile's buffer by their number, as SetRange.
func (c *Client) SetEntries(ctx context.Context, a Attribute, rows Entries, v axdr.Value) error {
	return c.assign(ctx, a, v, selection{entries: &rows})
}

func (c *Client) assign(ctx context.Context, a Attribute, v axdr.Value, s selection) error {
	set := c.set
	if c.options.ShortNames {
		set = c.setByName
	}
	if err := set(ctx, a, v, s); err != nil {
		return fmt.Errorf("set %v: %w", a, err)
	}
	return nil
}

func (c *Client) set(ctx context.Context, a Attribute, v axdr.Value, s selection) error {
	if err := c.may(Set, "writing"); err != nil {
		return err
	}
	invoke := c.nextInvoke()
	head := appendSetHead(c.out[:0], invoke, a, s)
	out, err := v.AppendBinary(head)
	if err != nil {
		return err
	}
	c.out = out
	var data []byte
	if c.inBlocks(BlockTransferSet) {
		data = append(data, out[len(head):]...)
		c.out = c.out[:len(head)]
		c.out[1] = setFormFirstBlock
	}
	apdu, err := c.write(ctx, invoke, data)
	if err != nil {
		return err
	}
	r := reader{b: apdu}
	r.u8()
	form := r.u8()
	r.u8()
	result := AccessError(r.u8())
	switch {
	case r.short:
		return malformed("set response cut short")
	case form != formNormal && form != setFormLast:
		return malformed("set response of form %d", form)
	case result != 0:
		return result
	}
	return nil
}

// SetList writes attributes in one request, and gives for each nil or an
// AccessError. Where the association does not grant lists, or they are too
// many for one request, they are set in several.
//
// An error of SetList leaves open which attributes were set; results are as
// many as are known to have been answered.
func (c *Client) SetList(ctx context.Context, list []Assignment) (results []error, err error) {
	if err := c.may(Set, "writing"); err != nil && !c.options.ShortNames {
		return nil, err
	}
	results = make([]error, 0, len(list))
	for len(results) < len(list) {
		rest := list[len(results):]
		n := c.fit(len(rest), setListHead, func(i int) int { return attributeLen + encodedLen(&rest[i].Value) })
		if n == 1 || c.options.ShortNames {
			item, err := itemOf(axdr.Value{}, c.Set(ctx, rest[0].Attribute, rest[0].Value))
			if err != nil {
				return results, err
			}
			results = append(results, item.Err)
			continue
		}
		some, err := c.setList(ctx, rest[:n])
		if err != nil {
			return results, fmt.Errorf("set list of %d from %v: %w", n, rest[0].Attribute, err)
		}
		results = append(results, some...)
	}
	return results, nil
}

func (c *Client) setList(ctx context.Context, list []Assignment) ([]error, error) {
	invoke := c.nextInvoke()
	head, data, err := appendSetList(c.out[:0], invoke, list)
	if err != nil {
		return nil, err
	}
	c.out = head
	if limit := c.plainMax(); limit != 0 && len(head)+len(data) > limit && c.granted.Conformance.Has(BlockTransferSet) {
		c.out[1] = setFormListFirstBlock
	} else {
		c.out, data = append(c.out, data...), nil
	}
	apdu, err := c.write(ctx, invoke, data)
	if err != nil {
		return nil, err
	}
	r := reader{b: apdu}
	r.u8()
	form := r.u8()
	r.u8()
	if form != setFormListReply && form != setFormLastList {
		return nil, malformed("set response of form %d", form)
	}
	if n, ok := r.count(); !ok || n != len(list) {
		return nil, malformed("%d results for %d attributes", n, len(list))
	}
	results := make([]error, len(list))
	for i := range results {
		if e := AccessError(r.u8()); e != 0 {
			results[i] = e
		}
	}
	if r.short {
		return nil, malformed("set response cut short")
	}
	return results, nil
}

// write sends the set-request in c.out, which ends before a datablock if there
// is data, then data in blocks, and gives the answer to the last.
func (c *Client) write(ctx context.Context, invoke byte, data []byte) ([]byte, error) {
	return c.sendBlocks(ctx, data, answers(tagSetResponse, invoke), func(b []byte) []byte {
		return append(b, tagSetRequest, setFormBlock, priorityConfirmed|invoke&invokeMask)
	}, setFormNext)
}

// inBlocks says whether the request in c.out is to be sent in the blocks of its
// service: it is too long for one APDU, and the meter grants them.
func (c *Client) inBlocks(service Conformance) bool {
	limit := c.plainMax()
	return limit != 0 && len(c.out) > limit && c.granted.Conformance.Has(service)
}

// blockHead is the octets of a datablock before its contents: last, number and
// a length of up to three octets. blockMin is how many octets of contents a
// block should have room for at least.
const (
	blockHead = 8
	blockMin  = 8
)

// sendBlocks sends the request in c.out and gives its answer. If there is data,
// it goes after it in datablocks:
//
//	last 1  number 4  length  octets
//
// the first in the request itself, the others each in a request that starts as
// next says, after an answer of the form more.
func (c *Client) sendBlocks(ctx context.Context, data []byte, is func([]byte) bool,
	next func([]byte) []byte, more byte,
) ([]byte, error) {
	if len(data) == 0 {
		return c.exchange(ctx, is)
	}
	for n := uint32(1); ; n++ {
		room := c.blockRoom(len(c.out))
		if room < blockMin {
			return nil, fmt.Errorf("a request of %d octets before its data is %w: it takes %d", len(c.out), ErrNotGranted, c.maxPDU())
		}
		some := data[:min(room, len(data))]
		data = data[len(some):]
		c.out = appendBlock(c.out, len(data) == 0, n, some)
		apdu, err := c.exchange(ctx, is)
		if err != nil || len(data) == 0 {
			return apdu, err
		}
		r := reader{b: apdu}
		r.u8()
		form := r.u8()
		r.u8()
		switch {
		case form != more:
			// The meter gives up midway: a response with a result alone.
			if e := AccessError(r.u8()); e != 0 && (form == formNormal || form == setFormLast && apdu[0] == tagSetResponse) {
				return nil, e
			}
			return nil, malformed("response of form %d to block %d of several", form, n)
		case r.u32() != n || r.short:
			return nil, malformed("the meter did not acknowledge block %d: %.16x", n, apdu)
		}
		c.out = next(c.out[:0])
	}
}

// blockRoom is how many octets a datablock may have that follows head octets.
func (c *Client) blockRoom(head int) int { return c.plainMax() - head - blockHead }

// plainMax is the longest APDU that the meter takes, in octets, before it is
// ciphered; 0 is no limit.
func (c *Client) plainMax() int {
	const (
		ciphering = 21 // tag, length of three, control, counter of four, authentication tag of twelve
		general   = 10 // system title of eight and its length, and a longer length
	)
	limit := c.maxPDU()
	if limit == 0 || !c.secure.on {
		return limit
	}
	limit -= ciphering
	if c.secure.exchange != nil {
		limit -= general + c.secure.exchange.Overhead()
	}
	if c.secure.general {
		limit -= general
	}
	return max(limit, 1)
}

func appendBlock(b []byte, last bool, n uint32, octets []byte) []byte {
	b = append(b, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	if last {
		b[len(b)-5] = 1
	}
	return append(axdr.AppendLength(b, len(octets)), octets...)
}

// appendSetHead appends a set-request-normal up to the data:
//
//	C1 01 invoke-id  class 2  OBIS code 6  attribute 1  00  data
//	                                                    01 selector and parameter, with rows
func appendSetHead(b []byte, invoke uint8, a Attribute, s selection) []byte {
	b = append(b, tagSetRequest, formNormal, priorityConfirmed|invoke&invokeMask)
	return s.append(a.append(b))
}

// appendSetList appends a set-request-with-list up to the values, and gives
// these apart:
//
//	C1 04 invoke-id  n  n × (class 2  OBIS code 6  attribute 1  00)
//	n  n × data
func appendSetList(b []byte, invoke uint8, list []Assignment) (head, data []byte, err error) {
	b = append(b, tagSetRequest, setFormList, priorityConfirmed|invoke&invokeMask)
	b = axdr.AppendLength(b, len(list))
	data = axdr.AppendLength(nil, len(list))
	for i := range list {
		b = append(list[i].Attribute.append(b), 0)
		if data, err = list[i].Value.AppendBinary(data); err != nil {
			return nil, nil, fmt.Errorf("value of %v: %w", list[i].Attribute, err)
		}
	}
	return b, data, nil
}

// encodedLen is how many octets v has, 1 for none or what cannot be encoded.
func encodedLen(v *axdr.Value) int {
	if v == nil {
		return 1
	}
	b, err := v.AppendBinary(nil)
	if err != nil {
		return 1
	}
	return len(b)
}
