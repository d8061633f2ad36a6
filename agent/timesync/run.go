package timesync

import (
	"context"
	"math/rand/v2"
	"time"

	"gridgate/internal/sys"
)

const (
	watchEvery  = time.Minute
	troubleMost = 17 * time.Minute // between polls, while there is no majority
	saveEvery   = 6 * time.Hour    // the last known time, the hardware clock, a correction
	fallbackFor = 15 * time.Second // for a modem to say what time it is
	fallbackOff = 2 * time.Second  // a clock that is set by the second is not set again for less
	mostSlew    = 500e-6           // the kernel's, seconds a second
	guess       = time.Second      // how far off a clock that nobody vouches for may be, and still count as a witness
)

// keeper is what Run knows beside what others see.
type keeper struct {
	last       sys.Instant   // at the last look
	ran        sys.Instant   // since when Mono is compared with Raw
	slow, fast float64       // least and most that Mono ran ahead of Raw, seconds a second
	bend       time.Duration // most that it was slewed between two looks
	right      bool          // the system clock was right once in this boot, or was set so
	denied     bool          // setting it is not permitted
	frequency  float64       // that the kernel was told
	failed     int           // polls without a majority, in a row
	saved      time.Duration
	hasSaved   bool
	told       State // as logged last
	toldWhy    string
	rank       int // of what the clock was set from while nobody vouched; less is better
}

// Run keeps the clock until ctx ends.
func (c *Clock) Run(ctx context.Context) error {
	c.begin(ctx)
	watch := time.NewTicker(watchEvery)
	defer watch.Stop()
	poll := time.NewTimer(0)
	defer poll.Stop()
	if len(c.servers) == 0 {
		poll.Stop()
	}
	for {
		select {
		case <-ctx.Done():
			c.end()
			return nil
		case <-watch.C:
			if c.watch(); c.slept() {
				poll.Reset(0)
			}
		case <-poll.C:
			if c.poll(ctx); ctx.Err() == nil {
				poll.Reset(c.pause())
			}
		}
	}
}

// slept says that the system was suspended since a poll that found a majority:
// timers stood still meanwhile, and the next poll may be hours away.
func (c *Clock) slept() bool {
	at := c.cfg.System.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.agreed && (at.Suspended-c.suspended).Abs() > suspendedMost
}

// Once asks the servers once, and sets nothing but what the discipline says.
// It is for tools; it is not called beside Run.
func (c *Clock) Once(ctx context.Context) error {
	c.keeper.last = c.cfg.System.Now()
	c.keeper.ran = c.keeper.last
	if len(c.servers) > 0 {
		c.poll(ctx)
	}
	return ctx.Err()
}

// begin looks at what the start found.
func (c *Clock) begin(ctx context.Context) {
	at := c.cfg.System.Now()
	k := &c.keeper
	k.last, k.ran, k.rank = at, at, len(fallbacks())
	if d, err := c.cfg.System.Discipline(); err == nil {
		k.frequency = d.Frequency
		k.slow, k.fast = min(d.Frequency, 0), max(d.Frequency, 0)
		if d.Synchronised || d.Slewing != 0 || d.Frequency != 0 { // it was disciplined before, nobody knows how
			k.slow, k.fast = k.slow-mostSlew, k.fast+mostSlew
		}
		k.right = d.Synchronised
		if d.Synchronised && c.cfg.Discipline == Agent {
			c.cfg.Log.Info("the kernel's clock is disciplined already: by this program before its restart, or by another that should not run beside `discipline: agent`",
				"max_error", d.MaxError.String())
		}
	}
	c.fallback(ctx)
	c.watch()
}

// end keeps what the next start wants to know.
func (c *Clock) end() {
	if at := c.cfg.System.Now(); c.look(at).state != Unsynchronised {
		c.save(at)
	}
}

// pause is how long to wait for the next poll: within a tenth of the interval,
// so that many gateways do not ask at once.
func (c *Clock) pause() time.Duration {
	d := c.interval
	now := c.cfg.System.Now().Raw
	soonest := time.Duration(1<<63 - 1)
	for _, s := range c.servers {
		if !s.refused {
			soonest = min(soonest, max(s.until-now, 0))
		}
	}
	d -= time.Duration(rand.Float64() * 0.1 * float64(d)) //nolint:gosec // it spreads load
	if soonest > d && soonest < 1<<62 {
		d = soonest + time.Duration(mostDrift*2*float64(soonest)) + time.Millisecond // by the slower clock too
	}
	return d
}

// poll asks the servers and judges what they say.
func (c *Clock) poll(ctx context.Context) {
	before := c.cfg.System.Now()
	answers := c.askAll(ctx)
	if ctx.Err() != nil {
		return
	}
	at := c.cfg.System.Now()
	var candidates []candidate
	answered := false
	for i, h := range answers {
		if h != nil && (h.err == nil || !unreachable(h.err)) {
			answered = true
		}
		if cand, ok := c.take(i, h, at.Raw); ok {
			candidates = append(candidates, cand)
		}
	}
	configured, candidates := c.distinct(candidates)
	ch := choose(configured, candidates, c.witness(at))
	if at.Suspended-before.Suspended > suspendedMost {
		ch.ok, ch.reason = false, "the system was suspended during the poll"
	}
	c.verdicts(ch, candidates, at)
	if ch.ok {
		c.agree(ch, at, answers)
	} else {
		c.disagree(ctx, ch, answered)
	}
	c.show()
	c.watch()
}

// unreachable says that an error is no answer.
func unreachable(err error) bool {
	switch err.(type) { //nolint:errorlint // as ask gives them
	case *Kiss:
		return false
	}
	return err != ErrNotSynchronised //nolint:errorlint // as ask gives it
}

// distinct takes out servers that turned out to be another one.
func (c *Clock) distinct(all []candidate) (configured int, list []candidate) {
	configured = len(c.servers)
	seen := map[string]*server{}
	for _, cand := range all {
		s := c.servers[cand.server]
		if first := seen[s.status.Address]; first != nil && s.status.Address != "" {
			s.status.Verdict, s.status.Reason = Unusable, "it is the same server as "+first.String()
			configured--
			continue
		}
		seen[s.status.Address] = s
		list = append(list, cand)
	}
	return configured, list
}

// witness is where true − Raw was taken to be before the poll.
func (c *Clock) witness(at sys.Instant) interval {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.est.known && (at.Suspended-c.suspended).Abs() <= suspendedMost {
		offset, err := c.est.at(at.Raw)
		return interval{offset, offset}.around(err)
	}
	wall := time.Duration(at.Wall.UnixNano()) - at.Raw
	return interval{wall, wall}.around(guess)
}

// verdicts puts down what became of the servers.
func (c *Clock) verdicts(ch choice, candidates []candidate, at sys.Instant) {
	wall := time.Duration(at.Wall.UnixNano()) - at.Raw
	for _, cand := range candidates {
		st := &c.servers[cand.server].status
		st.Offset = cand.best - wall
		if ch.ok {
			st.Verdict, st.Reason = Rejected, "its time contradicts that of the majority"
		}
	}
	for _, i := range ch.chosen {
		if ch.ok {
			c.servers[i].status.Verdict, c.servers[i].status.Reason = Chosen, ""
		}
	}
}

// agree takes a majority's word.
func (c *Clock) agree(ch choice, at sys.Instant, answers []*heard) {
	leaps := 0
	for _, i := range ch.chosen {
		leaps += answers[i].best.Leap
	}
	announced := 0
	if abs := max(leaps, -leaps); 2*abs > len(ch.chosen) {
		announced = leaps / abs
	}
	c.mu.Lock()
	first := !c.est.known
	jump, jumped := c.est.add(at.Raw, ch.is, ch.best, announced)
	c.agreed, c.reason, c.kernel, c.coarse = true, "", false, ""
	c.suspended = at.Suspended
	c.lower, c.lowerRaw = at.Wall.Add(c.est.offset+at.Raw-time.Duration(at.Wall.UnixNano())-c.est.err), at.Raw
	patience := c.est.patience()
	c.mu.Unlock()
	if jumped {
		c.cfg.Log.Warn("the time of the servers is not what was expected", "by", jump.String())
	}
	c.keeper.failed = 0
	c.interval = min(max(min(2*c.interval, patience), c.cfg.MinPoll), c.cfg.MaxPoll)
	if first || jumped {
		c.interval = c.cfg.MinPoll
	}
	if c.discipline(); first || jumped || !c.keeper.hasSaved {
		c.keep(c.cfg.System.Now())
	}
}

// disagree puts down that there is no majority.
func (c *Clock) disagree(ctx context.Context, ch choice, answered bool) {
	c.mu.Lock()
	c.agreed, c.reason = false, ch.reason
	c.kernel = !answered
	c.mu.Unlock()
	c.keeper.failed++
	c.interval = c.cfg.MinPoll << min(c.keeper.failed-1, 10)
	c.interval = max(min(c.interval, troubleMost), c.cfg.MinPoll)
	if !c.Trusted() {
		c.fallback(ctx)
	}
}

// watch looks at the system clock between polls.
func (c *Clock) watch() {
	at := c.cfg.System.Now()
	c.steps(at)
	v := c.look(at)
	if c.cfg.Discipline == Agent {
		// Somebody set it, or it went too far while nobody was heard.
		if v.known && v.source != "kernel" && (v.offset.Abs() > c.cfg.StepAbove && v.offset.Abs() > v.err) {
			c.discipline()
			at = c.cfg.System.Now()
			v = c.look(at)
		}
		c.vouch(at, v)
	}
	if v.state != c.keeper.told || v.reason != c.keeper.toldWhy {
		c.log(v)
		if v.state != Unsynchronised && c.keeper.told == Unsynchronised {
			c.keep(at)
		}
		c.keeper.told, c.keeper.toldWhy = v.state, v.reason
	}
	if v.state != Unsynchronised && at.Raw-c.keeper.saved >= saveEvery {
		c.keep(at)
	}
}

func (c *Clock) log(v view) {
	switch v.state {
	case Synchronised:
		c.cfg.Log.Info("clock synchronised", "source", v.source, "offset", v.offset.String(), "bound", v.bound().String())
	case Holdover:
		c.cfg.Log.Warn("clock in holdover", "reason", v.reason, "bound", v.bound().String())
	default:
		c.cfg.Log.Warn("clock not synchronised", "reason", v.reason)
	}
}

// steps notices that the system clock was set, and how the monotonic one ran.
func (c *Clock) steps(at sys.Instant) {
	k := &c.keeper
	if by := at.Wall.Sub(k.last.Wall) - (at.Mono - k.last.Mono); by.Abs() > stepLeast {
		c.stepped(at, by, false)
	}
	k.last = at
	span := at.Raw - k.ran.Raw
	if span < watchEvery/2 {
		return
	}
	if at.Suspended-k.ran.Suspended < suspendedMost {
		by := at.Mono - k.ran.Mono - span
		ahead := float64(by) / float64(span)
		k.slow, k.fast = min(k.slow, ahead), max(k.fast, ahead)
		k.bend = max(k.bend, (by - time.Duration(k.frequency*float64(span))).Abs())
	}
	k.ran = at
}
