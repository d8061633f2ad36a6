package order_test

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"

	"aead.dev/minisign"

	"gridgate/agent/order"
)

// key makes a key pair.
func key(t testing.TB) minisign.PrivateKey {
	t.Helper()
	_, k, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func public(k minisign.PrivateKey) string {
	p, _ := k.Public().(minisign.PublicKey)
	return p.String()
}

// sealed signs a body with every key.
func sealed(body string, keys ...minisign.PrivateKey) []byte {
	var all [][]byte
	for _, k := range keys {
		all = append(all, order.Sign(k, []byte(body), "for a test"))
	}
	return order.Seal([]byte(body), all...)
}

// utility is one with a key of each role, and three root keys of which two sign.
type utility struct {
	root  [3]minisign.PrivateKey
	by    map[order.Role]minisign.PrivateKey
	trust *order.Trust
	first []byte
}

func newUtility(t testing.TB) *utility {
	t.Helper()
	u := &utility{by: map[order.Role]minisign.PrivateKey{}}
	for i := range u.root {
		u.root[i] = key(t)
	}
	for _, r := range order.Roles()[1:] {
		u.by[r] = key(t)
	}
	u.first = sealed(u.body(1, 2, u.root[:]), u.root[0], u.root[1])
	var err error
	if u.trust, _, err = order.FirstTrust(u.first); err != nil {
		t.Fatal(err)
	}
	return u
}

// body is that of a trust document.
func (u *utility) body(version, threshold int, root []minisign.PrivateKey) string {
	var b strings.Builder
	fmt.Fprintf(&b, "gridgate: 1\nkind: trust\ntarget: '*'\nversion: %d\n---\nroles:\n  root:\n    threshold: %d\n    keys:\n", version, threshold)
	for _, k := range root {
		fmt.Fprintf(&b, "      - %s\n", public(k))
	}
	for _, r := range order.Roles()[1:] {
		fmt.Fprintf(&b, "  %s: {keys: [%s]}\n", r, public(u.by[r]))
	}
	return b.String()
}

const config = "gridgate: 1\nkind: config\ntarget: site-1/gw-1\nversion: 7\n---\nversion: 1\nsite: site-1\n"

const command = "gridgate: 1\nkind: command\ntarget: site-1/gw-1\nid: read-1\nnot_before: 2026-11-22T10:00:00Z\nnot_after: 2026-11-22T12:00:00Z\n---\ndo: read\n"
