package drivers

import (
	"fmt"

	"gridgate/dlms/security"
	"gridgate/drivers/address"
)

// Place names where a meter is and as whom it is spoken with, as far as a meter
// that refuses credentials sees it: without secrets, and without what may be
// written differently for the same meter.
func Place(a address.Address) string {
	a.Password, a.Timeout, a.Model = address.Secret{}, 0, ""
	a.Baud, a.DataBits, a.Parity, a.StopBits, a.SignOn = 0, 0, 'N', 0, 0
	a.Parallel = 0
	s := &a.Security
	s.EK, s.AK, s.SigningKey, s.MeterKey = address.Secret{}, address.Secret{}, address.Secret{}, address.Secret{}
	s.CounterHidden, s.Counter, s.Meter = false, [6]byte{}, address.Title{}
	return a.String()
}

// Shown gives the secrets that a meter is shown, or that are proven to it.
func Shown(c address.Credentials) [][]byte {
	return [][]byte{c.Password.Reveal(), c.EK.Reveal(), c.AK.Reveal(), c.SigningKey.Reveal(), c.MeterKey.Reveal()}
}

// KeyID names the encryption key of an address; counters are kept under it.
func KeyID(a address.Address, c address.Credentials) (security.KeyID, error) {
	key, err := aesKey(security.Suite(a.Security.Suite), c.EK)
	if err != nil {
		return security.KeyID{}, fmt.Errorf("ek: %w", err)
	}
	return key.ID(), nil
}
