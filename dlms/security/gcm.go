package security

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
)

// text is what one text is protected under.
type text struct {
	control Control
	title   Title // of the sender
	counter uint32
	ek, ak  Key
	header  []byte // of general-ciphering: authenticated too
}

func (t *text) nonce() [TitleLen + 4]byte {
	var n [TitleLen + 4]byte
	copy(n[:], t.title[:])
	binary.BigEndian.PutUint32(n[TitleLen:], t.counter)
	return n
}

// check says whether the keys are those of the suite. Keys that are not used
// are not missed.
func (t *text) check() error {
	if err := t.control.Suite().check(t.ek); err != nil {
		return fmt.Errorf("encryption key: %w", err)
	}
	if !t.control.Policy().Covers(Authenticated) {
		return nil
	}
	if err := t.control.Suite().check(t.ak); err != nil {
		return fmt.Errorf("authentication key: %w", err)
	}
	return nil
}

// aad gives what is authenticated beside the encrypted text (IEC 62056-5-3,
// Table 37): control ‖ authentication key ‖ header, and the text itself where
// it is not encrypted.
func (t *text) aad(plain []byte) []byte {
	b := make([]byte, 0, 1+t.ak.Len()+len(t.header)+len(plain))
	b = append(b, byte(t.control))
	b = append(b, t.ak.octets()...)
	b = append(b, t.header...)
	return append(b, plain...)
}

// appendSealed appends control, counter, text and tag. dst and plain must not
// overlap.
func (t *text) appendSealed(dst, plain []byte) ([]byte, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	dst = binary.BigEndian.AppendUint32(append(dst, byte(t.control)), t.counter)
	nonce := t.nonce()
	switch t.control.Policy() {
	case Authenticated:
		dst = append(dst, plain...)
		return t.ek.m.aead.Seal(dst, nonce[:], nil, t.aad(plain)), nil
	case Encrypted:
		return t.appendStream(dst, plain), nil
	case AuthenticatedEncrypted:
		return t.ek.m.aead.Seal(dst, nonce[:], plain, t.aad(nil)), nil
	case Unprotected:
	}
	return nil, fmt.Errorf("%w: nothing is to be done to the text", ErrWeak)
}

// appendOpened appends the text of what follows control and counter. dst and
// sealed must not overlap.
func (t *text) appendOpened(dst, sealed []byte) ([]byte, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	nonce := t.nonce()
	switch t.control.Policy() {
	case Authenticated:
		if len(sealed) < TagLen {
			return nil, fmt.Errorf("%w: no room for the tag", ErrMalformed)
		}
		plain, tag := sealed[:len(sealed)-TagLen], sealed[len(sealed)-TagLen:]
		if _, err := t.ek.m.aead.Open(nil, nonce[:], tag, t.aad(plain)); err != nil {
			return nil, ErrTag
		}
		return append(dst, plain...), nil
	case Encrypted:
		return t.appendStream(dst, sealed), nil
	case AuthenticatedEncrypted:
		if len(sealed) < TagLen {
			return nil, fmt.Errorf("%w: no room for the tag", ErrMalformed)
		}
		out, err := t.ek.m.aead.Open(dst, nonce[:], sealed, t.aad(nil))
		if err != nil {
			return nil, ErrTag
		}
		return out, nil
	case Unprotected:
	}
	return nil, fmt.Errorf("%w: unprotected", ErrWeak)
}

// appendStream encrypts or decrypts without authentication: the counter mode
// within GCM, whose first block of text has number 2.
func (t *text) appendStream(dst, in []byte) []byte {
	nonce := t.nonce()
	var iv [16]byte
	copy(iv[:], nonce[:])
	iv[15] = 2
	n := len(dst)
	dst = append(dst, in...)
	cipher.NewCTR(t.ek.m.block, iv[:]).XORKeyStream(dst[n:], dst[n:])
	return dst
}
