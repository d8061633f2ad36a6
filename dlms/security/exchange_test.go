package security

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"testing"
)

// sides gives both sides of an exchange of suite 1. Keys are fixed where the
// seed is: fuzzing needs them to stay.
func sides(t testing.TB, scheme Scheme, sign bool) (client, server Exchange) {
	t.Helper()
	scalar := func(n byte) []byte { return bytes.Repeat([]byte{n}, 32) }
	var agree [2]*ecdh.PrivateKey
	var signer [2]*ecdsa.PrivateKey
	for i := range agree {
		var err error
		if agree[i], err = ecdh.P256().NewPrivateKey(scalar(byte(i + 1))); err != nil {
			t.Fatal(err)
		}
		if signer[i], err = ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar(byte(i+11))); err != nil {
			t.Fatal(err)
		}
	}
	newKey := func(n byte) Key {
		k, err := NewKey(bytes.Repeat([]byte{n}, 16))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	keys := Keys{Encryption: newKey(1), Authentication: newKey(2)}
	titles := [2]Title{{'C'}, {'S'}}
	side := func(own, other int, from Direction) Exchange {
		return Exchange{
			Sender: &Sender{
				Suite: Suite1, Policy: AuthenticatedEncrypted, Title: titles[own], Keys: keys,
				Counter: NewCounter(new(Memory), titles[own], keys.Encryption, 1),
			},
			Receiver: &Receiver{Suite: Suite1, Policy: AuthenticatedEncrypted, Title: titles[other], Keys: keys, Direction: from, Window: new(Window)},
			Scheme:   scheme, Sign: sign, Master: newKey(3), Agreement: agree[own], PeerKey: agree[other].PublicKey(),
			SigningKey: signer[own], PeerSigning: &signer[other].PublicKey,
		}
	}
	return side(0, 1, FromServer), side(1, 0, FromClient)
}

// TestExchange has each form there and back, cut at every length, with each
// octet altered, and no longer than is said.
func TestExchange(t *testing.T) {
	t.Parallel()
	plain := []byte{0xC0, 1, 0xC1, 0, 8, 0, 0, 1, 0, 0, 255, 2, 0}
	for scheme := NoScheme; scheme <= SchemeStatic; scheme++ {
		client, server := sides(t, scheme, scheme == NoScheme)
		send, open := client.AppendCiphered, func(b []byte) ([]byte, error) { return server.Opened(nil, b) }
		if scheme == NoScheme {
			send, open = client.AppendSigned, server.Verified
		}
		if err := client.Begin(); err != nil {
			t.Fatal(err)
		}
		sent, err := send(nil, plain)
		if err != nil || len(sent)-len(plain) > client.Overhead() {
			t.Fatalf("%v: %d octets more, %d at most, %v", scheme, len(sent)-len(plain), client.Overhead(), err)
		}
		for n := range sent {
			if got, err := open(sent[:n]); err == nil {
				t.Fatalf("%v: cut at %d: %x", scheme, n, got)
			}
		}
		for n := range sent {
			altered := bytes.Clone(sent)
			altered[n] ^= 1
			if got, err := open(altered); err == nil && !(scheme <= SchemeIdentified && bytes.Equal(got, plain)) {
				t.Errorf("%v: octet %d altered: %x", scheme, n, got)
			}
			server.Receiver.Window = new(Window)
		}
		if got, err := open(sent); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%v: %x, %v", scheme, got, err)
		}
		server.Transaction = make([]byte, transactionLen)
		if _, err := open(sent); !errors.Is(err, ErrTransaction) {
			t.Errorf("%v: of another transaction: %v", scheme, err)
		}
	}
}

// FuzzExchange opens anything: what opens was sealed.
func FuzzExchange(f *testing.F) {
	plain := []byte{0xC0, 1, 0xC1, 0, 8, 0, 0, 1, 0, 0, 255, 2, 0}
	for scheme := SchemeUnnamed; scheme <= SchemeStatic; scheme++ {
		client, _ := sides(f, scheme, false)
		if err := client.Begin(); err != nil {
			f.Fatal(err)
		}
		b, err := client.AppendCiphered(nil, plain)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(scheme), b)
		if b, err = client.AppendSigned(nil, plain); err != nil {
			f.Fatal(err)
		}
		f.Add(byte(NoScheme), b)
	}
	f.Fuzz(func(t *testing.T, scheme byte, b []byte) {
		_, server := sides(t, Scheme(scheme), true)
		for _, open := range []func([]byte) ([]byte, error){func(b []byte) ([]byte, error) { return server.Opened(nil, b) }, server.Verified} {
			if got, err := open(b); err == nil && !bytes.Equal(got, plain) {
				t.Fatalf("%x from %x", got, b)
			}
		}
	})
}
