package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gridgate/agent/audit"
	"gridgate/agent/order"
	"gridgate/agent/trial"
	"gridgate/agent/uplink"
	"gridgate/internal/proctest"
)

// entries gives what stands in the audit log.
func (s *site) entries() (all []string) {
	s.t.Helper()
	if _, err := audit.Verify(filepath.Join(s.dir, "buffer", "audit"), func(e audit.Entry) { all = append(all, e.What) }); err != nil {
		s.t.Error(err)
	}
	return all
}

// endless begins the trial of a configuration that proves nothing until its deadline.
func (s *site) endless(u utility, version int) {
	s.t.Helper()
	if err := s.submit(u.config("here/gw1", version, "meters:\n  - "+modbusMeter("dead", "127.0.0.1:1", "fast"))); err != nil {
		s.t.Fatal(err)
	}
	proctest.Until(s.t, "it is being proved", func() bool {
		r := s.agent.orders.current()
		return r.Trial != nil && r.Trial.Step == string(trial.Proving)
	})
}

// proving makes the site's file say how long proving may take.
func (s *site) proving(d string) {
	s.t.Helper()
	b, err := os.ReadFile(s.file())
	if err == nil {
		err = os.WriteFile(s.file(), []byte(strings.Replace(string(b), "prove: 5s", "prove: "+d, 1)), 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// TestRefusedRetainedIsWrittenOnce: the broker gives it with every connection.
func TestRefusedRetainedIsWrittenOnce(t *testing.T) {
	t.Parallel()
	s, u := newSite(t), newUtility(t)
	m := startZeroMeter(t)
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	end := s.begin()
	good := u.config("here/gw1", 2, "mains: {voltage: 230}")
	if err := s.submit(good); err != nil {
		t.Fatal(err)
	}
	s.outcome(2)
	old := u.config("here/gw1", 1, "{}")
	dealt := func(data []byte, retained bool) {
		t.Helper()
		s.agent.orders.take(uplink.Order{Name: "config", Payload: data, Retained: retained})
		proctest.Until(t, "it was dealt with", func() bool {
			s.agent.orders.in.mu.Lock()
			defer s.agent.orders.in.mu.Unlock()
			return len(s.agent.orders.in.waiting) == 0
		})
	}
	for range 5 {
		dealt(old, true)
	}
	if err := s.submit(good); err != nil { // after it all were dealt with
		t.Fatal(err)
	}
	if got := strings.Count(strings.Join(s.entries(), " "), "order.refused"); got != 1 {
		t.Errorf("%d entries, want 1", got)
	}
	// What is new of the kind is bounded too.
	for i := range 2 * refusalsPerHour {
		_ = s.submit(u.config("here/gw1", 1, fmt.Sprintf("mains: {voltage: %d}", 100+i)))
	}
	if got := strings.Count(strings.Join(s.entries(), " "), "order.refused"); got != refusalsPerHour {
		t.Errorf("%d entries, want %d", got, refusalsPerHour)
	}
	// What nobody signed is told with its hash, so that it is no other's outcome.
	bad := append([]byte(nil), good...)
	bad[len(bad)-2] = '!'
	_ = s.submit(bad)
	if l := s.agent.orders.current().Last; l.Outcome != "refused" || l.Hash != hexHash(order.Sum(bad)) {
		t.Errorf("told: %+v", l)
	}
	end()
}

// TestSubmitDoesNotWaitForATrial, and neither does SIGHUP, nor a stop.
func TestSubmitDoesNotWaitForATrial(t *testing.T) {
	t.Parallel()
	s, u := newSite(t), newUtility(t)
	m := startZeroMeter(t)
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	s.proving("2h")
	end := s.begin()
	s.visited(1, "m")
	connections, poller := m.connections(), s.poller(m.address)
	s.endless(u, 1)
	asked := m.requests() // its line did not change: it is read on, in the same session
	proctest.Until(t, "it is read on", func() bool { return m.requests() > asked+2 })
	if m.connections() != connections || s.poller(m.address) != poller {
		t.Error("a line that did not change began anew")
	}
	if err := s.submit(u.config("here/gw1", 2, "{}")); !errors.Is(err, errBusy) || !strings.Contains(err.Error(), "here/gw1 version 1") {
		t.Errorf("submitted amid a trial: %v", err)
	}
	if err := s.agent.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "here/gw1 version 1 is on trial") {
		t.Errorf("reloaded amid a trial: %v", err)
	}
	// Of what comes over MQTT meanwhile the newest waits.
	for v := 3; v < 20; v++ {
		s.agent.orders.take(uplink.Order{Name: "config", Payload: u.config("here/gw1", v, "{}")})
	}
	s.agent.orders.in.mu.Lock()
	n := len(s.agent.orders.in.waiting)
	s.agent.orders.in.mu.Unlock()
	if n != 1 {
		t.Errorf("%d documents of one topic wait", n)
	}
	end()
}

// TestATrialWaitsForWhatReads: a document that comes before anything was read is
// judged by what reads all the same.
func TestATrialWaitsForWhatReads(t *testing.T) {
	t.Parallel()
	s, u := newSite(t), newUtility(t)
	m := startZeroMeter(t)
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	end := s.begin()
	defer func() { end() }()
	if err := s.submit(u.config("here/gw1", 1, "meters:\n  - {id: m, url: \"modbus+tcp://127.0.0.1:1?unit=1&model=eastron-sdm630\"}")); err != nil {
		t.Fatal(err)
	}
	if got := s.outcome(1); got.Outcome != "reverted" || !strings.Contains(got.Reason, "0 of 1 meters read, 1 of 1 did before") {
		t.Errorf("%+v", got)
	}
	end() // what came of it is still known
	end = s.begin()
	if got := s.outcome(1); got.Outcome != "reverted" {
		t.Errorf("after a restart: %+v", got)
	}
}

// TestOneSetOfKeys: a trust document for this gateway, or its group, counts its
// versions with those for everybody.
func TestOneSetOfKeys(t *testing.T) {
	t.Parallel()
	s, u := newSite(t), newUtility(t)
	m := startZeroMeter(t)
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	defer s.begin()()
	stolen := newUtility(t)
	stolen[order.Root] = u[order.Root]
	if err := s.submit(u.trust(5)); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"here/gw1", "here/_group/north"} {
		body := string(stolen.trust(2))
		body = strings.Replace(body[strings.Index(body, "\n\n")+2:], "'*'", target, 1)
		if err := s.submit(u.sign(order.Root, body)); !errors.Is(err, order.ErrOlder) {
			t.Errorf("%s: %v", target, err)
		}
	}
}

// TestADamagedShelf takes documents again, the one that was in effect too.
func TestADamagedShelf(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"kept.json", "trial.json", "last.json"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, u := newSite(t), newUtility(t)
			m := startZeroMeter(t)
			s.trusting(u, modbusMeter("m", m.address, "fast"))
			end := s.begin()
			doc := u.config("here/gw1", 3, "mains: {voltage: 120}")
			if err := s.submit(doc); err != nil {
				t.Fatal(err)
			}
			s.outcome(3)
			end()
			if err := os.WriteFile(filepath.Join(s.dir, "buffer", "config", name), []byte("{\x00"), 0o600); err != nil {
				t.Fatal(err)
			}
			defer s.begin()()
			proctest.Until(t, "the same document is taken", func() bool { return s.submit(doc) == nil })
			proctest.Until(t, "it is in effect", func() bool { return s.agent.config().Mains.Voltage == 120 && s.agent.orders.tries() == "" })
			if err := s.submit(u.config("here/gw1", 4, "mains: {voltage: 110}")); err != nil {
				t.Fatal(err)
			}
			if got := s.outcome(4); got.Outcome != "kept" {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestOrdersWithoutAState: a state that cannot be opened says nothing of the audit
// log; no order is taken until it can, and the log goes on then.
func TestOrdersWithoutAState(t *testing.T) {
	t.Parallel()
	s, u := newSite(t), newUtility(t)
	m := startZeroMeter(t)
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	s.begin()()
	before := len(s.entries())
	lock := filepath.Join(s.dir, "buffer", "state.db.lock")
	if err := errors.Join(os.Remove(lock), os.Mkdir(lock, 0o700)); err != nil {
		t.Fatal(err)
	}
	defer s.begin()()
	if s.agent.state.Held() == nil {
		t.Fatal("the state is open")
	}
	doc := u.config("here/gw1", 1, "mains: {voltage: 120}")
	if err := s.submit(doc); err == nil || !strings.Contains(err.Error(), noOrders) {
		t.Errorf("submitted: %v", err)
	}
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	if !s.agent.reopen(t.Context()) {
		t.Fatal("the state stays closed")
	}
	if got := s.outcome(1); got.Outcome != "kept" {
		t.Errorf("%+v", got)
	}
	if aside, err := audit.SetAside(filepath.Join(s.dir, "buffer", "audit")); len(aside) > 0 || err != nil || len(s.entries()) <= before {
		t.Errorf("the log began anew: %q, %v, %q", aside, err, s.entries())
	}
}

// TestWaitsForTheTime: what is bounded in time is dealt with once the time is known.
func TestWaitsForTheTime(t *testing.T) {
	t.Parallel()
	s, u := newSite(t), newUtility(t)
	m := startZeroMeter(t)
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	var known atomic.Bool
	defer s.beginWith(func(a *Agent) { a.orders.trusted = known.Load })()
	body := fmt.Sprintf("gridgate: 1\nkind: config\ntarget: here/gw1\nversion: 1\nnot_after: %s\n---\nmains: {voltage: 120}\n",
		time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	if err := s.submit(u.sign(order.Config, body)); !errors.Is(err, errWaits) {
		t.Errorf("submitted: %v", err)
	}
	if got := s.outcome(1); got.Outcome != waits {
		t.Errorf("%+v", got)
	}
	known.Store(true)
	proctest.Until(t, "it is kept", func() bool {
		l := s.agent.orders.current().Last
		return l != nil && l.Outcome == "kept" && s.agent.config().Mains.Voltage == 120
	})
}
