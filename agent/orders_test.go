package agent

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"

	"gridgate/agent/audit"
	"gridgate/agent/order"
	"gridgate/agent/trial"
	"gridgate/configs"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// utility has a key of each role.
type utility map[order.Role]minisign.PrivateKey

func newUtility(t *testing.T) utility {
	t.Helper()
	u := utility{}
	for _, r := range order.Roles() {
		_, k, err := minisign.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		u[r] = k
	}
	return u
}

func (u utility) sign(r order.Role, body string) []byte {
	return order.Seal([]byte(body), order.Sign(u[r], []byte(body), "test"))
}

func (u utility) trust(version int) []byte {
	body := fmt.Sprintf("gridgate: 1\nkind: trust\ntarget: '*'\nversion: %d\n---\nroles:\n", version)
	for _, r := range order.Roles() {
		p, _ := u[r].Public().(minisign.PublicKey)
		body += fmt.Sprintf("  %s: {keys: [%s]}\n", r, p)
	}
	return u.sign(order.Root, body)
}

func (u utility) config(target string, version int, layer string) []byte {
	return u.sign(order.Config, fmt.Sprintf("gridgate: 1\nkind: config\ntarget: %s\nversion: %d\n---\n%s\n", target, version, layer))
}

// trusting makes the site's file say whose orders are taken.
func (s *site) trusting(u utility, meters ...string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, "trust"), u.trust(1), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.config("here", meters...)
	f, err := os.OpenFile(s.file(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = fmt.Fprintf(f, "trust: {file: %s, groups: [north], prove: 5s}\n", filepath.Join(s.dir, "trust"))
	if err != nil || f.Close() != nil {
		s.t.Fatal(err)
	}
}

func (s *site) file() string { return filepath.Join(s.dir, "gridgate.yaml") }

// begin starts an agent from the site's file; end stops it.
func (s *site) begin() (end func()) {
	s.t.Helper()
	return s.beginWith(func(*Agent) {})
}

// beginWith changes the agent before it runs.
func (s *site) beginWith(change func(*Agent)) (end func()) {
	s.t.Helper()
	cfg, err := configs.Load(s.file())
	if err != nil {
		s.t.Fatal(err)
	}
	s.agent, err = New(cfg, Options{Version: "1.2.3", Log: slog.New(slog.DiscardHandler), Getenv: os.Getenv, ConfigPath: s.file()})
	if err != nil {
		s.t.Fatal(err)
	}
	change(s.agent)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.agent.Run(ctx) }()
	end = func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	}
	return end
}

// outcome waits for what came of a document.
func (s *site) outcome(version uint64) outcomeReport {
	s.t.Helper()
	var last outcomeReport
	proctest.Until(s.t, fmt.Sprintf("version %d has an outcome", version), func() bool {
		r := s.agent.orders.current()
		if r.Last == nil || r.Last.Version != version || r.Trial != nil {
			return false
		}
		last = *r.Last
		return true
	})
	return last
}

func (s *site) submit(data []byte) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	return s.agent.Submit(ctx, data)
}

// TestPushedConfiguration goes through what may come of one, without a broker:
// an uplink that was down before is no failure.
func TestPushedConfiguration(t *testing.T) {
	t.Parallel()
	s, u := newSite(t), newUtility(t)
	same, other, added := startZeroMeter(t), startZeroMeter(t), startZeroMeter(t)
	s.trusting(u, modbusMeter("same", same.address, "fast"), modbusMeter("other", other.address, "fast"))
	end := s.begin()
	s.visited(2, "same", "other")
	kept := s.poller(same.address)
	for i, c := range []struct {
		name, target, layer, outcome, reason string
		meters                               int
	}{
		{"a meter more", "here/gw1", "meters:\n  - " + modbusMeter("added", added.address, "fast"), "kept", "", 3},
		{"a meter that is dead", "here/gw1", "meters:\n  - " + modbusMeter("dead", "127.0.0.1:1", "fast"), "reverted", "2 of 3 meters read, 3 of 3 did before", 3},
		{"a line that breaks", "here/gw1", "meters:\n  - {id: other, url: \"modbus+tcp://127.0.0.1:1?unit=1&model=eastron-sdm630\"}", "reverted", "1 of 2 meters", 3},
		{"of the group", "here/_group/north", "groups: {fast: {every: 2s}}", "kept", "", 3},
		{"wrong", "here/gw1", "meters:\n  - {id: added, serial: \"\"}\nuplink: {broker: nowhere}\n", "refused", "4 problems", 3},
		{"what cannot change", "here/gw1", "buffer: {path: /elsewhere}", "refused", "buffer.path can only change in the gateway's own file", 3},
		{"its own groups", "here/gw1", "trust: {groups: [south]}", "refused", "trust.groups can only change in the gateway's own file", 3},
		{"nothing of it any more", "here/gw1", "{}", "kept", "", 2},
	} {
		version := uint64(i + 1)
		err := s.submit(u.config(c.target, int(version), c.layer))
		if (err != nil) != (c.outcome == "refused") {
			t.Fatalf("%s: submitted: %v", c.name, err)
		}
		got := s.outcome(version)
		if got.Outcome != c.outcome || !strings.Contains(got.Reason, c.reason) {
			t.Errorf("%s: %s: %s %q; want %s %s", c.name, got.Outcome, got.Reason, got.Problems, c.outcome, c.reason)
		}
		if n := len(s.agent.config().Meters); n != c.meters {
			t.Errorf("%s: %d meters, want %d", c.name, n, c.meters)
		}
		if c.target == "here/gw1" && s.agent.orders.current().Last.Outcome != "kept" && s.poller(same.address) != kept {
			t.Errorf("%s: a line that did not change began anew", c.name)
		}
		kept = s.poller(same.address)
	}
	end()

	end = s.begin() // what was kept is still there
	if got := s.agent.config().Groups[0].Every; got != 2*time.Second {
		t.Errorf("after a restart: every %v", got)
	}
	end()
	var log []string
	if _, err := audit.Verify(filepath.Join(s.dir, "buffer", "audit"), func(e audit.Entry) { log = append(log, e.What) }); err != nil {
		t.Error(err)
	}
	want := "trust.first config.trial config.kept config.trial config.reverted config.trial config.reverted config.trial config.kept order.refused order.refused order.refused config.trial config.kept"
	if got := strings.Join(log, " "); got != want {
		t.Errorf("audit: %s\nwant   %s", got, want)
	}
}

// TestOrdersAreRefused, each with its reason, and nothing changes.
func TestOrdersAreRefused(t *testing.T) {
	t.Parallel()
	s, u := newSite(t), newUtility(t)
	m := startZeroMeter(t)
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	defer s.begin()()
	s.visited(1, "m")
	if err := s.submit(u.config("here/gw1", 5, "mains: {voltage: 230}")); err != nil {
		t.Fatal(err)
	}
	s.outcome(5)
	running := s.agent.config().Hash()
	stranger := newUtility(t)
	good := string(u.config("here/gw1", 6, "mains: {voltage: 120}"))
	body := "gridgate: 1\nkind: config\ntarget: here/gw1\nversion: 6\n---\nmains: {voltage: 120}\n"
	for name, c := range map[string]struct{ data, want string }{
		"unsigned":          {body, "not signed"},
		"a stranger":        {string(stranger.config("here/gw1", 6, "{}")), "is not trusted here"},
		"another role":      {string(u.sign(order.Firmware, body)), "wants the role config"},
		"changed":           {strings.Replace(good, "120", "121", 1), "bad signature"},
		"older":             {string(u.config("here/gw1", 4, "{}")), "version 4 after 5"},
		"same number":       {string(u.config("here/gw1", 5, "{}")), "version 5 was taken before with another content"},
		"another gateway":   {string(u.config("here/gw2", 6, "{}")), "for another gateway: here/gw2; this is here/gw1"},
		"another group":     {string(u.config("here/_group/south", 6, "{}")), "for another gateway"},
		"a newer agent":     {string(u.sign(order.Config, strings.Replace(body, "version: 6", "version: 6\nmin_agent: 1.3.0", 1))), "it wants 1.3.0, this is 1.2.3"},
		"an unknown kind":   {string(u.sign(order.Config, strings.Replace(body, "kind: config", "kind: recipe", 1))), "unknown kind"},
		"trust, no root":    {string(u.sign(order.Config, strings.Replace(body, "kind: config", "kind: trust", 1))), "wants the role root"},
		"trust, a stranger": {string(stranger.trust(2)), "is not trusted here"},
	} {
		if err := s.submit([]byte(c.data)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
		if last := s.agent.orders.current().Last; last == nil || last.Outcome != "refused" || !strings.Contains(last.Reason, c.want) {
			t.Errorf("%s: reported %+v", name, last)
		}
	}
	if err := s.submit(u.config("here/gw1", 5, "mains: {voltage: 230}")); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if got := s.agent.config().Hash(); got != running {
		t.Error("the configuration changed")
	}
}

// TestKeysAreReplaced: a lost key signs nothing any more, over restarts.
func TestKeysAreReplaced(t *testing.T) {
	t.Parallel()
	s, u := newSite(t), newUtility(t)
	m := startZeroMeter(t)
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	end := s.begin()
	next := newUtility(t)
	next[order.Root] = u[order.Root]
	if err := s.submit(next.trust(2)); err != nil {
		t.Fatal(err)
	}
	end()
	defer s.begin()() // the file still has the first keys
	if err := s.submit(u.config("here/gw1", 1, "{}")); err == nil || !strings.Contains(err.Error(), "is not trusted here") {
		t.Errorf("the old key: %v", err)
	}
	if err := s.submit(u.trust(1)); err == nil {
		t.Error("the old keys came back")
	}
	if err := s.submit(next.config("here/gw1", 1, "{}")); err != nil {
		t.Error(err)
	}
	s.outcome(1)
}

// TestTrialOverRestarts: the agent dies amid a trial, three times; what was before
// runs, and the document is given up for good.
func TestTrialOverRestarts(t *testing.T) {
	t.Parallel()
	s, u := newSite(t), newUtility(t)
	m := startZeroMeter(t)
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	end := s.begin()
	s.visited(1, "m")
	bad := u.config("here/gw1", 7, "meters:\n  - "+modbusMeter("dead", "127.0.0.1:1", "fast"))
	if err := s.submit(bad); err != nil {
		t.Fatal(err)
	}
	for range trial.MaxAttempts {
		proctest.Until(t, "it is being proved", func() bool {
			r := s.agent.orders.current()
			return r.Trial != nil && r.Trial.Step == string(trial.Proving)
		})
		end() // as a crash does: nothing is reverted
		end = s.begin()
	}
	if got := s.outcome(7); got.Outcome != "refused" || !strings.Contains(got.Reason, "3 attempts did not end") {
		t.Errorf("%+v", got)
	}
	if n := len(s.agent.config().Meters); n != 1 {
		t.Errorf("%d meters", n)
	}
	if err := s.submit(bad); !errors.Is(err, errSame) {
		t.Error("it is tried again:", err)
	}
	end()
	defer s.begin()()
	if _, _, busy, err := s.agent.orders.shelf.OnTrial(); busy || err != nil {
		t.Error("it is tried again:", err)
	}
}

// TestOrdersOverMQTT: down by the broker, and what came of it up again; one that
// stops the uplink is taken back.
func TestOrdersOverMQTT(t *testing.T) {
	t.Parallel()
	s, u := newSite(t), newUtility(t)
	broker := mqtttest.Mosquitto(t, mqtttest.Config{})
	s.broker = broker.Address
	m := startZeroMeter(t)
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	defer s.begin()()
	s.visited(1, "m")
	proctest.Until(t, "the uplink is up", func() bool { return s.agent.Report().Uplink.Connected })

	reports := make(chan ordersReport, 100)
	fog, err := mqtt.Dial(t.Context(), mqtt.Options{Address: broker.Address, ClientID: "fog"})
	if err != nil {
		t.Fatal(err)
	}
	defer fog.Close()
	err = fog.Subscribe(t.Context(), mqtt.ConfigTopic("here", "gw1"), func(m mqtt.Message) {
		var r ordersReport
		if err := json.Unmarshal(m.Payload, &r); err != nil {
			t.Errorf("%v in %s", err, m.Payload)
		}
		reports <- r
	})
	if err != nil {
		t.Fatal(err)
	}
	push := func(group string, version int, layer, want string) outcomeReport {
		t.Helper()
		target, topic := "here/gw1", mqtt.OrderTopic("here", "gw1", "", "config")
		if group != "" {
			target, topic = "here/_group/"+group, mqtt.OrderTopic("here", "", "north", "config")
		}
		if _, err := fog.Publish(t.Context(), topic, true, u.config(target, version, layer)); err != nil {
			t.Fatal(err)
		}
		for {
			select {
			case r := <-reports:
				if l := r.Last; l != nil && l.Target == target && l.Version == uint64(version) {
					if l.Outcome != want {
						t.Errorf("%s version %d: %+v; want %s", target, version, l, want)
					}
					return *l
				}
			case <-time.After(2 * time.Minute):
				t.Fatalf("no word of version %d", version)
			}
		}
	}
	push("", 1, "mains: {voltage: 230}", "kept")
	push("north", 1, "mains: {frequency: 50}", "kept")
	if l := push("", 2, "uplink: {broker: \"tcp://127.0.0.1:1\"}", "reverted"); !strings.Contains(l.Reason, "the fog was reached before and is not now") {
		t.Errorf("reason %q", l.Reason)
	}
	if c := s.agent.config(); c.Mains.Voltage != 230 || c.Mains.Frequency != 50 {
		t.Errorf("mains %+v", c.Mains)
	}
}
