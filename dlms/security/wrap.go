package security

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"
)

// wrapIV is the initial value of RFC 3394, 2.2.3.1.
const wrapIV = 0xA6A6A6A6A6A6A6A6

// wrapOver is how many octets a wrapped key is longer.
const wrapOver = 8

// Wrap appends key, encrypted for whoever has the key-encryption key kek (RFC
// 3394), as keys travel to a meter (IEC 62056-6-2, security setup, key_transfer).
func Wrap(dst []byte, kek, key Key) ([]byte, error) {
	if kek.IsZero() || key.IsZero() {
		return nil, fmt.Errorf("wrap key: %w: it was not given", ErrKey)
	}
	start := len(dst)
	dst = binary.BigEndian.AppendUint64(dst, wrapIV)
	dst = key.AppendSecret(dst)
	out := dst[start:]
	n := key.Len() / 8
	var b [16]byte
	for j := range 6 {
		for i := 1; i <= n; i++ {
			copy(b[:8], out)
			copy(b[8:], out[8*i:])
			kek.m.block.Encrypt(b[:], b[:])
			binary.BigEndian.PutUint64(out, binary.BigEndian.Uint64(b[:])^uint64(n*j+i))
			copy(out[8*i:8*i+8], b[8:])
		}
	}
	return dst, nil
}

// Unwrap gives the key that Wrap wrapped, or ErrTag.
func Unwrap(kek Key, wrapped []byte) (Key, error) {
	if kek.IsZero() {
		return Key{}, fmt.Errorf("unwrap key: %w: it was not given", ErrKey)
	}
	if len(wrapped) != 16+wrapOver && len(wrapped) != 32+wrapOver {
		return Key{}, fmt.Errorf("unwrap key: %w: %d octets, want 24 or 40", ErrMalformed, len(wrapped))
	}
	out := append([]byte(nil), wrapped...)
	n := len(out)/8 - 1
	var b [16]byte
	for j := 5; j >= 0; j-- {
		for i := n; i >= 1; i-- {
			binary.BigEndian.PutUint64(b[:], binary.BigEndian.Uint64(out)^uint64(n*j+i))
			copy(b[8:], out[8*i:8*i+8])
			kek.m.block.Decrypt(b[:], b[:])
			copy(out, b[:8])
			copy(out[8*i:], b[8:])
		}
	}
	var iv [8]byte
	binary.BigEndian.PutUint64(iv[:], wrapIV)
	if subtle.ConstantTimeCompare(out[:8], iv[:]) != 1 {
		return Key{}, fmt.Errorf("unwrap key: %w", ErrTag)
	}
	return NewKey(out[8:])
}
