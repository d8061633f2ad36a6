package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/agent/poll"
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

// simMeter is a meter that captures a row at each quarter of an hour of its own
// clock.
type simMeter struct {
	s     *sim
	id    meter.ID
	drift float64 // seconds a second

	mu      sync.Mutex
	random  *rand.Rand
	base    time.Duration // its clock less the true time, when it was set last
	at      time.Time     // true, of base
	rows    []int64       // capture times by its clock, in order
	next    time.Time     // by its clock
	silent  bool
	lastSet time.Time // true
	sets    int
}

// off gives its clock less the true time.
func (m *simMeter) off() time.Duration {
	since := time.Since(m.at)
	return m.base + time.Duration(m.drift*float64(since))
}

// capture captures what is due by its clock. mu is held.
func (m *simMeter) capture() {
	shown := time.Now().Add(m.off())
	for !m.next.After(shown) {
		m.rows = append(m.rows, m.next.UnixMilli())
		m.next = m.next.Add(simCapture)
	}
}

func (m *simMeter) pass(ctx context.Context, most time.Duration) bool {
	m.mu.Lock()
	d := time.Duration(m.random.Float64() * float64(most))
	m.mu.Unlock()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// read compares the clock; each way takes its own time.
func (m *simMeter) read(ctx context.Context) (meter.ClockOffset, bool) {
	before := m.s.now()
	if !m.pass(ctx, 2*time.Second) {
		return meter.ClockOffset{}, false
	}
	m.mu.Lock()
	shown := time.Now().Add(m.off()).Truncate(time.Second)
	m.mu.Unlock()
	if !m.pass(ctx, 2*time.Second) {
		return meter.ClockOffset{}, false
	}
	after := m.s.now()
	turn := time.Duration(after.Mono-before.Mono) * time.Millisecond
	stepped := time.Duration(after.Time-before.Time)*time.Millisecond - turn
	found := meter.ClockOffset{
		Offset: shown.Sub(after.UTC().Add(-turn / 2)), Uncertainty: turn/2 + time.Second + stepped.Abs(), Valid: true, At: after,
	}
	if m.s.sure {
		found.Uncertainty = 0
	}
	return found, true
}

func (m *simMeter) Visit(ctx context.Context, ask meter.Ask) (meter.Got, error) {
	got := meter.Got{Identity: meter.Identity{Want: string(m.id), Found: string(m.id), Proven: true}}
	m.mu.Lock()
	silent := m.silent
	m.mu.Unlock()
	if silent {
		m.pass(ctx, 5*time.Second)
		return meter.Got{}, meter.ErrNoAnswer
	}
	if ask.Clock || ask.ClockToo {
		found, ok := m.read(ctx)
		if !ok {
			return got, context.Cause(ctx)
		}
		got.Clock = &found
	}
	m.mu.Lock()
	m.capture()
	for _, g := range ask.Groups {
		stamp := m.s.now()
		got.Rows = append(got.Rows, meter.Row{
			Meter: m.id, Serial: string(m.id), Channel: simNow, Lane: g.Lane, Stamp: stamp,
			Value: meter.UintValue(uint64(m.s.world.True().UnixMilli()), 0),
		})
	}
	for _, p := range ask.Profiles {
		m.profile(&got, p)
	}
	m.mu.Unlock()
	if ask.SetClock != nil {
		m.set(ctx, ask.SetClock, &got)
	}
	return got, nil
}

func (m *simMeter) profile(got *meter.Got, p meter.Profile) {
	newest := p.Since
	until := cmp.Or(p.Until, max(m.s.now().Time, p.Since)+24*3600*1000)
	stamp := m.s.now()
	for i, at := range m.rows {
		if at <= p.Since || at > until {
			continue
		}
		newest = max(newest, at)
		s := stamp
		s.Time, s.Source, s.Bound = at, meter.FromMeter, meter.UnknownBound
		got.Rows = append(got.Rows, meter.Row{
			Meter: m.id, Serial: string(m.id), Channel: simRow, Lane: p.Lane, Stamp: s, Period: uint32(simCapture / time.Second),
			Value: meter.UintValue(uint64(i), 0),
		})
	}
	if p.Until != 0 && p.Until <= stamp.Time {
		newest = max(newest, p.Until)
	}
	if newest > p.Since {
		got.Cursors = append(got.Cursors, meter.Cursor{Meter: m.id, Serial: string(m.id), Profile: p.Channel, Time: newest})
	}
}

// set does as it is told and holds it against the truth.
func (m *simMeter) set(ctx context.Context, order *meter.SetClock, got *meter.Got) {
	found, ok := m.read(ctx)
	if !ok {
		return
	}
	set := &meter.ClockSet{At: m.s.now(), Before: found}
	got.ClockSet = set
	if set.Err = order.May(set.At, found); set.Err != nil {
		return
	}
	set.Sent = true
	way := max(0, found.Uncertainty-time.Second)
	to := m.s.now().UTC().Add(way)
	if order.Method == meter.ShiftTime {
		to = time.Time{}
	}
	if !m.pass(ctx, 2*time.Second) {
		return
	}
	m.mu.Lock()
	m.capture()
	before := m.off()
	shown := time.Now().Add(before)
	next := to.Round(time.Second)
	if to.IsZero() {
		next = shown.Add(-found.Offset.Round(time.Second))
	}
	m.base, m.at = next.Sub(time.Now()), time.Now()
	m.judge(before, shown, next)
	m.next = next.Truncate(simCapture).Add(simCapture)
	m.mu.Unlock()
	if after, ok := m.read(ctx); ok {
		set.After = &after
	}
}

// judge holds a setting against the rules.
func (m *simMeter) judge(before time.Duration, shown, next time.Time) {
	after := m.off()
	m.sets++
	m.s.sets++
	away := func(t time.Time) time.Duration {
		into := t.Sub(t.Truncate(simCapture))
		return min(into, simCapture-into)
	}
	switch {
	case !m.s.clock().Trusted():
		m.s.wrong("meter %s was set by a gateway that does not know the time", m.id)
	case before.Abs() <= timesync.DefaultThreshold || after.Abs() >= before.Abs():
		m.s.wrong("meter %s was off by %v and is off by %v now", m.id, before, after)
	case away(shown) < nearCapture, away(next) < nearCapture, !shown.Truncate(simCapture).Equal(next.Truncate(simCapture)):
		m.s.wrong("meter %s was set from %v to %v, near the end of a capture period", m.id, shown, next)
	case !m.lastSet.IsZero() && time.Since(m.lastSet) < 24*time.Hour-10*time.Second:
		m.s.wrong("meter %s was set %v after the last time", m.id, time.Since(m.lastSet))
	}
	m.lastSet = time.Now()
}

func (m *simMeter) Close() error { return nil }

// sim is one run.
type sim struct {
	t      testing.TB
	seed   uint64
	random *rand.Rand
	world  *timetest.World
	store  *buffertest.Memory
	valid  *validate.Validator
	meters []*simMeter
	policy timesync.MeterPolicy
	simVariant

	mu      sync.Mutex
	running *timesync.Clock
	mem     simMemory
	good    time.Time // since when all is well
	sets    int
	seen    map[string]meter.Row // what left the store, by lane and number
	wrongs  []string
	judged  int // offsets that were held against their limits
	left    [3]int
	events  map[meter.Channel]int
}

func (s *sim) wrong(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.wrongs) < 5 {
		s.wrongs = append(s.wrongs, fmt.Sprintf("%v: ", time.Now().UTC().Format(time.DateTime))+fmt.Sprintf(format, args...))
	}
}

func (s *sim) clock() *timesync.Clock {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running
}

func (s *sim) now() meter.Stamp {
	n := s.clock().Now()
	if s.trust {
		n.Bound = 0
	}
	return n
}

// Submit stores what a visit brought.
func (s *sim) Submit(rows []meter.Row, cursors []meter.Cursor, stored func()) {
	rows = slices.Clone(rows)
	s.valid.Check(rows)
	if err := s.store.Append(context.Background(), meter.Append{Rows: rows, Cursors: cursors}); err != nil {
		s.wrong("%v", err)
	}
	if stored != nil {
		stored()
	}
}

func (s *sim) Cursor(id meter.ID, serial string, profile meter.Channel) (meter.Cursor, bool, error) {
	return s.store.Cursor(id, serial, profile)
}

// simMemory remembers nothing against meters.
type simMemory struct {
	mu   sync.Mutex
	last time.Time
}

func (*simMemory) Refusals(string) (int, time.Time)       { return 0, time.Time{} }
func (*simMemory) Refused(string, time.Time) (int, error) { return 0, nil }
func (*simMemory) Accepted(string) error                  { return nil }
func (*simMemory) WasAccepted(string) bool                { return true }
func (*simMemory) Exchanged(meter.ID) string              { return "" }
func (*simMemory) SetExchanged(meter.ID, string) error    { return nil }
func (m *simMemory) LastTime() time.Time                  { m.mu.Lock(); defer m.mu.Unlock(); return m.last }
func (m *simMemory) SetLastTime(t time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = t
	return nil
}

// start starts the agent of a boot, and gives what stops it.
func (s *sim) start() (stop func()) {
	s.store.SetBoot(s.world.Boot())
	clock := timesync.New(timesync.Config{
		Servers: s.world.Servers(), Discipline: timesync.Agent, System: s.world, Hardware: s.world.RTC(), Memory: &s.mem,
		Exchange: s.world.Exchange, Boot: s.world.Boot, Log: slog.New(slog.DiscardHandler),
		Corrected: func(c timesync.Correction) { _ = s.store.Correct(context.Background(), correctionOf(c)) },
	})
	s.mu.Lock()
	s.running = clock
	s.mu.Unlock()
	var meters []poll.Meter
	for _, m := range s.meters {
		meters = append(meters, poll.Meter{
			ID: m.id, Serial: string(m.id), Visitor: m, Clock: timesync.NewMeterClock(s.policy),
			Groups: []poll.Group{
				{Name: "now", Lane: meter.Instant, Every: simCapture, Align: true, Channels: []meter.Channel{simNow}},
				{Name: "load", Lane: meter.Interval, Every: simCapture, Align: true, Profile: simProfile},
			},
		})
	}
	for i := range meters {
		if s.anyway {
			meters[i].Clock = hasty{timesync.NewMeterClock(s.policy)}
		}
	}
	poller := poll.New(poll.Config{
		Line: "sim", Meters: meters, Sink: s, Memory: &s.mem, Now: s.now, Log: slog.New(slog.DiscardHandler),
		Wall: func() time.Time { return s.world.Now().Wall },
	})
	ctx, cancel := context.WithCancel(s.t.Context())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = clock.Run(ctx) })
	tasks.Go(func() { _ = poller.Run(ctx) })
	return func() {
		cancel()
		tasks.Wait()
	}
}

// deliver takes what waits, as the fog does, sometimes twice.
func (s *sim) deliver(again bool) {
	for _, lane := range meter.Lanes() {
		after := s.store.Acked(lane)
		if again {
			after -= min(after, 50)
		}
		for {
			span, err := s.store.Peek(lane, after, 500)
			if err != nil || span.Last == 0 {
				break
			}
			n := span.Runs[0].First
			for i := range span.Rows {
				s.arrived(lane, n+uint64(i), &span.Rows[i])
			}
			after = span.Last
		}
		_ = s.store.Ack(lane, after)
	}
}

// arrived holds a row against the truth.
func (s *sim) arrived(lane meter.Lane, number uint64, r *meter.Row) {
	key := fmt.Sprint(lane, number)
	before, twice := s.seen[key]
	if twice {
		if before != *r {
			s.wrong("lane %s number %d came as %+v and as %+v", lane, number, before, *r)
		}
		return
	}
	s.seen[key] = *r
	if r.Channel != simNow {
		if r.Channel != simRow {
			s.events[r.Channel]++
		}
		return
	}
	switch off := r.Stamp.Time - int64(r.Value.Bits); {
	case r.Stamp.Bound == meter.UnknownBound:
		s.left[2]++
		if r.Quality&meter.ClockUnsynchronised == 0 {
			s.wrong("a row of no known time is not flagged: %+v", *r)
		}
	case max(off, -off) > int64(r.Stamp.Bound)+1:
		s.wrong("a row is %d ms off and says at most %d: %+v", off, r.Stamp.Bound, *r)
	case r.Quality&meter.TimeCorrected != 0:
		s.left[1]++
	default:
		s.left[0]++
	}
}

// complete holds what arrived of the profiles against what was captured.
func (s *sim) complete() {
	type captured struct {
		id meter.ID
		n  uint64
	}
	came := map[captured]int{}
	keys := map[meter.Key]bool{}
	for _, r := range s.seen {
		if r.Channel == simRow {
			came[captured{r.Meter, r.Value.Bits}]++
			if keys[r.Key()] {
				s.wrong("interval %v of meter %s came twice", r.Stamp.UTC(), r.Meter)
			}
			keys[r.Key()] = true
		}
	}
	for _, m := range s.meters {
		cursor, _, _ := s.store.Cursor(m.id, string(m.id), simProfile)
		for i, at := range m.rows {
			n := came[captured{m.id, uint64(i)}]
			inGap := slices.ContainsFunc(cursor.Gaps.List(), func(g meter.Gap) bool { return at > g.From && at <= g.To })
			if n == 0 && at <= cursor.Time && !inGap {
				s.wrong("interval %v of meter %s is lost: cursor %v", time.UnixMilli(at).UTC(), m.id, cursor)
			}
		}
	}
}

// look holds the meters' clocks against their limits, where all was well for over
// a day.
func (s *sim) look(well bool) {
	if !well {
		s.good = time.Now()
	}
	if time.Since(s.good) < 27*time.Hour {
		return
	}
	for _, m := range s.meters {
		m.mu.Lock()
		off, drift := m.off(), m.drift*86400
		m.mu.Unlock()
		limit := 30 * time.Second
		if max(drift, -drift) <= 2 {
			limit = 10 * time.Second
		}
		if off.Abs() > timesync.DefaultLimit {
			continue // an event only
		}
		if s.judged++; off.Abs() > limit {
			s.wrong("meter %s, which drifts %.1f s a day, is off by %v", m.id, drift, off)
		}
	}
}

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
