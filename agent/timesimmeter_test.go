package agent

import (
	"cmp"
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"gridgate/agent/timesync"
	"gridgate/internal/meter"
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
	m.base, m.at = time.Until(next), time.Now()
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
