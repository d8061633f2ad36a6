package drivers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"gridgate/dlms"
	"gridgate/dlms/security"
	"gridgate/drivers/address"
	"gridgate/internal/meter"
	"gridgate/internal/secret"
)

// protection gives how an association is protected: what the address says,
// with the secrets in place. Errors name the key of the address and show
// nothing of the secret.
func protection(a address.Address, c address.Credentials) (dlms.Security, error) {
	own := a.Security
	s := dlms.Security{Suite: security.Suite(own.Suite), Policy: policy(own.Protection), Title: security.Title(own.Title)}
	var err error
	if s.Keys.Encryption, err = aesKey(s.Suite, c.EK); err != nil {
		return dlms.Security{}, fmt.Errorf("ek: %w", err)
	}
	if s.Keys.Authentication, err = aesKey(s.Suite, c.AK); err != nil {
		return dlms.Security{}, fmt.Errorf("ak: %w", err)
	}
	if a.Auth != address.AuthECDSA {
		return s, nil
	}
	curve := elliptic.P256()
	if s.Suite == security.Suite2 {
		curve = elliptic.P384()
	}
	if s.SigningKey, err = signingKey(curve, c.SigningKey.Reveal()); err != nil {
		return dlms.Security{}, fmt.Errorf("sk: %w", err)
	}
	if s.MeterKey, err = publicKey(curve, c.MeterKey.Reveal()); err != nil {
		return dlms.Security{}, fmt.Errorf("pk: %w", err)
	}
	return s, nil
}

// nextKeys gives the keys of an association with others in their place; nil for
// none.
func nextKeys(s dlms.Security, others map[meter.KeyKind]meter.Secret) (*security.Keys, error) {
	if len(others) == 0 {
		return nil, nil
	}
	keys := s.Keys
	for kind, octets := range others {
		key, err := security.NewKey(octets)
		if err != nil || key.Len() != s.Suite.KeyLen() {
			return nil, fmt.Errorf("the next %v: want %d octets, the key of suite %d", kind, s.Suite.KeyLen(), uint8(s.Suite))
		}
		switch kind {
		case meter.UnicastKey:
			keys.Encryption = key
		case meter.AuthenticationKey:
			keys.Authentication = key
		case meter.BroadcastKey:
			keys.Broadcast = key
		case meter.MasterKey:
		}
	}
	return &keys, nil
}

func policy(p address.Protection) security.Policy {
	switch p {
	case address.Authenticated:
		return security.Authenticated
	case address.Encrypted:
		return security.Encrypted
	case address.AuthenticatedEncrypted:
		return security.AuthenticatedEncrypted
	case address.Unprotected:
	}
	return security.Unprotected
}

// aesKey reads a key in hexadecimal digits, spaces allowed; no key of nothing.
func aesKey(s security.Suite, text secret.Value) (security.Key, error) {
	if text.IsZero() {
		return security.Key{}, nil
	}
	b, err := hexadecimal(text.Reveal())
	if err != nil || len(b) != s.KeyLen() {
		return security.Key{}, fmt.Errorf("want %d hexadecimal digits, the key of suite %d", 2*s.KeyLen(), uint8(s))
	}
	return security.NewKey(b)
}

func hexadecimal(text []byte) ([]byte, error) {
	return hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
}

// errCurve says that a signing key is not one of the suite.
var errCurve = errors.New("the key is not one of the suite: suite=1 has P-256, suite=2 has P-384")

// signingKey reads a private key: PEM as openssl writes it, or the number in
// hexadecimal digits.
func signingKey(curve elliptic.Curve, text []byte) (*ecdsa.PrivateKey, error) {
	const want = "want a private key on an elliptic curve: PEM, or hexadecimal digits"
	block, _ := pem.Decode(text)
	if block == nil {
		b, err := hexadecimal(text)
		if err != nil {
			return nil, errors.New(want)
		}
		key, err := ecdsa.ParseRawPrivateKey(curve, b)
		if err != nil {
			return nil, errCurve
		}
		return key, nil
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if key, _ = any.(*ecdsa.PrivateKey); err != nil || key == nil {
			return nil, errors.New(want)
		}
	}
	if key.Curve != curve {
		return nil, errCurve
	}
	return key, nil
}

// publicKey reads a public key: PEM, of a key or a certificate, or the point in
// hexadecimal digits, with the 04 in front or without.
func publicKey(curve elliptic.Curve, text []byte) (*ecdsa.PublicKey, error) {
	const want = "want a public key on an elliptic curve: PEM, or hexadecimal digits"
	block, _ := pem.Decode(text)
	if block == nil {
		b, err := hexadecimal(text)
		if err != nil {
			return nil, errors.New(want)
		}
		if octets := 2 * ((curve.Params().BitSize + 7) / 8); len(b) == octets {
			b = append([]byte{4}, b...)
		}
		key, err := ecdsa.ParseUncompressedPublicKey(curve, b)
		if err != nil {
			return nil, errCurve
		}
		return key, nil
	}
	var found any
	if certificate, err := x509.ParseCertificate(block.Bytes); err == nil {
		found = certificate.PublicKey
	} else if found, err = x509.ParsePKIXPublicKey(block.Bytes); err != nil {
		return nil, errors.New(want)
	}
	key, ok := found.(*ecdsa.PublicKey)
	if !ok || key.Curve != curve {
		return nil, errCurve
	}
	return key, nil
}
