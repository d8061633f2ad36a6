package trial_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/agent/trial"
)

// site is a gateway on which things are tried.
type site struct {
	health   func(applied bool, since time.Duration) trial.Health
	applied  bool
	at       time.Time
	kept     bool
	attempts int
	ended    int
	errs     map[string]error
	steps    []trial.Step
	giveUp   chan string
	giveUpAt string // the step at which it is given up
}

func (s *site) fails(what string) error { return s.errs[what] }

func (s *site) Apply(context.Context) error {
	s.applied, s.at = true, time.Now()
	return s.fails("apply")
}

func (s *site) Keep() error {
	if err := s.fails("keep"); err != nil {
		return err
	}
	s.kept = true
	s.gives("kept")
	return nil
}

func (s *site) Revert(context.Context) error {
	s.applied = false
	return s.fails("revert")
}

func (s *site) Begin(before trial.Health) (int, trial.Health, error) {
	s.attempts++
	s.gives("begun")
	return s.attempts, before, s.fails("begin")
}

func (s *site) End(trial.Outcome) error {
	s.ended++
	return s.fails("end")
}

const deadline = 10 * time.Minute

func (s *site) run(ctx context.Context) trial.Outcome {
	return trial.Run(ctx, trial.Config{
		Measure: func(time.Time) trial.Health {
			if s.health == nil {
				return trial.Health{}
			}
			return s.health(s.applied, time.Since(s.at))
		},
		Deadline: deadline, MaxMemory: 1000,
		Step: func(step trial.Step) {
			s.steps = append(s.steps, step)
			s.gives(string(step))
		},
		GiveUp: s.giveUp,
	}, s, s)
}

// gives gives the trial up, at its step.
func (s *site) gives(step string) {
	if s.giveUp != nil && s.giveUpAt == step {
		s.giveUp <- "revoked"
	}
}

// TestGivenUp: at whatever step, but once it is kept; before it is applied there
// is nothing to revert.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	for at, want := range map[string]trial.Step{"begun": trial.Refused, "applying": trial.Reverted, "proving": trial.Reverted, "kept": trial.Kept} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			s := &site{giveUp: make(chan string, 1), giveUpAt: at}
			got := s.run(t.Context())
			if got.Step != want || (got.Reason == "revoked") != (want != trial.Kept) || s.applied != (want == trial.Kept) || s.kept != s.applied || s.ended != 1 {
				t.Errorf("%+v; applied %v, kept %v, ended %d", got, s.applied, s.kept, s.ended)
			}
		})
	}
}

// both gives one health before and another a while after.
func both(before, after trial.Health, when time.Duration) func(bool, time.Duration) trial.Health {
	return func(applied bool, since time.Duration) trial.Health {
		switch {
		case !applied:
			return before
		case since < when:
			return trial.Health{Meters: after.Meters}
		}
		return after
	}
}

func TestTrial(t *testing.T) {
	t.Parallel()
	good := trial.Health{Reached: true, Meters: 10, Reading: 9}
	for name, c := range map[string]struct {
		before, after trial.Health
		when          time.Duration
		errs          map[string]error
		attempts      int
		want          trial.Step
		reason        string
	}{
		"as good":             {before: good, after: good, when: time.Minute, want: trial.Kept},
		"better":              {before: good, after: trial.Health{Reached: true, Meters: 20, Reading: 20}, want: trial.Kept},
		"late":                {before: good, after: good, when: deadline - time.Minute, want: trial.Kept},
		"too late":            {before: good, after: good, when: deadline + time.Minute, want: trial.Reverted, reason: "not proven within 10m0s: the fog was reached before"},
		"no fog":              {before: good, after: trial.Health{Meters: 10, Reading: 10}, want: trial.Reverted, reason: "the fog was reached before and is not now"},
		"no fog before":       {before: trial.Health{Meters: 10, Reading: 9}, after: trial.Health{Meters: 10, Reading: 9}, want: trial.Kept},
		"a meter less":        {before: good, after: trial.Health{Reached: true, Meters: 10, Reading: 8}, want: trial.Reverted, reason: "8 of 10 meters read, 9 of 10 did before"},
		"fewer, same share":   {before: good, after: trial.Health{Reached: true, Meters: 20, Reading: 18}, want: trial.Kept},
		"more, smaller share": {before: good, after: trial.Health{Reached: true, Meters: 20, Reading: 17}, want: trial.Reverted, reason: "17 of 20"},
		"no meters at all":    {before: good, after: trial.Health{Reached: true}, want: trial.Kept},
		"a line broken":       {before: good, after: trial.Health{Reached: true, Broken: "line x: does not open"}, want: trial.Reverted, reason: "line x"},
		"memory":              {before: good, after: trial.Health{Reached: true, Memory: 1001}, want: trial.Reverted, reason: "memory: 1001 octets"},
		"not applied":         {before: good, after: good, errs: map[string]error{"apply": errors.New("no line")}, want: trial.Reverted, reason: "cannot be applied: no line"},
		"not kept":            {before: good, after: good, errs: map[string]error{"keep": errors.New("disk full")}, want: trial.Reverted, reason: "cannot be kept: disk full"},
		"not noted":           {before: good, after: good, errs: map[string]error{"begin": errors.New("disk full")}, want: trial.Refused, reason: "cannot be noted: disk full"},
		"end not noted":       {before: good, after: good, errs: map[string]error{"end": errors.New("disk full")}, want: trial.Kept, reason: "the end cannot be noted"},
		"neither": {
			before: good, after: good, errs: map[string]error{"apply": errors.New("no line"), "revert": errors.New("no file")},
			want: trial.Broken, reason: "no line; and what was before: no file",
		},
		"the third time":  {before: good, after: good, attempts: 2, want: trial.Kept},
		"the fourth time": {before: good, after: good, attempts: 3, want: trial.Refused, reason: "3 attempts did not end"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &site{health: both(c.before, c.after, c.when), errs: c.errs, attempts: c.attempts}
				began := time.Now()
				got := s.run(t.Context())
				if got.Step != c.want || !strings.Contains(got.Reason, c.reason) || c.reason == "" && got.Reason != "" {
					t.Errorf("got %+v; want %s, %q", got, c.want, c.reason)
				}
				if s.kept != (c.want == trial.Kept) {
					t.Errorf("kept: %v", s.kept)
				}
				if s.applied != (c.want == trial.Kept) {
					t.Errorf("in effect: %v", s.applied)
				}
				if over := time.Since(began); over > deadline+interval {
					t.Errorf("it took %v", over)
				}
				if c.errs["begin"] == nil && s.ended != 1 {
					t.Errorf("ended %d times", s.ended)
				}
			})
		})
	}
}

const interval = time.Second

// TestStopped: a stop amid a trial reverts nothing and keeps nothing; the
// attempt stays noted.
func TestStopped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &site{health: both(trial.Health{Reached: true}, trial.Health{}, 0)}
		time.AfterFunc(time.Minute, cancel)
		if got := s.run(ctx); got.Step != trial.Suspended {
			t.Errorf("got %+v", got)
		}
		if s.kept || s.ended != 0 || s.attempts != 1 {
			t.Errorf("kept %v, ended %d, attempts %d", s.kept, s.ended, s.attempts)
		}
		if len(s.steps) != 2 || s.steps[0] != trial.Applying || s.steps[1] != trial.Proving {
			t.Errorf("steps %v", s.steps)
		}
	})
}

// TestSettle: what goes wrong after a while is not kept.
func TestSettle(t *testing.T) {
	t.Parallel()
	well := trial.Health{Reached: true, Meters: 2, Reading: 2}
	for name, c := range map[string]struct {
		after func(since time.Duration) trial.Health
		want  trial.Step
	}{
		"well": {func(time.Duration) trial.Health { return well }, trial.Kept},
		"fills memory": {func(since time.Duration) trial.Health {
			h := well
			h.Memory = int64(since / time.Second * 20)
			return h
		}, trial.Reverted},
		"comes and goes": {func(since time.Duration) trial.Health {
			h := well
			h.Reached = since/time.Second%30 != 0
			return h
		}, trial.Reverted},
		"comes late": {func(since time.Duration) trial.Health {
			h := well
			h.Reached = since > 5*time.Minute
			return h
		}, trial.Kept},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &site{}
				got := trial.Run(t.Context(), trial.Config{
					Measure: func(time.Time) trial.Health {
						if !s.applied {
							return well
						}
						return c.after(time.Since(s.at))
					},
					Deadline: deadline, Settle: time.Minute, MaxMemory: 1000, Step: func(trial.Step) {},
				}, s, s)
				if got.Step != c.want {
					t.Errorf("got %+v; want %s", got, c.want)
				}
			})
		})
	}
}

// TestOutageOfThreeHours: a good configuration that comes amid it is kept, and not
// at its end only.
func TestOutageOfThreeHours(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		time.Sleep(time.Hour)
		s := &site{health: func(bool, time.Duration) trial.Health {
			return trial.Health{Reached: time.Since(began) >= 3*time.Hour, Meters: 5, Reading: 5}
		}}
		if got := s.run(t.Context()); got.Step != trial.Kept || time.Since(began) > 2*time.Hour {
			t.Errorf("%+v after %v", got, time.Since(began))
		}
		// The same one that comes before the outage, which it could have made.
		began = time.Now().Add(time.Minute)
		s = &site{health: func(applied bool, _ time.Duration) trial.Health {
			return trial.Health{Reached: !applied, Meters: 5, Reading: 5}
		}}
		if got := s.run(t.Context()); got.Step != trial.Reverted {
			t.Errorf("%+v", got)
		}
	})
}
