package agent

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"gridgate/agent/order"
	"gridgate/agent/trial"
	"gridgate/agent/uplink"
	"gridgate/internal/proctest"
)

// TestAKeyIsRevokedAmidATrial: other keys do not wait for its end. While they
// still have the key that signed the configuration the trial goes on, and when
// they do not it is given up; what was before is in effect again.
func TestAKeyIsRevokedAmidATrial(t *testing.T) {
	t.Parallel()
	for _, via := range []string{"local", "mqtt"} {
		t.Run(via, func(t *testing.T) {
			t.Parallel()
			s, u := newSite(t), newUtility(t)
			m := startZeroMeter(t)
			s.trusting(u, modbusMeter("m", m.address, "fast"))
			s.proving("2h")
			end := s.begin()
			defer end()
			s.visited(1, "m")
			s.endless(u, 1)
			push := func(data []byte) {
				t.Helper()
				if via == "mqtt" {
					s.agent.orders.take(uplink.Order{Name: "trust", Payload: data, Retained: true})
				} else if err := s.submit(data); err != nil {
					t.Fatal(err)
				}
			}
			version := func(n uint64) {
				t.Helper()
				proctest.Until(t, "the keys count, and it is told", func() bool {
					r := s.agent.orders.current()
					return r.Trust == n && r.Last != nil && (r.Last.Version == n || r.Last.Kind == "config")
				})
			}
			push(u.trust(2))
			version(2)
			if r := s.agent.orders.current(); r.Trial == nil || r.Trial.Step != string(trial.Proving) || r.Last == nil || r.Last.Kind != "trust" {
				t.Errorf("keys that change nothing end the trial: %+v", r)
			}
			few := u.sign(order.Config, strings.Replace(string(bodyOf(t, u.trust(3))), "version: 2", "version: 3", 1))
			if err := s.submit(few); err == nil || !errors.Is(err, order.ErrRole) {
				t.Errorf("keys that nobody of root has signed: %v", err)
			}
			next := newUtility(t)
			next[order.Root] = u[order.Root]
			push(next.trust(4))
			version(4)
			got := s.outcome(1)
			if got.Outcome != "reverted" || !strings.Contains(got.Reason, "who signed it is not trusted any more") {
				t.Errorf("%+v", got)
			}
			if n := len(s.agent.config().Meters); n != 1 {
				t.Errorf("%d meters", n)
			}
			all := s.entries()
			if a, b := slices.Index(all, "trust.replaced"), slices.Index(all, "config.reverted"); a < 0 || b < a {
				t.Errorf("audit: %q", all)
			}
		})
	}
}

func bodyOf(t *testing.T, data []byte) []byte {
	t.Helper()
	body, _, err := order.Unseal(data)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// TestAKeyIsRevokedDuringACut: what is on trial when the agent starts, and was
// signed by a key that is not trusted any more, is not tried again.
func TestAKeyIsRevokedDuringACut(t *testing.T) {
	t.Parallel()
	s, u := newSite(t), newUtility(t)
	m := startZeroMeter(t)
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	s.proving("2h")
	end := s.begin()
	s.visited(1, "m")
	s.endless(u, 1)
	shelf, err := os.ReadDir(s.dir + "/buffer/config")
	if err != nil || len(shelf) == 0 {
		t.Fatal(shelf, err)
	}
	end() // the trial is suspended, as by a crash
	end = s.begin()
	next := newUtility(t)
	next[order.Root] = u[order.Root]
	if err := s.submit(next.trust(2)); err != nil {
		t.Fatal(err)
	}
	got := s.outcome(1)
	if got.Outcome != "reverted" && got.Outcome != "refused" || !strings.Contains(got.Reason, "not trusted any more") {
		t.Errorf("%+v", got)
	}
	end()
	end = s.begin()
	defer end()
	if _, _, on, err := s.agent.orders.shelf.OnTrial(); on || err != nil {
		t.Error("it is tried again:", err)
	}
}
