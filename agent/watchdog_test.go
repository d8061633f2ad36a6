package agent

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gridgate/internal/meter"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// age makes every stage silent for longer than any may be: one that gets on tells so.
func (a *Agent) age() {
	long := time.Now().Add(-time.Hour)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range []*pulse{&a.beats.intake, &a.beats.uplink} {
		p.at.Store(&long)
	}
	for _, l := range a.lines {
		l.pulse.at.Store(&long)
	}
}

// A dead meter, a dead fog and a dead line are no reason not to feed the watchdog.
func TestWatchdogIsFedWhateverTheWorldDoes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	m := startZeroMeter(t)
	s.make(s.config("here", modbusMeter("m", m.address, "fast"), modbusMeter("dead", "127.0.0.1:1", "fast")))
	s.run()
	proctest.Until(t, "rows are read", func() bool { return s.agent.Report().Intake.Stored > 0 })
	proctest.Until(t, "the fog is missed", func() bool { return s.agent.Report().Uplink.Error != "" })
	s.agent.age()
	if s.agent.feed(true) != "" {
		t.Fatal("silent stages feed the watchdog")
	}
	proctest.Until(t, "the watchdog is fed", func() bool { return s.agent.feed(false) != "" })
}

// blocked is a store whose Peek does not return.
type blocked struct {
	uplinkStore
	entered chan struct{}
	release chan struct{}
}

func (b *blocked) Peek(lane meter.Lane, after uint64, most int) (meter.Span, error) {
	select {
	case b.entered <- struct{}{}:
	default:
	}
	<-b.release
	return b.uplinkStore.Peek(lane, after, most)
}

// A stage that hangs stops the feeding, though all others get on.
func TestAStalledStageStopsTheFeeding(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	startBroker(t, s.broker)
	m := startZeroMeter(t)
	s.make(s.config("here", modbusMeter("m", m.address, "fast")))
	b := &blocked{uplinkStore: s.agent.uplinkStore, entered: make(chan struct{}, 1), release: make(chan struct{})}
	s.agent.uplinkStore = b
	s.run()
	t.Cleanup(func() { // before the agent is stopped
		select {
		case <-b.release:
		default:
			close(b.release)
		}
	})
	<-b.entered
	s.agent.age()
	proctest.Until(t, "only the uplink is silent", func() bool { return slices.Equal(s.agent.stalled(), []string{"uplink"}) })
	if fed := s.agent.feed(true); fed != "" {
		t.Errorf("told %q", fed)
	}
	close(b.release)
	proctest.Until(t, "the watchdog is fed again", func() bool { return s.agent.feed(false) != "" })
}

// What systemd is told: that the agent is ready, how it does, that it stops.
func TestServiceManagerIsTold(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	path := filepath.Join(s.dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	m := startZeroMeter(t)
	s.make(s.config("here", modbusMeter("m", m.address, "fast")))
	s.agent.opts.Getenv = func(name string) string {
		switch name {
		case "NOTIFY_SOCKET":
			return path
		case "WATCHDOG_USEC":
			return "60000"
		}
		return os.Getenv(name)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.agent.Run(ctx) }()
	next := func(want string) {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		var b [4096]byte
		for {
			n, err := conn.Read(b[:])
			if err != nil {
				t.Fatalf("waiting for %q: %v", want, err)
			}
			if strings.Contains(string(b[:n]), want) {
				return
			}
		}
	}
	next("READY=1")
	next("1 of 1 meters read")
	next("WATCHDOG=1")
	cancel()
	next("STOPPING=1")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// startBroker runs a broker in memory at an address until the test ends.
func startBroker(t *testing.T, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var broker mqtttest.Memory
	served := make(chan struct{})
	go func() { defer close(served); broker.Serve(l) }()
	t.Cleanup(func() {
		_ = l.Close()
		broker.CloseAll()
		<-served
	})
}
