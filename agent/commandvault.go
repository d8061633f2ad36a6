package agent

import (
	"errors"

	"gridgate/agent/vault"
	"gridgate/internal/meter"
	"gridgate/internal/secret"
)

// maxKeyFile is the longest file of meters' keys that is taken, in octets.
const maxKeyFile = 512 << 10

// meterKeys keeps the keys of meters in the vault.
type meterKeys struct{ v *vault.Vault }

func (k meterKeys) Get(name string) (meter.Secret, error) {
	s, err := k.v.Get(name)
	if errors.Is(err, vault.ErrUnknown) {
		return nil, nil
	}
	return s.Reveal(), err
}

func (k meterKeys) Set(name string, s meter.Secret) error { return k.v.Set(name, secret.Of(s)) }

func (k meterKeys) Remove(name string) error {
	if err := k.v.Remove(name); !errors.Is(err, vault.ErrUnknown) {
		return err
	}
	return nil
}

func (k meterKeys) Open(sealed []byte) (meter.Secret, error) {
	s, err := k.v.Unseal(sealed, maxKeyFile)
	return s.Reveal(), err
}
