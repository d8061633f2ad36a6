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
	"gridgate/internal/secret"
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
	for i, down := range []time.Duration{3 * time.Second, 0, 0} {
		add(50)
		eventually(t, "a row acknowledged by this broker", func() bool { // it may not have noticed yet that the one before is gone
			return up.Stats().Connected && up.Stats().Reconnects >= uint64(i) && store.Acked(meter.Interval) > 0
		})
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
		MQTT: mqtt.Options{Address: b.Address, Username: "gw", Password: secret.Of("hunter2")}, Log: slog.New(slog.NewTextHandler(log, nil)),
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

// mosquitto as Debian sets it up saves what it keeps every half an hour: after
// a power cut what it acknowledged for an absent fog is gone.
func TestMosquittoAcknowledgesAndForgets(t *testing.T) {
	t.Parallel()
	for name, confirms := range map[string]bool{"confirm fog": true, "confirm broker": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := mqtttest.Mosquitto(t, mqtttest.Config{Lines: []string{"persistence true", "persistence_location " + t.TempDir() + "/"}})
			session := func() (*subscriber, func()) {
				sub, ready := &subscriber{}, make(chan struct{})
				ctx, cancel := context.WithCancel(t.Context())
				var all sync.WaitGroup
				all.Go(func() { sub.run(ctx, t, b.Address, ready) })
				<-ready
				return sub, func() { cancel(); all.Wait() }
			}
			_, leave := session() // the fog was there, and is away now
			leave()
			store, log := newStore(t), &syncBuffer{}
			up := uplink.New(uplink.Config{
				Site: "site", Gateway: "gw", Version: "1", Store: store, Wake: store.wake,
				MQTT: mqtt.Options{Address: b.Address}, MinPause: 20 * time.Millisecond, MaxPause: 200 * time.Millisecond,
				FogConfirms: confirms, FogPatience: 300 * time.Millisecond, Log: slog.New(slog.NewTextHandler(log, nil)),
			})
			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			defer all.Wait()
			defer cancel()
			all.Go(func() { _ = up.Run(ctx) })
			store.add(meter.Interval, readings(500)...)
			eventually(t, "rows acknowledged by the broker", func() bool { return up.Stats().Rows >= 500 })
			b.Kill()
			b.Start()
			sub, leave := session()
			defer leave()
			store.add(meter.Interval, readings(100)...)
			voice, err := mqtt.Dial(t.Context(), mqtt.Options{Address: b.Address, ClientID: "fog-2"})
			if err != nil {
				t.Fatal(err)
			}
			defer voice.Close()
			say := func(topic string, retained bool, payload []byte) {
				if _, err := voice.Publish(t.Context(), topic, retained, payload); err != nil {
					t.Fatal(err)
				}
			}
			rows := func() *fog { return sub.late(t) }
			if !confirms {
				eventually(t, "what came after the power cut", func() bool { return rows().last[meter.Interval] == 600 })
				if f := rows(); len(f.rows[meter.Interval]) != 100 || f.rows[meter.Interval][500].Meter != "" {
					t.Fatalf("%d rows: the broker forgot nothing, and the test proves nothing", len(f.rows[meter.Interval]))
				}
				say(mqtt.ResendTopic("site", "gw", meter.Interval), false, mqtt.Range{Epoch: 0xFEED, First: 1, Last: 500}.AppendJSON(nil))
				eventually(t, "what was asked for", func() bool { return rows().compare(store) == nil })
				return
			}
			eventually(t, "every row", func() bool {
				f, through := rows(), uint64(0)
				for f.rows[meter.Interval][through+1].Meter != "" {
					through++
				}
				say(mqtt.AckTopic("site", "gw", meter.Interval), true, mqtt.Confirmation{Epoch: 0xFEED, Sequence: through}.AppendJSON(nil))
				return through == 600
			})
			eventually(t, "an empty queue", func() bool { return store.left() == 0 })
			if err := rows().compare(store); err != nil {
				t.Error(err)
			}
			t.Logf("%+v", up.Stats())
		})
	}
}

// late decodes what came, in whatever order.
func (s *subscriber) late(t *testing.T) *fog {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := newFog()
	f.live, f.gaps = true, true
	for _, r := range s.got {
		if r.Retained {
			r.Retained = false // of an earlier connection
		}
		if err := f.take(r); err != nil {
			t.Error(err)
		}
	}
	return f
}
