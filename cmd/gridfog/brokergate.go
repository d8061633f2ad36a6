package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/mochi-mqtt/server/v2/listeners"
)

// gate is the broker's listener. In an outage it closes its port and resets
// the connections, as a broker that is gone does, while the broker behind it
// keeps what it knows.
type gate struct {
	address  string
	secure   *tls.Config   // nil in the clear
	refusals *refusals     // of handshakes
	ended    chan struct{} // closed by Close

	mu       sync.Mutex
	listener net.Listener // nil in an outage
	conns    map[net.Conn]struct{}
	back     chan struct{} // closed when listener is there again
	once     sync.Once
}

var _ listeners.Listener = (*gate)(nil)

func openGate(address string, secure *tls.Config, r *refusals) (*gate, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("broker: %s is in use: does a broker run already?", address)
	}
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	return &gate{address: l.Addr().String(), secure: secure, refusals: r, ended: make(chan struct{}), listener: l, conns: map[net.Conn]struct{}{}, back: make(chan struct{})}, nil
}

func (g *gate) Init(*slog.Logger) error { return nil }
func (g *gate) ID() string              { return "gate" }
func (g *gate) Address() string         { return g.address }
func (g *gate) Protocol() string        { return "tcp" }

// Serve takes connections until Close.
func (g *gate) Serve(establish listeners.EstablishFn) {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		g.mu.Lock()
		l, back := g.listener, g.back
		g.mu.Unlock()
		if l == nil {
			select {
			case <-back:
				continue
			case <-g.ended:
				return
			}
		}
		c, err := l.Accept()
		if err != nil {
			select {
			case <-g.ended:
				return
			default:
				continue // an outage has begun, or a connection was gone before it was taken
			}
		}
		all.Go(func() {
			defer g.leave(c)
			if !g.enter(c) {
				return
			}
			if known := g.handshake(c); known != nil {
				_ = establish(g.ID(), known) // the broker logs what went wrong
			}
		})
	}
}

// handshakeTime is how long a client may take to secure its connection.
const handshakeTime = 30 * time.Second

// handshake secures a connection, where that is asked for; nil is refused.
func (g *gate) handshake(c net.Conn) net.Conn {
	if g.secure == nil {
		return &guest{Conn: c}
	}
	secure := tls.Server(c, g.secure)
	// A deadline and no context: leave closes the connection when the broker ends.
	_ = c.SetDeadline(time.Now().Add(handshakeTime))
	if err := secure.Handshake(); err != nil { //nolint:noctx // see above
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		g.refusals.add(host, "handshake", unsaid(err))
		return nil
	}
	_ = c.SetDeadline(time.Time{})
	return &guest{Conn: secure}
}

// unsaid gives why a handshake failed, with the name that the client showed.
func unsaid(err error) string {
	var wrong *tls.CertificateVerificationError
	if errors.As(err, &wrong) && len(wrong.UnverifiedCertificates) > 0 {
		return fmt.Sprintf("certificate %q: %v", clip(wrong.UnverifiedCertificates[0].Subject.String(), maxTold), wrong.Err)
	}
	if errors.Is(err, io.EOF) {
		return "the client went away"
	}
	return err.Error()
}

// enter notes a connection, unless an outage has begun since it was accepted.
func (g *gate) enter(c net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listener == nil {
		return false
	}
	g.conns[c] = struct{}{}
	return true
}

func (g *gate) leave(c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
	_ = c.Close()
}

// Close ends Serve, and has the broker say goodbye to its clients.
func (g *gate) Close(goodbye listeners.CloseFn) {
	g.once.Do(func() {
		close(g.ended)
		goodbye(g.ID())
		g.mu.Lock()
		defer g.mu.Unlock()
		for c := range g.conns { // those that have not said who they are
			_ = c.Close()
		}
		if g.listener != nil {
			_ = g.listener.Close()
		}
	})
}

// outage waits, shuts the gate, waits, and opens it again. It returns early
// when ctx ends.
func (g *gate) outage(ctx context.Context, after, length time.Duration, out io.Writer) error {
	if !pause(ctx, after) {
		return nil
	}
	g.shut()
	fmt.Fprintf(out, "outage: no connections for %v\n", length)
	if !pause(ctx, length) {
		return nil
	}
	if err := g.reopen(); err != nil {
		return fmt.Errorf("broker: after the outage: %w", err)
	}
	fmt.Fprintf(out, "listening on %s again\n", g.address)
	return nil
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	_ = g.listener.Close()
	g.listener, g.back = nil, make(chan struct{})
	for c := range g.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
	}
}

func (g *gate) reopen() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	l, err := net.Listen("tcp", g.address)
	if err != nil {
		return err
	}
	g.listener = l
	close(g.back)
	return nil
}
