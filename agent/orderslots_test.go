package agent

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/configs"
	"gridgate/internal/meter"
)

// simulate runs an agent without uplink, control socket and clock, whose time is
// the test's: on its lines an answer takes no time. stop stops its stages, end
// closes what they left open.
func (s *site) simulate() (stop, end func()) {
	s.t.Helper()
	cfg, err := configs.Load(s.file())
	if err != nil {
		s.t.Fatal(err)
	}
	a, err := New(cfg, Options{Version: "1.2.3", Log: slog.New(slog.DiscardHandler), Getenv: os.Getenv, ConfigPath: s.file()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.agent = a
	ctx, cancel := context.WithCancel(s.t.Context())
	taker := a.start(ctx, "intake", a.intake.Run)
	a.mu.Lock()
	a.running, a.uplink = true, &runningUplink{}
	for _, l := range a.cfg.Lines() {
		a.startLine(ctx, a.cfg, l)
	}
	a.mu.Unlock()
	taking := a.start(ctx, "orders", a.orders.run)
	stop = func() {
		taking.stop()
		stopLines(a.lines)
		taker.stop() // all is stored then
		cancel()
	}
	return stop, func() {
		if err := a.control.Run(ctx); err != nil { // it closes the socket
			s.t.Error(err)
		}
		if err := a.orders.close(); err != nil {
			s.t.Error(err)
		}
		if err := a.store.Close(); err != nil {
			s.t.Error(err)
		}
		if err := a.state.Close(); err != nil {
			s.t.Error(err)
		}
	}
}

// slots gives the moments at which rows of a meter were read, in ms, each once.
func (s *site) slots(id meter.ID) (all []int64) {
	s.t.Helper()
	for after := uint64(0); ; {
		span, err := s.agent.store.Peek(meter.Instant, after, 1000)
		if err != nil {
			s.t.Fatal(err)
		}
		if span.Last == 0 {
			return all
		}
		for _, r := range span.Rows {
			if r.Meter == id && (len(all) == 0 || all[len(all)-1] != r.Stamp.Time) {
				all = append(all, r.Stamp.Time)
			}
		}
		after = span.Last
	}
}

// missed counts the slots, a second apart, in which a meter was not read between
// two moments.
func missed(slots []int64, from, to time.Time) (n int) {
	read := make(map[int64]bool)
	for _, at := range slots {
		read[at/1000] = true
	}
	for at := from.Unix(); at < to.Unix(); at++ {
		if !read[at] {
			n++
		}
	}
	return n
}

// TestUnchangedLinesMissNoSlot: a meter that is due each second is read in each,
// while a good configuration is pushed and one that is taken back. The line that
// these change does miss some: so the count can tell.
func TestUnchangedLinesMissNoSlot(t *testing.T) {
	t.Parallel()
	s, u := newSite(t), newUtility(t)
	one, two, other, added := startZeroMeter(t), startZeroMeter(t), startZeroMeter(t), startZeroMeter(t)
	s.trusting(u, modbusMeter("one", one.address, "fast"), modbusMeter("two", two.address, "fast"), modbusMeter("other", other.address, "fast"))
	s.proving("20s")
	synctest.Test(t, func(t *testing.T) {
		s.t = t
		stop, end := s.simulate()
		defer end()
		time.Sleep(10 * time.Second)
		from := time.Now()
		push := func(version int, layer, want string) {
			t.Helper()
			if err := s.submit(u.config("here/gw1", version, layer)); err != nil {
				t.Fatal(err)
			}
			if got := s.outcome(uint64(version)); got.Outcome != want { //nolint:gosec // a small number
				t.Errorf("version %d: %+v", version, got)
			}
			time.Sleep(10 * time.Second)
		}
		push(1, "meters:\n  - "+modbusMeter("added", added.address, "fast")+"\n  - "+modbusMeter("other", other.address, "slow"), "kept")
		push(2, "meters:\n  - {id: other, url: \"modbus+tcp://127.0.0.1:1?unit=1&model=eastron-sdm630\"}", "reverted")
		push(3, "groups: {slow: {lane: instant, every: 3s, channels: [1-0:32.7.0]}}", "kept")
		to := time.Now()
		stop()
		for _, id := range []meter.ID{"one", "two"} {
			if n := missed(s.slots(id), from, to); n > 0 {
				t.Errorf("%s: %d slots of %d without a visit", id, n, to.Unix()-from.Unix())
			}
		}
		if n := missed(s.slots("other"), from, to); n < 10 {
			t.Errorf("the line that changed misses %d slots only", n)
		}
	})
}
