package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gridgate/internal/cli"
	"gridgate/internal/mqtt"
	"gridgate/internal/secret"
)

// startBroker runs the verb and gives its address, its further lines, and what
// stops it and gives the exit code.
func startBroker(t *testing.T, args ...string) (address string, lines <-chan string, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	code := make(chan int, 1)
	var stderr bytes.Buffer
	go func() {
		code <- program().Run(ctx, cli.Env{Stdout: w, Stderr: &stderr}, append([]string{"broker", "-listen", "127.0.0.1:0"}, args...))
		_ = w.Close()
	}()
	out := make(chan string, 10)
	go func() {
		defer close(out)
		for s := bufio.NewScanner(r); s.Scan(); {
			out <- s.Text()
		}
	}()
	stop = sync.OnceValue(func() int { cancel(); return <-code })
	t.Cleanup(func() { stop() })
	address, ok := strings.CutPrefix(<-out, "listening on ")
	if !ok {
		stop()
		t.Fatalf("it does not listen: %s", stderr.String())
	}
	return address, out, stop
}

func connect(t *testing.T, o mqtt.Options) *mqtt.Conn {
	t.Helper()
	c, err := mqtt.Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func send(t *testing.T, c *mqtt.Conn, topic string, retained bool) {
	t.Helper()
	token, err := c.Publish(t.Context(), topic, retained, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	<-token.Done()
	if err := token.Err(); err != nil {
		t.Fatal(err)
	}
}

func TestBrokerCarriesMessagesAndEndsPromptly(t *testing.T) {
	t.Parallel()
	address, _, stop := startBroker(t)
	in := make(chan mqtt.Message, 10)
	fog := connect(t, mqtt.Options{Address: address, ClientID: "fog"})
	if err := fog.Subscribe(t.Context(), "#", func(m mqtt.Message) { in <- m }); err != nil {
		t.Fatal(err)
	}
	gateway := connect(t, mqtt.Options{Address: address, ClientID: "gateway"})
	send(t, gateway, "a", false)
	if m := <-in; m.Topic != "a" {
		t.Errorf("%+v", m)
	}
	if code := stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	<-gateway.Done()
	<-fog.Done()
}

func TestBrokerAsksForThePassword(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("right\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	address, _, _ := startBroker(t, "-user", "gw", "-password-file", file)
	send(t, connect(t, mqtt.Options{Address: address, ClientID: "a", Username: "gw", Password: secret.Of("right")}), "a", false)
	for _, o := range []mqtt.Options{
		{}, {Username: "gw"}, {Username: "gw", Password: secret.Of("wrong")}, {Username: "other", Password: secret.Of("right")},
	} {
		o.Address, o.ClientID = address, "b"
		if _, err := mqtt.Dial(t.Context(), o); !errors.Is(err, mqtt.ErrRefused) || !strings.Contains(err.Error(), "user name") {
			t.Errorf("%s %s: %v", o.Username, o.Password, err)
		}
	}
}

// An outage cuts and refuses; what was retained, and a persistent session,
// outlive it.
func TestBrokerOutage(t *testing.T) {
	t.Parallel()
	address, lines, _ := startBroker(t, "-outage-after", "1s", "-outage-for", "1s")
	fog := mqtt.Options{Address: address, ClientID: "fog", Persistent: true}
	first := connect(t, fog)
	if err := first.Subscribe(t.Context(), "a/#", func(mqtt.Message) {}); err != nil {
		t.Fatal(err)
	}
	send(t, connect(t, mqtt.Options{Address: address, ClientID: "gateway"}), "kept", true)
	<-first.Done()
	if line := <-lines; line != "outage: no connections for 1s" {
		t.Error(line)
	}
	if _, err := mqtt.Dial(t.Context(), fog); !errors.Is(err, mqtt.ErrUnreachable) {
		t.Errorf("in the outage: %v", err)
	}
	if line := <-lines; line != "listening on "+address+" again" {
		t.Error(line)
	}
	send(t, connect(t, mqtt.Options{Address: address, ClientID: "gateway"}), "a/b", false)
	in := make(chan mqtt.Message, 10)
	fog.Handler = func(m mqtt.Message) { in <- m }
	second := connect(t, fog)
	if m := <-in; m.Topic != "a/b" {
		t.Errorf("the session gave %+v", m)
	}
	if err := second.Subscribe(t.Context(), "kept", func(m mqtt.Message) { in <- m }); err != nil {
		t.Fatal(err)
	}
	if m := <-in; m.Topic != "kept" || !m.Retained {
		t.Errorf("retained is %+v", m)
	}
}

func TestBrokerBadInput(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		text string
	}{
		{"-listen 0.0.0.0:1883", 2, "needs -user and -password-file"},
		{"-listen :1883", 2, "needs -user and -password-file"},
		{"-listen broker", 2, "want HOST:PORT"},
		{"-user gw", 2, "go together"},
		{"-cert a.pem", 2, "-cert and -key go together"},
		{"-client-ca a.pem", 2, "needs TLS"},
		{"-access a", 2, "needs -client-ca"},
		{"-cert a -key b -client-ca c -user d -password-file e", 2, "-user has no place"},
		{"-cert /no/such -key /no/such", 1, "no such file"},
		{"-cert " + empty + " -key " + empty, 1, "PEM"},
		{"-user gw -password-file /no/such", 1, "no such file"},
		{"-user gw -password-file " + empty, 1, "first line is empty"},
		{"-listen " + taken.Addr().String(), 1, "in use: does a broker run already?"},
		{"now", 2, `unexpected argument "now"`},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		var out, errOut bytes.Buffer
		code := program().Run(ctx, cli.Env{Stdout: &out, Stderr: &errOut}, append([]string{"broker"}, strings.Fields(c.args)...))
		cancel()
		if code != c.code || !strings.Contains(errOut.String(), c.text) {
			t.Errorf("broker %s: code %d\n%s%s", c.args, code, out.String(), errOut.String())
		}
	}
}

func TestRefusalsAreCountedAndToldSeldom(t *testing.T) {
	t.Parallel()
	var out, end bytes.Buffer
	r := newRefusals(&out)
	r.summary(&end)
	for range 150 {
		r.add("gateway a/b", "publish", "x")
	}
	if got, want := out.String(), "refused gateway a/b: publish: x (once)\nrefused gateway a/b: publish: x (10 times)\nrefused gateway a/b: publish: x (100 times)\n"; got != want {
		t.Errorf("told %q", got)
	}
	for i := range 2 * maxRefusals {
		r.add(fmt.Sprint(i), "connect", "")
	}
	r.summary(&end)
	if len(r.counts) > maxRefusals+1 || r.counts[refusal{"others", "connect", ""}] != maxRefusals+1 {
		t.Errorf("%d kinds, others %d", len(r.counts), r.counts[refusal{"others", "connect", ""}])
	}
	if got := end.String(); !strings.HasPrefix(got, "refused altogether 2150 times:\n    1001  others: connect\n     150  gateway a/b: publish: x\n") {
		t.Errorf("%.200s", got)
	}
}
