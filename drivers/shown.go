package drivers

import "gridgate/drivers/address"

// Place names where a meter is and as whom it is spoken with, as far as a meter
// that refuses credentials sees it: without secrets, and without what may be
// written differently for the same meter.
func Place(a address.Address) string {
	a.Password, a.Timeout, a.Model = address.Secret{}, 0, ""
	a.Baud, a.DataBits, a.Parity, a.StopBits, a.SignOn = 0, 0, 'N', 0, 0
	s := &a.Security
	s.EK, s.AK, s.SigningKey, s.MeterKey = address.Secret{}, address.Secret{}, address.Secret{}, address.Secret{}
	s.CounterHidden, s.Counter = false, [6]byte{}
	return a.String()
}

// Shown gives the secrets that a meter is shown, or that are proven to it.
func Shown(c address.Credentials) [][]byte {
	return [][]byte{c.Password, c.EK, c.AK, c.SigningKey, c.MeterKey}
}
