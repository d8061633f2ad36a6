package agent

import (
	"context"
	"fmt"

	"gridgate/agent/order"
)

// isUrgent says whether a document does not wait for the end of a trial: other
// keys, signed by somebody who is trusted.
func (o *orders) isUrgent(data []byte) bool {
	o.mu.Lock()
	trust := o.trust
	o.mu.Unlock()
	if trust == nil {
		return false
	}
	d, _ := trust.Verify(data) // one that enough have not signed is told so, at once too
	return d != nil && d.Kind == order.KindTrust
}

// urgent takes the next out that does not wait; nil: there is none.
func (o *orders) urgent() *incoming {
	return o.in.first(func(in *incoming) bool { return o.isUrgent(in.data) })
}

// during carries a document out, and meanwhile takes other keys: when who has
// signed the document is not trusted any more, it is given up. turn is held.
func (o *orders) during(ctx context.Context, data []byte, carry func(context.Context)) {
	select {
	case <-o.giveUp: // of the trial before, which had ended
	default:
	}
	done := make(chan struct{})
	go func() { // it has ended when this function has
		defer close(done)
		carry(ctx)
	}()
	for {
		for in := o.urgent(); in != nil; in = o.urgent() {
			o.judge(ctx, in)
			if _, err := o.trust.Verify(data); err != nil {
				select {
				case o.giveUp <- fmt.Sprintf("who signed it is not trusted any more: %v", err):
				default: // it was told so before
				}
			}
		}
		select {
		case <-done:
			return
		case <-o.in.kick:
		}
	}
}
