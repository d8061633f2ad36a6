package main

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

const root = "../.."

// newTestStage is a stage that ends with the test, and tells what its processes
// said when that failed.
func newTestStage(t *testing.T) *stage {
	t.Helper()
	s, err := newStage()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, p := range s.processes {
				t.Logf("%s said:\n%s", p.name, p.tail())
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// client is a connection with what came over it.
type client struct {
	*mqtt.Conn

	mu  sync.Mutex
	got []string // topic and payload
}

func (c *client) take(m mqtt.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, m.Topic+" "+string(m.Payload))
}

func (c *client) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.got)
}

// connect connects with the certificate of that name, none for an empty one.
func connect(t *testing.T, s *stage, b *broker, certificate, id string) (*client, error) {
	t.Helper()
	file := func(name string) string { return filepath.Join(s.dir, "certs", name) }
	files := mqtt.TLS{CAFile: file("ca.pem")}
	if certificate != "" {
		files.CertFile, files.KeyFile = file(certificate+".pem"), file(certificate+".key")
	}
	config, err := files.Config()
	if err != nil {
		t.Fatal(err)
	}
	c := &client{}
	c.Conn, err = mqtt.Dial(t.Context(), mqtt.Options{Address: b.addresses[0], ClientID: id, TLS: config, Handler: c.take})
	if err == nil {
		t.Cleanup(c.Close)
	}
	return c, err
}

// mustConnect connects, again if need be: the first connection has a NATS cluster
// make its streams, which may take longer than a client waits.
func mustConnect(t *testing.T, s *stage, b *broker, certificate, id string, filters ...string) *client {
	t.Helper()
	var c *client
	var err error
	waited := await(t.Context(), certificate+" is connected", func() bool {
		if c, err = connect(t, s, b, certificate, id); err != nil {
			return false
		}
		if len(filters) > 0 {
			err = c.SubscribeAll(t.Context(), filters, c.take)
		}
		if err != nil {
			c.Close()
		}
		return err == nil
	})
	if waited != nil {
		t.Fatalf("%v: %v", waited, err)
	}
	return c
}

// say publishes, and waits for the PUBACK or the end of the connection: brokers
// answer a topic that they forbid with either.
func (c *client) say(t *testing.T, topic string) {
	t.Helper()
	token, err := c.Publish(t.Context(), topic, false, []byte("x"))
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case <-token.Done():
	case <-c.Done():
	case <-ctx.Done():
		t.Errorf("%s: neither PUBACK nor end", topic)
	}
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	if err := await(t.Context(), what, done); err != nil {
		t.Fatal(err)
	}
}

// A gateway publishes and hears below its own name, nobody else does, and who
// has no certificate of the authority's is not let in.
func TestAccess(t *testing.T) {
	f := fleet{Gateways: 2, Sites: 1}
	for _, kind := range []string{"mosquitto", "nats", "rabbitmq"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newTestStage(t)
			b, err := startBroker(t.Context(), s, kind, filepath.Join(root, "configs/fog"), f)
			if err != nil {
				t.Fatal(err)
			}
			fog := mustConnect(t, s, b, "fog", "fog-1", mqtt.UpFilter("", ""), "gridgate/1/+/+/down/#", "gridgate/1/+/_firmware/+")
			topic := func(gateway, rest string) string { return "gridgate/1/site-0/" + gateway + "/" + rest }
			foreign := []string{topic("gw-1", "up/readings/alarm"), topic("gw-0", "down/ack/alarm"), topic("gw-1", "down/command"), "gridgate/1/site-9/gw-0/up/state", topic("gw-1", "up/firmware"), part("site-0"), "other"}
			say := func(topic string) {
				gw := mustConnect(t, s, b, "site-0.gw-0", "site-0_gw-0")
				gw.say(t, topic)
				gw.Close()
			}
			for _, forbidden := range foreign {
				say(forbidden)
			}
			eventually(t, "what is allowed", func() bool { // and what was sent before it has come or never will
				say(topic("gw-0", "up/last"))
				return slices.Contains(fog.all(), topic("gw-0", "up/last")+" x")
			})
			for _, m := range fog.all() {
				if !strings.HasPrefix(m, topic("gw-0", "up/")) {
					t.Errorf("the fog got %q from gw-0", m)
				}
			}
			hears(t, s, b, fog, topic)
			if _, err := connect(t, s, b, "", "site-0_gw-1"); err == nil {
				t.Error("let in without a certificate")
			}
			other := newTestStage(t) // with an authority of its own
			if _, err := certify(t.Context(), other, filepath.Join(root, "configs/fog"), f); err != nil {
				t.Fatal(err)
			}
			copyCA(t, s, other)
			if _, err := connect(t, other, b, "site-0.gw-0", "site-0_gw-0"); err == nil {
				t.Error("let in with a certificate of another authority")
			}
		})
	}
}

// part is the topic of a part of firmware for a site.
func part(site meter.ID) string { return mqtt.PartOfFirmware(site, [16]byte{1, 2, 3}) }

// copyCA has the clients of one stage trust the authority of another.
func copyCA(t *testing.T, from, to *stage) {
	t.Helper()
	if err := copyWith(filepath.Join(from.dir, "certs", "ca.pem"), filepath.Join(to.dir, "certs", "ca.pem")); err != nil {
		t.Fatal(err)
	}
}

// hears checks what a gateway may subscribe to.
func hears(t *testing.T, s *stage, b *broker, fog *client, topic func(gateway, rest string) string) {
	t.Helper()
	foreign := &client{}
	for _, filter := range []string{topic("gw-1", "down/#"), "gridgate/#", topic("gw-1", "up/#"), topic("gw-1", "up/firmware")} {
		// Refused by an error, in silence, or by the end of the connection.
		gw := mustConnect(t, s, b, "site-0.gw-0", "site-0_gw-0")
		_ = gw.Subscribe(t.Context(), filter, foreign.take)
		gw.Close()
	}
	token, err := fog.Publish(t.Context(), part("site-0"), true, []byte("octets"))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the broker has a part of firmware", func() bool {
		select {
		case <-token.Done():
			return token.Err() == nil
		default:
			return false
		}
	})
	gw := mustConnect(t, s, b, "site-0.gw-0", "site-0_gw-0", topic("gw-0", "down/#"), "gridgate/1/site-0/_group/east/down/#", part("site-0"))
	mustConnect(t, s, b, "site-0.gw-1", "site-0_gw-1").say(t, topic("gw-1", "up/state"))
	for _, to := range []string{topic("gw-1", "down/command"), "gridgate/1/site-0/_group/east/down/config", topic("gw-0", "down/command")} {
		fog.say(t, to)
	}
	eventually(t, "what is for gw-0", func() bool { return slices.Contains(gw.all(), topic("gw-0", "down/command")+" x") })
	eventually(t, "a part of firmware", func() bool { return slices.Contains(gw.all(), part("site-0")+" octets") })
	for _, m := range slices.Concat(gw.all(), foreign.all()) {
		if strings.Contains(m, "gw-1") {
			t.Errorf("gw-0 heard %q", m)
		}
	}
	if !slices.Contains(gw.all(), "gridgate/1/site-0/_group/east/down/config x") {
		t.Errorf("gw-0 heard %q", gw.all())
	}
}
