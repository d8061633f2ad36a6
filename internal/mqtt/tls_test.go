package mqtt_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
)

// authority is a certificate authority with a folder for what it signs.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	File string
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-100 * time.Hour), NotAfter: time.Now().Add(100 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.File = a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// sign gives certificate and key files for a name, valid from and to hours from now.
func (a *authority) sign(name string, from, to int) (cert, key string) {
	a.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(time.Duration(from) * time.Hour), NotAfter: time.Now().Add(time.Duration(to) * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ip := net.ParseIP(name); ip != nil {
		template.DNSNames, template.IPAddresses = nil, []net.IP{ip}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &k.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write(name+".pem", "CERTIFICATE", der), a.write(name+".key", "EC PRIVATE KEY", keyDER)
}

func TestMosquittoOverTLSWithClientCertificates(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ca")
	cert, key := ca.sign("127.0.0.1", -1, 1)
	for _, version := range []string{"tlsv1.2", "tlsv1.3"} {
		b := mqtttest.Mosquitto(t, mqtttest.Config{
			TLS: true, CertFile: cert, KeyFile: key,
			Lines: []string{"cafile " + ca.File, "require_certificate true", "tls_version " + version},
		})
		mine, mineKey := ca.sign("gw-1", -1, 1)
		config, err := mqtt.TLS{CAFile: ca.File, CertFile: mine, KeyFile: mineKey}.Config()
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second resumes the session
			c := dial(t, mqtt.Options{Address: b.Address, ClientID: "gw", TLS: config})
			publish(t, c, "x", false, strings.Repeat("y", 100_000))
			c.Close()
		}
		bare, err := mqtt.TLS{CAFile: ca.File}.Config()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := mqtt.Dial(t.Context(), mqtt.Options{Address: b.Address, ClientID: "gw", TLS: bare}); err == nil {
			t.Errorf("%s: let in without a certificate", version)
		} else {
			t.Logf("%s without a certificate: %v", version, err)
		}
		if _, err := mqtt.Dial(t.Context(), mqtt.Options{Address: b.Address, ClientID: "gw", ConnectTimeout: 5 * time.Second}); err == nil ||
			!strings.Contains(err.Error(), "TLS") {
			t.Errorf("%s: in the clear: %v", version, err)
		}
	}
}

func TestBadCertificatesGetAMessageEach(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	config, err := mqtt.TLS{CAFile: ours.File}.Config()
	if err != nil {
		t.Fatal(err)
	}
	with := func(a *authority, name string, from, to int) func(net.Conn) {
		cert, key := a.sign(name, from, to)
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return func(c net.Conn) { _ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}}).Handshake() }
	}
	for name, c := range map[string]struct {
		serve func(net.Conn)
		text  string
	}{
		"wrong authority": {with(theirs, "127.0.0.1", -1, 1), "certificate signed by unknown authority"},
		"wrong name":      {with(ours, "127.0.0.2", -1, 1), "wrong name"},
		"expired":         {with(ours, "127.0.0.1", -9, -1), "certificate expired on 20"},
		"not yet valid":   {with(ours, "127.0.0.1", 1, 2), "is the gateway's clock right?"},
		"no TLS":          {func(c net.Conn) { _, _ = c.Write([]byte("220 mail server\r\n")) }, "does not speak TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := serve(t, c.serve)
			_, err := mqtt.Dial(t.Context(), mqtt.Options{Address: address, ClientID: "g", TLS: config})
			if !errors.Is(err, mqtt.ErrTLS) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), address) {
				t.Errorf("the message is %q", err)
			}
		})
	}
}

func TestTLSFilesThatAreNotThere(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for text, c := range map[string]mqtt.TLS{
		"no-such.pem":           {CAFile: "no-such.pem"},
		"no PEM certificate":    {CAFile: empty},
		"certificate and key":   {CertFile: empty},
		"client certificate: ":  {CertFile: empty, KeyFile: empty},
		"client certificate: o": {CertFile: "no-such.pem", KeyFile: "no-such.key"},
	} {
		if _, err := c.Config(); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%+v: %v, want %q in it", c, err, text)
		}
	}
}
