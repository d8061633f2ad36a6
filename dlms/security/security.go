// Package security protects APDUs of DLMS/COSEM and proves who is at the other
// end (IEC 62056-5-3, 7.2): ciphering by the security suites 0, 1 and 2, the
// high-level authentication mechanisms 2 to 7, key wrap, key agreement, and the
// counters that all of it stands on.
//
// A protected APDU is, with the parts in brackets in the general forms only:
//
//	tag              1 octet   which service, or that it is general
//	[length, title]  1 + 8     the system title of the sender
//	length           1 to 3    of what follows
//	security control 1         suite, what is done, which key: see Control
//	counter          4         the sender's invocation counter
//	text                       the APDU, in the clear if it is authenticated only
//	tag              12        if it is authenticated
//
// It is AES in Galois/counter mode. The initialisation vector is the sender's
// title and counter, so that one counter used twice with one key gives away
// both texts and the means to forge more. Counter is made so that no counter is
// used twice, whatever crashes; Window refuses what was received before.
//
// Sender and Receiver are one direction each of one side, and a Handshake is
// one side of the authentication: meters use them as clients do.
//
// Key agreement and general-ciphering (agree.go, general.go, exchange.go) are experimental:
// there are no published vectors, and no foreign peer has confirmed them.
//
// The package keeps no time, logs nothing and opens nothing.
package security

import (
	"errors"
	"fmt"
)

// Lengths in octets.
const (
	TitleLen = 8  // of a system title
	TagLen   = 12 // of an authentication tag

	headerLen = 5 // security control and counter
)

// The decisions that callers take on an error.
var (
	// ErrTag says that a text is not what the sender protected, or that the
	// keys or titles of the two sides differ.
	ErrTag = errors.New("authentication tag does not fit (wrong key, wrong system title, or altered on the way)")
	// ErrWeak says that the other side protects less than was asked for.
	ErrWeak = errors.New("protected less than was asked for")
	// ErrReplay says that a counter did not rise: see ReplayError.
	ErrReplay = errors.New("received counter does not rise")
	// ErrReflected says that the other side sends back what it got from us.
	ErrReflected = errors.New("our own challenge or title came back")
	// ErrProof says that the other side does not know the secret.
	ErrProof = errors.New("the other side did not prove who it is")
	// ErrKey says that a key is missing, or not one of its suite.
	ErrKey = errors.New("no such key")
	// ErrSuite says that the other side uses another security suite.
	ErrSuite = errors.New("another security suite")
	// ErrTitle says that a system title is missing, or another's.
	ErrTitle = errors.New("wrong system title")
	// ErrCompressed says that an APDU is compressed (ITU-T V.44), which this
	// package does not undo.
	ErrCompressed = errors.New("compressed apdu: compression is not supported")
	// ErrMalformed says that octets are no protected APDU.
	ErrMalformed = errors.New("malformed protection")
	// ErrExhausted says that a key has no counter left and must be changed.
	ErrExhausted = errors.New("invocation counter exhausted: change the key")
)

// Suite is a security suite (IEC 62056-5-3, 7.2.3.3).
type Suite uint8

// The suites.
const (
	Suite0 Suite = 0 // AES-GCM-128
	Suite1 Suite = 1 // AES-GCM-128, ECDSA and ECDH with P-256, SHA-256
	Suite2 Suite = 2 // AES-GCM-256, ECDSA and ECDH with P-384, SHA-384
)

// KeyLen is how many octets a key of the suite has; 0 for an unknown suite.
func (s Suite) KeyLen() int {
	switch s {
	case Suite0, Suite1:
		return 16
	case Suite2:
		return 32
	}
	return 0
}

func (s Suite) check(k Key) error {
	switch {
	case s.KeyLen() == 0:
		return fmt.Errorf("%w: suite %d is not known", ErrSuite, uint8(s))
	case k.IsZero():
		return fmt.Errorf("%w: it was not given", ErrKey)
	case k.Len() != s.KeyLen():
		return fmt.Errorf("%w: %d octets, and suite %d has keys of %d", ErrKey, k.Len(), uint8(s), s.KeyLen())
	}
	return nil
}

// Policy is what is done to an APDU, as the bits of Control.
type Policy uint8

// What can be done to an APDU.
const (
	Unprotected            Policy = 0
	Authenticated          Policy = 0x10
	Encrypted              Policy = 0x20
	AuthenticatedEncrypted        = Authenticated | Encrypted
)

// Covers says whether p does all that least asks for.
func (p Policy) Covers(least Policy) bool { return p&least == least }

func (p Policy) String() string {
	switch p {
	case Unprotected:
		return "unprotected"
	case Authenticated:
		return "authenticated"
	case Encrypted:
		return "encrypted"
	case AuthenticatedEncrypted:
		return "authenticated and encrypted"
	}
	return fmt.Sprintf("policy %#x", uint8(p))
}

// Control is the security control byte (IEC 62056-5-3, 7.2.4.2):
//
//	bit   7           6          5          4              3 2 1 0
//	      compressed  broadcast  encrypted  authenticated  suite
type Control uint8

const (
	broadcastBit  Control = 0x40
	compressedBit Control = 0x80
)

// Suite is the security suite.
func (c Control) Suite() Suite { return Suite(c & 0x0F) }

// Policy is what is done to the text.
func (c Control) Policy() Policy { return Policy(c) & AuthenticatedEncrypted }

// Broadcast says that the key is the global broadcast encryption key.
func (c Control) Broadcast() bool { return c&broadcastBit != 0 }

// Compressed says that the text was compressed first.
func (c Control) Compressed() bool { return c&compressedBit != 0 }

// Title is a system title: three letters of the manufacturer's FLAG id, and
// what the manufacturer numbers its devices with.
type Title [TitleLen]byte

// ParseTitle takes a title of 8 octets.
func ParseTitle(b []byte) (Title, error) {
	if len(b) != TitleLen {
		return Title{}, fmt.Errorf("%w: %d octets, want %d", ErrTitle, len(b), TitleLen)
	}
	return Title(b), nil
}

// IsZero says whether no title was given.
func (t Title) IsZero() bool { return t == Title{} }

// String gives the title in hexadecimal.
func (t Title) String() string { return fmt.Sprintf("%X", t[:]) }
