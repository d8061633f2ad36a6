package drivers

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"gridgate/dlms/security"
	"gridgate/drivers/address"
	"gridgate/drivers/cosem"
)

// SetKeys gives r the keys that are in c, of a security suite, for meters that
// it does not know. From then on it takes of them only what is encrypted or,
// where there is an authentication key, authenticated. Errors name the key and
// show nothing of it.
func SetKeys(r *cosem.Receiver, suite uint8, c address.Credentials) (err error) {
	r.Protection, err = receiving(suite, c)
	return err
}

// Known gives a meter that is read as one that may push: by its system title or
// its serial number, from the host of its address, protected by its keys if it has any.
func Known(c Config) (cosem.Known, error) {
	k := cosem.Known{ID: c.ID, Serial: c.Serial, TimeZone: c.TimeZone, Title: security.Title(c.Address.Security.Meter)}
	if c.DLMS != nil {
		k.Events = &c.DLMS.Events
	}
	if host, _, err := net.SplitHostPort(c.Address.Line); err == nil && !c.Address.IsSerial() && !c.Address.Scheme.IsHDLC() && !c.Address.Scheme.IsPLC() {
		k.Host, _ = netip.ParseAddr(host) // a name is no address to know a sender by
	}
	var err error
	k.Protection, err = receiving(c.Address.Security.Suite, c.Secrets)
	return k, err
}

func receiving(suite uint8, c address.Credentials) (p cosem.Protection, err error) {
	p.Suite = security.Suite(suite)
	if p.Keys.Encryption, err = aesKey(p.Suite, c.EK); err != nil {
		return p, fmt.Errorf("ek: %w", err)
	}
	if p.Keys.Authentication, err = aesKey(p.Suite, c.AK); err != nil {
		return p, fmt.Errorf("ak: %w", err)
	}
	switch {
	case p.Keys.Encryption.IsZero() && p.Keys.Authentication.IsZero():
		p.Policy = security.Unprotected
	case p.Keys.Encryption.IsZero():
		return p, errors.New("ek: missing: ak needs the encryption key beside it")
	case p.Keys.Authentication.IsZero():
		p.Policy = security.Encrypted
	default:
		p.Policy = security.Authenticated
	}
	return p, nil
}
