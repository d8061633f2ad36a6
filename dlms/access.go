package dlms

import (
	"bytes"
	"context"
	"fmt"

	"gridgate/dlms/axdr"
)

// AccessKind is what an item of an access-request does: the choice of
// Access-Request-Specification without selection (IEC 62056-5-3, 9.5).
type AccessKind uint8

// The kinds.
const (
	AccessGet    AccessKind = 1
	AccessSet    AccessKind = 2
	AccessAction AccessKind = 3

	accessGetSelection AccessKind = 4
	accessSetSelection AccessKind = 5
)

// AccessItem is one of the things that an access-request asks for.
type AccessItem struct {
	Kind      AccessKind
	Attribute Attribute // or method
	// Value is what to set, or the argument of a method, null-data for none.
	Value axdr.Value
	// Rows or Entries selects the rows that are read or set, if not nil.
	Rows    *Range
	Entries *Entries
}

// AccessOptions is how an access-request is processed: bits of its
// long-invoke-id-and-priority.
type AccessOptions struct {
	// SelfDescriptive has the answer repeat what was asked for, which is
	// compared.
	SelfDescriptive bool
	// BreakOnError has the meter stop at the first item that fails; those after
	// it have an error too.
	BreakOnError bool
}

// Access reads, writes and runs in one request, in order, and gives an item for
// each: what was read or returned, or why not. The association must grant
// Access. An error leaves open what was set or run.
func (c *Client) Access(ctx context.Context, list []AccessItem) ([]Item, error) {
	return c.AccessWith(ctx, list, AccessOptions{})
}

// AccessWith is Access with options. What is too long for one APDU goes and
// comes in general blocks.
func (c *Client) AccessWith(ctx context.Context, list []AccessItem, o AccessOptions) ([]Item, error) {
	items, err := c.access(ctx, list, o)
	if err != nil {
		return nil, fmt.Errorf("access of %d: %w", len(list), err)
	}
	return items, nil
}

func (c *Client) access(ctx context.Context, list []AccessItem, o AccessOptions) ([]Item, error) {
	if err := c.may(Access, "access"); err != nil {
		return nil, err
	}
	invoke := c.nextInvoke()
	out, err := appendAccess(c.out[:0], invoke, list, o)
	if err != nil {
		return nil, err
	}
	c.out = out
	apdu, err := c.exchange(ctx, func(apdu []byte) bool {
		return apdu[0] == tagAccessResponse && (len(apdu) < 5 || apdu[4]&invokeMask == invoke)
	})
	if err != nil {
		return nil, err
	}
	return parseAccessResponse(apdu, list)
}

// The bits of long-invoke-id-and-priority beside those of the short one, in its
// first octet.
const (
	selfDescriptive = 0x10
	breakOnError    = 0x20
)

// appendAccess appends an access-request:
//
//	D9 long-invoke-id 4  00                                no date-time
//	n  n × (kind  class 2  OBIS code 6  attribute 1)       04, 05 also selector and parameter
//	n  n × data                                            null-data where there is none
func appendAccess(b []byte, invoke uint8, list []AccessItem, o AccessOptions) ([]byte, error) {
	first := byte(priorityConfirmed)
	if o.SelfDescriptive {
		first |= selfDescriptive
	}
	if o.BreakOnError {
		first |= breakOnError
	}
	b = append(b, tagAccessRequest, first, 0, 0, invoke&invokeMask, 0)
	b = appendSpecifications(b, list)
	b = axdr.AppendLength(b, len(list))
	for _, item := range list {
		var err error
		if b, err = item.Value.AppendBinary(b); err != nil {
			return nil, fmt.Errorf("value of %v: %w", item.Attribute, err)
		}
	}
	return b, nil
}

func appendSpecifications(b []byte, list []AccessItem) []byte {
	b = axdr.AppendLength(b, len(list))
	for _, item := range list {
		kind, rows := item.Kind, selection{rows: item.Rows, entries: item.Entries}
		switch {
		case rows == selection{}:
		case kind == AccessGet:
			kind = accessGetSelection
		case kind == AccessSet:
			kind = accessSetSelection
		}
		b = item.Attribute.append(append(b, byte(kind)))
		if kind == accessGetSelection || kind == accessSetSelection {
			b = rows.appendParameter(b)
		}
	}
	return b
}

// parseAccessResponse decodes the access-response to an access-request for list:
//
//	DA long-invoke-id 4  length and date-time
//	00, or 01 n  n × what was asked for, where the request wants it
//	n  n × data
//	n  n × (kind  result)
func parseAccessResponse(apdu []byte, list []AccessItem) ([]Item, error) {
	r := reader{b: apdu}
	r.u8()
	r.u32()
	r.counted()
	if r.u8() != 0 {
		asked := appendSpecifications(nil, list)
		if !bytes.Equal(r.take(len(asked)), asked) {
			return nil, malformed("access response to other questions")
		}
	}
	if n, ok := r.count(); !ok || n != len(list) {
		return nil, malformed("%d values to %d questions", n, len(list))
	}
	items := make([]Item, len(list))
	for i := range items {
		var err error
		if items[i].Value, err = r.data(); err != nil {
			return nil, fmt.Errorf("value %d of %d: %w", i+1, len(items), err)
		}
	}
	if n, ok := r.count(); !ok || n != len(list) {
		return nil, malformed("%d results to %d questions", n, len(list))
	}
	for i := range items {
		kind, result := AccessKind(r.u8()), AccessError(r.u8())
		if !r.short && kind != list[i].Kind && (kind != list[i].Kind+3 || kind > accessSetSelection) {
			return nil, malformed("result %d is of kind %d, want %d", i+1, kind, list[i].Kind)
		}
		if result != 0 {
			items[i] = Item{Err: result}
		}
	}
	if r.short {
		return nil, malformed("access response cut short")
	}
	return items, nil
}
