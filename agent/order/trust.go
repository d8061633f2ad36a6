package order

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"aead.dev/minisign"

	"gridgate/internal/meter"
)

// Role is what keys are for.
type Role string

// The roles. Root changes who may do what; control switches breakers and
// limits loads; command is everything else that is done once.
const (
	Root     Role = "root"
	Config   Role = "config"
	Command  Role = "command"
	Control  Role = "control"
	Firmware Role = "firmware"
)

// Roles gives all of them.
func Roles() []Role { return []Role{Root, Config, Command, Control, Firmware} }

// Most keys of a role, and actions that want two signatures.
const (
	maxKeys = 16
	maxTwo  = 64
)

// Trust says which keys may sign what.
type Trust struct {
	// Version is that of the document it came from.
	Version uint64
	keys    map[Role][]minisign.PublicKey
	need    map[Role]int
	// DisconnectsPerHour caps how many breakers are opened within an hour;
	// 0: none at all.
	DisconnectsPerHour int
	two                []string
}

// WantsTwo says whether an action wants two signatures, whatever else says so.
func (t *Trust) WantsTwo(action string) bool { return slices.Contains(t.two, action) }

// trustPayload is a trust document's payload.
type trustPayload struct {
	Roles map[Role]struct {
		Threshold *int     `yaml:"threshold"`
		Keys      []string `yaml:"keys"`
	} `yaml:"roles"`
	Limits struct {
		DisconnectsPerHour *int     `yaml:"disconnects_per_hour"`
		TwoSignatures      []string `yaml:"two_signatures"`
	} `yaml:"limits"`
}

// defaultDisconnects an hour, where the trust document names no number.
const defaultDisconnects = 10

// parseTrust reads the payload of a trust document.
func parseTrust(d *Document) (*Trust, error) {
	var p trustPayload
	if err := d.Decode(&p); err != nil {
		return nil, err
	}
	t := &Trust{Version: d.Version, keys: map[Role][]minisign.PublicKey{}, need: map[Role]int{}, DisconnectsPerHour: defaultDisconnects}
	for _, role := range slices.Sorted(maps.Keys(p.Roles)) {
		r := p.Roles[role]
		if !slices.Contains(Roles(), role) {
			return nil, fmt.Errorf("%w: roles: %q is no role; want %s", ErrMalformed, clip(string(role)), names())
		}
		if len(r.Keys) > maxKeys {
			return nil, fmt.Errorf("%w: roles.%s.keys: %d keys, at most %d are taken", ErrMalformed, role, len(r.Keys), maxKeys)
		}
		for i, text := range r.Keys {
			k, err := ParseKey(text)
			if err != nil {
				return nil, fmt.Errorf("%w: roles.%s.keys[%d]: %w", ErrMalformed, role, i, err)
			}
			if other, is := t.roleOf(k); is {
				return nil, fmt.Errorf("%w: roles.%s.keys[%d]: the key, or its id, stands at %s too; a key has one role", ErrMalformed, role, i, other)
			}
			t.keys[role] = append(t.keys[role], k)
		}
		t.need[role] = 1
		if r.Threshold != nil {
			t.need[role] = *r.Threshold
		}
		if n := t.need[role]; n < 1 || n > max(1, len(r.Keys)) {
			return nil, fmt.Errorf("%w: roles.%s.threshold: %d with %d keys", ErrMalformed, role, n, len(r.Keys))
		}
	}
	if len(t.keys[Root]) == 0 {
		return nil, fmt.Errorf("%w: roles.root.keys: missing: nobody could ever change this again", ErrMalformed)
	}
	if n := p.Limits.DisconnectsPerHour; n != nil {
		if *n < 0 || *n > 10000 {
			return nil, fmt.Errorf("%w: limits.disconnects_per_hour: %d; want 0 to 10000", ErrMalformed, *n)
		}
		t.DisconnectsPerHour = *n
	}
	if t.two = p.Limits.TwoSignatures; len(t.two) > maxTwo {
		return nil, fmt.Errorf("%w: limits.two_signatures: %d actions, at most %d are taken", ErrMalformed, len(t.two), maxTwo)
	}
	for i, name := range t.two { // that it is an action a later agent may know
		if _, err := meter.ParseID(name); err != nil {
			return nil, fmt.Errorf("%w: limits.two_signatures[%d]: %q is no name of an action", ErrMalformed, i, clip(name))
		}
	}
	return t, nil
}

// ParseKey reads a public key: the second line of what minisign writes, or both.
func ParseKey(text string) (minisign.PublicKey, error) {
	var k minisign.PublicKey
	if err := k.UnmarshalText([]byte(strings.TrimSpace(text))); err != nil {
		return k, errors.New("not a minisign public key; want the line of its .pub file that begins with RW")
	}
	return k, nil
}

func names() string {
	all := make([]string, 0, len(Roles()))
	for _, r := range Roles() {
		all = append(all, string(r))
	}
	return strings.Join(all, ", ")
}

// roleOf says which role a key has. A key is its Ed25519 point: the id beside
// it is a label that anybody can give, but two keys with one could not be told
// apart.
func (t *Trust) roleOf(k minisign.PublicKey) (Role, bool) {
	for role, keys := range t.keys {
		if slices.ContainsFunc(keys, func(o minisign.PublicKey) bool { return point(o) == point(k) || o.ID() == k.ID() }) {
			return role, true
		}
	}
	return "", false
}

// point is a key without its id.
func point(k minisign.PublicKey) string {
	const header = 10 // octets: algorithm and id
	raw, err := decodeKey(k)
	if err != nil || len(raw) < header {
		return k.String()
	}
	return string(raw[header:])
}

// Threshold says how many keys of a role have to sign.
func (t *Trust) Threshold(r Role) int { return max(1, t.need[r]) }

// Keys gives the keys of a role, as text.
func (t *Trust) Keys(r Role) []string {
	all := make([]string, 0, len(t.keys[r]))
	for _, k := range t.keys[r] {
		all = append(all, k.String())
	}
	return all
}

// Has gives the roles that have keys.
func (t *Trust) Has() []Role { return slices.Sorted(maps.Keys(t.keys)) }

// signers says which keys of each role have signed the body of e, and which
// signatures are of keys that are not known here. One that is not good spoils
// the document. A key that signed twice counts once.
func (t *Trust) signers(e envelope) (by map[Role][]string, unknown []int, err error) {
	by = map[Role][]string{}
	seen := map[string]bool{}
	for i, s := range e.signatures {
		k, role, ok := t.signer(s)
		if !ok {
			unknown = append(unknown, i)
			continue
		}
		if !minisign.Verify(k, e.body, s) {
			return nil, nil, fmt.Errorf("%w: signature %d: it is not of this document by key %s (%s)", ErrSignature, i+1, keyID(k), role)
		}
		if !seen[point(k)] {
			seen[point(k)] = true
			by[role] = append(by[role], keyID(k))
		}
	}
	return by, unknown, nil
}

// signer finds the key whose id a signature names.
func (t *Trust) signer(signature []byte) (minisign.PublicKey, Role, bool) {
	id := signatureID(signature)
	for _, role := range Roles() {
		for _, k := range t.keys[role] {
			if k.ID() == id {
				return k, role, true
			}
		}
	}
	return minisign.PublicKey{}, "", false
}

func signatureID(signature []byte) uint64 {
	var s minisign.Signature
	if err := s.UnmarshalText(signature); err != nil {
		return 0
	}
	return s.KeyID
}

func keyID(k minisign.PublicKey) string { return fmt.Sprintf("%016X", k.ID()) }
