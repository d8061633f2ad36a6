package main

import (
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	broker "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"gridgate/internal/cli"
)

func brokerVerb() cli.Verb {
	return cli.Verb{
		Name:    "broker",
		Summary: "run a small MQTT broker, for demonstrations and tests",
		Example: []string{
			"gridfog broker",
			"gridfog broker -listen 0.0.0.0:1883 -user gateway -password-file broker.password",
			"gridfog broker -outage-after 5s -outage-for 5s",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			var o brokerOptions
			fs.StringVar(&o.listen, "listen", "127.0.0.1:1883", "`address` to listen on; port 0 takes a free one")
			fs.StringVar(&o.user, "user", "", "the only user `name` that is let in; without it everybody is, on the loopback device")
			fs.StringVar(&o.passwordFile, "password-file", "", "`file` with the user's password in its first line")
			fs.DurationVar(&o.outageAfter, "outage-after", 0, "begin an outage after this `time`: cut all connections, listen no more")
			fs.DurationVar(&o.outageFor, "outage-for", 5*time.Second, "end the outage after this `time`; sessions and retained messages survive it")
			fs.BoolVar(&o.verbose, "v", false, "log connections to stderr")
			return func(ctx context.Context, env cli.Env, args []string) error {
				if len(args) > 0 {
					return cli.Usagef("broker: unexpected argument %q", args[0])
				}
				return runBroker(ctx, env, o)
			}
		},
	}
}

type brokerOptions struct {
	listen, user, passwordFile string
	outageAfter, outageFor     time.Duration
	verbose                    bool
}

// shutdownTime is how long the broker waits for its clients to go.
const shutdownTime = 2 * time.Second

// runBroker serves until ctx ends.
func runBroker(ctx context.Context, env cli.Env, o brokerOptions) error {
	password, err := brokerPassword(o)
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	if o.verbose {
		log = slog.New(slog.NewTextHandler(env.Stderr, nil))
	}
	// Nothing expires: a catalogue must be there however old it is.
	capabilities := broker.NewDefaultServerCapabilities()
	capabilities.MaximumMessageExpiryInterval = 0
	server := broker.New(&broker.Options{Logger: log, Capabilities: capabilities, SysTopicResendInterval: 60})
	if err := server.AddHook(&door{user: []byte(o.user), password: password}, nil); err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	gate, err := openGate(o.listen)
	if err != nil {
		return err
	}
	defer gate.Close(func(string) {})
	if err := server.AddListener(gate); err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	if err := server.Serve(); err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	fmt.Fprintf(env.Stdout, "listening on %s\n", gate.Address())
	if o.outageAfter > 0 {
		if err := gate.outage(ctx, o.outageAfter, o.outageFor, env.Stdout); err != nil {
			return errors.Join(err, closeBroker(server))
		}
	}
	<-ctx.Done()
	return closeBroker(server)
}

// closeBroker closes the server, which may wait for a client that takes
// nothing, but not longer than shutdownTime.
func closeBroker(server *broker.Server) error {
	closed := make(chan error, 1)
	go func() { closed <- server.Close() }()
	limit := time.NewTimer(shutdownTime)
	defer limit.Stop()
	select {
	case err := <-closed:
		return err
	case <-limit.C:
		return nil
	}
}

// brokerPassword checks the options and reads the password.
func brokerPassword(o brokerOptions) ([]byte, error) {
	host, _, err := net.SplitHostPort(o.listen)
	if err != nil {
		return nil, cli.Usagef("broker: -listen %q: want HOST:PORT, as in 127.0.0.1:1883", o.listen)
	}
	ip := net.ParseIP(host)
	if o.user == "" && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, cli.Usagef("broker: -listen %s can be reached from outside: it needs -user and -password-file", o.listen)
	}
	if (o.user == "") != (o.passwordFile == "") {
		return nil, cli.Usagef("broker: -user and -password-file go together")
	}
	if o.user == "" {
		return nil, nil
	}
	b, err := os.ReadFile(o.passwordFile)
	if err != nil {
		return nil, fmt.Errorf("broker: -password-file: %w", err)
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	if line = bytes.TrimSuffix(line, []byte("\r")); len(line) == 0 {
		return nil, fmt.Errorf("broker: -password-file %s: the first line is empty", o.passwordFile)
	}
	return line, nil
}

// door lets in one user, or everybody when there is none.
type door struct {
	broker.HookBase
	user, password []byte
}

func (*door) ID() string { return "door" }

func (*door) Provides(b byte) bool {
	return b == broker.OnConnectAuthenticate || b == broker.OnACLCheck
}

func (d *door) OnConnectAuthenticate(_ *broker.Client, p packets.Packet) bool {
	return len(d.user) == 0 ||
		subtle.ConstantTimeCompare(p.Connect.Username, d.user)&subtle.ConstantTimeCompare(p.Connect.Password, d.password) == 1
}

func (*door) OnACLCheck(*broker.Client, string, bool) bool { return true }

// gate is the broker's listener. In an outage it closes its port and resets
// the connections, as a broker that is gone does, while the broker behind it
// keeps what it knows.
type gate struct {
	address string
	ended   chan struct{} // closed by Close

	mu       sync.Mutex
	listener net.Listener // nil in an outage
	conns    map[net.Conn]struct{}
	back     chan struct{} // closed when listener is there again
	once     sync.Once
}

var _ listeners.Listener = (*gate)(nil)

func openGate(address string) (*gate, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("broker: %s is in use: does a broker run already?", address)
	}
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	return &gate{address: l.Addr().String(), ended: make(chan struct{}), listener: l, conns: map[net.Conn]struct{}{}, back: make(chan struct{})}, nil
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
			if g.enter(c) {
				_ = establish(g.ID(), c) // the broker logs what went wrong
			}
			g.leave(c)
		})
	}
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

// pause waits and says whether ctx still stands.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
