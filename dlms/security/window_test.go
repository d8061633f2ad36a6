package security

import (
	"encoding/binary"
	"errors"
	"testing"
)

// TestWindowIsBounded: what is encrypted only can be sent by anybody, in the
// name of anybody. It must not take all memory, nor the place of those who were
// heard before.
func TestWindowIsBounded(t *testing.T) {
	t.Parallel()
	key, err := NewKey(make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	var w Window
	open := func(n uint64, counter uint32) error {
		title := Title(binary.BigEndian.AppendUint64(nil, n))
		r := Receiver{Policy: Encrypted, Title: title, Keys: Keys{Encryption: key}, Direction: FromServer, Window: &w}
		apdu := append([]byte{TagGeneralGlobal, TitleLen}, title[:]...)
		apdu = binary.BigEndian.AppendUint32(append(apdu, 6, byte(Encrypted)), counter)
		_, err := r.Unprotect(nil, append(apdu, 0x55)) // noise
		return err
	}
	var last error
	for n := range uint64(2 * maxRemembered) {
		last = open(n+1, 7)
	}
	if len(w.last) > maxRemembered || !errors.Is(last, ErrCrowded) {
		t.Errorf("%d are remembered, at most %d: %v", len(w.last), maxRemembered, last)
	}
	if err := open(1, 8); err != nil {
		t.Errorf("one that was heard before: %v", err)
	}
	if err := open(1, 8); !errors.Is(err, ErrReplay) {
		t.Errorf("the same again: %v", err)
	}
}
