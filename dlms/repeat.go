package dlms

import (
	"context"
	"fmt"

	"gridgate/dlms/security"
)

// again says whether a request that ended with err is sent once more, after it
// was repeated so often. What may
// be is for the caller to say: not what shows a password or a proof, since
// each try counts, and not what changes anything.
func (c *Client) again(ctx context.Context, err error, repeated int) bool {
	return err != nil && c.options.Repeat && repeated < max(1, int(c.options.Repeats)) && isTimeout(ctx, err)
}

// repeat is exchange for a request that was sent before. Its answer must not
// come in general blocks, unless it is authenticated as a whole: they have no
// number of the request, and those of two answers would pass for one.
func (c *Client) repeat(ctx context.Context, repeated int, isAnswer func([]byte) bool) ([]byte, error) {
	c.repeated = !c.secure.on || !c.options.Security.Policy.Covers(security.Authenticated)
	apdu, err := c.exchange(ctx, isAnswer)
	c.repeated = false
	if err != nil {
		return nil, fmt.Errorf("sent %s: %w", times(repeated+2), err)
	}
	return apdu, nil
}

func times(n int) string {
	if n == 2 {
		return "twice"
	}
	return fmt.Sprintf("%d times", n)
}
