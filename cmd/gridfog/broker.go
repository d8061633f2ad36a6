package main

import (
	"bytes"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	broker "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"gridgate/internal/cli"
	"gridgate/internal/secret"
)

func brokerVerb() cli.Verb {
	return cli.Verb{
		Name:    "broker",
		Summary: "run a small MQTT broker, for demonstrations and tests",
		Example: []string{
			"gridfog broker",
			"gridfog broker -listen 0.0.0.0:1883 -user gateway -password-file broker.password",
			"gridfog broker -listen 0.0.0.0:8883 -cert broker.pem -key broker.key -client-ca gateways.pem -access access.list",
			"gridfog broker -outage-after 5s -outage-for 5s",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			var o brokerOptions
			fs.StringVar(&o.listen, "listen", "127.0.0.1:1883", "`address` to listen on; port 0 takes a free one")
			fs.StringVar(&o.user, "user", "", "the only user `name` that is let in; without it everybody is, on the loopback device")
			fs.StringVar(&o.passwordFile, "password-file", "", "`file` with the user's password in its first line")
			fs.StringVar(&o.cert, "cert", "", "serve TLS with this certificate, a PEM `FILE`; behind it may stand those between it and its authority")
			fs.StringVar(&o.key, "key", "", "its key, a PEM `FILE`")
			fs.StringVar(&o.clientCA, "client-ca", "", "let in only who has a certificate of these authorities, a PEM `FILE`: gateways by their common name SITE/GATEWAY\n(or a URI gridgate://SITE/GATEWAY), each to its own topics; fog operators by the organizational unit fog")
			fs.StringVar(&o.access, "access", "", "let in only whom this `FILE` lists, a line each: `gateway SITE/GATEWAY [GROUP…]` or `fog COMMON-NAME`; it is read again when it changes")
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
	listen, user, passwordFile  string
	cert, key, clientCA, access string
	outageAfter, outageFor      time.Duration
	verbose                     bool
}

// shutdownTime is how long the broker waits for its clients to go.
const shutdownTime = 2 * time.Second

// runBroker serves until ctx ends.
func runBroker(ctx context.Context, env cli.Env, o brokerOptions) error {
	secure, err := brokerTLS(o)
	if err != nil {
		return err
	}
	password, err := brokerPassword(o)
	if err != nil {
		return err
	}
	refused := newRefusals(env.Stderr)
	defer refused.summary(env.Stdout)
	log := slog.New(slog.DiscardHandler)
	if o.verbose {
		log = slog.New(slog.NewTextHandler(env.Stderr, nil))
	}
	// Nothing expires: a catalogue must be there however old it is.
	capabilities := broker.NewDefaultServerCapabilities()
	capabilities.MaximumMessageExpiryInterval = 0
	capabilities.TopicAliasMaximum = 0 // the access list sees names
	server := broker.New(&broker.Options{Logger: log, Capabilities: capabilities, SysTopicResendInterval: 60})
	hook, err := doorkeeper(o, password, server, refused)
	if err != nil {
		return err
	}
	for _, h := range []broker.Hook{hook, &packetIDs{}} {
		if err := server.AddHook(h, nil); err != nil {
			return fmt.Errorf("broker: %w", err)
		}
	}
	gate, err := openGate(o.listen, secure, refused)
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

// doorkeeper gives the hook that decides who is let in.
func doorkeeper(o brokerOptions, password secret.Value, server *broker.Server, r *refusals) (broker.Hook, error) {
	if o.clientCA == "" {
		return &door{user: []byte(o.user), password: password, refusals: r}, nil
	}
	a := &access{path: o.access, refusals: r, connack: func(cl *broker.Client, code packets.Code) {
		_ = server.SendConnack(cl, code, false, nil) // the connection ends in any case
	}}
	if err := a.load(); err != nil {
		return nil, fmt.Errorf("broker: -access: %w", err)
	}
	return a, nil
}

// brokerTLS checks the options of TLS and reads its files; nil is in the clear.
func brokerTLS(o brokerOptions) (*tls.Config, error) {
	switch {
	case (o.cert == "") != (o.key == ""):
		return nil, cli.Usagef("broker: -cert and -key go together")
	case o.clientCA != "" && o.cert == "":
		return nil, cli.Usagef("broker: -client-ca needs TLS: -cert and -key")
	case o.access != "" && o.clientCA == "":
		return nil, cli.Usagef("broker: -access lists names of certificates: it needs -client-ca")
	case o.clientCA != "" && o.user != "":
		return nil, cli.Usagef("broker: with -client-ca the certificate says who it is: -user has no place")
	case o.cert == "":
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return nil, fmt.Errorf("broker: -cert %s: %w", o.cert, err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if o.clientCA == "" {
		return c, nil
	}
	pem, err := os.ReadFile(o.clientCA)
	if err != nil {
		return nil, fmt.Errorf("broker: -client-ca: %w", err)
	}
	c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("broker: -client-ca %s: no PEM certificate in it", o.clientCA)
	}
	return c, nil
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
func brokerPassword(o brokerOptions) (none secret.Value, err error) {
	host, _, err := net.SplitHostPort(o.listen)
	if err != nil {
		return none, cli.Usagef("broker: -listen %q: want HOST:PORT, as in 127.0.0.1:1883", o.listen)
	}
	ip := net.ParseIP(host)
	if o.user == "" && o.clientCA == "" && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return none, cli.Usagef("broker: -listen %s can be reached from outside: it needs -user and -password-file, or -client-ca", o.listen)
	}
	if (o.user == "") != (o.passwordFile == "") {
		return none, cli.Usagef("broker: -user and -password-file go together")
	}
	if o.user == "" {
		return none, nil
	}
	b, err := os.ReadFile(o.passwordFile)
	if err != nil {
		return none, fmt.Errorf("broker: -password-file: %w", err)
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	if line = bytes.TrimSuffix(line, []byte("\r")); len(line) == 0 {
		return none, fmt.Errorf("broker: -password-file %s: the first line is empty", o.passwordFile)
	}
	return secret.Of(line), nil
}

// door lets in one user, or everybody when there is none.
type door struct {
	broker.HookBase
	user     []byte
	password secret.Value
	refusals *refusals
}

func (*door) ID() string { return "door" }

func (*door) Provides(b byte) bool {
	return b == broker.OnConnectAuthenticate || b == broker.OnACLCheck
}

func (d *door) OnConnectAuthenticate(cl *broker.Client, p packets.Packet) bool {
	if len(d.user) == 0 ||
		subtle.ConstantTimeCompare(p.Connect.Username, d.user)&subtle.ConstantTimeCompare(p.Connect.Password, d.password.Reveal()) == 1 {
		return true
	}
	d.refusals.add("client "+clip(cl.ID, maxTold), "connect", "wrong user name or password")
	return false
}

func (*door) OnACLCheck(*broker.Client, string, bool) bool { return true }

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
