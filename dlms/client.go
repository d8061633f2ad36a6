package dlms

import (
	"context"
	"fmt"

	"gridgate/dlms/axdr"
)

// maxStray is how many APDUs that answer something else are passed over while
// waiting for an answer.
const maxStray = 16

// Client talks to one logical device over a Transport. Make it with NewClient.
// It is not safe for concurrent use.
type Client struct {
	transport Transport
	options   Options
	granted   Association
	open      bool
	invoke    uint8
	out, in   []byte
	answer    []byte // the blocks of an answer
}

// NewClient gives a client without an association.
func NewClient(t Transport, o Options) *Client {
	if o.Conformance == 0 {
		o.Conformance = DefaultConformance
	}
	if o.MaxPDU == 0 {
		o.MaxPDU = defaultMaxPDU
	}
	if o.MaxAnswer <= 0 {
		o.MaxAnswer = defaultMaxAnswer
	}
	return &Client{transport: t, options: o}
}

// Associate opens an association. A refusal is an *AssociationError, and
// ErrAuthentication where credentials are the reason.
func (c *Client) Associate(ctx context.Context) (Association, error) {
	c.open = false
	c.out = appendAARQ(c.out[:0], c.options)
	apdu, err := c.exchange(ctx, func(apdu []byte) bool { return apdu[0] == tagAARE })
	if err != nil {
		return Association{}, fmt.Errorf("associate: %w", err)
	}
	granted, err := parseAARE(apdu, c.options)
	if err != nil {
		return Association{}, fmt.Errorf("associate: %w", err)
	}
	c.granted, c.open = granted, true
	return granted, nil
}

// Associated says whether there is an association.
func (c *Client) Associated() bool { return c.open }

// Granted gives what the meter granted with the association.
func (c *Client) Granted() Association { return c.granted }

// Release ends the association. It is over whatever Release returns.
func (c *Client) Release(ctx context.Context) error {
	if !c.open {
		return nil
	}
	c.open = false
	c.out = appendRLRQ(c.out[:0])
	apdu, err := c.exchange(ctx, func(apdu []byte) bool { return apdu[0] == tagRLRE })
	if err == nil {
		err = parseRLRE(apdu)
	}
	if err != nil {
		return fmt.Errorf("release: %w", err)
	}
	return nil
}

// Get reads an attribute. The meter's refusal is an AccessError.
func (c *Client) Get(ctx context.Context, a Attribute) (axdr.Value, error) {
	return c.get(ctx, a, nil)
}

// GetRange reads the rows of a profile's buffer that are in the range. It asks
// for them whatever the association grants: meters serve selective access
// that they do not grant. One that does not may refuse or give all rows.
func (c *Client) GetRange(ctx context.Context, a Attribute, rows Range) (axdr.Value, error) {
	return c.get(ctx, a, &rows)
}

func (c *Client) get(ctx context.Context, a Attribute, rows *Range) (axdr.Value, error) {
	v, err := c.read(ctx, a, rows)
	if err != nil {
		return axdr.Value{}, fmt.Errorf("get %v: %w", a, err)
	}
	return v, nil
}

func (c *Client) read(ctx context.Context, a Attribute, rows *Range) (axdr.Value, error) {
	if err := c.may(Get, "reading"); err != nil {
		return axdr.Value{}, err
	}
	invoke := c.nextInvoke()
	c.out = AppendGet(c.out[:0], invoke, a, rows)
	c.answer = c.answer[:0]
	for n := uint32(1); ; n++ {
		apdu, err := c.exchange(ctx, answers(tagGetResponse, invoke))
		if err != nil {
			return axdr.Value{}, err
		}
		p, err := parseGetResponse(apdu)
		switch {
		case err != nil:
			return axdr.Value{}, err
		case !p.block && n == 1:
			return parseData(p.octets)
		case !p.block:
			return axdr.Value{}, malformed("after %d blocks came an answer without blocks", n-1)
		case p.n != n:
			return axdr.Value{}, malformed("block %d came where block %d was asked for", p.n, n)
		case len(c.answer)+len(p.octets) > c.options.MaxAnswer:
			return axdr.Value{}, fmt.Errorf("%w: over %d octets", ErrTooLarge, c.options.MaxAnswer)
		case len(p.octets) == 0 && !p.last:
			return axdr.Value{}, malformed("block %d of several is empty", n)
		}
		c.answer = append(c.answer, p.octets...)
		if p.last {
			return parseData(c.answer)
		}
		c.out = appendNext(c.out[:0], invoke, n)
	}
}

// Action runs a method of an object, with an argument unless it is nil, and
// gives what the method returns, null-data for nothing. The meter's refusal is
// an AccessError.
//
// It is sent whatever the association grants. An error that is not the meter's
// refusal leaves open whether the method ran.
func (c *Client) Action(ctx context.Context, method Attribute, argument *axdr.Value) (axdr.Value, error) {
	v, err := c.act(ctx, method, argument)
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
	apdu, err := c.exchange(ctx, answers(tagActionResponse, invoke))
	if err != nil {
		return axdr.Value{}, err
	}
	return parseActionResponse(apdu)
}

// may says whether the association lets the client do that.
func (c *Client) may(service Conformance, what string) error {
	if !c.open {
		return ErrNotAssociated
	}
	if !c.granted.Conformance.Has(service) {
		return fmt.Errorf("%s is %w (conformance %06X)", what, ErrNotGranted, uint32(c.granted.Conformance))
	}
	return nil
}

func (c *Client) nextInvoke() uint8 {
	if c.options.InvokeID != 0 {
		return c.options.InvokeID & invokeMask
	}
	c.invoke = c.invoke%15 + 1
	return c.invoke
}

// answers tells the answer to a request from one to another request.
func answers(tag byte, invoke uint8) func([]byte) bool {
	return func(apdu []byte) bool {
		return apdu[0] == tag && (len(apdu) < 3 || apdu[2]&invokeMask == invoke)
	}
}

// exchange sends what is in c.out and gives the APDU that is its answer; it is
// good until the next exchange. Notifications and answers that come late to
// requests before are passed over. Any APDU that cannot be the answer, and
// any that is empty, is malformed.
func (c *Client) exchange(ctx context.Context, isAnswer func([]byte) bool) ([]byte, error) {
	if c.open && c.granted.MaxPDU != 0 && len(c.out) > int(c.granted.MaxPDU) {
		return nil, fmt.Errorf("a request of %d octets is %w: it takes %d", len(c.out), ErrNotGranted, c.granted.MaxPDU)
	}
	if err := c.transport.Send(ctx, c.out); err != nil {
		return nil, err
	}
	for range maxStray {
		apdu, err := c.transport.Receive(ctx, c.in[:0])
		if err != nil {
			return nil, err
		}
		if len(apdu) == 0 {
			return nil, malformed("an empty apdu")
		}
		c.in = apdu
		switch {
		case isAnswer(apdu):
			return apdu, nil
		case apdu[0] == tagException:
			if len(apdu) < 3 {
				return nil, malformed("exception response cut short: %x", apdu)
			}
			return nil, &ExceptionError{State: apdu[1], Service: apdu[2]}
		case apdu[0] == tagServiceError:
			e, err := parseServiceError(apdu)
			if err != nil {
				return nil, err
			}
			return nil, e
		case isStray(apdu[0]):
		default:
			return nil, malformed("%.16x… answers nothing that was asked", apdu)
		}
	}
	return nil, malformed("%d answers to other requests, and none to this one", maxStray)
}

// isStray says whether an APDU may come that the client did not wait for: a
// notification, or the late answer to a request that was given up.
func isStray(tag byte) bool {
	switch tag {
	case tagDataNotification, tagEventNotification, tagGetResponse, tagActionResponse:
		return true
	}
	return false
}
