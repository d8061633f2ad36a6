package agent

import (
	"math"
	"sync"
	"time"

	"gridgate/agent/status"
	"gridgate/agent/timesync"
	"gridgate/buffer"
	"gridgate/configs"
	"gridgate/internal/meter"
)

// meterClock decides about the clock of a meter; the poller of its line asks it,
// and reports look at it meanwhile.
type meterClock struct {
	mu sync.Mutex
	c  *timesync.MeterClock
}

// newMeterClock gives what decides about the clock of m. What is decided is
// stored by the time that the intake has committed it.
func newMeterClock(cfg *configs.Config, m configs.Meter) *meterClock {
	p := timesync.MeterPolicy{
		Threshold: cfg.MeterClocks.Threshold, Limit: cfg.MeterClocks.Limit, Guard: cfg.MeterClocks.Guard,
		Settle: cfg.Intake.Window + settleMargin,
	}
	p.Set, p.Method = cfg.MeterClock(m)
	return &meterClock{c: timesync.NewMeterClock(p)}
}

// settleMargin is what a commit takes beyond the intake's window.
const settleMargin = 30 * time.Second

func (k *meterClock) Recall(read func() (at int64, ok bool, err error)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.c.Recall(read)
}

func (k *meterClock) Took(now meter.Stamp, got *meter.Got) (rows []meter.Row, keep int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.c.Took(now, got)
}

func (k *meterClock) Next(now meter.Stamp) (wait time.Duration, order *meter.SetClock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if wait, order = k.c.Next(now); order != nil {
		may := order.May
		order.May = func(now meter.Stamp, found meter.ClockOffset) error {
			k.mu.Lock()
			defer k.mu.Unlock()
			return may(now, found)
		}
	}
	return wait, order
}

func (k *meterClock) Forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.c.Forget()
}

// report tells how the clock does; nil before it was compared.
func (k *meterClock) report() *status.Clock {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.c.Status()
	if s.Offset == nil {
		return nil
	}
	c := &status.Clock{
		Offset: s.Offset.Offset.Seconds(), Uncertainty: s.Offset.Uncertainty.Seconds(), Valid: s.Offset.Valid,
		Measured: s.Offset.At.UTC(), Policy: "observe", Pending: s.Pending, Why: text(s.Why),
	}
	if s.Offset.At.Bound != meter.UnknownBound {
		c.Uncertainty = timesync.Uncertainty(*s.Offset).Seconds()
	} else {
		c.Unsynchronised = true
	}
	if s.Set {
		c.Policy = s.Method.String()
	}
	if !s.LastSet.IsZero() {
		c.LastSet = &s.LastSet
	}
	return c
}

// waitMost is how long readings wait after a start to learn what time it is,
// where servers may tell; alarms do not.
const waitMost = 2 * time.Minute

// waitsForTime says whether it is worth waiting with readings of no known time.
// That the clock is right now is not enough: they are put right a moment later.
func (a *Agent) waitsForTime() bool {
	c := a.clock.Load()
	return c != nil && c.servers && time.Since(a.started) < waitMost && !c.corrected.Load()
}

// sureTime gives the time, the zero time where nobody vouches for it.
func (a *Agent) sureTime() time.Time {
	if c := a.clock.Load(); c != nil && c.Trusted() {
		return time.Now()
	}
	return time.Time{}
}

// certificateTime gives the time to check certificates by: that of a clock that
// begins long ago, and nobody vouches for, is no earlier than what has passed.
func (a *Agent) certificateTime() time.Time {
	now := time.Now()
	if c := a.clock.Load(); c != nil && !c.Trusted() {
		if passed := c.NotBefore(); passed.After(now) {
			return passed
		}
	}
	return now
}

// tellUplink has the uplink look for rows.
func (a *Agent) tellUplink() {
	select {
	case a.committed <- struct{}{}:
	default:
	}
}

// correctionOf gives what time it was in a boot as the store takes it: in
// milliseconds, the bound rounded up.
func correctionOf(c timesync.Correction) buffer.Correction {
	up := func(d time.Duration) uint32 {
		return uint32(min((d+time.Millisecond-1)/time.Millisecond, math.MaxUint32-1))
	}
	return buffer.Correction{
		Mono: c.Mono.Milliseconds(), Offset: c.Offset.Milliseconds(), Bound: up(c.Bound) + 1,
		Rate: uint32(min(math.Ceil(c.Rate*1e9), math.MaxUint32)),
	}
}
