package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"strings"
	"testing"
)

// What is written is what the library writes, or reads.
func TestDER(t *testing.T) {
	t.Parallel()
	for range 20 { // scalars with zeros in front among them, some day
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		got, err := publicKeyDER(&key.PublicKey)
		want, wantErr := x509.MarshalPKIXPublicKey(&key.PublicKey)
		if err != nil || wantErr != nil || !bytes.Equal(got, want) {
			t.Errorf("public key %x, %v, want %x", got, err, want)
		}
		got, err = privateKeyDER(key)
		want, wantErr = x509.MarshalPKCS8PrivateKey(key)
		if err != nil || wantErr != nil || !bytes.Equal(got, want) {
			t.Errorf("private key of %d octets, %v, want %d others", len(got), err, len(want))
		}
		for _, name := range []string{"n/g", strings.Repeat("n", 31) + "/" + strings.Repeat("g", 32)} {
			uri := "gridgate://" + name + strings.Repeat("/long", 20)
			text, err := requestDER(name, uri, key)
			if err != nil {
				t.Fatal(err)
			}
			r, err := x509.ParseCertificateRequest(text)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.CheckSignature(); err != nil {
				t.Error(err)
			}
			if r.Subject.String() != "CN="+name || len(r.URIs) != 1 || r.URIs[0].String() != uri || !key.PublicKey.Equal(r.PublicKey) {
				t.Errorf("a request of %v, %v, %v; want %s, %s", r.Subject, r.URIs, r.PublicKey, name, uri)
			}
		}
	}
}
