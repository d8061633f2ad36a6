package agent

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"aead.dev/minisign"

	"gridgate/agent/audit"
	"gridgate/agent/order"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// auditor is a fog that collects the audit log.
type auditor struct {
	mu  sync.Mutex
	all []uint64
}

func (a *auditor) numbers() []uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.all)
}

func (a *auditor) listen(t *testing.T, address string) {
	t.Helper()
	fog, err := mqtt.Dial(t.Context(), mqtt.Options{Address: address, ClientID: "auditor"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fog.Close)
	err = fog.Subscribe(t.Context(), mqtt.AuditTopic("here", "gw1"), func(m mqtt.Message) {
		var e audit.Entry
		if err := json.Unmarshal(m.Payload, &e); err != nil {
			t.Errorf("%v in %s", err, m.Payload)
		}
		a.mu.Lock()
		a.all = append(a.all, e.Number)
		a.mu.Unlock()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestAuditIsSentAfterARestart: what was written without a fog goes out after the
// next start, more than is given to the broker at once, and each entry once over
// further restarts.
func TestAuditIsSentAfterARestart(t *testing.T) {
	t.Parallel()
	s, u := newSite(t), newUtility(t)
	m := startZeroMeter(t)
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	s.begin()() // so that there is a log
	end := s.begin()
	const refused = exportAtOnce + 5
	for i := range refused {
		if err := s.submit(u.config("here/gw2", i+1, "{}")); err == nil {
			t.Fatal("another gateway's was taken")
		}
	}
	end()
	want := len(s.entries())
	if want != refused+1 {
		t.Fatalf("%d entries", want)
	}

	broker, fog := mqtttest.Mosquitto(t, mqtttest.Config{}), &auditor{}
	fog.listen(t, broker.Address)
	s.broker = broker.Address
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	for round := range 3 {
		end := s.begin()
		if err := s.submit(u.config("here/gw2", 100+round, "{}")); err == nil {
			t.Fatal("another gateway's was taken")
		}
		want++
		proctest.Until(t, fmt.Sprintf("%d entries came", want), func() bool { return slices.Contains(fog.numbers(), uint64(want)) })
		end()
	}
	for i, n := range fog.numbers() {
		if n != uint64(i+1) {
			t.Fatalf("entry %d came as number %d: %v", n, i+1, fog.numbers())
		}
	}
}

// TestAuditNamesKeys: an entry says which key signed.
func TestAuditNamesKeys(t *testing.T) {
	t.Parallel()
	s, u := newSite(t), newUtility(t)
	m := startZeroMeter(t)
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	end := s.begin()
	if err := s.submit(u.config("here/gw1", 1, "mains: {voltage: 120}")); err != nil {
		t.Fatal(err)
	}
	s.outcome(1)
	if err := s.submit(u.trust(2)); err != nil {
		t.Fatal(err)
	}
	end()
	want := map[string]string{}
	for what, role := range map[string]order.Role{"config.trial": order.Config, "config.kept": order.Config, "trust.replaced": order.Root} {
		p, _ := u[role].Public().(minisign.PublicKey)
		want[what] = fmt.Sprintf("%s×1 %016X", role, p.ID())
	}
	got := map[string]string{}
	if _, err := audit.Verify(filepath.Join(s.dir, "buffer", "audit"), func(e audit.Entry) { got[e.What] = e.By }); err != nil {
		t.Fatal(err)
	}
	for what, by := range want {
		if got[what] != by || !strings.Contains(by, " ") {
			t.Errorf("%s by %q, want %q", what, got[what], by)
		}
	}
}
