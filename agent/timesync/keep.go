package timesync

import (
	"context"
	"time"

	"gridgate/internal/sys"
)

const (
	// stepLeast is what counts as a step: less is the time between two
	// readings of clocks on a busy machine. What is less is in the bound all
	// the same.
	stepLeast = 50 * time.Millisecond
	// slewLeast is what is worth correcting.
	slewLeast = 100 * time.Microsecond
	// frequencyLeast is what is worth telling the kernel.
	frequencyLeast = 0.05e-6
)

// discipline makes the system clock right, where that is ours to do.
func (c *Clock) discipline() {
	k := &c.keeper
	if c.cfg.Discipline != Agent {
		return
	}
	v := c.look(c.cfg.System.Now())
	if !v.known {
		return
	}
	c.mu.Lock()
	drift := c.est.drift
	c.mu.Unlock()
	var err error
	tried := true
	switch {
	case v.offset.Abs() <= slewLeast:
		tried = false
	case !k.right || v.offset.Abs() > c.cfg.StepAbove:
		err = c.step(v.offset)
	default:
		err = c.cfg.System.Slew(v.offset)
	}
	if k.right = k.right || err == nil; err == nil && max(drift-k.frequency, k.frequency-drift) > frequencyLeast {
		tried = true
		if err = c.cfg.System.SetFrequency(drift); err == nil {
			k.frequency = drift
		}
	}
	if tried {
		c.permitted(err)
	}
}

// permitted logs, once, that the clock cannot be set.
func (c *Clock) permitted(err error) {
	k := &c.keeper
	switch {
	case err != nil && !k.denied:
		text := err.Error()
		if sys.NotPermitted(err) {
			text += "; it takes root, or CAP_SYS_TIME (AmbientCapabilities= of systemd), or configure `discipline: observe`"
		}
		c.cfg.Log.Error("the system clock cannot be set", "error", text)
		c.warn("the system clock cannot be set: " + text)
		k.denied = true
	case err == nil && k.denied:
		c.warn("")
		k.denied = false
	}
}

// warn puts down what an operator has to know; empty takes it back.
func (c *Clock) warn(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shown.Warnings = nil
	if text != "" {
		c.shown.Warnings = []string{text}
	}
}

// step sets the system clock.
func (c *Clock) step(by time.Duration) error {
	before := c.cfg.System.Now()
	if err := c.cfg.System.Step(by); err != nil {
		return err
	}
	at := c.cfg.System.Now()
	if moved := at.Wall.Sub(before.Wall) - (at.Mono - before.Mono); moved.Abs() > stepLeast {
		c.stepped(at, moved, true)
	}
	c.keeper.last = at
	return nil
}

// stepped tells that the system clock was set.
func (c *Clock) stepped(at sys.Instant, by time.Duration, ours bool) {
	c.mu.Lock()
	c.shown.Steps++
	c.mu.Unlock()
	if ours {
		c.cfg.Log.Info("the system clock was set", "by", by.String())
	} else {
		c.cfg.Log.Warn("the system clock was set by somebody else", "by", by.String())
	}
	if c.cfg.Stepped != nil {
		c.cfg.Stepped(Step{Mono: at.Mono, By: by, Ours: ours})
	}
}

// vouch tells the kernel what the clock is worth.
func (c *Clock) vouch(at sys.Instant, v view) {
	d, err := c.cfg.System.Discipline()
	if err != nil {
		return
	}
	c.mu.Lock()
	c.shown.Slewing = d.Slewing
	leap := c.est.leap.today(at.Wall, at.Raw, &c.est)
	c.mu.Unlock()
	switch {
	case v.source == "kernel" || c.keeper.denied:
	case v.state != Unsynchronised:
		c.permitted(c.cfg.System.Vouch(true, v.bound(), leap))
	case d.Synchronised: // it should not say so any more
		c.permitted(c.cfg.System.Vouch(false, v.bound(), 0))
	}
}

// keep puts down what outlives this run or this boot: the time, in memory and
// in the hardware clock, and a correction for what was stamped before.
func (c *Clock) keep(at sys.Instant) {
	v := c.look(at)
	if v.state == Unsynchronised && !v.known {
		return
	}
	if c.cfg.Corrected != nil && v.source != "kernel" { // first: somebody waits for it
		c.cfg.Corrected(c.correction(at, v))
	}
	c.save(at)
	if h := c.cfg.Hardware; h != nil && c.cfg.Discipline == Agent && v.state != Unsynchronised && !c.keeper.denied {
		if err := h.Set(c.cfg.System.Now().Wall); err != nil {
			c.cfg.Log.Debug("the hardware clock cannot be set", "error", err)
		}
	}
}

// save keeps the time over restarts.
func (c *Clock) save(at sys.Instant) {
	c.keeper.saved, c.keeper.hasSaved = at.Raw, true
	if c.cfg.Memory == nil {
		return
	}
	if err := c.cfg.Memory.SetLastTime(c.notBefore(at)); err != nil {
		c.cfg.Log.Warn("the time cannot be kept for the next start", "error", err)
	}
}

// correction says what time it is by the monotonic clock.
func (c *Clock) correction(at sys.Instant, v view) Correction {
	c.mu.Lock()
	defer c.mu.Unlock()
	drift, k := c.est.drift, &c.keeper
	return Correction{
		Boot: c.cfg.Boot(), Mono: at.Mono,
		Offset: time.Duration(at.Wall.UnixNano()) + v.offset - at.Mono, Bound: v.err + k.bend,
		Rate: max(drift-k.slow, k.slow-drift, drift-k.fast, k.fast-drift) + c.est.driftErr,
	}
}

// fallbacks are what sets the clock while nobody vouches for it, the best
// first.
func fallbacks() []string { return []string{"modem", "hardware clock", "last known"} }

// fallback sets a clock that is obviously wrong from what is at hand. It is
// then about right, which is enough to check certificates; nobody vouches for
// it.
func (c *Clock) fallback(ctx context.Context) {
	k := &c.keeper
	if at := c.cfg.System.Now(); c.look(at).state != Unsynchronised || c.look(at).known {
		return
	}
	for rank, name := range fallbacks() {
		if rank > k.rank || rank == k.rank && name != "modem" {
			return // it was set from better, or from the same
		}
		t, ok := c.askFallback(ctx, name)
		at := c.cfg.System.Now()
		lower := c.notBefore(at)
		if !ok || t.Before(lower) || t.After(lower.AddDate(20, 0, 0)) {
			continue
		}
		by := t.Sub(at.Wall)
		if name == "last known" && by < 0 {
			return // it may well be later than that
		}
		k.rank = rank
		c.setCoarse(name, by)
		return
	}
}

// askFallback asks one fallback for the time.
func (c *Clock) askFallback(ctx context.Context, name string) (t time.Time, ok bool) {
	var err error
	switch {
	case name == "modem" && c.cfg.Network != nil:
		ctx, cancel := context.WithTimeout(ctx, fallbackFor)
		defer cancel()
		t, err = c.cfg.Network.NetworkTime(ctx)
	case name == "hardware clock" && c.cfg.Hardware != nil:
		t, err = c.cfg.Hardware.Read()
	case name == "last known":
		return c.NotBefore(), true
	default:
		return time.Time{}, false
	}
	if err != nil {
		c.cfg.Log.Info("no time from a fallback", "source", name, "error", err)
	}
	return t, err == nil
}

// setCoarse sets the clock from a fallback.
func (c *Clock) setCoarse(name string, by time.Duration) {
	set := by.Abs() > fallbackOff
	if set {
		if c.cfg.Discipline != Agent {
			c.cfg.Log.Warn("the system clock seems wrong, and its discipline is not ours", "source", name, "by", by.String())
			return
		}
		if err := c.step(by); err != nil {
			c.permitted(err)
			return
		}
	}
	c.mu.Lock()
	c.coarse = name
	c.mu.Unlock()
	c.cfg.Log.Info("clock compared with a fallback; nobody vouches for it", "source", name, "by", by.String(), "set", set)
}
