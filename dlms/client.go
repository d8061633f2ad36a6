package dlms

import (
	"context"
	"errors"
	"fmt"

	"gridgate/dlms/security"
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
	proved    bool // and the passes of the authentication are over
	invoke    uint8
	out, in   []byte
	answer    []byte // the blocks of an answer
	gbt       gbt    // general block transfer
	names     names  // short names, by logical name
	listMax   int    // how many attributes a list may have, as learnt; 0 not learnt
	secure    secure // ciphering
	repeated  bool   // the request was sent before: see repeat
}

// NewClient gives a client without an association.
func NewClient(t Transport, o Options) *Client {
	if o.Conformance == 0 {
		o.Conformance = DefaultConformance
		if o.ShortNames {
			o.Conformance = DefaultShortNameConformance
		}
		if o.Security.ciphers() && o.Security.General || o.Security.exchanges() {
			o.Conformance |= GeneralProtection
		}
	}
	if o.MaxPDU == 0 {
		o.MaxPDU = defaultMaxPDU
	}
	if o.MaxAnswer <= 0 {
		o.MaxAnswer = defaultMaxAnswer
	}
	return &Client{transport: t, options: o}
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
	out, err := c.seal(c.out)
	if err != nil {
		return nil, err
	}
	if err := c.send(ctx, out); err != nil {
		return nil, err
	}
	for range maxStray {
		apdu, err := c.receive(ctx)
		if err == nil {
			if apdu, err = c.unseal(apdu); c.options.Repeat && errors.Is(err, security.ErrReplay) {
				continue // it was overtaken by an answer that is newer, or came twice
			}
		}
		if err != nil {
			return nil, err
		}
		switch {
		case len(apdu) == 0:
		case isAnswer(apdu):
			return apdu, nil
		case apdu[0] == tagException:
			e, err := parseException(apdu)
			if err != nil {
				return nil, err
			}
			return nil, e
		case apdu[0] == tagServiceError:
			e, err := parseServiceError(apdu)
			if err != nil {
				return nil, err
			}
			return nil, e
		case isNotification(apdu[0]):
			if c.options.Notify != nil {
				c.options.Notify(apdu)
			}
		case isStray(apdu[0]), c.options.Repeat && apdu[0] == tagAARE:
		default:
			return nil, malformed("%.16x… answers nothing that was asked", apdu)
		}
	}
	return nil, malformed("%d answers to other requests, and none to this one", maxStray)
}

// isStray says whether an APDU may come that the client did not wait for: the
// late answer to a request that was given up.
func isStray(tag byte) bool {
	switch tag {
	case tagGetResponse, tagSetResponse, tagActionResponse, tagAccessResponse, tagReadResponse, tagWriteResponse:
		return true
	}
	return false
}
