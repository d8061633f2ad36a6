package dlms

import (
	"context"
	"fmt"

	"gridgate/dlms/axdr"
)

// The forms of an action-request and an action-response that are not those of
// a get.
const (
	actionFormList           = 3
	actionFormFirstBlock     = 4 // request: with the first block
	actionFormListFirstBlock = 5 // request: a list with the first block
	actionFormBlock          = 6 // request: with a block
	actionFormNext           = 4 // response: the next block of the request
)

// Call is a method and the argument to run it with, nil for none.
type Call struct {
	Method   Attribute
	Argument *axdr.Value
}

// Action runs a method of an object, with an argument unless it is nil, and
// gives what the method returns, null-data for nothing. The meter's refusal is
// an AccessError. An argument that is too long for one APDU goes in blocks.
//
// It is sent whatever the association grants. An error that is not the meter's
// refusal leaves open whether the method ran.
func (c *Client) Action(ctx context.Context, method Attribute, argument *axdr.Value) (axdr.Value, error) {
	act := c.act
	if c.options.ShortNames {
		act = c.actByName
	}
	v, err := act(ctx, method, argument)
	if err != nil {
		return axdr.Value{}, fmt.Errorf("action %v: %w", method, err)
	}
	return v, nil
}

func (c *Client) act(ctx context.Context, method Attribute, argument *axdr.Value) (axdr.Value, error) {
	if !c.open {
		return axdr.Value{}, ErrNotAssociated
	}
	invoke := c.nextInvoke()
	out, err := AppendAction(c.out[:0], invoke, method, argument)
	if err != nil {
		return axdr.Value{}, err
	}
	c.out = out
	var data []byte
	if argument != nil && c.inBlocks(BlockTransferAction) {
		const head = 3 + 9 + 1 // up to the presence of the argument
		data = append(data, out[head:]...)
		c.out = method.append(append(c.out[:0], tagActionRequest, actionFormFirstBlock, priorityConfirmed|invoke&invokeMask))
	}
	octets, form, err := c.run(ctx, invoke, data)
	if err != nil {
		return axdr.Value{}, err
	}
	if form == formBlock {
		return parseBlocksOfAction(octets)
	}
	if form != formNormal {
		return axdr.Value{}, malformed("action response of form %d", form)
	}
	if len(octets) == 1 && octets[0] == 0 { // some meters leave out that nothing is returned
		return axdr.Value{}, nil
	}
	r := reader{b: octets}
	return parseActionResult(&r)
}

// ActionList runs methods in one request, in order, and gives what each
// returns. Where the association does not grant lists, or they are too many
// for one request, they run in several.
//
// An error of ActionList leaves open which of the methods ran; items are as
// many as are known to have been answered.
func (c *Client) ActionList(ctx context.Context, calls []Call) ([]Item, error) {
	if !c.open {
		return nil, ErrNotAssociated
	}
	items := make([]Item, 0, len(calls))
	for len(items) < len(calls) {
		n := c.fit(len(calls)-len(items), setListHead, func(i int) int {
			return 10 + encodedLen(calls[len(items)+i].Argument)
		})
		if n == 1 || c.options.ShortNames {
			call := calls[len(items)]
			v, err := c.Action(ctx, call.Method, call.Argument)
			item, err := itemOf(v, err)
			if err != nil {
				return items, err
			}
			items = append(items, item)
			continue
		}
		some, err := c.actList(ctx, calls[len(items):len(items)+n])
		if err != nil {
			return items, fmt.Errorf("action list of %d: %w", n, err)
		}
		items = append(items, some...)
	}
	return items, nil
}

func (c *Client) actList(ctx context.Context, calls []Call) ([]Item, error) {
	invoke := c.nextInvoke()
	head, data, err := appendActionList(c.out[:0], invoke, calls)
	if err != nil {
		return nil, err
	}
	c.out = head
	if limit := c.plainMax(); limit != 0 && len(head)+len(data) > limit && c.granted.Conformance.Has(BlockTransferAction) {
		c.out[1] = actionFormListFirstBlock
	} else {
		c.out, data = append(c.out, data...), nil
	}
	octets, form, err := c.run(ctx, invoke, data)
	if err != nil {
		return nil, err
	}
	if form != actionFormList && form != formBlock {
		return nil, malformed("action response of form %d", form)
	}
	r := reader{b: octets}
	if n, ok := r.count(); !ok || n != len(calls) {
		return nil, malformed("%d results for %d methods", n, len(calls))
	}
	items := make([]Item, 0, len(calls))
	for range calls {
		v, err := parseActionResult(&r)
		item, err := itemOf(v, err)
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}

// run sends the action-request in c.out, which ends before a datablock if
// there is data, then data in blocks, and gives the octets of the answer, all
// blocks of it, and its form.
func (c *Client) run(ctx context.Context, invoke byte, data []byte) (octets []byte, form byte, err error) {
	is := answers(tagActionResponse, invoke)
	apdu, err := c.sendBlocks(ctx, data, is, func(b []byte) []byte {
		return append(b, tagActionRequest, actionFormBlock, priorityConfirmed|invoke&invokeMask)
	}, actionFormNext)
	c.answer = c.answer[:0]
	for n := uint32(1); ; n++ {
		if err != nil {
			return nil, 0, err
		}
		r := reader{b: apdu}
		r.u8()
		form = r.u8()
		r.u8()
		switch {
		case r.short:
			return nil, 0, malformed("action response cut short")
		case form != formBlock && n > 1:
			return nil, 0, malformed("after %d blocks came an answer without blocks", n-1)
		case form != formBlock:
			return r.b, form, nil
		}
		p := part{last: r.u8() != 0, n: r.u32(), octets: r.counted()}
		if r.short {
			return nil, 0, malformed("action response cut short")
		}
		if err := c.gather(p, n); err != nil {
			return nil, 0, err
		}
		if p.last {
			return c.answer, form, nil
		}
		c.out = append(c.out[:0], tagActionRequest, formNext, priorityConfirmed|invoke&invokeMask,
			byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		apdu, err = c.exchange(ctx, is)
	}
}

// AppendAction appends an action-request-normal:
//
//	C3 01 invoke-id  class 2  OBIS code 6  method 1  00
//	                                                 01 and the argument, if not nil
func AppendAction(b []byte, invoke uint8, method Attribute, argument *axdr.Value) ([]byte, error) {
	b = append(b, tagActionRequest, formNormal, priorityConfirmed|invoke&invokeMask)
	b = method.append(b)
	if argument == nil {
		return append(b, 0), nil
	}
	return argument.AppendBinary(append(b, 1))
}

// appendActionList appends an action-request-with-list up to the arguments,
// and gives these apart:
//
//	C3 03 invoke-id  n  n × (class 2  OBIS code 6  method 1)
//	n  n × argument, null-data for none
func appendActionList(b []byte, invoke uint8, calls []Call) (head, data []byte, err error) {
	b = append(b, tagActionRequest, actionFormList, priorityConfirmed|invoke&invokeMask)
	b = axdr.AppendLength(b, len(calls))
	data = axdr.AppendLength(nil, len(calls))
	for _, call := range calls {
		b = call.Method.append(b)
		if call.Argument == nil {
			data = append(data, byte(axdr.TagNull))
			continue
		}
		if data, err = call.Argument.AppendBinary(data); err != nil {
			return nil, nil, fmt.Errorf("argument of %v: %w", call.Method, err)
		}
	}
	return b, data, nil
}

// parseActionResult takes an Action-Response-With-Optional-Data:
//
//	result  00, or 01 and what the method returns: 00 data, or 01 result
//
// A refusal is an AccessError. A method that returns nothing gives null-data.
func parseActionResult(r *reader) (axdr.Value, error) {
	result := AccessError(r.u8())
	returns := (result == 0 || len(r.b) > 0) && r.u8() != 0
	if r.short {
		return axdr.Value{}, malformed("action response cut short")
	}
	var v axdr.Value
	var err error
	if returns {
		v, err = parseDataResult(r)
	}
	if result != 0 {
		return axdr.Value{}, result
	}
	return v, err
}

// parseBlocksOfAction decodes what the blocks of an answer to an action-request
// make up. By the standard that is result, 01, 00 and data. Some meters leave
// out the result, others all but the data; none of the three can be taken for
// another, because data of an octet or two does not come in blocks.
func parseBlocksOfAction(b []byte) (axdr.Value, error) {
	r := reader{b: b}
	switch {
	case len(b) > 3 && b[0] == 0 && b[1] == 1:
		return parseActionResult(&r)
	case len(b) > 2 && b[0] == 1 && b[1] <= 1:
		r.u8()
		return parseDataResult(&r)
	case len(b) <= 2:
		return parseActionResult(&r)
	}
	return parseData(b)
}
