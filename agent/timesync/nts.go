package timesync

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/beevik/nts"
)

// Extension fields of a reply (RFC 8915, 5.7): type and length of the whole,
// 2 octets each, then the body.
const (
	fieldUnique        = 0x0104
	fieldAuthenticator = 0x0404
	fieldLeast         = 16 // octets (RFC 7822)
)

// keys are the NTS sessions, by server: a key exchange costs 5 KB, and its
// cookies last.
type keys struct {
	mu       sync.Mutex
	sessions map[Server]*session
}

// session is asked by one goroutine at a time.
type session struct {
	*nts.Session
	ctx context.Context // of the question under way: a session out of cookies agrees on keys anew
}

// secured asks a server with NTS.
func (n *network) secured(ctx context.Context, r Request) (sample Sample, err error) {
	// The package indexes what servers send without looking at lengths
	// everywhere; what has not been checked here may not end the agent.
	defer func() {
		if p := recover(); p != nil {
			n.nts.drop(r.Server)
			sample, err = Sample{}, fmt.Errorf("nts: the server's answer is malformed: %v", p)
		}
	}()
	s := n.nts.get(r.Server)
	if s == nil {
		if s, err = n.newSession(ctx, r.Server); err != nil {
			return Sample{}, fmt.Errorf("nts: %w", err)
		}
		n.nts.put(r.Server, s)
	}
	s.ctx = ctx
	link := &link{ctx: ctx, secured: true}
	defer link.release()
	opt := link.options(r)
	resp, err := s.QueryWithOptions(&opt)
	sample, err = link.sample(resp, err)
	if err != nil && !errors.Is(err, errNoAnswer) && !errors.Is(err, ErrNotSynchronised) {
		n.nts.drop(r.Server) // it may have forgotten us: the next poll agrees on keys anew
	}
	return sample, err
}

func (k *keys) get(s Server) *session {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sessions[s]
}

func (k *keys) put(s Server, agreed *session) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.sessions == nil {
		k.sessions = make(map[Server]*session)
	}
	k.sessions[s] = agreed
}

func (k *keys) drop(s Server) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.sessions, s)
}

// newSession agrees on keys.
func (n *network) newSession(ctx context.Context, server Server) (*session, error) {
	address := withPort(server.Address, "4460")
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	s := &session{ctx: ctx}
	s.Session, err = nts.NewSessionWithOptions(address, &nts.SessionOptions{
		TLSConfig: n.tls(host),
		Dialer: func(network, addr string, cfg *tls.Config) (*tls.Conn, error) {
			conn, err := (&tls.Dialer{Config: cfg}).DialContext(s.ctx, network, addr)
			if err != nil {
				return nil, err
			}
			if deadline, ok := s.ctx.Deadline(); ok {
				_ = conn.SetDeadline(deadline)
			}
			return conn.(*tls.Conn), nil
		},
	})
	return s, err
}

// tls checks certificates by the best time that there is. A clock that nobody
// vouches for knows only what has passed: a certificate that is said to begin
// later is taken at its beginning, or else a gateway that was off for long
// could never ask what time it is (RFC 8915, 8.5).
func (n *network) tls(host string) *tls.Config {
	return &tls.Config{
		ServerName: host, MinVersion: tls.VersionTLS13,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does it, with another time
		VerifyConnection: func(state tls.ConnectionState) error {
			now, sure := n.now()
			opts := x509.VerifyOptions{DNSName: host, Roots: n.roots, Intermediates: x509.NewCertPool(), CurrentTime: now}
			for i, cert := range state.PeerCertificates {
				if i > 0 {
					opts.Intermediates.AddCert(cert)
				}
				if !sure && cert.NotBefore.After(opts.CurrentTime) {
					opts.CurrentTime = cert.NotBefore
				}
			}
			_, err := state.PeerCertificates[0].Verify(opts)
			return err
		},
	}
}

// authenticated says whether extension fields are well-formed, name the
// request, and end in an authenticator over all of that. Whether it is right,
// the package nts finds out; it would take a reply that has none.
func authenticated(b []byte) bool {
	unique := false
	for len(b) >= fieldLeast {
		kind, n := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		if n < fieldLeast || n%4 != 0 || n > len(b) {
			return false
		}
		switch kind {
		case fieldUnique:
			unique = true
		case fieldAuthenticator:
			nonce, sealed := int(binary.BigEndian.Uint16(b[4:])), int(binary.BigEndian.Uint16(b[6:]))
			return unique && nonce == 16 && sealed >= 16 && 8+nonce+sealed <= n && n == len(b)
		}
		b = b[n:]
	}
	return false
}
