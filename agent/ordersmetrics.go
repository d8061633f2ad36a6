package agent

import (
	"errors"

	"gridgate/agent/order"
)

// refusal is a reason for which a document is not taken.
type refusal struct {
	name string
	err  error
}

// refusalErrors are the reasons that are told apart; what is none of them is
// "other".
func refusalErrors() []refusal {
	return []refusal{
		{"unsigned", order.ErrUnsigned},
		{"signature", order.ErrSignature},
		{"role", order.ErrRole},
		{"malformed", order.ErrMalformed},
		{"too-large", order.ErrTooLarge},
		{"kind", order.ErrKind},
		{"target", order.ErrTarget},
		{"older", order.ErrOlder},
		{"expired", order.ErrExpired},
		{"too-early", order.ErrTooEarly},
		{"agent", order.ErrAgent},
		{"threshold", order.ErrThreshold},
		{"no-trust", errNoTrust},
	}
}

// maxRefusals is how many reasons there may be, "other" included.
const maxRefusals = 16

// refusalReasons gives their names.
func refusalReasons() (names []string) {
	for _, r := range refusalErrors() {
		names = append(names, r.name)
	}
	return append(names, "other")
}

// countRefusal counts a document that was not taken.
func (o *orders) countRefusal(why error) {
	at := 0
	all := refusalErrors()
	for at < len(all) && !errors.Is(why, all[at].err) {
		at++
	}
	o.mu.Lock()
	o.counts[at]++
	o.mu.Unlock()
}

// refusedBy gives how many documents were not taken, in the order of the reasons.
func (o *orders) refusedBy() [maxRefusals]uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.counts
}
