package drivers

import (
	"errors"
	"fmt"

	"gridgate/dlms/security"
	"gridgate/drivers/address"
	"gridgate/drivers/cosem"
)

// SetKeys gives r the meters' keys that are in c, of a security suite. From
// then on it takes only what is encrypted or, where there is an authentication
// key, authenticated. Errors name the key and show nothing of it.
func SetKeys(r *cosem.Receiver, suite uint8, c address.Credentials) (err error) {
	r.Suite = security.Suite(suite)
	if r.Keys.Encryption, err = aesKey(r.Suite, c.EK); err != nil {
		return fmt.Errorf("ek: %w", err)
	}
	if r.Keys.Authentication, err = aesKey(r.Suite, c.AK); err != nil {
		return fmt.Errorf("ak: %w", err)
	}
	switch {
	case r.Keys.Encryption.IsZero() && r.Keys.Authentication.IsZero():
		r.Policy = security.Unprotected
	case r.Keys.Encryption.IsZero():
		return errors.New("ek: missing: ak needs the encryption key beside it")
	case r.Keys.Authentication.IsZero():
		r.Policy = security.Encrypted
	default:
		r.Policy = security.Authenticated
	}
	return nil
}
