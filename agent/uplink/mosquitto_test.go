package uplink_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"gridgate/agent/uplink"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
)

// subscriber is a fog with a persistent session, which comes back when its
// connection is lost.
type subscriber struct {
	mu  sync.Mutex
	got []mqtttest.Received
}

func (s *subscriber) take(m mqtt.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, mqtttest.Received{At: time.Now(), Topic: m.Topic, Payload: m.Payload, Retained: m.Retained, Duplicate: m.Duplicate})
}

// rows gives what the fog knows by now.
func (s *subscriber) rows(t *testing.T) *fog {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	f := newFog()
	f.live = true
	for _, r := range s.got {
		if err := f.take(r); err != nil {
			t.Error(err)
		}
	}
	return f
}

func (s *subscriber) run(ctx context.Context, t *testing.T, address string, ready chan<- struct{}) {
	pause := time.NewTicker(50 * time.Millisecond)
	defer pause.Stop()
	for ctx.Err() == nil {
		c, err := mqtt.Dial(ctx, mqtt.Options{Address: address, ClientID: "fog", Persistent: true, Handler: s.take})
		if err == nil {
			if ready != nil {
				if err := c.Subscribe(ctx, mqtt.UpFilter("", ""), s.take); err != nil {
					t.Error(err)
				}
				close(ready)
				ready = nil
			}
			select {
			case <-c.Done():
			case <-ctx.Done():
			}
			c.Close()
		}
		<-pause.C
	}
}

// eventually waits, with a limit that only a hang reaches.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(90 * time.Second)
	defer limit.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("%s: not within 90 s", what)
		}
	}
}

// Over restarts of a real broker nothing is lost, the order is kept, and what
// comes twice has one number.
func TestMosquittoRestarts(t *testing.T) {
	t.Parallel()
	b := mqtttest.Mosquitto(t, mqtttest.Config{Persistent: true})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	sub, ready := &subscriber{}, make(chan struct{})
	all.Go(func() { sub.run(ctx, t, b.Address, ready) })
	<-ready

	store, log := newStore(t), &syncBuffer{}
	up := uplink.New(uplink.Config{
		Site: "site", Gateway: "gw", Version: "1", Store: store, Wake: store.wake,
		MQTT: mqtt.Options{Address: b.Address}, MinPause: 20 * time.Millisecond, MaxPause: 200 * time.Millisecond,
		MaxMessage: 2 << 10, Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	all.Go(func() {
		if err := up.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	add := func(n int) {
		for i := range n {
			store.add(meter.Lanes()[i%4], readings(200)[i%200])
			store.add(meter.Interval, readings(100)...)
		}
	}
	pause := func(d time.Duration) {
		timer := time.NewTimer(d)
		defer timer.Stop()
		<-timer.C
	}
	for _, down := range []time.Duration{3 * time.Second, 0, 0} {
		add(50)
		eventually(t, "a row acknowledged", func() bool { return up.Stats().Connected && store.Acked(meter.Interval) > 0 })
		add(50)
		b.Stop()
		add(50)
		pause(down)
		b.Start()
	}
	eventually(t, "every row acknowledged", func() bool { return store.left() == 0 })
	eventually(t, "every row at the fog", func() bool { return sub.rows(t).compare(store) == nil })
	f := sub.rows(t)
	f.check(t, store)
	if up.Stats().Reconnects < 3 {
		t.Errorf("%+v", up.Stats())
	}
	t.Logf("%d rows twice, %+v", f.dups, up.Stats())
}

func TestMosquittoWithAWrongPassword(t *testing.T) {
	t.Parallel()
	b := mqtttest.Mosquitto(t, mqtttest.Config{User: "gw", Password: "right"})
	store, log := newStore(t), &syncBuffer{}
	store.add(meter.Interval, readings(10)...)
	up := uplink.New(uplink.Config{
		Site: "site", Gateway: "gw", Store: store, MinPause: 20 * time.Millisecond,
		MQTT: mqtt.Options{Address: b.Address, Username: "gw", Password: []byte("hunter2")}, Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { _ = up.Run(ctx) })
	eventually(t, "a message in the log", func() bool { return strings.Contains(log.String(), "uplink down") })
	cancel()
	all.Wait()
	text := log.String()
	if !strings.Contains(text, b.Address) || !strings.Contains(text, "refused: not authorised: check user name, password") || strings.Contains(text, "hunter2") {
		t.Errorf("the log says:\n%s", text)
	}
	if store.left() != 10 {
		t.Error("rows were removed")
	}
}
