package mqtt_test

import (
	"context"
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
	"sync/atomic"
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
		if _, err := mqtt.Dial(t.Context(), mqtt.Options{Address: b.Address, ClientID: "gw", TLS: bare}); !errors.Is(err, mqtt.ErrTLS) || !strings.Contains(err.Error(), "none is configured") {
			t.Errorf("%s: without a certificate: %v", version, err)
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

// mutual starts a mosquitto that wants client certificates of clients, and
// shows one that servers signed.
func mutual(t *testing.T, servers *authority, name string, from, to int, clients *authority) *mqtttest.Broker {
	t.Helper()
	cert, key := servers.sign(name, from, to)
	return mqtttest.Mosquitto(t, mqtttest.Config{
		TLS: true, CertFile: cert, KeyFile: key, Lines: []string{"cafile " + clients.File, "require_certificate true"},
	})
}

func TestMosquittoAndBadCertificates(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		server   [2]int // hours from now in which the broker's certificate is valid
		name     string
		stranger bool // an authority that we do not know signed it
		client   [2]int
		alien    bool // an authority that the broker does not know signed ours
		text     string
	}{
		"all is well":              {[2]int{-1, 1}, "127.0.0.1", false, [2]int{-1, 1}, false, ""},
		"wrong authority":          {[2]int{-1, 1}, "127.0.0.1", true, [2]int{-1, 1}, false, "certificate signed by unknown authority"},
		"wrong name":               {[2]int{-1, 1}, "127.0.0.9", false, [2]int{-1, 1}, false, "wrong name"},
		"expired":                  {[2]int{-9, -1}, "127.0.0.1", false, [2]int{-1, 1}, false, "certificate expired on 20"},
		"clock behind":             {[2]int{1, 2}, "127.0.0.1", false, [2]int{-1, 1}, false, "is the gateway's clock right?"},
		"our own expired":          {[2]int{-1, 1}, "127.0.0.1", false, [2]int{-9, -1}, false, "the gateway's own certificate expired on 20"},
		"our own, clock behind":    {[2]int{-1, 1}, "127.0.0.1", false, [2]int{1, 2}, false, "the gateway's own certificate is not valid before 20"},
		"our own, wrong authority": {[2]int{-1, 1}, "127.0.0.1", false, [2]int{-1, 1}, true, "who signed the gateway's certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
			signer, mine := ours, ours
			if c.stranger {
				signer = theirs
			}
			if c.alien {
				mine = theirs
			}
			b := mutual(t, signer, c.name, c.server[0], c.server[1], ours)
			cert, key := mine.sign("gw-1", c.client[0], c.client[1])
			config, err := mqtt.TLS{CAFile: ours.File, CertFile: cert, KeyFile: key}.Config()
			if err != nil {
				t.Fatal(err)
			}
			conn, err := mqtt.Dial(t.Context(), mqtt.Options{Address: b.Address, ClientID: "gw", TLS: config})
			if c.text == "" {
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
				return
			}
			if !errors.Is(err, mqtt.ErrTLS) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), b.Address) {
				t.Errorf("the message is %q", err)
			}
		})
	}
}

// counted counts what a connection carries.
type counted struct {
	net.Conn
	n *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// A second handshake is a resumed one and smaller; one with a renewed client
// certificate is not resumed, and shows the new one.
func TestSessionsAreResumedUntilTheCertificateChanges(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ca")
	b := mutual(t, ca, "127.0.0.1", -1, 1, ca)
	cert, key := ca.sign("gw-1", -1, 1)
	config, err := mqtt.TLS{CAFile: ca.File, CertFile: cert, KeyFile: key}.Config()
	if err != nil {
		t.Fatal(err)
	}
	connect := func() (bytes int64, resumed bool) {
		t.Helper()
		var n atomic.Int64
		config := config.Clone()
		config.VerifyConnection = func(s tls.ConnectionState) error {
			resumed = s.DidResume
			if s.CurveID != tls.X25519 && !s.DidResume {
				t.Errorf("the key share is %v", s.CurveID)
			}
			return nil
		}
		c, err := mqtt.Dial(t.Context(), mqtt.Options{Address: b.Address, ClientID: "gw", TLS: config, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, address)
			return counted{c, &n}, err
		}})
		if err != nil {
			t.Fatal(err)
		}
		publish(t, c, "x", false, "y")
		c.Close()
		return n.Load(), resumed
	}
	first, was := connect()
	second, is := connect()
	if was || !is || second >= first {
		t.Errorf("%d bytes, resumed %v; then %d bytes, resumed %v", first, was, second, is)
	}
	t.Logf("a connection of one message: %d bytes, resumed %d", first, second)
	ca.sign("gw-1", -2, 2) // into the same files
	if third, again := connect(); again || third <= second {
		t.Errorf("with a new certificate %d bytes, resumed %v", third, again)
	}
	if _, again := connect(); !again {
		t.Error("not resumed afterwards")
	}
}

func TestTheWayOut(t *testing.T) {
	t.Parallel()
	b := mqtttest.Mosquitto(t, mqtttest.Config{})
	for _, way := range []string{"", "lo", "127.0.0.2"} {
		publish(t, dial(t, mqtt.Options{Address: b.Address, ClientID: "gw", Interface: way, SendBuffer: 8 << 10, ReceiveBuffer: 8 << 10}), "x", false, "y")
	}
	from := make(chan string, 1)
	address := serve(t, func(c net.Conn) { from <- c.RemoteAddr().String() })
	_, _ = mqtt.Dial(t.Context(), mqtt.Options{Address: address, ClientID: "gw", Interface: "127.0.0.3"})
	if got := <-from; !strings.HasPrefix(got, "127.0.0.3:") {
		t.Errorf("it came from %v", got)
	}
	for way, text := range map[string]string{"wwan9": "no such network interface", "192.0.2.77": "the gateway has no such address"} {
		_, err := mqtt.Dial(t.Context(), mqtt.Options{Address: b.Address, ClientID: "gw", Interface: way})
		if !errors.Is(err, mqtt.ErrUnreachable) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", way, err)
		}
	}
}

// A file of authorities that changes is used at the next connection, also in
// place of a session that could be resumed; one that is half written is not.
func TestAuthoritiesAreReadAgain(t *testing.T) {
	t.Parallel()
	old, next := newAuthority(t, "old"), newAuthority(t, "next")
	b := mutual(t, old, "127.0.0.1", -1, 1, old)
	cert, key := old.sign("gw-1", -1, 1)
	file := filepath.Join(t.TempDir(), "ca.pem")
	written := time.Now()
	put := func(from ...string) {
		t.Helper()
		var all []byte
		written = written.Add(time.Second) // two dates of a file may be the same tick
		defer func() {
			if err := os.Chtimes(file, written, written); err != nil {
				t.Fatal(err)
			}
		}()
		for _, f := range from {
			one, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, one...)
		}
		if err := os.WriteFile(file, all, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(old.File)
	files := mqtt.TLS{CAFile: file, CertFile: cert, KeyFile: key}
	config, err := files.Config()
	if err != nil {
		t.Fatal(err)
	}
	roots := files.Roots()
	connect := func() error {
		c, err := mqtt.Dial(t.Context(), mqtt.Options{Address: b.Address, ClientID: "gw", TLS: config, Roots: roots})
		if err == nil {
			publish(t, c, "x", false, "y")
			c.Close()
		}
		return err
	}
	for what, set := range map[string]struct {
		from []string
		want string
	}{
		"the same":                        {[]string{old.File}, ""},
		"the old and the next":            {[]string{old.File, next.File}, ""},
		"the next alone":                  {[]string{next.File}, "unknown authority"},
		"nothing, after one that is good": {nil, ""},
	} {
		if set.from == nil {
			put(old.File)
			if err := connect(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		put(set.from...)
		err := connect()
		if (err == nil) != (set.want == "") || err != nil && !strings.Contains(err.Error(), set.want) {
			t.Errorf("%s: %v, want %q", what, err, set.want)
		}
	}
}
