package agent

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/hex"

	"gridgate/agent/status"
	"gridgate/agent/vault"
)

// secretControl gives tools the secrets to list, set and take away, and never to
// read.
type secretControl struct{ a *Agent }

func (c secretControl) Identity(renew bool) (status.SecretIdentity, error) {
	was := c.a.recipient()
	id, err := IdentityOf(c.a.vault, renew)
	if err == nil && id.Recipient != was {
		c.a.orders.note("secret.identity", "local", id.Recipient)
		c.a.orders.publish()
	}
	return id, err
}

// IdentityOf gives the public keys of a gateway; it makes the private one where
// there is none, or another with renew.
func IdentityOf(v *vault.Vault, renew bool) (id status.SecretIdentity, err error) {
	if renew {
		id.Recipient, err = v.Renew()
	} else {
		id.Recipient, err = v.Ensure()
	}
	if err != nil {
		return id, err
	}
	p, err := v.Protection()
	if err != nil {
		id.Protection = err.Error() // the service has it, and this is not the service
		return id, nil              //nolint:nilerr // it is told, and what is known is given
	}
	id.Protection = string(p)
	key, err := v.SigningKey()
	if err != nil {
		return id, err
	}
	if public, ok := key.Public().(ed25519.PublicKey); ok {
		id.SigningKey = hex.EncodeToString(public)
	}
	return id, nil
}

// ArchiveKey gives the key that a gateway signs archives with, nil where it has
// none.
func ArchiveKey(v *vault.Vault) crypto.Signer {
	key, err := v.SigningKey()
	if err != nil {
		return nil
	}
	return key
}

func (c secretControl) List() (all []status.Secret, err error) {
	list, err := c.a.vault.List()
	for _, e := range list {
		all = append(all, status.Secret(e))
	}
	return all, err
}

func (c secretControl) Set(ctx context.Context, name string, sealed []byte) error {
	return c.a.setSecret(ctx, name, sealed)
}

func (c secretControl) Remove(ctx context.Context, name string, force bool) error {
	return c.a.removeSecret(ctx, name, force)
}
