package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"gridgate/agent/order"
	"gridgate/agent/trial"
	"gridgate/agent/vault"
	"gridgate/configs"
	"gridgate/drivers/address"
	"gridgate/internal/secret"
)

// VaultDir gives where the secrets of a gateway are whose buffer is in that
// directory.
func VaultDir(buffer string) string { return filepath.Join(buffer, "secrets") }

// StoreOf gives the secrets' names of the vault for configs.ParseOn.
func StoreOf(getenv func(string) string) configs.Store {
	return func(buffer string) ([]string, error) { return vault.Open(VaultDir(buffer), getenv).Names() }
}

// sources are where references to secrets lead.
func (a *Agent) sources() address.Sources {
	s := address.Sources{Getenv: a.opts.Getenv, ReadFile: os.ReadFile}
	if a.vault != nil {
		s.Store = a.vault.Get
	}
	return s
}

// storeWith gives the names of the secrets that there are, with those of a
// document.
func (a *Agent) storeWith(sealed map[string][]byte) configs.Store {
	return func(string) ([]string, error) {
		names, err := a.vault.Names()
		return append(names, vault.NamesOf(sealed)...), err
	}
}

// clientKey is the key of the uplink's certificate where it is in no file. It is
// read at each handshake.
type clientKey struct {
	a   *Agent
	key address.Secret
}

func (k clientKey) ClientKey() (secret.Value, error) {
	from := k.a.sources()
	from.Most = address.MaxSecret
	return k.key.Resolve(from)
}

// openVault makes the secrets ready that the agent begins with. What is wrong with
// them is told: nobody is kept from reading meters that have none.
func (a *Agent) openVault(dir string) {
	a.vault = vault.Open(VaultDir(dir), a.opts.Getenv)
	a.keys = meterKeys{a.vault}
	if err := a.vault.Sweep(); err != nil {
		a.log.Error("what a cut left of secrets cannot be removed", "error", err)
	}
}

// settleSecrets takes the secrets of a configuration that was kept right before a
// cut: it is kept in one move, its secrets in moves of their own after it.
func (o *orders) settleSecrets() {
	e, _, ok, err := o.shelf.OnTrial()
	if err != nil || !ok {
		return
	}
	kept, err := o.shelf.Kept()
	if err != nil || !slices.ContainsFunc(kept, func(k trial.Entry) bool { return k.Sum == e.Sum }) {
		return
	}
	d, err := order.Read(e.Data)
	if err == nil {
		err = o.a.vault.Take(d.Secrets)
	}
	if err != nil {
		o.a.log.Error("the secrets of the configuration that was kept last cannot be stored", "error", err)
		o.tell("secrets: those that came last are not stored; push them again: " + err.Error())
	}
}

// keepSecrets moves the secrets of a configuration that was kept to their places.
func (a *Agent) keepSecrets(take func() error, sealed map[string][]byte) {
	if err := take(); err != nil { // they count all the same, and a start takes them again
		a.log.Error("the secrets of the configuration cannot be stored", "error", err)
	}
	a.vault.Try(nil)
	a.mu.Lock()
	defer a.mu.Unlock()
	for name := range sealed {
		a.forget("secret:" + name + ": ")
	}
}

// tellSecrets tells what secrets the configuration refers to that are not there.
func (a *Agent) tellSecrets(cfg *configs.Config) {
	for _, name := range cfg.Secrets() {
		if _, err := a.vault.Get(name); err != nil {
			a.log.Error("a secret cannot be used", "secret", name, "error", err)
			a.note("secret:" + name + ": " + err.Error())
		}
	}
}

// ensureIdentity makes the key that the utility seals secrets to, on a gateway that
// takes orders.
func (o *orders) ensureIdentity() {
	if o.trust == nil {
		return
	}
	if _, err := o.a.vault.Ensure(); err != nil {
		o.a.log.Error("no secrets can be taken", "error", err)
		o.tell("secrets: " + err.Error())
	}
}

// recipient gives the public key that secrets are sealed to; empty: there is none.
func (a *Agent) recipient() string {
	r, err := a.vault.Recipient()
	if err != nil {
		return ""
	}
	return r
}

// linesOf gives the lines with a meter that uses one of the secrets.
func linesOf(cfg *configs.Config, sealed map[string][]byte) (keys []string) {
	for _, l := range cfg.Lines() {
		uses := func(s address.NamedSecret) bool {
			name, ok := s.Secret.InStore()
			_, there := sealed[name]
			return ok && there
		}
		if slices.ContainsFunc(l.Meters, func(m configs.Meter) bool { return slices.ContainsFunc(m.Address.Secrets(), uses) }) {
			keys = append(keys, l.Key)
		}
	}
	return keys
}

// secretChanges says in words which secrets a document brings.
func secretChanges(sealed map[string][]byte) (all []string) {
	for _, name := range vault.NamesOf(sealed) {
		all = append(all, fmt.Sprintf("secret %s set", name))
	}
	return all
}

// lockTurn takes the turn of an order, unless one is on trial.
func (o *orders) lockTurn(ctx context.Context) error {
	for !o.turn.TryLock() {
		if what := o.tries(); what != "" {
			return fmt.Errorf("%s is on trial; wait for its end (gridgate status)", what)
		}
		pause := time.NewTimer(busyPause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		case <-pause.C:
		}
	}
	return nil
}

// ErrSecretInUse says that a secret is used.
var ErrSecretInUse = errors.New("the configuration that runs refers to it; take the reference away first, or say -force")

// setSecret stores a secret that was sealed to the gateway's key, and has those
// begin anew who use it.
func (a *Agent) setSecret(ctx context.Context, name string, sealed []byte) error {
	return a.changeSecret(ctx, "secret.set", name, func() error { return a.vault.Put(name, sealed) })
}

// removeSecret takes a secret away.
func (a *Agent) removeSecret(ctx context.Context, name string, force bool) error {
	return a.changeSecret(ctx, "secret.removed", name, func() error {
		if !force && slices.Contains(a.config().Secrets(), name) {
			return ErrSecretInUse
		}
		return a.vault.Remove(name)
	})
}

func (a *Agent) changeSecret(ctx context.Context, what, name string, change func() error) error {
	if err := a.orders.lockTurn(ctx); err != nil {
		return err
	}
	defer a.orders.turn.Unlock()
	if err := change(); err != nil {
		return err
	}
	a.orders.note(what, "local", name)
	a.mu.Lock()
	a.forget("secret:" + name + ": ")
	a.mu.Unlock()
	return a.Apply(ctx, a.config())
}
