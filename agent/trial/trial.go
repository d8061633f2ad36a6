// Package trial puts something new on trial: baseline, apply, prove, keep or
// revert. What is new may be a configuration or a firmware; what it is only its
// Subject knows.
//
// Each attempt is noted before it begins, on flash: whoever starts after a power
// cut finds the last healthy state in effect and the attempt counted. After
// MaxAttempts that did not end the subject is given up for good.
package trial

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// MaxAttempts is how often something is tried whose trial does not end: a
// power cut, a crash.
const MaxAttempts = 3

// Health is what a gateway is judged by.
type Health struct {
	// Reached says that the fog is reached.
	Reached bool `json:"reached"`
	// Meters are those that are configured, Reading those of them whose last
	// visit was good, and after the time that Measure was given where they were
	// touched since then.
	Meters  int `json:"meters"`
	Reading int `json:"reading"`
	// Memory is the resident memory of the agent in octets, 0 where nobody knows.
	Memory int64 `json:"-"`
	// Broken says what cannot work at all, such as a line that does not open
	// and did before; empty: nothing.
	Broken string `json:"-"`
}

// Subject is what is tried.
type Subject interface {
	// Apply makes it take effect.
	Apply(ctx context.Context) error
	// Keep makes it the state that starts come back to. It is atomic: after a
	// cut it is kept or is not.
	Keep() error
	// Revert makes what was before take effect again.
	Revert(ctx context.Context) error
}

// Journal remembers trials over restarts; each write is durable on return.
type Journal interface {
	// Begin counts an attempt and gives its number, from 1 on, and the health
	// before the first one: after a crash nothing has been read yet.
	Begin(before Health) (attempt int, first Health, err error)
	// End says that no trial runs any more, and how the last one ended.
	End(o Outcome) error
}

// Config is how a trial is done.
type Config struct {
	// Measure gives the health since a time; zero: since whenever.
	Measure func(since time.Time) Health
	// Deadline is how long proving may take.
	Deadline time.Duration
	// Settle is how long all has to be well without a break: what crashes or
	// fills memory does so after a while.
	Settle time.Duration
	// MaxMemory in octets; 0: no limit.
	MaxMemory int64
	// GiveUp, when something comes of it before the end, is why the trial is
	// given up; may be nil.
	GiveUp <-chan string
	// Step is told of each step, for reports.
	Step func(Step)
}

// Step is how far a trial has come.
type Step string

// The steps, and how a trial ends.
const (
	Measuring Step = "measuring" // how well the gateway did before
	Applying  Step = "applying"
	Proving   Step = "proving"
	Kept      Step = "kept"
	Reverted  Step = "reverted"
	Refused   Step = "refused"   // given up for good
	Broken    Step = "broken"    // neither it nor what was before takes effect
	Suspended Step = "suspended" // the agent stops; it is tried again at the next start
)

// Outcome is how a trial ended.
type Outcome struct {
	Step   Step
	Reason string // empty where it was kept
}

// interval is how often health is looked at while proving.
const interval = time.Second

// Run tries s. It gives when the trial has ended, or when ctx does: then s has
// not been kept, nothing is reverted, and the journal has the attempt.
func Run(ctx context.Context, cfg Config, j Journal, s Subject) Outcome {
	attempt, before, err := j.Begin(cfg.Measure(time.Time{}))
	if err != nil {
		return finish(j, Outcome{Refused, fmt.Sprintf("the attempt cannot be noted: %v", err)})
	}
	if attempt > MaxAttempts {
		return finish(j, Outcome{Refused, fmt.Sprintf("%d attempts did not end: it stops the agent", MaxAttempts)})
	}
	if why := cfg.givenUp(); why != "" {
		return finish(j, Outcome{Refused, why})
	}
	cfg.Step(Applying)
	since := time.Now()
	switch err := s.Apply(ctx); {
	case ctx.Err() != nil:
		return Outcome{Suspended, "the agent stops"}
	case err != nil:
		return revert(ctx, j, s, fmt.Sprintf("it cannot be applied: %v", err))
	}
	cfg.Step(Proving)
	why := prove(ctx, cfg, before, since)
	switch {
	case ctx.Err() != nil:
		return Outcome{Suspended, "the agent stops"}
	case why != "":
		return revert(ctx, j, s, why)
	}
	if why := cfg.givenUp(); why != "" {
		return revert(ctx, j, s, why)
	}
	if err := s.Keep(); err != nil {
		return revert(ctx, j, s, fmt.Sprintf("it cannot be kept: %v", err))
	}
	return finish(j, Outcome{Kept, ""})
}

// givenUp says why the trial is given up; empty: it is not.
func (cfg *Config) givenUp() string {
	select {
	case why := <-cfg.GiveUp:
		return why
	default:
		return ""
	}
}

// revert goes back to what was before.
func revert(ctx context.Context, j Journal, s Subject, why string) Outcome {
	if err := s.Revert(ctx); err != nil {
		return finish(j, Outcome{Broken, fmt.Sprintf("%s; and what was before: %v", why, err)})
	}
	return finish(j, Outcome{Reverted, why})
}

func finish(j Journal, o Outcome) Outcome {
	if err := j.End(o); err != nil {
		o.Reason = errors.Join(errors.New(o.Reason), fmt.Errorf("the end cannot be noted: %w", err)).Error()
	}
	return o
}

// prove waits until the gateway is as healthy as before, or the deadline is
// over; then it gives what is not.
func prove(ctx context.Context, cfg Config, before Health, since time.Time) string {
	deadline := time.NewTimer(cfg.Deadline)
	defer deadline.Stop()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var well time.Time // since when; zero: it is not
	for {
		now := cfg.Measure(since)
		if cfg.MaxMemory > 0 && now.Memory > cfg.MaxMemory {
			return fmt.Sprintf("memory: %d octets, %d are the most", now.Memory, cfg.MaxMemory)
		}
		why := lacks(before, now)
		switch {
		case why != "":
			well = time.Time{}
		case well.IsZero():
			well = time.Now()
		}
		if why == "" && time.Since(well) >= cfg.Settle {
			return ""
		}
		select {
		case <-ctx.Done():
			return ""
		case why := <-cfg.GiveUp:
			return why
		case <-deadline.C:
			if why == "" {
				why = "it was well only from time to time"
			}
			return fmt.Sprintf("not proven within %v: %s", cfg.Deadline, why)
		case <-tick.C:
		}
	}
}

// lacks says what was better before; empty: nothing.
func lacks(before, now Health) string {
	switch {
	case now.Broken != "":
		return now.Broken
	case before.Reached && !now.Reached:
		return "the fog was reached before and is not now"
	case share(now) < share(before):
		return fmt.Sprintf("%d of %d meters read, %d of %d did before", now.Reading, now.Meters, before.Reading, before.Meters)
	}
	return ""
}

// share of the meters that read. No meters are all of them.
func share(h Health) float64 {
	if h.Meters == 0 {
		return 1
	}
	return float64(h.Reading) / float64(h.Meters)
}
