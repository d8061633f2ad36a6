package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gridgate/agent/order"
	"gridgate/agent/update"
	"gridgate/agent/uplink"
	"gridgate/configs"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// firmware makes a signed manifest, with its objects in a folder.
func (u utility) firmware(t *testing.T, dir, target string, version int, firmware, board string, files map[string][]byte) []byte {
	t.Helper()
	body := fmt.Sprintf("gridgate: 1\nkind: firmware\ntarget: %s\nversion: %d\n---\nfirmware: %s\nboards:\n  %s:\n", target, version, firmware, board)
	for name, data := range files {
		_, sum, index, err := update.Divide(bytes.NewReader(data), 4096)
		if err != nil {
			t.Fatal(err)
		}
		object, list := hex.EncodeToString(sum[:]), sha256.Sum256(index)
		if err := errors.Join(os.WriteFile(filepath.Join(dir, object), data, 0o600), os.WriteFile(filepath.Join(dir, hex.EncodeToString(list[:])), index, 0o600)); err != nil {
			t.Fatal(err)
		}
		body += fmt.Sprintf("    - {name: %s, size: %d, sha256: %s, pack: none, packed: %d, object: %s, part: 4096, index: %x}\n", name, len(data), object, len(data), object, list)
	}
	return u.sign(order.Firmware, body)
}

// program gives the octets of a program that is none.
func program(name string) map[string][]byte {
	return map[string][]byte{"gridgate": bytes.Repeat([]byte(name+" "), 5000), "vmlinuz": []byte("kernel")}
}

// beginOn starts an agent that runs from slots.
func (s *site) beginOn(slots update.Slots) (end func()) {
	s.t.Helper()
	cfg, err := configs.Load(s.file())
	if err != nil {
		s.t.Fatal(err)
	}
	s.agent, err = New(cfg, Options{Version: "1.2.3", Log: slog.New(slog.DiscardHandler), Getenv: os.Getenv, ConfigPath: s.file(), Slots: slots})
	if err != nil {
		s.t.Fatal(err)
	}
	a := s.agent
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	}
}

func (s *site) apply(data []byte, objects string) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	return s.agent.updates.Apply(ctx, data, objects)
}

// updated waits for what came of an update.
func (s *site) updated(version uint64, outcome string) update.Outcome {
	s.t.Helper()
	var last update.Outcome
	proctest.Until(s.t, fmt.Sprintf("firmware version %d is %s", version, outcome), func() bool {
		r := s.agent.updates.current()
		if r.Last == nil || r.Last.Version != version || r.Document != nil {
			return false
		}
		last = *r.Last
		return true
	})
	if last.Outcome != outcome {
		s.t.Errorf("version %d: %+v; want %s", version, last, outcome)
	}
	return last
}

// updating makes a site with slots, whose utility has firmware B.
func updating(t *testing.T) (s *site, u utility, c *cards, objects string, b []byte) {
	t.Helper()
	s, u = newSite(t), newUtility(t)
	m := startZeroMeter(t)
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	c, objects = newCards(program("A")), t.TempDir()
	return s, u, c, objects, u.firmware(t, objects, "here/gw1", 5, "1.3.0", "test-board", program("B"))
}

// toB brings the firmware B and restarts into it.
func (s *site) toB(c *cards, objects string, b []byte) {
	s.t.Helper()
	end := s.beginOn(c)
	s.visited(1, "m")
	if err := s.apply(b, objects); err != nil {
		s.t.Fatal(err)
	}
	proctest.Until(s.t, "it restarts", c.isRestarted)
	end()
	c.boot()
}

// TestFirmwareIsKept, without a fog, as without one before; what is equal does not
// travel, and the same again is no news.
func TestFirmwareIsKept(t *testing.T) {
	t.Parallel()
	s, u, c, objects, b := updating(t)
	s.toB(c, objects, b)
	end := s.beginOn(c)
	if got := s.updated(5, "kept"); got.Firmware != "1.3.0" || got.Reason != "" {
		t.Errorf("%+v", got)
	}
	if c.running != "b" || c.first != "b" || c.trial != "" {
		t.Errorf("slots: %+v", c)
	}
	if err := s.apply(b, objects); err != nil {
		t.Errorf("the same again: %v", err)
	}
	// Another document with the same files changes nothing.
	if err := s.apply(u.firmware(t, objects, "here/gw1", 6, "1.3.0", "test-board", program("B")), objects); err != nil {
		t.Fatal(err)
	}
	s.updated(6, "kept")
	if r := s.agent.updates.current(); r.Firmware != "1.3.0" || r.Slot != "b" || r.Board != "test-board" || !slices.Equal(r.Groups, []string{"north"}) {
		t.Errorf("%+v", r)
	}
	if c.isRestarted() {
		t.Error("it restarts for nothing")
	}
	if err := s.apply(u.firmware(t, objects, "here/gw1", 7, "1.2.9", "test-board", program("C")), objects); !errors.Is(err, order.ErrOlder) {
		t.Errorf("an older one: %v", err)
	}
	end()
	if all := s.entries(); !strings.Contains(strings.Join(all, " "), "firmware.accepted firmware.fetched firmware.trial firmware.restart firmware.kept") {
		t.Errorf("audit: %q", all)
	}
}

// TestFirmwareIsReverted: by itself, when it does not read meters, and by the boot
// loader, when it does not run.
func TestFirmwareIsReverted(t *testing.T) {
	t.Parallel()
	t.Run("reads no meters", func(t *testing.T) {
		t.Parallel()
		s, u, c, objects, b := updating(t)
		s.toB(c, objects, b)
		s.trusting(u, modbusMeter("m", "127.0.0.1:1", "fast"))
		end := s.beginOn(c)
		if got := s.updated(5, "reverted"); !strings.Contains(got.Reason, "0 of 1 meters read, 1 of 1 did before") {
			t.Errorf("%+v", got)
		}
		proctest.Until(t, "it restarts", c.isRestarted)
		end()
		c.boot()
		end = s.beginOn(c)
		defer end()
		if got := s.updated(5, "reverted"); c.running != "a" || got.Firmware != "1.3.0" {
			t.Errorf("slot %s: %+v", c.running, got)
		}
		if err := s.apply(b, objects); err == nil {
			t.Error("it is tried again")
		}
	})
	t.Run("does not run", func(t *testing.T) {
		t.Parallel()
		s, _, c, objects, b := updating(t)
		s.toB(c, objects, b)
		for c.running == "b" { // nobody comes so far as to confirm
			c.boot()
		}
		defer s.beginOn(c)()
		if got := s.updated(5, "reverted"); !strings.Contains(got.Reason, "slot b did not prove itself") {
			t.Errorf("%+v", got)
		}
		if c.trial != "" || c.running != "a" {
			t.Errorf("slots: %+v", c)
		}
	})
	t.Run("crashes each time", func(t *testing.T) {
		t.Parallel()
		s, _, c, objects, b := updating(t)
		s.toB(c, objects, b)
		for c.running == "b" {
			end := s.beginOn(c)
			proctest.Until(t, "it is being proved", func() bool {
				d := s.agent.updates.current().Document
				return d != nil && d.Step == update.Proving
			})
			end()
			c.boot()
		}
		defer s.beginOn(c)()
		s.updated(5, "reverted")
	})
	t.Run("cannot be installed", func(t *testing.T) {
		t.Parallel()
		s, _, c, objects, b := updating(t)
		c.fails["install"] = errors.New("bad block")
		defer s.beginOn(c)()
		s.visited(1, "m")
		if err := s.apply(b, objects); err != nil {
			t.Fatal(err)
		}
		if got := s.updated(5, "reverted"); !strings.Contains(got.Reason, "bad block") {
			t.Errorf("%+v", got)
		}
	})
}

// TestFirmwareOfWhoIsRevoked ends at whatever step: while it is fetched, and while
// it is proved.
func TestFirmwareOfWhoIsRevoked(t *testing.T) {
	t.Parallel()
	t.Run("fetching", func(t *testing.T) {
		t.Parallel()
		s, u, c, _, b := updating(t)
		defer s.beginOn(c)()
		if err := s.submit(b); err != nil { // from a fog that is not there
			t.Fatal(err)
		}
		proctest.Until(t, "it is fetched", func() bool {
			d := s.agent.updates.current().Document
			return d != nil && d.Step == update.Fetching
		})
		next := newUtility(t)
		next[order.Root] = u[order.Root]
		if err := s.submit(next.trust(2)); err != nil {
			t.Fatal(err)
		}
		if got := s.updated(5, "refused"); !strings.Contains(got.Reason, "not trusted any more") {
			t.Errorf("%+v", got)
		}
	})
	t.Run("proving", func(t *testing.T) {
		t.Parallel()
		s, u, c, objects, b := updating(t)
		s.toB(c, objects, b)
		s.trusting(u, modbusMeter("m", "127.0.0.1:1", "fast")) // it takes its time
		defer s.beginOn(c)()
		proctest.Until(t, "it is being proved", func() bool {
			d := s.agent.updates.current().Document
			return d != nil && d.Step == update.Proving
		})
		next := newUtility(t)
		next[order.Root] = u[order.Root]
		if err := s.submit(next.trust(2)); err != nil {
			t.Fatal(err)
		}
		if got := s.updated(5, "reverted"); !strings.Contains(got.Reason, "not trusted any more") && !strings.Contains(got.Reason, "not proven") {
			t.Errorf("%+v", got)
		}
		proctest.Until(t, "it restarts", c.isRestarted)
	})
}

// TestNewerFirmwareReplaces one that is being fetched.
func TestNewerFirmwareReplaces(t *testing.T) {
	t.Parallel()
	s, u, c, objects, b := updating(t)
	end := s.beginOn(c)
	s.visited(1, "m")
	if err := s.submit(b); err != nil { // from a fog that is not there
		t.Fatal(err)
	}
	next := u.firmware(t, objects, "here/gw1", 6, "1.4.0", "test-board", program("C"))
	if err := s.apply(next, objects); err != nil {
		t.Fatal(err)
	}
	proctest.Until(t, "it restarts", c.isRestarted)
	end()
	c.boot()
	defer s.beginOn(c)()
	s.updated(6, "kept")
	if got := c.files[c.running]["gridgate"]; !bytes.Equal(got, program("C")["gridgate"]) {
		t.Errorf("slot %s runs %.10q", c.running, got)
	}
}

// TestFirmwareIsRefused at once, each with its reason, on up/firmware.
func TestFirmwareIsRefused(t *testing.T) {
	t.Parallel()
	s, u, c, objects, b := updating(t)
	defer s.beginOn(c)()
	fresh := func(change func(string) string) []byte {
		data := "gridgate: 1\nkind: firmware\ntarget: here/gw1\nversion: 6\n---\n" + string(mustPayload(t, b))
		return u.sign(order.Firmware, change(data))
	}
	for name, r := range map[string]struct {
		data []byte
		want string
	}{
		"unsigned":        {[]byte("gridgate: 1\nkind: firmware\ntarget: here/gw1\nversion: 6\n---\nfirmware: 1.3.0\n"), "not signed"},
		"another role":    {u.sign(order.Config, "gridgate: 1\nkind: firmware\ntarget: here/gw1\nversion: 6\n---\n"+string(mustPayload(t, b))), "wants the role firmware"},
		"changed":         {bytes.Replace(b, []byte("1.3.0"), []byte("1.9.0"), 1), "bad signature"},
		"another board":   {u.firmware(t, objects, "here/gw1", 6, "1.3.0", "other-board", program("B")), "no files for this board"},
		"older firmware":  {u.firmware(t, objects, "here/gw1", 6, "1.2.2", "test-board", program("B")), "does not allow a downgrade"},
		"a newer minimum": {fresh(func(s string) string { return strings.Replace(s, "boards:", "minimum: 1.2.4\nboards:", 1) }), "it wants 1.2.4"},
		"unknown key":     {fresh(func(s string) string { return strings.Replace(s, "boards:", "colour: red\nboards:", 1) }), "colour"},
		"truncated":       {b[:len(b)/2], ""},
		"another gateway": {u.firmware(t, objects, "here/gw2", 6, "1.3.0", "test-board", program("B")), "for another gateway"},
	} {
		before := s.agent.updates.current().Last
		s.agent.orders.take(uplink.Order{Name: "firmware", Payload: r.data, Retained: true})
		var got *update.Outcome
		proctest.Until(t, name+" is refused", func() bool {
			got = s.agent.updates.current().Last
			return got != before
		})
		if got.Outcome != "refused" || !strings.Contains(got.Reason, r.want) {
			t.Errorf("%s: %+v", name, got)
		}
		if l := s.agent.orders.current().Last; l != nil && l.Outcome == "refused" {
			t.Errorf("%s: up/config says %+v", name, l)
		}
	}
	if len(c.calls) > 0 {
		t.Errorf("slots were touched: %q", c.calls)
	}
}

func mustPayload(t *testing.T, data []byte) []byte {
	t.Helper()
	d, err := order.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	return d.Payload
}

// TestFirmwareWithoutSlots is refused.
func TestFirmwareWithoutSlots(t *testing.T) {
	t.Parallel()
	s, _, _, objects, b := updating(t)
	defer s.beginOn(nil)()
	if err := s.apply(b, objects); !errors.Is(err, errNoSlots) {
		t.Errorf("%v", err)
	}
	if err := s.agent.updates.Back(); !errors.Is(err, errNoSlots) {
		t.Errorf("%v", err)
	}
	if err := s.agent.updates.Factory(); !errors.Is(err, errNoSlots) {
		t.Errorf("%v", err)
	}
}

// TestFirmwareThatCannotReachTheFog is reverted: the one before could.
func TestFirmwareThatCannotReachTheFog(t *testing.T) {
	t.Parallel()
	s, u := newSite(t), newUtility(t)
	broker := mqtttest.Mosquitto(t, mqtttest.Config{})
	s.broker = broker.Address
	m := startZeroMeter(t)
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	c, objects := newCards(program("A")), t.TempDir()
	b := u.firmware(t, objects, "here/gw1", 5, "1.3.0", "test-board", program("B"))
	end := s.beginOn(c)
	s.visited(1, "m")
	proctest.Until(t, "the uplink is up", func() bool { return s.agent.Report().Uplink.Connected })
	if err := s.apply(b, objects); err != nil {
		t.Fatal(err)
	}
	proctest.Until(t, "it restarts", c.isRestarted)
	end()
	c.boot()
	s.broker = "127.0.0.1:1"
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	end = s.beginOn(c)
	if got := s.updated(5, "reverted"); !strings.Contains(got.Reason, "the fog was reached before and is not now") {
		t.Errorf("%+v", got)
	}
	proctest.Until(t, "it restarts", c.isRestarted)
	end()
	c.boot()
	s.broker = broker.Address
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	reports := make(chan update.Report, 100)
	fog, err := mqtt.Dial(t.Context(), mqtt.Options{Address: broker.Address, ClientID: "fog"})
	if err != nil {
		t.Fatal(err)
	}
	defer fog.Close()
	if err := fog.Subscribe(t.Context(), mqtt.FirmwareTopic("here", "gw1"), func(m mqtt.Message) {
		var r update.Report
		if err := json.Unmarshal(m.Payload, &r); err != nil {
			t.Errorf("%v in %s", err, m.Payload)
		}
		reports <- r
	}); err != nil {
		t.Fatal(err)
	}
	defer s.beginOn(c)()
	for {
		select {
		case r := <-reports:
			if r.Last != nil && r.Last.Outcome == "reverted" && r.Slot == "a" && r.Document == nil {
				return
			}
		case <-time.After(time.Minute):
			t.Fatal("nobody says that it was reverted")
		}
	}
}
