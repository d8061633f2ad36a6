package mqtt_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/secret"
)

func dial(t *testing.T, o mqtt.Options) *mqtt.Conn {
	t.Helper()
	c, err := mqtt.Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// await fails the test when c is not closed in a time that only a hang needs.
func await(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	select {
	case <-c:
	case <-limit.C:
		t.Fatalf("%s: nothing in 30 s", what)
	}
}

func publish(t *testing.T, c *mqtt.Conn, topic string, retained bool, payload string) {
	t.Helper()
	token, err := c.Publish(t.Context(), topic, retained, []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	await(t, token.Done(), "PUBACK")
	if err := token.Err(); err != nil {
		t.Fatal(err)
	}
}

func subscribe(t *testing.T, c *mqtt.Conn, filter string) <-chan mqtt.Message {
	t.Helper()
	in := make(chan mqtt.Message, 100)
	if err := c.Subscribe(t.Context(), filter, func(m mqtt.Message) { in <- m }); err != nil {
		t.Fatal(err)
	}
	return in
}

func next(t *testing.T, in <-chan mqtt.Message) mqtt.Message {
	t.Helper()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	select {
	case m := <-in:
		return m
	case <-limit.C:
		t.Fatal("no message in 30 s")
		return mqtt.Message{}
	}
}

func TestMessagesPassInOrderOverMosquitto(t *testing.T) {
	t.Parallel()
	b := mqtttest.Mosquitto(t, mqtttest.Config{})
	fog := dial(t, mqtt.Options{Address: b.Address, ClientID: "fog"})
	in := subscribe(t, fog, mqtt.UpFilter("", ""))
	gateway := dial(t, mqtt.Options{Address: b.Address, ClientID: "gateway"})
	publish(t, gateway, mqtt.StateTopic("s", "g"), true, "online")
	for i := range 50 {
		if _, err := gateway.Publish(t.Context(), mqtt.ReadingsTopic("s", "g", 0), false, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	if m := next(t, in); m.Topic != "gridgate/1/s/g/up/state" || string(m.Payload) != "online" || m.Retained {
		t.Errorf("first came %+v", m)
	}
	for i := range 50 {
		if m := next(t, in); string(m.Payload) != fmt.Sprint(i) {
			t.Fatalf("message %d is %q", i, m.Payload)
		}
	}
	late := subscribe(t, dial(t, mqtt.Options{Address: b.Address, ClientID: "late"}), mqtt.UpFilter("s", "g"))
	if m := next(t, late); !m.Retained || string(m.Payload) != "online" {
		t.Errorf("a late subscriber gets %+v", m)
	}
}

// What is sent with QoS 0 comes in order with what is published, and all of it
// before a Close ends the connection.
func TestSendKeepsTheOrder(t *testing.T) {
	t.Parallel()
	b := mqtttest.Mosquitto(t, mqtttest.Config{})
	in := subscribe(t, dial(t, mqtt.Options{Address: b.Address, ClientID: "reader"}), "t/#")
	c := dial(t, mqtt.Options{Address: b.Address, ClientID: "writer"})
	for i := range 80 {
		if i%10 == 9 {
			publish(t, c, "t/published", false, fmt.Sprint(i))
			continue
		}
		if err := c.Send(t.Context(), "t/sent", fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	for i := range 80 {
		if m := next(t, in); string(m.Payload) != fmt.Sprint(i) || m.Retained {
			t.Fatalf("message %d is %+v", i, m)
		}
	}
	if err := c.Send(t.Context(), "t/sent", nil); err == nil {
		t.Error("sent on a closed connection")
	}
}

func TestTheWillIsPublishedOnAbortAndNotOnClose(t *testing.T) {
	t.Parallel()
	b := mqtttest.Mosquitto(t, mqtttest.Config{})
	in := subscribe(t, dial(t, mqtt.Options{Address: b.Address, ClientID: "fog"}), "#")
	with := func(id string) *mqtt.Conn {
		return dial(t, mqtt.Options{Address: b.Address, ClientID: id, Will: &mqtt.Message{Topic: "will/" + id, Payload: []byte("gone"), Retained: true}})
	}
	closed := with("closed")
	closed.Close()
	if err := closed.Err(); err != nil {
		t.Errorf("after Close Err is %v", err)
	}
	aborted := with("aborted")
	why := errors.New("no PUBACK")
	aborted.Abort(why)
	await(t, aborted.Done(), "Done after Abort")
	if err := aborted.Err(); !errors.Is(err, why) || !errors.Is(err, mqtt.ErrLost) {
		t.Errorf("after Abort Err is %v", err)
	}
	if m := next(t, in); m.Topic != "will/aborted" || string(m.Payload) != "gone" {
		t.Errorf("the first will is %+v", m)
	}
	if _, err := aborted.Publish(t.Context(), "x", false, nil); !errors.Is(err, mqtt.ErrLost) {
		t.Errorf("publish on an aborted connection: %v", err)
	}
	if _, err := closed.Publish(t.Context(), "x", false, nil); err == nil {
		t.Error("publish on a closed connection did not fail")
	}
}

func TestABrokerThatStopsEndsTheConnection(t *testing.T) {
	t.Parallel()
	b := mqtttest.Mosquitto(t, mqtttest.Config{})
	c := dial(t, mqtt.Options{Address: b.Address, ClientID: "gateway"})
	b.Stop()
	await(t, c.Done(), "Done")
	if err := c.Err(); !errors.Is(err, mqtt.ErrLost) || !strings.Contains(err.Error(), b.Address) {
		t.Error(err)
	}
	if _, err := mqtt.Dial(t.Context(), mqtt.Options{Address: b.Address, ClientID: "gateway"}); !errors.Is(err, mqtt.ErrUnreachable) ||
		!strings.Contains(err.Error(), "connection refused") || !strings.Contains(err.Error(), b.Address) {
		t.Errorf("while it is down: %v", err)
	}
	b.Start()
	publish(t, dial(t, mqtt.Options{Address: b.Address, ClientID: "gateway"}), "x", false, "y")
}

func TestAWrongPasswordIsSaidAndNotTold(t *testing.T) {
	t.Parallel()
	b := mqtttest.Mosquitto(t, mqtttest.Config{User: "gw", Password: "right-one"})
	publish(t, dial(t, mqtt.Options{Address: b.Address, ClientID: "g", Username: "gw", Password: secret.Of("right-one")}), "x", false, "y")
	_, err := mqtt.Dial(t.Context(), mqtt.Options{Address: b.Address, ClientID: "g", Username: "gw", Password: secret.Of("hunter2")})
	if !errors.Is(err, mqtt.ErrRefused) || !strings.Contains(err.Error(), "user name") || !strings.Contains(err.Error(), b.Address) {
		t.Errorf("the message is %q", err)
	}
	if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), "hunter2") {
		t.Error("the password is in the error")
	}
}

func TestAPersistentSessionKeepsMessages(t *testing.T) {
	t.Parallel()
	b := mqtttest.Mosquitto(t, mqtttest.Config{})
	o := mqtt.Options{Address: b.Address, ClientID: "gateway", Persistent: true}
	first := dial(t, o)
	_ = subscribe(t, first, "down/#")
	first.Close()
	publish(t, dial(t, mqtt.Options{Address: b.Address, ClientID: "fog"}), "down/x", false, "while away")
	in := make(chan mqtt.Message, 1)
	o.Handler = func(m mqtt.Message) { in <- m }
	dial(t, o)
	if m := next(t, in); string(m.Payload) != "while away" {
		t.Errorf("got %+v", m)
	}
}

// serve answers each connection with f until the test ends.
func serve(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f(c)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

func TestStrangeBrokersGetAMessageEach(t *testing.T) {
	t.Parallel()
	answer := func(b ...byte) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = c.Read(make([]byte, 1000))
			_, _ = c.Write(b)
			_, _ = c.Read(make([]byte, 1000)) // until the client closes
		}
	}
	for name, c := range map[string]struct {
		serve func(net.Conn)
		kind  error
		text  string
	}{
		"bad user name or password": {answer(0x20, 2, 0, 4), mqtt.ErrRefused, "bad user name or password"},
		"not authorised":            {answer(0x20, 2, 0, 5), mqtt.ErrRefused, "not authorised"},
		"client id":                 {answer(0x20, 2, 0, 2), mqtt.ErrRefused, "client id"},
		"unavailable":               {answer(0x20, 2, 0, 3), mqtt.ErrRefused, "not available"},
		"version":                   {answer(0x20, 2, 0, 1), mqtt.ErrRefused, "3.1.1"},
		"unknown code":              {answer(0x20, 2, 0, 9), mqtt.ErrUnreachable, "unknown code 9"},
		"a web server":              {answer([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")...), mqtt.ErrUnreachable, "is this an MQTT broker?"},
		"hangs up":                  {func(net.Conn) {}, mqtt.ErrUnreachable, "closed the connection"},
		"silent":                    {func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, mqtt.ErrUnreachable, "did not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := serve(t, c.serve)
			_, err := mqtt.Dial(t.Context(), mqtt.Options{
				Address: address, ClientID: "g", Username: "u", Password: secret.Of("hunter2"), ConnectTimeout: time.Second,
			})
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), address) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the message is %q", err)
			}
		})
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	address := serve(t, func(c net.Conn) { cancel(); _, _ = io.Copy(io.Discard, c) })
	if _, err := mqtt.Dial(ctx, mqtt.Options{Address: address, ClientID: "g"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled while it waits for CONNACK: %v", err)
	}
	if _, err := mqtt.Dial(ctx, mqtt.Options{Address: address, ClientID: "g"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
}

func TestNamesThatDoNotResolve(t *testing.T) {
	t.Parallel()
	refuse := func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "broker.invalid", IsNotFound: true}}
	}
	_, err := mqtt.Dial(t.Context(), mqtt.Options{Address: "broker.invalid:1883", ClientID: "g", Dial: refuse})
	if !errors.Is(err, mqtt.ErrUnreachable) || !strings.Contains(err.Error(), "does not resolve") {
		t.Error(err)
	}
	silent := func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}
	}
	_, err = mqtt.Dial(t.Context(), mqtt.Options{Address: "10.0.0.1:1883", ClientID: "g", Dial: silent})
	if !errors.Is(err, mqtt.ErrUnreachable) || !strings.Contains(err.Error(), "no answer") {
		t.Error(err)
	}
}

// A gateway that reconnects while the broker still holds its dead connection:
// the will of the old one must not overwrite the state that the new one sets.
func TestTheWillOfAConnectionThatIsTakenOverComesFirst(t *testing.T) {
	t.Parallel()
	b := mqtttest.Mosquitto(t, mqtttest.Config{})
	in := subscribe(t, dial(t, mqtt.Options{Address: b.Address, ClientID: "fog"}), "state")
	o := mqtt.Options{Address: b.Address, ClientID: "gateway", Will: &mqtt.Message{Topic: "state", Payload: []byte("offline"), Retained: true}}
	for range 10 {
		old := dial(t, o)
		publish(t, old, "state", true, "online")
		publish(t, dial(t, o), "state", true, "online again")
		await(t, old.Done(), "the old connection")
		for _, want := range []string{"online", "offline", "online again"} {
			if m := next(t, in); string(m.Payload) != want {
				t.Fatalf("%q came where %q belongs", m.Payload, want)
			}
		}
		o.ClientID += "x"
	}
}

// Pins: with pings of the caller's own, the broker is told of the keep-alive all
// the same, and answers them.
func TestOwnPings(t *testing.T) {
	t.Parallel()
	b := mqtttest.Mosquitto(t, mqtttest.Config{})
	for _, id := range []string{"gw", strings.Repeat("a-long-name-", 20)} {
		c := dial(t, mqtt.Options{Address: b.Address, ClientID: id, KeepAlive: 15 * time.Minute, OwnPings: true, Username: "u", Password: secret.Of("p")})
		await(t, c.Ping(), "PINGRESP")
		await(t, c.Ping(), "PINGRESP")
		if c.Heard().Before(c.Said()) {
			t.Error("an answer came before its question")
		}
	}
	if n := strings.Count(b.Log(), "k900"); n != 2 {
		t.Errorf("the broker says\n%s", b.Log())
	}
}
