package mqtt

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"sync"

	"gridgate/internal/secret"
)

// TLS says how a connection is secured. The zero value trusts the system's
// authorities and shows no certificate.
type TLS struct {
	CAFile   string // PEM; the only authorities that are trusted, when set
	CertFile string // PEM; the client certificate, with KeyFile
	KeyFile  string
	// Key gives the key where it is in no file: PEM; asked at each handshake. nil
	// reads KeyFile.
	Key        KeySource
	ServerName string // the name on the broker's certificate; the host of the address when empty
}

// KeySource has the key of a client certificate.
type KeySource interface {
	ClientKey() (secret.Value, error)
}

// Config reads the files and gives the configuration for Options.TLS. Use one
// for all connections: it holds the session tickets that make the next
// handshake smaller. The client certificate is read again at each handshake,
// so that a renewed one needs no restart; for the authorities see Roots.
//
// The key share is X25519 alone, without the post-quantum hybrid: over GPRS
// that is 4.2 KB for a handshake instead of 5.6 KB. P-256 stays on offer for
// brokers and certificates that know no other curve.
func (t TLS) Config() (*tls.Config, error) {
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         t.ServerName,
		CurvePreferences:   []tls.CurveID{tls.X25519, tls.CurveP256},
		ClientSessionCache: &sessions{files: []string{t.CAFile, t.CertFile, t.KeyFile}},
	}
	if t.CAFile != "" {
		var err error
		if c.RootCAs, err = t.authorities(); err != nil {
			return nil, err
		}
	}
	if (t.CertFile == "") != (t.KeyFile == "" && t.Key == nil) {
		return nil, errors.New("client certificate: certificate and key are needed both")
	}
	if t.CertFile != "" {
		if _, err := t.certificate(); err != nil {
			return nil, err
		}
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return t.certificate() }
	}
	return c, nil
}

// Roots gives Options.Roots: the authorities as their file has them now. When it
// cannot be read, or has none in it, as when it is being written, those of the
// last time go on. It is nil without a CAFile.
func (t TLS) Roots() func() *x509.CertPool {
	if t.CAFile == "" {
		return nil
	}
	var mu sync.Mutex
	var last *x509.CertPool
	return func() *x509.CertPool {
		mu.Lock()
		defer mu.Unlock()
		if pool, err := t.authorities(); err == nil {
			last = pool
		}
		if last == nil {
			return x509.NewCertPool() // nobody; nil would be the system's
		}
		return last
	}
}

func (t TLS) authorities() (*x509.CertPool, error) {
	pem, err := os.ReadFile(t.CAFile)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("certificate authority %s: no PEM certificate in it", t.CAFile)
	}
	return pool, nil
}

func (t TLS) certificate() (*tls.Certificate, error) {
	if t.Key == nil {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		return &pair, nil
	}
	certificate, err := os.ReadFile(t.CertFile)
	if err != nil {
		return nil, fmt.Errorf("client certificate: %w", err)
	}
	key, err := t.Key.ClientKey()
	if err != nil {
		return nil, fmt.Errorf("client certificate: key: %w", err)
	}
	pair, err := tls.X509KeyPair(certificate, key.Reveal())
	if err != nil {
		return nil, fmt.Errorf("client certificate %s and its key: %w", t.CertFile, err)
	}
	return &pair, nil
}

// sessions keeps the tickets of earlier handshakes as long as the certificates
// stay the same: a resumed session would go on with the old ones.
type sessions struct {
	files []string

	mu    sync.Mutex
	dates string
	cache tls.ClientSessionCache
}

func (s *sessions) current() tls.ClientSessionCache {
	s.mu.Lock()
	defer s.mu.Unlock()
	dates := ""
	for _, f := range s.files {
		if info, err := os.Stat(f); err == nil {
			dates += fmt.Sprintf("%v %d ", info.ModTime().UnixNano(), info.Size())
		}
	}
	if s.cache == nil || dates != s.dates {
		s.dates, s.cache = dates, tls.NewLRUClientSessionCache(4)
	}
	return s.cache
}

func (s *sessions) Get(key string) (*tls.ClientSessionState, bool) { return s.current().Get(key) }

func (s *sessions) Put(key string, state *tls.ClientSessionState) { s.current().Put(key, state) }

// ParseURL reads a broker's URL: mqtt://host:1883 or mqtts://host:8883 (or tcp and ssl, the older names); the
// port may be left out. User name and password have no place in it. The error
// never quotes what might be a password.
func ParseURL(s string) (address string, secure bool, err error) {
	u, err := url.Parse(s)
	if err != nil {
		return "", false, errors.New("broker: not a URL: want mqtt://host:1883 or mqtts://host:8883")
	}
	port := "1883"
	switch u.Scheme {
	case "mqtt", "tcp":
	case "mqtts", "ssl":
		port, secure = "8883", true
	default:
		return "", false, fmt.Errorf("broker: scheme %q: want mqtt://host:1883 or mqtts://host:8883", u.Scheme)
	}
	if u.User != nil {
		return "", false, errors.New("broker: user name and password have keys of their own, they do not belong in the URL")
	}
	if u.Hostname() == "" || (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" {
		return "", false, errors.New("broker: want only a scheme, a host and a port: mqtt://host:1883 or mqtts://host:8883")
	}
	if p := u.Port(); p != "" {
		port = p
	}
	return net.JoinHostPort(u.Hostname(), port), secure, nil
}
