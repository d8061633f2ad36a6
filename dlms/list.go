package dlms

import (
	"context"
	"errors"
	"fmt"

	"gridgate/dlms/axdr"
)

// Item is one of several answers in one: a value, or why there is none.
type Item struct {
	Value axdr.Value
	Err   error // an AccessError, else nil
}

// itemOf makes an item of the meter's answer; what is no answer is an error.
func itemOf(v axdr.Value, err error) (Item, error) {
	var refused AccessError
	if errors.As(err, &refused) {
		return Item{Err: refused}, nil
	}
	return Item{Value: v}, err
}

// The octets of requests with lists, with counts of one octet: before the first
// item, and of an attribute without a selection.
const (
	getListHead   = 4
	setListHead   = 5
	readNamesHead = 2
	writeNameHead = 3
	attributeLen  = 10
)

// fit gives how many of n requests, 1 at least, may go in one list: after head
// octets, each in as many octets as length says.
func (c *Client) fit(n, head int, length func(i int) int) int {
	if !c.granted.Conformance.Has(MultipleReferences) {
		return 1
	}
	for _, most := range []int{c.options.Quirks.ListMax, c.listMax} {
		if most > 0 {
			n = min(n, most)
		}
	}
	limit, octets := c.plainMax(), head
	if n > 127 {
		octets += 4 // two counts of three octets
	}
	if limit == 0 {
		return max(n, 1)
	}
	for i := range n {
		if octets += length(i); octets > limit {
			return max(i, 1)
		}
	}
	return max(n, 1)
}

// GetList reads attributes with as few requests as the model's list maximum
// and the meter's PDU allow, and gives an item for each. The association must
// grant multiple references; see ReadList.
func (c *Client) GetList(ctx context.Context, attributes []Attribute) ([]Item, error) {
	if err := c.may(Get|MultipleReferences, "reading lists"); err != nil {
		return nil, err
	}
	items := make([]Item, 0, len(attributes))
	for len(items) < len(attributes) {
		n := c.fit(len(attributes)-len(items), getListHead, func(int) int { return attributeLen })
		some, err := c.getList(ctx, attributes[len(items):len(items)+n])
		if err != nil {
			return items, fmt.Errorf("get list of %d from %v: %w", n, attributes[len(items)], err)
		}
		items = append(items, some...)
	}
	return items, nil
}

// ReadList reads attributes: as many in a request as the association, the PDU
// and the model's list maximum allow, one by one where they allow no lists. A
// list that the meter cannot answer is asked for in halves, and the client
// remembers how long lists may be.
//
// On an error, items are those before it.
func (c *Client) ReadList(ctx context.Context, attributes []Attribute) ([]Item, error) {
	if !c.open {
		return nil, ErrNotAssociated
	}
	if c.options.ShortNames {
		return c.readNamesOf(ctx, attributes)
	}
	items := make([]Item, 0, len(attributes))
	for len(items) < len(attributes) {
		rest := attributes[len(items):]
		n := c.fit(len(rest), getListHead, func(int) int { return attributeLen })
		if n == 1 {
			v, err := c.Get(ctx, rest[0])
			item, err := itemOf(v, err)
			if err != nil {
				return items, err
			}
			items = append(items, item)
			continue
		}
		some, err := c.getList(ctx, rest[:n])
		if err != nil && isTooMuch(err) {
			c.listMax = (n + 1) / 2
			continue
		}
		if err != nil {
			return items, fmt.Errorf("get list of %d from %v: %w", n, rest[0], err)
		}
		items = append(items, some...)
	}
	return items, nil
}

// isTooMuch says whether an error may be about the length of a list.
func isTooMuch(err error) bool {
	var exception *ExceptionError
	var refused AccessError
	return errors.As(err, &exception) && exception.Service != DecipheringError && exception.Service != InvocationCounterError ||
		errors.As(err, &refused)
}

func (c *Client) getList(ctx context.Context, attributes []Attribute) ([]Item, error) {
	invoke := c.nextInvoke()
	c.out = AppendGetList(c.out[:0], invoke, attributes)
	octets, err := c.blocks(ctx, invoke, formList)
	if err != nil {
		return nil, err
	}
	r := reader{b: octets}
	return parseItems(&r, len(attributes), parseDataResult)
}

// AppendGetList appends a get-request-with-list. It allocates nothing when b
// has room for 6 octets and 10 for each attribute.
//
//	C0 03 invoke-id  n  n × (class 2  OBIS code 6  attribute 1  00)
func AppendGetList(b []byte, invoke uint8, attributes []Attribute) []byte {
	b = append(b, tagGetRequest, formList, priorityConfirmed|invoke&invokeMask)
	b = axdr.AppendLength(b, len(attributes))
	for _, a := range attributes {
		b = append(a.append(b), 0)
	}
	return b
}

// parseItems takes the count of a list, which must be n, and its items.
func parseItems(r *reader, n int, parse func(*reader) (axdr.Value, error)) ([]Item, error) {
	if count, ok := r.count(); !ok || count != n {
		return nil, malformed("%d answers to %d questions", count, n)
	}
	items := make([]Item, 0, n)
	for i := range n {
		v, err := parse(r)
		item, err := itemOf(v, err)
		if err != nil {
			return nil, fmt.Errorf("answer %d of %d: %w", i+1, n, err)
		}
		items = append(items, item)
	}
	return items, nil
}

// parseDataResult takes a Get-Data-Result: 00 data, or 01 result, which is an
// AccessError.
func parseDataResult(r *reader) (axdr.Value, error) {
	refused, err := parseRefusal(r)
	switch {
	case err != nil:
		return axdr.Value{}, err
	case refused != nil:
		return axdr.Value{}, *refused
	}
	return r.data()
}
