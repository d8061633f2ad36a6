package main

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"slices"
)

// What provisioning writes of ASN.1, in DER (X.690), for keys of P-256 alone: writing
// these few things by encoding/asn1 links 24 KB of firmware. They are read by
// crypto/x509.
const (
	derInteger    = 0x02
	derBits       = 0x03
	derOctets     = 0x04
	derObject     = 0x06
	derUTF8       = 0x0c
	derSequence   = 0x30
	derSet        = 0x31
	derAttributes = 0xa0 // of CertificationRequestInfo (RFC 2986, 4.1)
	derPublicKey  = 0xa1 // of ECPrivateKey (RFC 5915, 3)
	derURI        = 0x86 // of GeneralName (RFC 5280, 4.2.1.6)

	oidCommonName       = "\x55\x04\x03"
	oidAlternativeName  = "\x55\x1d\x11"
	oidExtensionRequest = "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e"
	oidPublicKey        = "\x2a\x86\x48\xce\x3d\x02\x01"
	oidP256             = "\x2a\x86\x48\xce\x3d\x03\x01\x07"
	oidECDSAWithSHA256  = "\x2a\x86\x48\xce\x3d\x04\x03\x02"
)

// der gives a value with its tag and length; a value has less than 64 KiB here.
func der(tag byte, parts ...[]byte) []byte {
	value := slices.Concat(parts...)
	head := []byte{tag, byte(len(value))}
	switch n := len(value); {
	case n >= 0x100:
		head = []byte{tag, 0x82, byte(n >> 8), byte(n)}
	case n >= 0x80:
		head = []byte{tag, 0x81, byte(n)}
	}
	return append(head, value...)
}

func derOID(oid string) []byte { return der(derObject, []byte(oid)) }

func derKeyKind() []byte { return der(derSequence, derOID(oidPublicKey), derOID(oidP256)) }

// publicKeyDER gives the SubjectPublicKeyInfo of a key (RFC 5480, 2).
func publicKeyDER(key *ecdsa.PublicKey) ([]byte, error) {
	point, err := key.Bytes()
	if err != nil {
		return nil, err
	}
	return der(derSequence, derKeyKind(), der(derBits, []byte{0}, point)), nil
}

// privateKeyDER gives a key as PKCS #8 (RFC 5958, 2).
func privateKeyDER(key *ecdsa.PrivateKey) ([]byte, error) {
	scalar, err := key.Bytes()
	if err != nil {
		return nil, err
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	inner := der(derSequence, der(derInteger, []byte{1}), der(derOctets, scalar), der(derPublicKey, der(derBits, []byte{0}, point)))
	return der(derSequence, der(derInteger, []byte{0}), derKeyKind(), der(derOctets, inner)), nil
}

// requestDER gives a request for a certificate of a key (PKCS #10, RFC 2986), by a
// common name and a URI.
func requestDER(name, uri string, key *ecdsa.PrivateKey) ([]byte, error) {
	public, err := publicKeyDER(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	subject := der(derSequence, der(derSet, der(derSequence, derOID(oidCommonName), der(derUTF8, []byte(name)))))
	extension := der(derSequence, derOID(oidAlternativeName), der(derOctets, der(derSequence, der(derURI, []byte(uri)))))
	attribute := der(derSequence, derOID(oidExtensionRequest), der(derSet, der(derSequence, extension)))
	info := der(derSequence, der(derInteger, []byte{0}), subject, public, der(derAttributes, attribute))
	sum := sha256.Sum256(info)
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		return nil, err
	}
	return der(derSequence, info, der(derSequence, derOID(oidECDSAWithSHA256)), der(derBits, []byte{0}, signature)), nil
}
