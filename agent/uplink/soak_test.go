//go:build soak

package uplink_test

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"gridgate/agent/uplink"
	"gridgate/internal/column/columntest"
	"gridgate/internal/linktest"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
)

// TestSoakSlowLink is TestAnAlarmOvertakesTheBacklog in real time: the emulator
// at 20 kbit/s and 600 ms between real sockets, mosquitto behind it. It takes five
// minutes, and wants a machine with little else to do.
func TestSoakSlowLink(t *testing.T) {
	b := mqtttest.Mosquitto(t, mqtttest.Config{Persistent: true})
	link := linktest.New(gprs())
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	all.Go(func() {
		if err := link.Proxy(ctx, front, b.Address); err != nil {
			t.Error(err)
		}
	})
	sub, ready := &subscriber{}, make(chan struct{})
	all.Go(func() { sub.run(ctx, t, b.Address, ready) })
	<-ready
	store, log := newStore(t), &syncBuffer{}
	w := columntest.NewWalk(1, 1000, columntest.Int)
	for range 60 {
		store.add(meter.Interval, w.Round()...)
	}
	up := uplink.New(uplink.Config{
		Site: "site", Gateway: "gw", Version: "1", Store: store, Wake: store.wake,
		MQTT: mqtt.Options{Address: front.Addr().String()}, Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	all.Go(func() { _ = up.Run(ctx) })
	wait := func(d time.Duration) {
		timer := time.NewTimer(d)
		defer timer.Stop()
		<-timer.C
	}
	wait(30 * time.Second)
	before, _ := link.Stats()
	start := time.Now()
	var at []time.Time
	for i := range 100 {
		wait(2*time.Second + time.Duration(i*137%1000)*time.Millisecond)
		at = append(at, time.Now())
		store.add(meter.Alarm, reading(i))
	}
	after, _ := link.Stats()
	share := float64(after.Wire-before.Wire) * 8 / 20_000 / time.Since(start).Seconds()
	left := store.left()
	wait(10 * time.Second)
	f := sub.rows(t)
	var took []time.Duration
	for i, t0 := range at {
		got, ok := f.first[meter.Alarm][uint64(i+1)]
		if !ok {
			t.Fatalf("alarm %d has not come", i+1)
		}
		took = append(took, got.Sub(t0))
	}
	slices.Sort(took)
	worst := took[len(took)-1]
	t.Logf("of %d alarms half took %v, 90 %v, the slowest %v; link busy %.1f %%; %d rows of backlog left; %d rows twice; %+v",
		len(at), took[len(took)/2], took[len(took)*9/10], worst, 100*share, left, f.dups, up.Stats())
	if worst > 2*time.Second || share < 0.9 || left == 0 || f.dups > 0 {
		t.Errorf("the slowest alarm took %v, the link was busy %.1f %%, %d rows left, %d twice", worst, 100*share, left, f.dups)
	}
}
