package security

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
)

// Scheme says which key general-ciphering uses (IEC 62056-5-3, 9.5, Key-Info).
// Experimental: see the package.
type Scheme uint8

// The schemes.
const (
	NoScheme         Scheme = iota // no general-ciphering
	SchemeUnnamed                  // the global unicast key, which is not named
	SchemeIdentified               // the global unicast key, named
	SchemeWrapped                  // a new key for each APDU, wrapped by the master key
	SchemeOnePass                  // a key agreed for each APDU: C(1e, 1s)
	SchemeStatic                   // a key agreed for each transaction: C(0e, 2s)
)

func (s Scheme) String() string {
	switch s {
	case NoScheme:
		return "no general-ciphering"
	case SchemeUnnamed:
		return "global key, not named"
	case SchemeIdentified:
		return "identified key"
	case SchemeWrapped:
		return "wrapped key"
	case SchemeOnePass:
		return "one-pass key agreement"
	case SchemeStatic:
		return "static unified key agreement"
	}
	return fmt.Sprintf("scheme %d", uint8(s))
}

// transactionLen is how many octets our transaction ids have. They are random,
// so that none comes twice.
const transactionLen = 16

// ErrTransaction says that an APDU answers another request.
var ErrTransaction = errors.New("of another transaction")

// Exchange is one side of a conversation in general-ciphering or
// general-signing, or both: then what is signed is ciphered. It is on top of
// the Sender and Receiver of the association. Experimental: see the package.
type Exchange struct {
	Sender   *Sender
	Receiver *Receiver
	// Scheme is what is sent with, and the only one that is taken, but that it
	// does not matter whether the global key is named. NoScheme leaves the
	// ciphering to others.
	Scheme Scheme
	// Sign says that what is sent is signed, and what is received must be.
	Sign bool

	Master      Key               // wraps keys
	Agreement   *ecdh.PrivateKey  // ours, for key agreement
	PeerKey     *ecdh.PublicKey   // the other side's
	SigningKey  *ecdsa.PrivateKey // ours
	PeerSigning *ecdsa.PublicKey  // the other side's
	Random      io.Reader         // nil is the random numbers of the system

	// Transaction is the id of the request under way. A client has a new one
	// made by Begin; a server takes that of the request.
	Transaction []byte
}

func (e *Exchange) random() io.Reader {
	if e.Random == nil {
		return rand.Reader
	}
	return e.Random
}

// Begin makes a new transaction: call it before each request.
func (e *Exchange) Begin() error {
	e.Transaction = make([]byte, transactionLen)
	if _, err := io.ReadFull(e.random(), e.Transaction); err != nil {
		return fmt.Errorf("transaction id: %w", err)
	}
	return nil
}

// Overhead is how many octets AppendSigned and AppendCiphered add at most.
func (e *Exchange) Overhead() int {
	const (
		tag       = 1
		envelope  = (1 + transactionLen) + 2*(1+TitleLen) + 1 + 1
		lengths   = 3 + 3
		keyInfo   = 8 + wrapOver
		protected = headerLen + TagLen
	)
	signature, n := 0, 0
	if curve, _, err := e.Sender.Suite.curve(); err == nil {
		signature = 2 * curveOctets(curve)
	}
	if e.Sign {
		n += tag + envelope + lengths + signature
	}
	if e.Scheme != NoScheme {
		n += tag + envelope + lengths + keyInfo + protected
		switch e.Scheme {
		case SchemeWrapped:
			n += e.Sender.Suite.KeyLen()
		case SchemeOnePass:
			n += 2 * signature
		case NoScheme, SchemeUnnamed, SchemeIdentified, SchemeStatic:
		}
	}
	return n
}

func (e *Exchange) envelope() Envelope {
	return Envelope{TransactionID: e.Transaction, Originator: e.Sender.Title[:], Recipient: e.Receiver.Title[:]}
}

// check says whether an APDU is of the other side, for us, and of the
// transaction under way.
func (e *Exchange) check(got Envelope) error {
	switch {
	case e.Receiver.Title.IsZero() || !bytes.Equal(got.Originator, e.Receiver.Title[:]):
		return fmt.Errorf("%w: from %X, want %v", ErrTitle, got.Originator, e.Receiver.Title)
	case !bytes.Equal(got.Recipient, e.Sender.Title[:]):
		return fmt.Errorf("%w: for %X, and we are %v", ErrTitle, got.Recipient, e.Sender.Title)
	case e.Transaction != nil && !bytes.Equal(got.TransactionID, e.Transaction):
		return fmt.Errorf("%w: %X, want %X", ErrTransaction, got.TransactionID, e.Transaction)
	}
	return nil
}

// AppendSigned appends the APDU plain in general-signing.
func (e *Exchange) AppendSigned(dst, plain []byte) ([]byte, error) {
	g := GeneralSigning{Envelope: e.envelope(), Content: plain}
	signature, err := Sign(nil, e.Sender.Suite, e.random(), e.SigningKey, g.SignedOctets(nil))
	if err != nil {
		return nil, fmt.Errorf("general-signing: %w", err)
	}
	g.Signature = signature
	return g.AppendBinary(dst)
}

// Verified gives the APDU that is in a general-signing of the other side; it
// aliases apdu.
func (e *Exchange) Verified(apdu []byte) ([]byte, error) {
	if len(apdu) == 0 || apdu[0] != TagGeneralSigning {
		return nil, fmt.Errorf("%w: not signed", ErrWeak)
	}
	g, err := ParseGeneralSigning(apdu)
	if err == nil {
		err = e.check(g.Envelope)
	}
	if err == nil {
		err = Verify(e.Receiver.Suite, e.PeerSigning, g.SignedOctets(nil), g.Signature)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("general-signing: %w", err)
	case len(g.Content) == 0:
		return nil, fmt.Errorf("general-signing: %w: an empty apdu", ErrMalformed)
	}
	return g.Content, nil
}

// AppendCiphered appends the APDU plain in general-ciphering.
//
// A counter is used up whether or not it is sent.
func (e *Exchange) AppendCiphered(dst, plain []byte) ([]byte, error) {
	if e.Sender.Policy == Unprotected {
		return nil, fmt.Errorf("general-ciphering: %w: %v", ErrWeak, e.Sender.Policy)
	}
	key, counter, err := e.Sender.draw(Unicast)
	if err != nil {
		return nil, fmt.Errorf("general-ciphering: %w", err)
	}
	g := GeneralCiphering{Envelope: e.envelope(), Control: e.Sender.control(Unicast), Counter: counter}
	if key, err = e.newKey(&g.Key, key); err != nil {
		return nil, fmt.Errorf("general-ciphering: %w", err)
	}
	if err := g.Seal(plain, key, e.Sender.Keys.Authentication); err != nil {
		return nil, fmt.Errorf("general-ciphering: %w", err)
	}
	return g.AppendBinary(dst)
}

// newKey gives the key to send with, and names it.
func (e *Exchange) newKey(info *KeyInfo, global Key) (Key, error) {
	suite := e.Sender.Suite
	switch e.Scheme {
	case SchemeUnnamed:
		return global, nil
	case SchemeIdentified:
		info.Choice = IdentifiedKey
		return global, nil
	case SchemeWrapped:
		octets := make([]byte, suite.KeyLen())
		if _, err := io.ReadFull(e.random(), octets); err != nil {
			return Key{}, fmt.Errorf("new key: %w", err)
		}
		key, err := NewKey(octets)
		if err != nil {
			return Key{}, err
		}
		info.Choice = WrappedKey
		info.Data, err = Wrap(nil, e.Master, key)
		return key, err
	case SchemeOnePass:
		if e.SigningKey == nil {
			return Key{}, fmt.Errorf("%w: our own to sign with was not given", ErrKey)
		}
		key, data, err := OnePass(suite, e.random(), e.SigningKey, e.PeerKey, e.Sender.Title, e.Receiver.Title)
		info.Choice, info.Parameters, info.Data = AgreedKey, []byte{OnePassParameter}, data
		return key, err
	case SchemeStatic:
		info.Choice, info.Parameters = AgreedKey, []byte{StaticUnifiedParameter}
		return StaticUnified(suite, e.Agreement, e.PeerKey, e.Transaction, e.Sender.Title, e.Receiver.Title)
	case NoScheme:
	}
	return Key{}, fmt.Errorf("%w: %v", ErrKey, e.Scheme)
}

// Opened gives the APDU that is in a general-ciphering of the other side. It is
// refused as Receiver.Unprotect refuses, and where its key is of another
// scheme. A key that is new each time has no past: what is under it is known
// from before by its transaction.
func (e *Exchange) Opened(dst, apdu []byte) ([]byte, error) {
	if len(apdu) == 0 || apdu[0] != TagGeneralCiphering {
		return nil, fmt.Errorf("%w: not in general-ciphering", ErrWeak)
	}
	g, err := ParseGeneralCiphering(apdu)
	if err == nil {
		err = e.check(g.Envelope)
	}
	if err == nil {
		err = e.Receiver.accepts(g.Control, e.Receiver.Policy)
	}
	var key Key
	if err == nil {
		key, err = e.theirKey(&g)
	}
	if err != nil {
		return nil, fmt.Errorf("general-ciphering: %w", err)
	}
	n := len(dst)
	if g.Key.Choice == NoKeyInfo || g.Key.Choice == IdentifiedKey {
		dst, err = e.Receiver.OpenGeneral(dst, &g, key)
	} else {
		dst, err = e.open(dst, &g, key)
	}
	switch {
	case err != nil:
		return nil, err
	case len(dst) == n:
		return nil, fmt.Errorf("general-ciphering: %w: an empty apdu", ErrMalformed)
	}
	return dst, nil
}

func (e *Exchange) open(dst []byte, g *GeneralCiphering, key Key) ([]byte, error) {
	t, err := g.text(key, e.Receiver.Keys.Authentication)
	if err == nil {
		dst, err = t.appendOpened(dst, g.Sealed)
	}
	if err != nil {
		return nil, fmt.Errorf("general-ciphering: %w", err)
	}
	return dst, nil
}

// SchemeOf gives the scheme that a general-ciphering is in, NoScheme for none
// that is known.
func SchemeOf(k KeyInfo) Scheme {
	switch {
	case k.Choice == NoKeyInfo:
		return SchemeUnnamed
	case k.Choice == IdentifiedKey && k.ID == 0:
		return SchemeIdentified
	case k.Choice == WrappedKey && k.ID == 0:
		return SchemeWrapped
	case k.Choice == AgreedKey && bytes.Equal(k.Parameters, []byte{OnePassParameter}):
		return SchemeOnePass
	case k.Choice == AgreedKey && bytes.Equal(k.Parameters, []byte{StaticUnifiedParameter}):
		return SchemeStatic
	}
	return NoScheme
}

// theirKey gives the key that g names.
func (e *Exchange) theirKey(g *GeneralCiphering) (Key, error) {
	suite, from, to := e.Receiver.Suite, e.Receiver.Title, e.Sender.Title
	scheme := SchemeOf(g.Key)
	named := scheme == SchemeUnnamed || scheme == SchemeIdentified
	if scheme != e.Scheme && (!named || e.Scheme != SchemeUnnamed && e.Scheme != SchemeIdentified) {
		return Key{}, fmt.Errorf("%w: %v, want %v", ErrWeak, scheme, e.Scheme)
	}
	switch scheme {
	case SchemeUnnamed, SchemeIdentified:
		return e.Receiver.Keys.Encryption, nil
	case SchemeWrapped:
		return Unwrap(e.Master, g.Key.Data)
	case SchemeOnePass:
		return AcceptOnePass(suite, e.Agreement, e.PeerSigning, g.Key.Data, from, to)
	case SchemeStatic:
		return StaticUnified(suite, e.Agreement, e.PeerKey, g.TransactionID, from, to)
	case NoScheme:
	}
	return Key{}, fmt.Errorf("%w: %v", ErrKey, scheme)
}
