package timesync_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/agent/timesync"
	"gridgate/agent/timesync/timetest"
	"gridgate/internal/meter"
)

// begin is when simulated worlds begin.
var begin = time.Date(2027, time.March, 3, 10, 0, 0, 0, time.UTC)

// memory keeps the last time in memory.
type memory struct {
	mu   sync.Mutex
	last time.Time
}

func (m *memory) LastTime() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

func (m *memory) SetLastTime(t time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = t
	return nil
}

// moment is what the truth was at a monotonic time.
type moment struct {
	boot  uint32
	mono  time.Duration
	truth time.Time
}

// gateway is a clock in a world.
type gateway struct {
	t           testing.TB
	w           *timetest.World
	cfg         timesync.Config
	clock       *timesync.Clock
	stop        func()
	corrections []timesync.Correction
	moments     []moment
	steps       []timesync.Step
}

func newGateway(t testing.TB, w *timetest.World, cfg timesync.Config) *gateway {
	g := &gateway{t: t, w: w, cfg: cfg}
	g.cfg.System, g.cfg.Exchange, g.cfg.Hardware, g.cfg.Boot = w, w.Exchange, w.RTC(), w.Boot
	g.cfg.Servers, g.cfg.Log = w.Servers(), slog.New(slog.DiscardHandler)
	if g.cfg.Memory == nil {
		g.cfg.Memory = &memory{}
	}
	g.cfg.Corrected = func(c timesync.Correction) { g.corrections = append(g.corrections, c) }
	g.cfg.Stepped = func(s timesync.Step) { g.steps = append(g.steps, s) }
	g.start()
	return g
}

func (g *gateway) start() {
	g.clock = timesync.New(g.cfg)
	ctx, cancel := context.WithCancel(g.t.Context())
	done := make(chan error, 1)
	clock := g.clock
	go func() { done <- clock.Run(ctx) }()
	g.stop = func() {
		cancel()
		if err := <-done; err != nil {
			g.t.Error(err)
		}
	}
}

// check holds a stamp of now against the truth.
func (g *gateway) check(what string) meter.Stamp {
	g.t.Helper()
	s := g.clock.Now()
	truth := g.w.True()
	g.moments = append(g.moments, moment{s.Boot, g.w.Now().Mono, truth})
	if s.Bound != meter.UnknownBound {
		if off := truth.Sub(s.UTC()).Abs(); off > time.Duration(s.Bound)*time.Millisecond {
			g.t.Errorf("%s: at %v the clock shows %v, %v off, and says at most %d ms (%+v)", what, truth, s.UTC(), off, s.Bound, g.clock.Status())
		}
	}
	if before := g.clock.NotBefore(); before.After(truth) {
		g.t.Errorf("%s: says that %v has passed, at %v", what, before, truth)
	}
	return s
}

// corrected holds every correction against every moment of its boot.
func (g *gateway) corrected(what string) {
	g.t.Helper()
	for _, c := range g.corrections {
		for _, m := range g.moments {
			if m.boot != c.Boot || m.mono > c.Mono {
				continue
			}
			if got, bound := c.At(m.mono); got.Sub(m.truth).Abs() > bound {
				g.t.Errorf("%s: correction %+v gives %v for %v of boot %d, which was %v", what, c, got, m.mono, m.boot, m.truth)
				return
			}
		}
	}
}

func (g *gateway) state(want timesync.State, what string) timesync.Status {
	g.t.Helper()
	s := g.clock.Status()
	if s.State != want {
		g.t.Errorf("%s: state %v (%s), want %v; %+v", what, s.State, s.Reason, want, s)
	}
	return s
}

// three servers of the better kind.
func three() []timetest.Server {
	return []timetest.Server{
		{Name: "a", Off: 2 * time.Millisecond, Claim: 5 * time.Millisecond, Trip: 40 * time.Millisecond, Jitter: 20 * time.Millisecond},
		{Name: "b", Off: -3 * time.Millisecond, Claim: 5 * time.Millisecond, Trip: 60 * time.Millisecond, Jitter: 20 * time.Millisecond},
		{Name: "c", Off: 0, Claim: 5 * time.Millisecond, Trip: 50 * time.Millisecond, Jitter: 20 * time.Millisecond},
	}
}

func simulate(t *testing.T, f func(t *testing.T)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		timetest.Begin(begin)
		f(t)
	})
}

func TestAgentMakesTheClockRight(t *testing.T) {
	simulate(t, func(t *testing.T) {
		w := timetest.New(timetest.Config{Seed: 1, Drift: 70e-6, Swing: 5e-6, Away: -300 * 24 * time.Hour, Servers: three()})
		g := newGateway(t, w, timesync.Config{Discipline: timesync.Agent})
		if s := g.check("at the start"); s.Bound != meter.UnknownBound {
			t.Errorf("a clock that nobody was asked about has the bound %d", s.Bound)
		}
		time.Sleep(time.Minute)
		s := g.state(timesync.Synchronised, "after a minute")
		if s.Bound > 200*time.Millisecond || len(g.steps) != 2 && len(g.steps) != 1 {
			t.Errorf("%+v, steps %v", s, g.steps)
		}
		for range 3 * 24 * 6 {
			time.Sleep(10 * time.Minute)
			g.check("running")
		}
		s = g.state(timesync.Synchronised, "after three days")
		if s.Drift > -60e-6 || s.Drift < -80e-6 || s.DriftError > 30e-6 || s.Interval < time.Hour || s.Bound > 500*time.Millisecond {
			t.Errorf("after three days: %+v", s)
		}
		g.stop()
	})
}

// fate is what happens to a gateway in a month: chosen by a seed.
func fate(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 42))
	sign := func(f float64) float64 { return f * (2*r.Float64() - 1) }
	w := timetest.New(timetest.Config{
		Seed: seed, Drift: sign(88e-6), Swing: sign(10e-6), Walk: 0.2e-6, HasRTC: r.IntN(2) == 0, RTCDrift: sign(40e-6),
		Away: time.Duration(sign(float64(400 * 24 * time.Hour))), Servers: servers(r),
	})
	cfg := timesync.Config{Discipline: timesync.Agent}
	if r.IntN(3) == 0 {
		cfg.Discipline = timesync.Observe
	}
	g := newGateway(t, w, cfg)
	defer func() { g.stop() }()
	// other is what keeps the clock right where that is not ours to do: it is
	// not very good at it.
	other := func() {
		if cfg.Discipline == timesync.Observe && seed%2 == 0 {
			w.Meddle(w.True().Sub(w.Now().Wall) + time.Duration(sign(float64(300*time.Millisecond))))
		}
	}
	other()
	claimed, ticks := 0, 0
	for end := time.Now().Add(30 * 24 * time.Hour); time.Now().Before(end); {
		for range 1 + r.IntN(200) {
			time.Sleep(time.Duration(r.Int64N(int64(20 * time.Minute))))
			ticks++
			if g.check("running").Bound != meter.UnknownBound {
				claimed++
			}
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
		switch r.IntN(6) {
		case 0, 1:
			w.SetLink(false)
			for range r.IntN(30) {
				time.Sleep(time.Duration(r.Int64N(int64(6 * time.Hour))))
				g.check("in an outage")
			}
			w.SetLink(true)
		case 2:
			w.Meddle(time.Duration(sign(float64(2 * time.Hour))))
			g.check("after somebody set the clock")
		case 3:
			w.Meddle(time.Duration(sign(float64(time.Second))))
			g.check("after somebody set the clock a little")
		case 4:
			g.stop()
			w.Reboot()
			g.start()
			other()
			if s := g.check("after a reboot"); s.Bound != meter.UnknownBound {
				t.Errorf("a clock after a reboot claims %d ms", s.Bound)
			}
		case 5:
			g.stop()
			time.Sleep(time.Duration(r.Int64N(int64(10 * time.Minute))))
			g.start()
			g.check("after a restart")
		}
		other()
	}
	g.corrected(fmt.Sprintf("seed %d", seed))
	if claimed*2 < ticks && (cfg.Discipline == timesync.Agent || seed%2 == 0) {
		t.Errorf("seed %d: a bound was claimed %d of %d times", seed, claimed, ticks)
	}
}

// servers are three to five, at most a third of them wrong, over paths from
// good to GPRS.
func servers(r *rand.Rand) (list []timetest.Server) {
	n, far := 3+r.IntN(3), 1.0
	if r.IntN(2) == 0 {
		far = 0.02
	}
	wrong := r.IntN((n-1)/2 + 1)
	for i := range n {
		claim := time.Duration(far * float64(r.Int64N(int64(40*time.Millisecond))))
		s := timetest.Server{
			Name: string(rune('a' + i)), Claim: claim, Off: time.Duration(float64(claim) * (2*r.Float64() - 1)),
			Trip:   time.Duration(far * float64(r.Int64N(int64(800*time.Millisecond)))),
			Jitter: time.Duration(far * float64(r.Int64N(int64(time.Second)))), Lost: r.Float64() * 0.2,
		}
		if i < wrong {
			s.Off += time.Duration((r.Float64() - 0.5) * float64(time.Minute))
		}
		list = append(list, s)
	}
	return list
}

func TestMonthOfEveryKind(t *testing.T) {
	seeds := uint64(20)
	if testing.Short() {
		seeds = 4
	}
	for seed := range seeds {
		t.Run("", func(t *testing.T) { simulate(t, func(t *testing.T) { fate(t, seed) }) })
	}
}
