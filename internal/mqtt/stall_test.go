package mqtt_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	broker "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"gridgate/internal/linktest"
	"gridgate/internal/mqtt"
)

// everybody lets everybody in.
type everybody struct{ broker.HookBase }

func (*everybody) ID() string { return "everybody" }

func (*everybody) Provides(b byte) bool {
	return b == broker.OnConnectAuthenticate || b == broker.OnACLCheck
}

func (*everybody) OnConnectAuthenticate(*broker.Client, packets.Packet) bool { return true }

func (*everybody) OnACLCheck(*broker.Client, string, bool) bool { return true }

// overLink runs a broker in memory at the far end of a link of 20 kbit/s and
// 600 ms round trip, in simulated time.
func overLink(t *testing.T, test func(t *testing.T, link *linktest.Link, o mqtt.Options)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		link := linktest.New(linktest.Config{Rate: 20_000, Delay: 300 * time.Millisecond})
		server := broker.New(&broker.Options{Logger: slog.New(slog.DiscardHandler), SysTopicResendInterval: 3600})
		if err := server.AddHook(new(everybody), nil); err != nil {
			t.Fatal(err)
		}
		if err := server.AddListener(listeners.NewNet("link", link.Listener())); err != nil {
			t.Fatal(err)
		}
		if err := server.Serve(); err != nil {
			t.Fatal(err)
		}
		test(t, link, mqtt.Options{Address: "broker:1883", ClientID: "gateway", Dial: link.Dial})
		link.Set(linktest.Up)
		_ = server.Close()
		synctest.Wait()
	})
}

func TestABlackHoleIsNoticedWhileWriting(t *testing.T) {
	t.Parallel()
	overLink(t, func(t *testing.T, link *linktest.Link, o mqtt.Options) {
		c := dial(t, o)
		publish(t, c, "x", false, "y")
		link.Set(linktest.BlackHole)
		start := time.Now()
		// More than the queue, the window and Publish's own room hold.
		for range 200 {
			if _, err := c.Publish(t.Context(), "x", false, make([]byte, 1000)); err != nil {
				if !errors.Is(err, mqtt.ErrLost) || !strings.Contains(err.Error(), "takes no data") {
					t.Errorf("Publish says %v", err)
				}
				break
			}
		}
		<-c.Done()
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("noticed after %v", took)
		}
		if err := c.Err(); !errors.Is(err, mqtt.ErrLost) {
			t.Error(err)
		}
	})
}

func TestABlackHoleIsNoticedWhenIdle(t *testing.T) {
	t.Parallel()
	overLink(t, func(t *testing.T, link *linktest.Link, o mqtt.Options) {
		o.KeepAlive = 5 * time.Minute
		c := dial(t, o)
		select { // a live link is kept, however long nothing is said
		case <-c.Done():
			t.Fatal(c.Err())
		case <-time.After(2 * time.Hour):
		}
		link.Set(linktest.BlackHole)
		start := time.Now()
		<-c.Done()
		if took := time.Since(start); took > 7*time.Minute {
			t.Errorf("noticed after %v", took)
		}
	})
}

func TestNoCallHangsInABlackHole(t *testing.T) {
	t.Parallel()
	overLink(t, func(t *testing.T, link *linktest.Link, o mqtt.Options) {
		c := dial(t, o)
		link.Set(linktest.BlackHole)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		var err error
		for range 200 {
			if _, err = c.Publish(ctx, "x", false, make([]byte, 1000)); err != nil {
				break
			}
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Publish: %v", err)
		}
		if err := c.Subscribe(ctx, "y", func(mqtt.Message) {}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Subscribe: %v", err)
		}
		c.Close()
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("all that took %v", took)
		}
		if err := c.Err(); err != nil {
			t.Errorf("after Close: %v", err)
		}
		o.ConnectTimeout = 10 * time.Second
		if _, err := mqtt.Dial(t.Context(), o); !errors.Is(err, mqtt.ErrUnreachable) || !strings.Contains(err.Error(), "no answer") {
			t.Errorf("Dial: %v", err)
		}
	})
}
