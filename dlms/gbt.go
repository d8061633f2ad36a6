package dlms

import (
	"context"
	"fmt"
)

type gbt struct{}

// send sends an APDU whole, or in blocks where it is too long for the meter.
func (c *Client) send(ctx context.Context, apdu []byte) error {
	if limit := c.maxPDU(); limit != 0 && len(apdu) > limit {
		return fmt.Errorf("a request of %d octets is %w: it takes %d", len(apdu), ErrNotGranted, limit)
	}
	return c.transport.Send(ctx, apdu)
}

// receive waits for the next APDU; it is good until the next call.
func (c *Client) receive(ctx context.Context) ([]byte, error) {
	apdu, err := c.transport.Receive(ctx, c.in[:0])
	if err != nil {
		return nil, err
	}
	if len(apdu) == 0 {
		return nil, malformed("an empty apdu")
	}
	c.in = apdu
	return apdu, nil
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
