package web

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Connections that say nothing, or not all, keep nobody out.
func TestSlowRequests(t *testing.T) {
	t.Parallel()
	s := serve(t, func(s *Server) { s.http.ReadHeaderTimeout = time.Hour })
	var slow []net.Conn
	for i := range 2*maxConns + 5 {
		var d net.Dialer
		c, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if i%2 == 0 {
			_, _ = io.WriteString(c, "GET /api/1/start HTTP/1.1\r\nHost: x\r\nX-Slow: ")
		}
		slow = append(slow, c)
	}
	if a, body := s.get(t, viewerToken, "/api/1/start"); a.StatusCode != http.StatusOK {
		t.Errorf("%d %s", a.StatusCode, body)
	}
	// The oldest had to go.
	_ = slow[0].SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadAll(slow[0]); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the oldest connection: %v", err)
	}
	s.conns.mu.Lock()
	defer s.conns.mu.Unlock()
	if len(s.conns.known) > maxConns {
		t.Errorf("%d connections", len(s.conns.known))
	}
}

// A request that does not come to its end is ended.
func TestHeaderTime(t *testing.T) {
	t.Parallel()
	s := serve(t, func(s *Server) { s.http.ReadHeaderTimeout = 50 * time.Millisecond })
	var d net.Dialer
	c, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: ")
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if b, err := io.ReadAll(c); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("%q %v", b, err)
	}
}

// Headers are bounded.
func TestHeaderSize(t *testing.T) {
	t.Parallel()
	s := serve(t)
	if a, _ := s.get(t, viewerToken, "/api/1/start", "X-Long: "+strings.Repeat("x", 2*maxHeader)); a.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%d", a.StatusCode)
	}
}

// A stream does not hold up the stop, and ends with it.
func TestStop(t *testing.T) {
	t.Parallel()
	s := serve(t)
	a, err := http.DefaultClient.Do(s.request(t, technicianToken, "/api/1/events"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Body.Close() }()
	in := bufio.NewReader(a.Body)
	if line, err := in.ReadString('\n'); err != nil || line != "retry: 2000\n" {
		t.Fatalf("%q %v", line, err)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if _, err := io.Copy(io.Discard, in); err != nil && !strings.Contains(err.Error(), "EOF") {
		t.Errorf("the stream ended with %v", err)
	}
}

// A port that is taken is told.
func TestListen(t *testing.T) {
	t.Parallel()
	s := serve(t)
	other := New(Config{Listen: strings.TrimPrefix(s.url, "http://"), Log: s.cfg.Log})
	if _, err := other.Listen(t.Context()); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("%v", err)
	}
	other = New(Config{Listen: "127.0.0.1:0", Certificate: "/nonexistent", Key: "/nonexistent", Log: s.cfg.Log})
	if _, err := other.Listen(t.Context()); err == nil || !strings.Contains(err.Error(), "page: tls: ") {
		t.Errorf("%v", err)
	}
}

// writePair makes a certificate.
func writePair(t *testing.T, dir string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, &c, &c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"page.pem": {Type: "CERTIFICATE", Bytes: der}, "page.key": {Type: "PRIVATE KEY", Bytes: private}} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(1e9+serial, 0) // the file system may tell no two moments apart
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
}

// With TLS: 1.2 or newer, HTTP/1.1, and a certificate that is renewed while it
// runs; half of a pair does no harm.
func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writePair(t, dir, 1)
	s := serve(t, func(s *Server) {
		s.cfg.Certificate, s.cfg.Key = filepath.Join(dir, "page.pem"), filepath.Join(dir, "page.key")
	})
	address := strings.TrimPrefix(s.url, "http://")
	serial := func(most uint16) (int64, error) {
		//nolint:gosec // the certificate is what is asked for, and the version is old on purpose
		d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: most, NextProtos: []string{"h2", "http/1.1"}}}
		c, err := d.DialContext(t.Context(), "tcp", address)
		if err != nil {
			return 0, err
		}
		defer func() { _ = c.Close() }()
		state := c.(*tls.Conn).ConnectionState()
		if state.NegotiatedProtocol != "http/1.1" {
			t.Errorf("negotiated %q", state.NegotiatedProtocol)
		}
		_, _ = io.WriteString(c, "GET /api/1/start HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer "+viewerToken+"\r\n\r\n")
		b, err := io.ReadAll(c)
		if !bytes.HasPrefix(b, []byte("HTTP/1.1 200 OK\r\n")) {
			t.Errorf("%v %.100q", err, b)
		}
		return state.PeerCertificates[0].SerialNumber.Int64(), nil
	}
	if n, err := serial(tls.VersionTLS13); err != nil || n != 1 {
		t.Errorf("%d %v", n, err)
	}
	if _, err := serial(tls.VersionTLS11); err == nil {
		t.Error("TLS 1.1 is taken")
	}
	writePair(t, dir, 2)
	if n, err := serial(tls.VersionTLS12); err != nil || n != 2 {
		t.Errorf("after it was renewed: %d %v", n, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "page.key"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := serial(tls.VersionTLS13); err != nil || n != 2 {
		t.Errorf("with half a pair: %d %v", n, err)
	}
	// Whoever speaks plain HTTP there gets no answer with data in it.
	if a, body := s.get(t, viewerToken, "/api/1/start"); a.StatusCode != http.StatusBadRequest {
		t.Errorf("in plain: %d %s", a.StatusCode, body)
	}
}

// A connection that is being answered is nobody's victim.
func TestPlaces(t *testing.T) {
	t.Parallel()
	c := conns{most: 2, known: map[net.Conn]*place{}}
	open := func() (net.Conn, context.Context) {
		a, b := net.Pipe()
		t.Cleanup(func() { _, _ = a.Close(), b.Close() })
		return a, c.add(t.Context(), a)
	}
	closed := func(conn net.Conn) bool {
		return conn.SetReadDeadline(time.Time{}) != nil
	}
	one, ctx := open()
	done := c.serve(ctx)
	two, _ := open()
	three, ctx3 := open() // two goes: one is being answered
	if closed(one) || !closed(two) || closed(three) {
		t.Errorf("closed: %v %v %v, want the second", closed(one), closed(two), closed(three))
	}
	done3 := c.serve(ctx3)
	if four, _ := open(); !closed(four) || closed(one) || closed(three) {
		t.Error("with all answered, the new one has to go")
	}
	done()
	done3()
	if five, _ := open(); closed(five) || !closed(one) {
		t.Error("of those that were answered, the one that ended first goes")
	}
	c.watch(three, http.StateClosed)
	if len(c.known) != 1 {
		t.Errorf("%d are known", len(c.known))
	}
}
