package drivers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"strings"
	"testing"

	"gridgate/dlms/obis"
	"gridgate/dlms/security"
	"gridgate/drivers/address"
	"gridgate/drivers/cosem"
	"gridgate/drivers/line"
	"gridgate/internal/secret"
)

func parse(t *testing.T, keys string) address.Address {
	t.Helper()
	a, err := address.Parse("dlms+wrapper://127.0.0.1?client=1&" + keys)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func credentials(t *testing.T, a address.Address) address.Credentials {
	t.Helper()
	c, err := a.Resolve(address.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestProtection(t *testing.T) {
	t.Parallel()
	a := parse(t, "auth=gmac&security=authenc&title=Gurux123&ek=000102030405060708090A0B0C0D0E0F&ak=D0 D1 D2 D3 D4 D5 D6 D7 D8 D9 DA DB DC DD DE DF")
	s, err := protection(a, credentials(t, a))
	if err != nil {
		t.Fatal(err)
	}
	ek, ak := s.Keys.Encryption.AppendSecret(nil), s.Keys.Authentication.AppendSecret(nil)
	if s.Policy != security.AuthenticatedEncrypted || s.Suite != security.Suite0 || s.Title != security.Title([]byte("Gurux123")) ||
		hex.EncodeToString(ek) != "000102030405060708090a0b0c0d0e0f" || hex.EncodeToString(ak) != "d0d1d2d3d4d5d6d7d8d9dadbdcdddedf" {
		t.Errorf("%+v, %x, %x", s, ek, ak)
	}
	if objects := counterObjects(a); len(objects) != 2 || objects[0] != (obis.Code{0, 0, 43, 1, 0, 255}) || objects[1] != (obis.Code{0, 0, 43, 1, 1, 255}) {
		t.Errorf("counters in %v", objects)
	}
}

func TestProtectionRefuses(t *testing.T) {
	t.Parallel()
	const ek = "ek=000102030405060708090A0B0C0D0E0F&"
	const ak = "ak=000102030405060708090A0B0C0D0E0F&"
	for keys, want := range map[string]string{
		"auth=gmac&title=Gurux123&ek=hunter2&" + ak:                                   "ek: want 32 hexadecimal digits, the key of suite 0",
		"auth=gmac&title=Gurux123&ak=hunter2&" + ek:                                   "ak: want 32 hexadecimal digits, the key of suite 0",
		"auth=gmac&title=Gurux123&suite=2&" + ek + ak:                                 "ek: want 64 hexadecimal digits, the key of suite 2",
		"auth=ecdsa&title=Gurux123&suite=1&sk=hunter2&pk=x":                           "sk: want a private key on an elliptic curve: PEM, or hexadecimal digits",
		"auth=ecdsa&title=Gurux123&suite=2&sk=" + strings.Repeat("01", 32) + "&pk=x":  "sk: the key is not one of the suite",
		"auth=ecdsa&title=Gurux123&suite=1&pk=hunter2&sk=" + strings.Repeat("01", 32): "pk: want a public key on an elliptic curve",
	} {
		a := parse(t, strings.TrimSuffix(keys, "&"))
		_, err := Open(Config{Address: a, Secrets: credentials(t, a), Counters: struct{ cosem.Counters }{}}, line.TCP(a.Line, line.Options{}))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q", keys, err, want)
		}
	}
	a := parse(t, "security=enc&title=Gurux123&"+strings.TrimSuffix(ek, "&"))
	if _, err := Open(Config{Address: a, Secrets: credentials(t, a)}, line.TCP(a.Line, line.Options{})); err == nil || !strings.Contains(err.Error(), "invocation counter") {
		t.Errorf("without a place for counters: %v", err)
	}
}

func TestSigningKeys(t *testing.T) {
	t.Parallel()
	for curve, suite := range map[elliptic.Curve]string{elliptic.P256(): "1", elliptic.P384(): "2"} {
		own, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		must := func(b []byte, err error) []byte {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		asPEM := func(b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "K", Bytes: b}) }
		point := must(own.PublicKey.Bytes())
		for _, sk := range [][]byte{
			[]byte(hex.EncodeToString(must(own.Bytes()))), asPEM(must(x509.MarshalECPrivateKey(own))), asPEM(must(x509.MarshalPKCS8PrivateKey(own))),
		} {
			for _, pk := range [][]byte{
				[]byte(hex.EncodeToString(point)), []byte(hex.EncodeToString(point[1:])), asPEM(must(x509.MarshalPKIXPublicKey(&own.PublicKey))),
			} {
				a := parse(t, "auth=ecdsa&title=Gurux123&sk=x&pk=x&suite="+suite)
				s, err := protection(a, address.Credentials{SigningKey: secret.Of(sk), MeterKey: secret.Of(pk)})
				if err != nil || !s.SigningKey.Equal(own) || !s.MeterKey.Equal(&own.PublicKey) {
					t.Errorf("suite %s: %v with\n%s%s", suite, err, sk, pk)
				}
			}
		}
	}
}
