package cosem

import (
	"context"
	"errors"
	"fmt"

	"gridgate/dlms"
)

// Envelope is what APDUs travel in within HDLC where the station at its end is
// not the meter but passes them on. It is safe for use by one meter.
type Envelope interface {
	// Seal appends an APDU to b, addressed to the meter.
	Seal(b, apdu []byte) ([]byte, error)
	// Open gives the APDU of what came, which it aliases; ok is false where it
	// is not from the meter.
	Open(b []byte) (apdu []byte, ok bool)
}

// errForeign says that all that came was from others.
var errForeign = errors.New("answers of others came, and none of the meter")

// maxForeign is how many APDUs of others are passed over.
const maxForeign = 16

// seal puts an APDU into the envelope, if there is one.
func (l *link) seal(apdu []byte) ([]byte, error) {
	if l.meter.cfg.Envelope == nil {
		return apdu, nil
	}
	return l.meter.cfg.Envelope.Seal(nil, apdu)
}

// receive gives the next APDU by HDLC, out of its envelope if there is one.
func (l *link) receive(ctx context.Context, b []byte) ([]byte, error) {
	start := len(b)
	for range maxForeign {
		all, err := l.hdlc.Receive(ctx, b)
		if err != nil || l.meter.cfg.Envelope == nil {
			return all, err
		}
		if apdu, ok := l.meter.cfg.Envelope.Open(all[start:]); ok {
			return append(all[:start], apdu...), nil
		}
		b = all[:start]
	}
	return nil, fmt.Errorf("%w: %w", dlms.ErrMalformed, errForeign)
}

// releaseBehind ends the association with a meter that does not see the end of
// the connection.
func (l *link) releaseBehind(ctx context.Context, c *dlms.Client) error {
	if l.meter.cfg.Envelope == nil || c == nil {
		return nil
	}
	return c.Release(ctx)
}

// lossy fits options to a line that loses much: requests are repeated, and long
// answers come in the blocks of their service, that have the number of the
// request, and not in general blocks, that have none.
func (m *Meter) lossy(o *dlms.Options) {
	if o.Repeats = m.cfg.Repeats; o.Repeats > 0 {
		o.Conformance = dlms.DefaultConformance &^ dlms.GeneralBlockTransfer
		if m.usesKeys() && m.cfg.Security.General {
			o.Conformance |= dlms.GeneralProtection
		}
	}
}

// mayBeTwice says whether a refusal of our proof may come of an association
// request that came twice, as it does on a line that loses much: the meter began
// anew then, and the proof was for its challenge before.
func (m *Meter) mayBeTwice(err error) bool {
	var refusal *dlms.AssociationError
	return m.cfg.Repeats > 0 && mechanism(m.cfg.Auth) > dlms.LLS && errors.Is(err, dlms.ErrAuthentication) && !errors.As(err, &refusal)
}
