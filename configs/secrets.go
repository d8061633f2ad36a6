package configs

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"gridgate/drivers/address"
)

// Store gives the names of the secrets that a gateway has in its store; buffer is
// the directory of its buffer. With an error it says nothing of which there are.
type Store func(buffer string) (names []string, err error)

// storeRef is a reference to a secret in the store, and where it stands.
type storeRef struct {
	at, key string
	node    *yaml.Node
	name    string
}

// refer notes a reference to a secret, if it is one to the store.
func (r *reader) refer(at, key string, n *yaml.Node, s address.Secret) {
	if name, ok := s.InStore(); ok {
		r.refs = append(r.refs, storeRef{at, key, n, name})
	}
}

// stored checks that the secrets are there that references lead to.
func (r *reader) stored(d *document, store Store) {
	for _, ref := range r.refs {
		d.secrets = append(d.secrets, ref.name)
	}
	slices.Sort(d.secrets)
	d.secrets = slices.Compact(d.secrets)
	if store == nil || len(r.refs) == 0 {
		return
	}
	names, err := store(d.Buffer.Path)
	if err != nil {
		return
	}
	for _, ref := range r.refs {
		if slices.Contains(names, ref.name) {
			continue
		}
		want := "there is no such secret on this gateway; set it with gridgate secret set " + ref.name + ", or push it"
		if s, ok := suggest(ref.name, names); ok {
			want = "there is no such secret on this gateway; did you mean secret:" + s + "?"
		}
		r.fail(ref.at, ref.node, ref.key+"secret:"+ref.name, "%s", want)
	}
}

// Secrets gives the names of the secrets that the configuration refers to in the
// gateway's store, in order.
func (c *Config) Secrets() []string { return c.secrets }

// keyFile reads where the private key of a certificate is: a path, or a reference.
func (r *reader) keyFile(at string, n *yaml.Node, u *Uplink) {
	if scheme, _, ok := strings.Cut(n.Value, ":"); !ok || !slices.Contains([]string{"file", "env", "secret"}, scheme) {
		u.Key = r.path(at, n, 4096)
		return
	}
	s := r.secret(at, n)
	if path, ok := s.InFile(); ok {
		u.Key = path
		return
	}
	u.KeySecret = s
}

// hasKey says whether the uplink has a key of its own.
func (u *Uplink) hasKey() bool { return u.Key != "" || !u.KeySecret.IsZero() }

// literalAdvice is said to who wrote a secret into a configuration; key is what
// stands before it.
func literalAdvice(key string) string {
	return fmt.Sprintf("a secret has no place in a configuration: write %sfile:/etc/gridgate/NAME or %senv:NAME, or %ssecret:NAME after gridgate secret set NAME"+
		"; and change the secret if others could read this file", key, key, key)
}
