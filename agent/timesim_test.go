package agent

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/agent/timesync"
	"gridgate/agent/timesync/timetest"
	"gridgate/agent/validate"
	"gridgate/buffer/buffertest"
	"gridgate/internal/meter"
)

// This is a gateway with two meters over a month: oscillators, the network, the
// meters and what happens to them are simulated; all that is decided is decided
// by the code that runs in a gateway: timesync.Clock and MeterClock, poll.Poller,
// validate.Validator, and the store's table of corrections.

const (
	simCapture = 15 * time.Minute
	simProfile = meter.Channel("1-0:99.1.0*255/7:2")
	simNow     = meter.Channel("1-0:1.8.0*255/3:2")
	simRow     = meter.Channel("1-0:1.29.0*255/3:2")
	// nearCapture is what no setting may be nearer to the end of a capture period.
	nearCapture = 45 * time.Second
)

// simVariant is what a run leaves out, to show that it is seen.
type simVariant struct {
	trust  bool // stamps claim to be right whatever the gateway's clock is worth
	sure   bool // comparisons claim to be exact
	anyway bool // clocks are set as soon as that is decided, wherever capture periods end
}

// hasty sets clocks as soon as that is decided.
type hasty struct{ *timesync.MeterClock }

func (h hasty) Next(now meter.Stamp) (time.Duration, *meter.SetClock) {
	_, order := h.MeterClock.Next(now)
	if order != nil {
		may := order.May
		order.May = func(now meter.Stamp, found meter.ClockOffset) error {
			if err := may(now, found); !errors.Is(err, timesync.ErrNearCapture) {
				return err
			}
			return nil
		}
	}
	return 0, order
}

// result is what came of a run.
type result struct {
	wrongs                              []string
	rows, intervals, sets, judged       int
	sure, corrected, flagged            int
	setEvents, offEvents, driftEvents   int
	reboots, outages, meddled, captured int
}

func (r *result) add(o result) {
	r.wrongs = append(r.wrongs, o.wrongs...)
	for a, b := range map[*int]int{
		&r.rows: o.rows, &r.intervals: o.intervals, &r.sets: o.sets, &r.judged: o.judged, &r.sure: o.sure, &r.corrected: o.corrected,
		&r.flagged: o.flagged, &r.setEvents: o.setEvents, &r.offEvents: o.offEvents, &r.driftEvents: o.driftEvents,
		&r.reboots: o.reboots, &r.outages: o.outages, &r.meddled: o.meddled, &r.captured: o.captured,
	} {
		*a += b
	}
}

func (r result) String() string {
	return fmt.Sprintf("%d rows: %d sure, %d corrected, %d flagged; %d of %d intervals; %d settings (%d told, %d drifts, %d too far off); "+
		"%d offsets judged; %d reboots, %d outages, %d steps by others",
		r.rows, r.sure, r.corrected, r.flagged, r.intervals, r.captured, r.sets, r.setEvents, r.driftEvents, r.offEvents, r.judged,
		r.reboots, r.outages, r.meddled)
}

// simulateMonth runs the world of a seed.
func simulateMonth(t *testing.T, seed uint64, days int, v simVariant) (r result) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(seed, 80))
		timetest.Begin(time.Date(2027, time.Month(1+random.IntN(12)), 1+random.IntN(28), random.IntN(24), random.IntN(60), 7, 0, time.UTC))
		s := newSim(t, seed, random, v)
		r = s.run(time.Duration(days) * 24 * time.Hour)
	})
	return r
}

func newSim(t *testing.T, seed uint64, random *rand.Rand, v simVariant) *sim {
	either := func(d float64) float64 { return d * (2*random.Float64() - 1) }
	cfg := timetest.Config{
		Seed: seed, Drift: either(95e-6), Swing: 4e-6 * random.Float64(), Walk: 5e-8, HasRTC: random.IntN(2) == 0, RTCDrift: either(20e-6),
		Away: time.Duration(either(float64(3 * time.Hour))),
		Servers: []timetest.Server{
			{Name: "a", Off: 2 * time.Millisecond, Claim: 5 * time.Millisecond, Trip: 400 * time.Millisecond, Jitter: 300 * time.Millisecond, Lost: 0.05},
			{Name: "b", Off: -3 * time.Millisecond, Claim: 5 * time.Millisecond, Trip: 500 * time.Millisecond, Jitter: 300 * time.Millisecond, Lost: 0.05},
			{Name: "c", Claim: 5 * time.Millisecond, Trip: 300 * time.Millisecond, Jitter: 900 * time.Millisecond, Lost: 0.1},
		},
	}
	if !cfg.HasRTC && random.IntN(3) > 0 {
		cfg.Away = time.Until(time.Unix(0, 0))
	}
	if random.IntN(4) == 0 {
		cfg.Servers = append(cfg.Servers, timetest.Server{Name: "f", Off: time.Duration(either(float64(20 * time.Second))), Claim: time.Millisecond, Trip: 200 * time.Millisecond})
	}
	s := &sim{
		t: t, seed: seed, random: random, world: timetest.New(cfg), store: buffertest.NewMemory(seed + 1), valid: validate.New(validate.Config{}),
		simVariant: v, seen: map[string]meter.Row{}, events: map[meter.Channel]int{}, good: time.Now(),
	}
	s.policy.Set = true
	s.policy.Method = []meter.ClockMethod{meter.WriteTime, meter.ShiftTime}[random.IntN(2)]
	for i, most := range []float64{2, 20} {
		m := &simMeter{s: s, id: meter.ID(fmt.Sprint("m", i)), drift: either(most) / 86400, at: time.Now(), random: rand.New(rand.NewPCG(seed, uint64(i)))}
		switch random.IntN(6) {
		case 0:
			m.base = time.Duration(either(float64(8 * time.Minute)))
		case 1:
			m.base = time.Duration(either(float64(3 * time.Hour)))
		default:
			m.base = time.Duration(either(float64(20 * time.Second)))
		}
		m.next = time.Now().Add(m.base).Truncate(simCapture).Add(simCapture)
		s.meters = append(s.meters, m)
	}
	return s
}

// run has things happen for some time.
func (s *sim) run(length time.Duration) (r result) {
	stop := s.start()
	end := time.Now().Add(length)
	calm := end.Add(-2 * 24 * time.Hour) // then nothing happens any more
	var linkUp time.Time                 // when it comes back; zero while it is there
	until := make([]time.Time, len(s.meters))
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for time.Now().Before(end) {
		<-tick.C
		now := time.Now()
		if !linkUp.IsZero() && now.After(linkUp) {
			linkUp = time.Time{}
			s.world.SetLink(true)
		}
		for i, m := range s.meters {
			m.mu.Lock()
			m.silent = now.Before(until[i])
			m.capture()
			m.mu.Unlock()
		}
		if now.Before(calm) {
			switch s.random.IntN(900) {
			case 0:
				r.reboots++
				stop()
				stop = s.reboot()
			case 1, 2, 3:
				r.outages++
				linkUp = now.Add(time.Duration(s.random.Float64() * float64(3*24*time.Hour)))
				s.world.SetLink(false)
			case 4, 5, 6:
				until[s.random.IntN(len(until))] = now.Add(time.Duration(s.random.Float64() * float64(2*24*time.Hour)))
			case 7, 8:
				r.meddled++
				s.world.Meddle(time.Duration((2*s.random.Float64() - 1) * float64([]time.Duration{3 * time.Second, 20 * time.Minute, 3 * time.Hour}[s.random.IntN(3)])))
			}
		}
		well := linkUp.IsZero() && s.clock().Trusted() && !slices.ContainsFunc(until, now.Before)
		s.look(well)
		if linkUp.IsZero() && s.random.IntN(3) == 0 {
			s.deliver(s.random.IntN(4) == 0)
		}
	}
	stop()
	s.deliver(true)
	s.complete()
	r.rows, r.sure, r.corrected, r.flagged = s.left[0]+s.left[1]+s.left[2], s.left[0], s.left[1], s.left[2]
	r.sets, r.judged, r.wrongs = s.sets, s.judged, s.wrongs
	r.setEvents, r.offEvents, r.driftEvents = s.events[meter.ClockSetChannel], s.events[meter.ClockOffChannel], s.events[meter.ClockDriftsChannel]
	for _, row := range s.seen {
		if row.Channel == simRow {
			r.intervals++
		}
	}
	for _, m := range s.meters {
		r.captured += len(m.rows)
	}
	for i := range r.wrongs {
		r.wrongs[i] = fmt.Sprintf("seed %d: %s", s.seed, r.wrongs[i])
	}
	return r
}

// reboot has the power fail for a while.
func (s *sim) reboot() (stop func()) {
	off := time.NewTimer(time.Duration(s.random.Float64() * float64(6*time.Hour)))
	<-off.C
	s.world.Reboot()
	return s.start()
}

// TestAMonth: in every world every stored time is within its bound or flagged,
// no interval is lost or doubled, and meters' clocks are kept right, and never
// set wrongly, near the end of a capture period or by a gateway that does not
// know the time.
func TestAMonth(t *testing.T) {
	t.Parallel()
	var all result
	for seed := range uint64(simSeeds) {
		all.add(simulateMonth(t, seed, simDays, simVariant{}))
	}
	t.Logf("%d seeds of %d days: %v", simSeeds, simDays, all)
	for i, w := range all.wrongs {
		if i < 20 {
			t.Error(w)
		}
	}
	if all.sets == 0 || all.setEvents < all.sets*9/10 || all.corrected == 0 || all.flagged == 0 || all.offEvents == 0 || all.driftEvents == 0 || all.judged == 0 {
		t.Error("not everything was tried")
	}
}

// TestAMonthWithoutCare is the negative control: what is left out is seen.
func TestAMonthWithoutCare(t *testing.T) {
	t.Parallel()
	for title, v := range map[string]struct {
		simVariant
		want string
	}{
		"uncertainty counts for nothing":  {simVariant{sure: true}, "was off by"},
		"no distance to captures":         {simVariant{anyway: true}, "near the end of a capture period"},
		"the gateway's clock is believed": {simVariant{trust: true}, "ms off and says at most 0"},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(20) {
				for _, w := range simulateMonth(t, seed, 10, v.simVariant).wrongs {
					if strings.Contains(w, v.want) {
						t.Log(w)
						return
					}
				}
			}
			t.Error("nothing of the kind was seen in 20 worlds")
		})
	}
}
