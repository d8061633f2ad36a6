package agent

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"gridgate/agent/order"
	"gridgate/agent/status"
	"gridgate/agent/vault"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/internal/proctest"
	"gridgate/internal/secret"
)

// startLockedMeter serves a meter whose client 17 has a password.
func startLockedMeter(t *testing.T, password string) (address string) {
	t.Helper()
	m := dlmstest.NewMeter(dlmstest.Options{
		Clients: map[uint16]dlmstest.Login{17: {Mechanism: 1, Secret: password}},
		Objects: []dlmstest.Object{
			dlmstest.Register(obis.Code{1, 0, 32, 7, 0, 255}, -1, 35, dlmstest.Fixed(axdr.LongUnsigned(2301))),
		},
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				_ = m.Serve(c)
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		all.Wait()
	})
	return ln.Addr().String()
}

func lockedMeter(id, address, password string) string {
	return fmt.Sprintf(`{id: %s, groups: [fast], url: "dlms+wrapper://%s?client=17&auth=lls&password=%s"}`, id, address, password)
}

// patient gives configurations more time to prove themselves, which those need that
// are to be kept, where much else runs.
func (s *site) patient() {
	s.t.Helper()
	text, err := os.ReadFile(s.file())
	if err == nil {
		err = os.WriteFile(s.file(), bytes.Replace(text, []byte("prove: 5s"), []byte("prove: 15s"), 1), 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// vault gives the site's secrets as a tool sees them.
func (s *site) vault() *vault.Vault { return vault.Open(VaultDir(filepath.Join(s.dir, "buffer")), nil) }

// has fails where the site has not that secret on flash; empty: where it has one.
func (s *site) has(name, text string) {
	s.t.Helper()
	value, err := s.vault().Get(name)
	if string(value.Reveal()) != text || (err == nil) != (text != "") {
		s.t.Errorf("secret %s is of %d octets, %v; want %q", name, value.Len(), err, text)
	}
}

// withSecrets is config with secrets, NAME=TEXT, sealed to the site's key.
func (s *site) withSecrets(u utility, target string, version int, layer string, secrets ...string) []byte {
	s.t.Helper()
	recipient, err := s.vault().Ensure()
	if err != nil {
		s.t.Fatal(err)
	}
	var entries []byte
	for _, pair := range secrets {
		name, text, _ := strings.Cut(pair, "=")
		sealed, err := vault.Seal(secret.Of(text), recipient)
		if err != nil {
			s.t.Fatal(err)
		}
		entries = order.AppendSecret(entries, name, sealed)
	}
	return u.sign(order.Config, fmt.Sprintf("gridgate: 1\nkind: config\ntarget: %s\nversion: %d\nsecrets:\n  %s\n---\n%s\n",
		target, version, strings.ReplaceAll(strings.TrimSpace(string(entries)), "\n", "\n  "), layer))
}

// state waits until a meter is in that state.
func (s *site) state(id, want string) {
	s.t.Helper()
	proctest.Until(s.t, id+" is "+want, func() bool {
		return slices.ContainsFunc(s.agent.Report().Meters, func(m status.Meter) bool { return m.Meter == id && m.State == want })
	})
}

// TestPushedSecrets: a configuration brings the password of a meter, and is tried
// with it; kept, both stay; reverted, what was before is there again.
func TestPushedSecrets(t *testing.T) {
	t.Parallel()
	s, u := newSite(t), newUtility(t)
	one, two := startLockedMeter(t, "first-right"), startLockedMeter(t, "second-right")
	s.trusting(u, lockedMeter("one", one, "secret:one"))
	s.patient()
	if _, err := s.vault().Ensure(); err != nil {
		t.Fatal(err)
	}
	if err := s.vault().Set("one", secret.Of("first-right")); err != nil {
		t.Fatal(err)
	}
	end := sync.OnceFunc(s.begin())
	t.Cleanup(end)
	s.state("one", "ok")
	more := "meters:\n  - " + lockedMeter("two", two, "secret:two")
	for i, c := range []struct {
		name, layer, outcome, reason, one, two string
		secrets                                []string
	}{
		{"a name that is not there", more, "refused", "secret:two", "first-right", "", nil},
		{"with the right one", more, "kept", "", "first-right", "second-right", []string{"two=second-right"}},
		{"only a wrong one", more, "reverted", "1 of 2 meters read", "first-right", "second-right", []string{"one=first-wrong"}},
		{"one that is not used", more, "kept", "", "first-right", "second-right", []string{"spare=x"}},
	} {
		version := i + 1
		err := s.submit(s.withSecretsOr(u, version, c.layer, c.secrets))
		if (err != nil) != (c.outcome == "refused") {
			t.Fatalf("%s: submitted: %v", c.name, err)
		}
		got := s.outcome(uint64(version)) //nolint:gosec // a small number
		if got.Outcome != c.outcome || !strings.Contains(got.Reason+strings.Join(got.Problems, " "), c.reason) {
			t.Errorf("%s: %s: %s %q; want %s %s", c.name, got.Outcome, got.Reason, got.Problems, c.outcome, c.reason)
		}
		if len(c.secrets) > 0 {
			name, _, _ := strings.Cut(c.secrets[0], "=")
			if !slices.Contains(got.Changes, "secret "+name+" set") {
				t.Errorf("%s: changes %q", c.name, got.Changes)
			}
		}
		s.has("one", c.one)
		s.has("two", c.two)
		s.state("one", "ok")
		if c.two != "" {
			s.state("two", "ok")
		}
	}
	if got := s.agent.orders.current().Recipient; got == "" {
		t.Error("the report has no recipient")
	}
	end()

	end = sync.OnceFunc(s.begin()) // what was kept is still there
	t.Cleanup(end)
	s.state("one", "ok")
	s.state("two", "ok")
}

// withSecretsOr is config where there are no secrets.
func (s *site) withSecretsOr(u utility, version int, layer string, secrets []string) []byte {
	s.t.Helper()
	if len(secrets) == 0 {
		return u.config("here/gw1", version, layer)
	}
	return s.withSecrets(u, "here/gw1", version, layer, secrets...)
}

// TestSealedForAnother: all that is wrong with a document comes back, and nothing
// of it is taken.
func TestSealedForAnother(t *testing.T) {
	t.Parallel()
	s, u := newSite(t), newUtility(t)
	m := startZeroMeter(t)
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	defer s.begin()()
	s.visited(1, "m")
	stranger := newSite(t)
	data := stranger.withSecrets(u, "here/gw1", 1, "mains: {voltage: much}\nuplink: {username: u, password: secret:broken}", "broker=hunter2", "more=hunter3")
	if err := s.submit(data); err == nil {
		t.Fatal("taken")
	}
	got := s.outcome(1)
	all := strings.Join(got.Problems, "\n")
	for _, want := range []string{
		"secrets.broker: sealed for another key than this gateway's, which is age1", "secrets.more: sealed for another",
		"mains.voltage: \"much\"", "uplink.password: \"secret:broken\": there is no such secret on this gateway; did you mean secret:broker?",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("%s\nwant %s", all, want)
		}
	}
	if names, err := s.vault().Names(); err != nil || len(names) > 0 || len(got.Problems) != 4 {
		t.Errorf("%q, %v, %d problems", names, err, len(got.Problems))
	}
}

// TestSecretsOverTheSocket: a tool sets, lists and removes them while the agent
// runs, which uses them at once; none is told.
func TestSecretsOverTheSocket(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	address := startLockedMeter(t, "the-right-one")
	s.config("here", lockedMeter("one", address, "secret:one"))
	end := sync.OnceFunc(s.begin())
	t.Cleanup(end)
	socket := status.AgentSecrets{Path: filepath.Join(s.dir, "c")}
	r := s.agent.Report()
	if !slices.ContainsFunc(r.Notes, func(n string) bool {
		return strings.HasPrefix(n, "secret:one: there is no such secret on this gateway; set it with gridgate secret set one")
	}) {
		t.Errorf("notes: %q", r.Notes)
	}
	var id status.SecretIdentity
	proctest.Until(t, "the socket is served", func() (ok bool) {
		var err error
		id, err = socket.Identity(t.Context(), false)
		return err == nil
	})
	set := func(name, text string) error {
		sealed, err := vault.Seal(secret.Of(text), id.Recipient)
		if err != nil {
			t.Fatal(err)
		}
		return socket.Set(t.Context(), name, sealed)
	}
	if err := set("one", "the-right-one"); err != nil {
		t.Fatal(err)
	}
	s.state("one", "ok")
	if notes := s.agent.Report().Notes; slices.ContainsFunc(notes, func(n string) bool { return strings.HasPrefix(n, "secret:") }) {
		t.Errorf("notes: %q", notes)
	}
	s.has("one", "the-right-one")
	kept := s.poller(address)
	if err := set("other", "of nobody"); err != nil || s.poller(address) != kept {
		t.Errorf("a line began anew that does not use it: %v", err)
	}
	if err := socket.Remove(t.Context(), "one", false); err == nil || !strings.Contains(err.Error(), "refers to it") {
		t.Errorf("removed although it is used: %v", err)
	}
	if err := socket.Set(t.Context(), "one", []byte("hunter2")); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("no seal: %v", err)
	}
	list, err := socket.List(t.Context())
	if err != nil || len(list) != 2 || list[0].Name != "one" || list[0].Problem != "" || list[0].Set.IsZero() {
		t.Errorf("%+v, %v", list, err)
	}
	if err := socket.Remove(t.Context(), "other", false); err != nil {
		t.Error(err)
	}
	if err := socket.Remove(t.Context(), "one", true); err != nil {
		t.Error(err)
	}
	s.has("one", "")
	if err := set("one", "a-wrong-one"); err != nil {
		t.Error(err)
	}
	proctest.Until(t, "the wrong one is shown to the meter", func() bool {
		return slices.ContainsFunc(s.agent.Report().Meters, func(m status.Meter) bool { return m.Error != "" && m.State != "ok" })
	})
	if all := s.entries(); !slices.Contains(all, "secret.set") || !slices.Contains(all, "secret.removed") {
		t.Errorf("audit: %q", all)
	}
}

// TestAnUnknownSecretKeepsNobody from reading other meters, but is a problem of a
// configuration that is read again.
func TestAnUnknownSecretKeepsNobody(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	m := startZeroMeter(t)
	s.config("here", modbusMeter("m", m.address, "fast"), lockedMeter("one", startLockedMeter(t, "x"), "secret:one"))
	defer s.begin()()
	s.visited(1, "m")
	err := s.agent.Reload(t.Context())
	if err == nil || !strings.Contains(err.Error(), `gridgate.yaml:13: meters[1].url: "password=secret:one": there is no such secret`) {
		t.Errorf("%v", err)
	}
}

// TestKilledAmidSecrets at every step of a configuration that brings one: what runs
// afterwards has the secret that belongs to it.
func TestKilledAmidSecrets(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		step string
		good bool
	}{{"applied", true}, {"staged", true}, {"kept", true}, {"taken", true}, {"applied", false}, {"reverted", false}} {
		t.Run(fmt.Sprintf("%s,%v", c.step, c.good), func(t *testing.T) {
			t.Parallel()
			testKilledAmidSecrets(t, c.step, c.good)
		})
	}
}

func testKilledAmidSecrets(t *testing.T, step string, good bool) {
	s, u := newSite(t), newUtility(t)
	one, two := startLockedMeter(t, "first-right"), startLockedMeter(t, "second-right")
	s.trusting(u, lockedMeter("one", one, "secret:one"))
	s.patient()
	data := s.withSecrets(u, "here/gw1", 1, "meters:\n  - "+lockedMeter("two", two, "secret:two"), "two=second-right")
	want, layers := "second-right", 1
	if !good {
		data, want, layers = s.withSecrets(u, "here/gw1", 1, "{}", "one=first-wrong"), "", 0
	}
	if err := s.vault().Set("one", secret.Of("first-right")); err != nil {
		t.Fatal(err)
	}
	p := s.process(step)
	s.submitted(data)
	p.Wait()
	p = s.process("")
	r := s.orders("the outcome is told, and all meters are read", func(r status.Report) bool {
		return r.Orders.Trial == "" && strings.HasPrefix(r.Orders.Last, "here/gw1 version 1: ") && len(r.Meters) == 1+layers && reads(r)
	})
	if len(r.Orders.Layers) != layers {
		t.Errorf("%q, layers %q; want %d", r.Orders.Last, r.Orders.Layers, layers)
	}
	if code := p.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	s.has("one", "first-right")
	s.has("two", want)
	if torn, err := filepath.Glob(filepath.Join(s.vault().Dir(), ".new-*")); len(torn) > 0 || err != nil {
		t.Errorf("left behind: %q, %v", torn, err)
	}
}

// TestNoSecretInTheState: what was pushed and set is nowhere on flash as it is, and
// the test would see it.
func TestNoSecretInTheState(t *testing.T) {
	t.Parallel()
	s, u := newSite(t), newUtility(t)
	address := startLockedMeter(t, "first-right")
	s.trusting(u, lockedMeter("one", address, "secret:one"))
	s.patient()
	if err := os.WriteFile(filepath.Join(s.dir, "seen"), []byte("first-right"), 0o600); err != nil {
		t.Fatal(err)
	}
	data := s.withSecrets(u, "here/gw1", 1, "{}", "one=first-right")
	end := sync.OnceFunc(s.begin())
	t.Cleanup(end)
	if err := s.submit(data); err != nil {
		t.Fatal(err)
	}
	s.outcome(1)
	end()
	var found []string
	err := filepath.WalkDir(s.dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte("first-right")) {
			found = append(found, filepath.Base(path))
		}
		return err
	})
	if err != nil || !slices.Equal(found, []string{"seen"}) {
		t.Errorf("%q, %v", found, err)
	}
}
