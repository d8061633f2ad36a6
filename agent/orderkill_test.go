package agent

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gridgate/agent/audit"
	"gridgate/agent/order"
	"gridgate/agent/status"
	"gridgate/agent/trial"
	"gridgate/internal/proctest"
)

// gridgate builds the program that ends itself at a step of an order, as a cut
// would, when the environment names the step.
func gridgate(t *testing.T) string {
	t.Helper()
	return filepath.Join(proctest.BuildWith(t, []string{"failpoints"}, "gridgate"), "gridgate")
}

// process starts gridgate, to end itself at a step; none: it runs on.
func (s *site) process(step string, env ...string) *proctest.Process {
	s.t.Helper()
	if s.program == "" {
		s.program = gridgate(s.t)
	}
	return proctest.Start(s.t, append(env, "GRIDGATE_FAILPOINT="+step), s.program, "run", "-config", s.file())
}

// running waits until an agent answers, and gives what it says of orders when it
// is as wanted.
func (s *site) orders(what string, want func(status.Report) bool) (got status.Report) {
	s.t.Helper()
	proctest.Until(s.t, what, func() bool {
		r, err := status.Ask(s.t.Context(), filepath.Join(s.dir, "c"))
		got = r
		return err == nil && want(r)
	})
	return got
}

func reads(r status.Report) bool {
	return len(r.Meters) > 0 && !slices.ContainsFunc(r.Meters, func(m status.Meter) bool { return m.State != "ok" })
}

// submitted gives a document to the agent process, which may die of it.
func (s *site) submitted(data []byte) {
	s.t.Helper()
	s.orders("the meter is read", reads)
	_ = status.Submit(s.t.Context(), filepath.Join(s.dir, "c"), data)
}

// TestKilledAtEveryStep of what becomes of a configuration: what runs afterwards is
// healthy, and what came of the document is told and written down.
func TestKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	killedAtEveryStep(t, 1)
}

func killedAtEveryStep(t *testing.T, rounds int) {
	t.Helper()
	bin := gridgate(t)
	for round := range rounds {
		for _, good := range []bool{true, false} {
			steps := []string{"put", "seen", "begun", "applied", "kept", "noted", "told", "ended"}
			if !good {
				steps[4] = "reverted"
			}
			for _, step := range steps {
				t.Run(fmt.Sprintf("%s,%v,%d", step, good, round), func(t *testing.T) {
					t.Parallel()
					testKilled(t, bin, step, good)
				})
			}
		}
	}
}

func testKilled(t *testing.T, bin, step string, good bool) {
	s, u := newSite(t), newUtility(t)
	s.program = bin
	m := startZeroMeter(t)
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	layer, end, layers := "mains: {voltage: 120}", "kept", 1
	if !good {
		layer, end, layers = "meters:\n  - {id: m, url: \"modbus+tcp://127.0.0.1:1?unit=1&model=eastron-sdm630\"}", "reverted", 0
	}
	p := s.process(step)
	s.submitted(u.config("here/gw1", 1, layer))
	p.Wait()
	p = s.process("")
	r := s.orders("the outcome is told, and the meter is read", func(r status.Report) bool {
		return r.Orders.Trial == "" && strings.HasPrefix(r.Orders.Last, "here/gw1 version 1: ") && reads(r)
	})
	if !strings.HasPrefix(r.Orders.Last, "here/gw1 version 1: "+end) || len(r.Orders.Layers) != layers {
		t.Errorf("%q, layers %q; want %s, %d", r.Orders.Last, r.Orders.Layers, end, layers)
	}
	if code := p.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if all := s.entries(); !slices.Contains(all, "config."+end) {
		t.Errorf("audit: %q", all)
	}
	if _, _, on, err := trial.OpenShelf(filepath.Join(s.dir, "buffer", "config")).OnTrial(); on || err != nil {
		t.Errorf("on trial: %v, %v", on, err)
	}
	if torn, err := filepath.Glob(filepath.Join(s.dir, "buffer", "config", ".new-*")); len(torn) > 0 || err != nil {
		t.Errorf("left behind: %q, %v", torn, err)
	}
	if aside, err := audit.SetAside(filepath.Join(s.dir, "buffer", "audit")); len(aside) > 0 || err != nil {
		t.Errorf("the log began anew: %q, %v", aside, err)
	}
}

// TestACrashLoopEnds: a configuration that ends the process whenever it is
// applied is given up for good.
func TestACrashLoopEnds(t *testing.T) {
	t.Parallel()
	s, u := newSite(t), newUtility(t)
	m := startZeroMeter(t)
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	p := s.process("applied")
	s.submitted(u.config("here/gw1", 1, "mains: {voltage: 120}"))
	p.Wait()
	for range trial.MaxAttempts - 1 {
		s.process("applied").Wait()
	}
	p = s.process("applied")
	r := s.orders("it is given up", func(r status.Report) bool { return r.Orders.Last != "" && r.Orders.Trial == "" && reads(r) })
	if !strings.HasPrefix(r.Orders.Last, "here/gw1 version 1: refused: 3 attempts did not end") || len(r.Orders.Layers) != 0 {
		t.Errorf("%q, %q", r.Orders.Last, r.Orders.Layers)
	}
	if code := p.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestKilledAmidNewKeys: the keys are the new ones, and none older are taken, of
// whatever target.
func TestKilledAmidNewKeys(t *testing.T) {
	t.Parallel()
	s, u := newSite(t), newUtility(t)
	m := startZeroMeter(t)
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	next := newUtility(t)
	next[order.Root] = u[order.Root]
	p := s.process("trust")
	s.submitted(next.trust(6))
	p.Wait()
	p = s.process("")
	s.orders("the new keys count", func(r status.Report) bool { return r.Orders.Trust == 6 })
	socket := filepath.Join(s.dir, "c")
	if err := status.Submit(t.Context(), socket, u.trust(5)); err == nil || !strings.Contains(err.Error(), "older") {
		t.Errorf("keys in between: %v", err)
	}
	if err := status.Submit(t.Context(), socket, next.trust(6)); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if code := p.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestShippedWithoutFailpoints: nobody who may write the environment of a gateway
// ends it by that.
func TestShippedWithoutFailpoints(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{gridgate(t): true, filepath.Join(proctest.Build(t, "gridgate"), "gridgate"): false} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Contains(data, []byte("GRIDGATE_FAILPOINT")); got != want {
			t.Errorf("%s has failpoints: %v", path, got)
		}
	}
}
