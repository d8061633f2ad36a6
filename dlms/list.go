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
	if most := c.ListMax(); most > 0 {
		n = min(n, most)
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
// and the model's list maximum allow, one by one where they allow no lists. See
// ReadFirst, which it calls until it has all.
//
// On an error, items are those before it.
func (c *Client) ReadList(ctx context.Context, attributes []Attribute) ([]Item, error) {
	items := make([]Item, 0, len(attributes))
	for len(items) < len(attributes) {
		some, err := c.ReadFirst(ctx, attributes[len(items):])
		if err != nil {
			return items, err
		}
		items = append(items, some...)
	}
	return items, nil
}

// ReadFirst reads the first of attributes, as many as one request may name but
// at least one, and gives an item for each of those. A list that the meter
// cannot answer is asked for in halves, down to one attribute by itself, and
// the client remembers how long lists may be. So an error is about the first
// attribute alone, or about the association.
func (c *Client) ReadFirst(ctx context.Context, attributes []Attribute) ([]Item, error) {
	if !c.open {
		return nil, ErrNotAssociated
	}
	if len(attributes) == 0 {
		return nil, nil
	}
	if c.options.ShortNames && c.names == nil {
		if _, err := c.LoadNames(ctx); err != nil {
			return nil, err
		}
	}
	for {
		n, references := c.fitAttributes(attributes)
		if references <= 1 && n <= 1 {
			break
		}
		items, err := c.readMany(ctx, attributes[:n])
		if err == nil {
			return items, nil
		}
		if !isTooMuch(err) {
			return nil, fmt.Errorf("get list of %d from %v: %w", n, attributes[0], err)
		}
		c.listMax = (references + 1) / 2
		if references <= 1 || isNotAllowed(err) {
			break
		}
	}
	v, err := c.Get(ctx, attributes[0])
	item, err := itemOf(v, err)
	if err != nil {
		return nil, err
	}
	return []Item{item}, nil
}

// ListMax is how many attributes a list may have, as the model's quirks say and
// as was learnt; 0 is as many as the PDU has room for.
func (c *Client) ListMax() int {
	if q := c.options.Quirks.ListMax; q > 0 && (c.listMax == 0 || q < c.listMax) {
		return q
	}
	return c.listMax
}

// fitAttributes gives how many of attributes go in one request, and how many
// references that takes: what has no short name is not asked for.
func (c *Client) fitAttributes(attributes []Attribute) (n, references int) {
	if !c.options.ShortNames {
		n = c.fit(len(attributes), getListHead, func(int) int { return attributeLen })
		return n, n
	}
	most := c.fit(len(attributes), readNamesHead, func(int) int { return 3 })
	for _, a := range attributes {
		if _, ok := c.names[object{a.Class, a.Code}]; ok || a.Class == ClassAssociationSN {
			if references == most {
				break
			}
			references++
		}
		n++
	}
	return n, references
}

func (c *Client) readMany(ctx context.Context, attributes []Attribute) ([]Item, error) {
	if c.options.ShortNames {
		return c.readNamesOf(ctx, attributes)
	}
	return c.getList(ctx, attributes)
}

// isTooMuch says whether an error may be about the length of a list, or come of
// one attribute in it: then the others are to be had without it.
func isTooMuch(err error) bool {
	var exception *ExceptionError
	var service *ServiceError
	var refused AccessError
	return errors.As(err, &exception) && exception.Service != DecipheringError && exception.Service != InvocationCounterError ||
		errors.As(err, &service) || errors.As(err, &refused) || errors.Is(err, ErrMalformed) || errors.Is(err, ErrTooLarge)
}

// isNotAllowed says whether an error may come of a meter that has forgotten the
// association: then it says the same of a single attribute, and halves of the
// list are asked for in vain.
func isNotAllowed(err error) bool {
	const serviceNotAllowed = 1 // state-error
	var exception *ExceptionError
	return errors.As(err, &exception) && exception.State == serviceNotAllowed
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
