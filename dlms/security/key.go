package security

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
)

const redacted = "[redacted]"

// Key is an AES key of 16 or 32 octets, or the authentication key, which is as
// long. However it is printed or marshalled it says only that it is a secret,
// even from within other values. The zero value is no key. Copies share the
// key; it is safe for concurrent use.
type Key struct{ m *hidden }

// hidden keeps the key out of the reach of fmt, which follows one pointer, and
// does so where Format cannot be called: in fields that are not exported.
type hidden struct{ *material }

type material struct {
	octets [32]byte
	n      int
	block  cipher.Block
	aead   cipher.AEAD
}

// NewKey gives the key of those octets. They are copied.
func NewKey(octets []byte) (Key, error) {
	if len(octets) != 16 && len(octets) != 32 {
		return Key{}, fmt.Errorf("%w: a key of %d octets, want 16 or 32", ErrKey, len(octets))
	}
	block, err := aes.NewCipher(octets)
	if err != nil {
		return Key{}, fmt.Errorf("%w: %w", ErrKey, err)
	}
	aead, err := cipher.NewGCMWithTagSize(block, TagLen)
	if err != nil {
		return Key{}, fmt.Errorf("%w: %w", ErrKey, err)
	}
	m := &material{n: len(octets), block: block, aead: aead}
	copy(m.octets[:], octets)
	return Key{&hidden{m}}, nil
}

// IsZero says whether there is no key.
func (k Key) IsZero() bool { return k.m == nil }

// Len is how many octets the key has.
func (k Key) Len() int {
	if k.m == nil {
		return 0
	}
	return k.m.n
}

// AppendSecret appends the key itself.
func (k Key) AppendSecret(b []byte) []byte { return append(b, k.octets()...) }

func (k Key) octets() []byte {
	if k.m == nil {
		return nil
	}
	return k.m.octets[:k.m.n]
}

// Equal says whether the keys are the same, in a time that does not tell
// where they differ.
func (k Key) Equal(l Key) bool { return subtle.ConstantTimeCompare(k.octets(), l.octets()) == 1 }

// KeyID names a key without giving it away: counters are kept under it, so that
// a changed key starts anew and a key that comes back does not.
type KeyID [8]byte

// ID gives the name of the key; the zero name for no key.
func (k Key) ID() KeyID {
	if k.m == nil {
		return KeyID{}
	}
	h := sha256.New()
	h.Write([]byte("dlms invocation counter key id\x00"))
	h.Write(k.octets())
	return KeyID(h.Sum(nil)[:8])
}

// String gives the name in hexadecimal.
func (id KeyID) String() string { return fmt.Sprintf("%x", id[:]) }

// String says that it is a secret.
func (k Key) String() string { return redacted }

// Format says that it is a secret, whatever the verb.
func (k Key) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// MarshalText says that it is a secret.
func (k Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Keys are the keys of one device, or those that the two sides share. The ones
// that are not used may be zero.
type Keys struct {
	Encryption     Key // global unicast encryption key
	Broadcast      Key // global broadcast encryption key
	Dedicated      Key // of one association
	Authentication Key
}

// KeySet says which of the encryption keys.
type KeySet uint8

// The encryption keys.
const (
	Unicast   KeySet = iota // the global unicast encryption key
	Broadcast               // the global broadcast encryption key
	Dedicated               // the dedicated key
)

func (k Keys) key(set KeySet) Key {
	switch set {
	case Unicast:
		return k.Encryption
	case Broadcast:
		return k.Broadcast
	case Dedicated:
		return k.Dedicated
	}
	return Key{}
}
