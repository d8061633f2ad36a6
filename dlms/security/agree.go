package security

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"io"
)

// Algorithm names what a derived key is for, as the last arc of its object
// identifier 2.16.756.5.8.3 (IEC 62056-5-3, 7.2.3.4).
type Algorithm uint8

// The algorithms.
const (
	AESGCM128  Algorithm = 0
	AESGCM256  Algorithm = 1
	AESWrap128 Algorithm = 2
	AESWrap256 Algorithm = 3
)

// Key parameters of an agreed key.
const (
	OnePassParameter       = 1
	StaticUnifiedParameter = 2
)

// Algorithm gives the cipher of the suite.
func (s Suite) Algorithm() Algorithm {
	if s == Suite2 {
		return AESGCM256
	}
	return AESGCM128
}

// DeriveKey makes a key of a shared secret z: the first octets of
//
//	H( 00000001 ‖ z ‖ 60857405080300+algorithm ‖ party U ‖ party V )
//
// with SHA-256 for suite 1 and SHA-384 for suite 2 (NIST SP 800-56A, 5.8.2.1,
// in one round).
func DeriveKey(s Suite, z []byte, a Algorithm, partyU, partyV []byte) (Key, error) {
	in := join([]byte{0, 0, 0, 1}, z, []byte{0x60, 0x85, 0x74, 0x05, 0x08, 0x03, byte(a)}, partyU, partyV)
	switch s {
	case Suite1:
		sum := sha256.Sum256(in)
		return NewKey(sum[:s.KeyLen()])
	case Suite2:
		sum := sha512.Sum384(in)
		return NewKey(sum[:s.KeyLen()])
	case Suite0:
	}
	return Key{}, fmt.Errorf("%w: suite %d agrees on no keys", ErrSuite, uint8(s))
}

func (s Suite) ecdh() (ecdh.Curve, error) {
	switch s {
	case Suite1:
		return ecdh.P256(), nil
	case Suite2:
		return ecdh.P384(), nil
	case Suite0:
	}
	return nil, fmt.Errorf("%w: suite %d agrees on no keys", ErrSuite, uint8(s))
}

// uncompressed is what X9.62 puts before x ‖ y, and DLMS leaves out.
const uncompressed = 4

// ParsePublicKey takes a public key for key agreement: x ‖ y.
func ParsePublicKey(s Suite, octets []byte) (*ecdh.PublicKey, error) {
	curve, err := s.ecdh()
	if err != nil {
		return nil, err
	}
	key, err := curve.NewPublicKey(join([]byte{uncompressed}, octets))
	if err != nil {
		return nil, fmt.Errorf("%w: public key: %w", ErrKey, err)
	}
	return key, nil
}

// AppendPublicKey appends x ‖ y.
func AppendPublicKey(b []byte, key *ecdh.PublicKey) []byte { return append(b, key.Bytes()[1:]...) }

func agree(s Suite, own *ecdh.PrivateKey, peer *ecdh.PublicKey) ([]byte, error) {
	curve, err := s.ecdh()
	if err != nil {
		return nil, err
	}
	if own == nil || peer == nil || own.Curve() != curve || peer.Curve() != curve {
		return nil, fmt.Errorf("%w: a key for key agreement that is not of suite %d", ErrKey, uint8(s))
	}
	z, err := own.ECDH(peer)
	if err != nil {
		return nil, fmt.Errorf("agree on a key: %w", err)
	}
	return z, nil
}

// OnePass agrees on a key with recipient, whose static public key is known:
// the one-pass Diffie-Hellman scheme C(1e, 1s) (IEC 62056-5-3, 7.2.3.4.6.3).
// data goes into KeyInfo.Data: a new public key, signed by ours. Experimental:
// see the package.
func OnePass(s Suite, random io.Reader, signing *ecdsa.PrivateKey, recipientKey *ecdh.PublicKey, originator, recipient Title) (key Key, data []byte, err error) {
	curve, err := s.ecdh()
	if err != nil {
		return Key{}, nil, err
	}
	ephemeral, err := curve.GenerateKey(random)
	if err != nil {
		return Key{}, nil, fmt.Errorf("agree on a key: %w", err)
	}
	z, err := agree(s, ephemeral, recipientKey)
	if err != nil {
		return Key{}, nil, err
	}
	data = AppendPublicKey(nil, ephemeral.PublicKey())
	if data, err = Sign(data, s, random, signing, data); err != nil {
		return Key{}, nil, err
	}
	key, err = DeriveKey(s, z, s.Algorithm(), originator[:], recipient[:])
	return key, data, err
}

// AcceptOnePass gives the key that the originator agreed on with OnePass.
// originatorKey is the public key that the originator signs with.
func AcceptOnePass(s Suite, own *ecdh.PrivateKey, originatorKey *ecdsa.PublicKey, data []byte, originator, recipient Title) (Key, error) {
	curve, _, err := s.curve()
	if err != nil {
		return Key{}, err
	}
	size := 2 * curveOctets(curve)
	if len(data) != 2*size {
		return Key{}, fmt.Errorf("%w: %d octets of key data, want %d", ErrMalformed, len(data), 2*size)
	}
	if err := Verify(s, originatorKey, data[:size], data[size:]); err != nil {
		return Key{}, err
	}
	ephemeral, err := ParsePublicKey(s, data[:size])
	if err != nil {
		return Key{}, err
	}
	z, err := agree(s, own, ephemeral)
	if err != nil {
		return Key{}, err
	}
	return DeriveKey(s, z, s.Algorithm(), originator[:], recipient[:])
}

// StaticUnified gives the key that two parties agree on by their static keys
// alone: the static unified model C(0e, 2s) (IEC 62056-5-3, 7.2.3.4.6.4). Both
// call it, each with its own private and the other's public key. The
// transaction id makes the key a new one: it must never come again between
// these two. Experimental: see the package.
func StaticUnified(s Suite, own *ecdh.PrivateKey, peer *ecdh.PublicKey, transactionID []byte, originator, recipient Title) (Key, error) {
	if len(transactionID) == 0 || len(transactionID) > 0x7F {
		return Key{}, fmt.Errorf("%w: a transaction id of %d octets", ErrMalformed, len(transactionID))
	}
	z, err := agree(s, own, peer)
	if err != nil {
		return Key{}, err
	}
	partyU := join(originator[:], []byte{byte(len(transactionID))}, transactionID)
	return DeriveKey(s, z, s.Algorithm(), partyU, recipient[:])
}
