//go:build soak

package agent

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"gridgate/internal/linktest"
	"gridgate/internal/proctest"
)

// TestSoakNoCommittedRowIsLost goes on as TestNoCommittedRowIsLost does, with
// kills, stops, outages and broker restarts in random order, for SOAK_MINUTES
// (5) minutes.
func TestSoakNoCommittedRowIsLost(t *testing.T) {
	minutes := 5
	if s := os.Getenv("SOAK_MINUTES"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("SOAK_MINUTES=%s: want a number of minutes", s)
		}
		minutes = n
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	r := newRig(t, proctest.Build(t, "gridgate", "metersim"), false)
	r.startAgent()
	troubles := []func(){
		func() { // a power cut while nothing comes through
			r.outageAndKill()
			r.startAgent()
		},
		func() { // a power cut at any moment
			r.agent.Kill()
			r.startAgent()
		},
		func() { // a restart in order
			if code := r.agent.Stop(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			r.startAgent()
		},
		func() { // a broker that restarts
			r.mosq.Stop()
			r.storeMore(50)
			r.mosq.Start()
		},
		func() { // a link that is cut
			r.link.Set(linktest.Cut)
			r.storeMore(50)
			r.link.Set(linktest.Up)
		},
		func() { // a link that stalls and goes on
			r.link.Set(linktest.BlackHole)
			r.storeMore(50)
			r.link.Set(linktest.Up)
		},
	}
	counts := make([]int, len(troubles))
	for end := time.Now().Add(time.Duration(minutes) * time.Minute); time.Now().Before(end); {
		r.deliverMore(50 + random.IntN(100))
		i := random.IntN(len(troubles))
		counts[i]++
		troubles[i]()
	}
	r.deliverMore(50)
	if missing := r.settle(); len(missing) > 0 {
		t.Errorf("%d committed rows were not delivered, the first %v", len(missing), missing[0])
	}
	r.fog.check(t)
	t.Logf("troubles, by kind: %v", counts)
}

// TestSoakCounts goes through 200 kills, 200 outages and 50 broker restarts, in
// random order.
func TestSoakCounts(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	r := newRig(t, proctest.Build(t, "gridgate", "metersim"), false)
	r.startAgent()
	troubles := []func(){
		func() { // an outage, and a power cut in it
			r.outageAndKill()
			r.startAgent()
		},
		func() { // a power cut at any moment
			r.agent.Kill()
			r.startAgent()
		},
		func() { r.outage(0) },
		func() { r.outage(1) },
		func() { // a broker that restarts
			r.mosq.Stop()
			r.storeMore(20)
			r.mosq.Start()
		},
	}
	var order []int
	for kind, n := range []int{100, 100, 50, 50, 50} {
		for range n {
			order = append(order, kind)
		}
	}
	random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	for i, kind := range order {
		r.deliverMore(10 + random.IntN(40))
		troubles[kind]()
		if i%50 == 49 {
			t.Logf("%d of %d troubles", i+1, len(order))
		}
	}
	r.deliverMore(50)
	if missing := r.settle(); len(missing) > 0 {
		t.Errorf("%d committed rows were not delivered, the first %v", len(missing), missing[0])
	}
	r.fog.check(t)
}
