package timesync_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"gridgate/agent/timesync"
	"gridgate/agent/timesync/timetest"
	"gridgate/internal/meter"
)

const day = 24 * time.Hour

// The interval grows while all is well, and is short again after trouble.
func TestPollInterval(t *testing.T) {
	simulate(t, func(t *testing.T) {
		w := timetest.New(timetest.Config{Seed: 3, Drift: -30e-6, Servers: three()})
		g := newGateway(t, w, timesync.Config{Discipline: timesync.Agent})
		defer g.stop()
		time.Sleep(time.Minute)
		if s := g.state(timesync.Synchronised, "at first"); s.Interval != timesync.DefaultMinPoll {
			t.Errorf("first interval %v", s.Interval)
		}
		time.Sleep(3 * day)
		s := g.state(timesync.Synchronised, "later")
		if s.Interval < 3*time.Hour || s.Interval > timesync.DefaultMaxPoll {
			t.Errorf("interval after three days %v", s.Interval)
		}
		if polls := s.Servers[0].Polls; polls < 20 || polls > 100 {
			t.Errorf("%d polls in three days", polls)
		}
		w.SetLink(false)
		time.Sleep(5 * time.Hour)
		s = g.state(timesync.Holdover, "in an outage")
		if s.Interval > 17*time.Minute {
			t.Errorf("interval in an outage %v", s.Interval)
		}
		w.SetLink(true)
		time.Sleep(20 * time.Minute)
		g.state(timesync.Synchronised, "after the outage")
	})
}

// Without servers the bound grows, and in the end there is none.
func TestHoldoverEnds(t *testing.T) {
	simulate(t, func(t *testing.T) {
		w := timetest.New(timetest.Config{Seed: 4, Drift: 60e-6, Swing: 5e-6, Servers: three()})
		g := newGateway(t, w, timesync.Config{Discipline: timesync.Agent, MaxError: 5 * time.Second})
		defer g.stop()
		time.Sleep(2 * day)
		w.SetLink(false)
		last := g.check("at the beginning").Bound
		for range 6 {
			time.Sleep(6 * time.Hour)
			s := g.check("in holdover")
			if s.Bound <= last {
				t.Errorf("the bound went from %d to %d ms without servers", last, s.Bound)
			}
			last = s.Bound
		}
		g.state(timesync.Holdover, "after 36 hours")
		time.Sleep(10 * day)
		s := g.state(timesync.Unsynchronised, "after 11 days")
		if b := g.check("at the end").Bound; b != meter.UnknownBound || !strings.HasPrefix(s.Reason, "the clock may be ") || g.clock.Trusted() {
			t.Errorf("bound %d, %q", b, s.Reason)
		}
		d, err := w.Discipline()
		if err != nil || d.Synchronised {
			t.Errorf("the kernel still says that its clock is right: %+v", d)
		}
		w.SetLink(true)
		time.Sleep(20 * time.Minute)
		g.state(timesync.Synchronised, "when servers are back")
	})
}

// What was a majority becomes none: the clock holds over and does not follow.
func TestTwoServersGoWrongTogether(t *testing.T) {
	simulate(t, func(t *testing.T) {
		w := timetest.New(timetest.Config{Seed: 5, Drift: 20e-6, Away: -time.Hour, Servers: three()})
		g := newGateway(t, w, timesync.Config{Discipline: timesync.Agent})
		defer g.stop()
		time.Sleep(time.Hour)
		g.state(timesync.Synchronised, "at first")
		for _, i := range []int{0, 2} {
			w.SetServer(i, func(s *timetest.Server) { s.Off += 5 * time.Second })
		}
		time.Sleep(6 * time.Hour)
		g.check("with two wrong ones")
		s := g.state(timesync.Holdover, "with two wrong ones")
		if !strings.HasPrefix(s.Reason, "no majority: 2 of 3 agree") {
			t.Errorf("%q", s.Reason)
		}
		w.SetServer(0, func(s *timetest.Server) { s.Off -= 5 * time.Second })
		time.Sleep(time.Hour)
		s = g.state(timesync.Synchronised, "when one is right again")
		if s.Servers[2].Verdict != timesync.Rejected {
			t.Errorf("%+v", s.Servers[2])
		}
		g.check("when one is right again")
	})
}

// A server that wants to be asked less often is; one that refuses is left.
func TestKissesAreObeyed(t *testing.T) {
	simulate(t, func(t *testing.T) {
		servers := three()
		servers[0].Kiss = "RATE"
		w := timetest.New(timetest.Config{Seed: 6, Servers: append(servers, timetest.Server{Name: "d", Kiss: "DENY", Trip: time.Millisecond})})
		g := newGateway(t, w, timesync.Config{Discipline: timesync.Agent, MaxPoll: 64 * time.Second})
		defer g.stop()
		time.Sleep(3 * time.Hour)
		s := g.clock.Status() // 2 of 4 answer, 3 are needed
		if s.State != timesync.Unsynchronised || s.Servers[0].Failures > 8 || s.Servers[0].Failures < 3 || s.Servers[3].Failures != 1 || s.Servers[3].Verdict != timesync.Refused {
			t.Errorf("%+v", s)
		}
		w.SetServer(0, func(s *timetest.Server) { s.Kiss = "" })
		time.Sleep(day)
		g.state(timesync.Synchronised, "when it answers again")
	})
}

// A server that wants to be left alone is polled when that is over, and not
// counted as silent before.
func TestNoPollWhileAllAreLeftAlone(t *testing.T) {
	simulate(t, func(t *testing.T) {
		servers := three()[:1]
		servers[0].Kiss = "RATE"
		w := timetest.New(timetest.Config{Seed: 15, Servers: servers})
		g := newGateway(t, w, timesync.Config{})
		defer g.stop()
		for range 3600 {
			time.Sleep(time.Second)
			if s := g.clock.Status(); s.Servers[0].Verdict == timesync.Unasked && s.Servers[0].Failures > 0 {
				t.Fatalf("a poll that asked nobody: %q, %+v", s.Reason, s.Servers[0])
			}
		}
	})
}

// What was stamped before the first majority is put right before anything that
// takes long: readings wait for it.
func TestCorrectionComesFirst(t *testing.T) {
	simulate(t, func(t *testing.T) {
		w := timetest.New(timetest.Config{Seed: 16, Away: -time.Hour, Servers: three()})
		saved := 0
		cfg := timesync.Config{Discipline: timesync.Agent, Memory: remembering(func() { saved++ })}
		cfg.System, cfg.Exchange, cfg.Boot = w, w.Exchange, w.Boot
		cfg.Servers, cfg.Log = w.Servers(), slog.New(slog.DiscardHandler)
		after := -1
		cfg.Corrected = func(timesync.Correction) {
			if after < 0 {
				after = saved
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- timesync.New(cfg).Run(ctx) }()
		time.Sleep(time.Minute)
		cancel()
		if err := <-done; err != nil || after != 0 || saved == 0 {
			t.Errorf("corrected after %d savings of %d, %v", after, saved, err)
		}
	})
}

// remembering is a memory that calls when it is written.
type remembering func()

func (remembering) LastTime() time.Time { return time.Time{} }

func (r remembering) SetLastTime(time.Time) error {
	r()
	return nil
}

// In the mode agent a clock that somebody sets is set right again, and what is
// little is slewed.
func TestMeddling(t *testing.T) {
	simulate(t, func(t *testing.T) {
		w := timetest.New(timetest.Config{Seed: 7, Drift: 10e-6, Servers: three()})
		g := newGateway(t, w, timesync.Config{Discipline: timesync.Agent})
		defer g.stop()
		time.Sleep(time.Hour)
		steps := w.Steps()
		w.Meddle(-3 * time.Hour)
		if s := g.check("at once"); s.Bound != meter.UnknownBound {
			t.Errorf("a clock that is 3 h off claims %d ms", s.Bound)
		}
		time.Sleep(2 * time.Minute)
		if s := g.check("two minutes later"); s.Bound == meter.UnknownBound || w.Steps() != steps+1 {
			t.Errorf("bound %d, %d steps", s.Bound, w.Steps()-steps)
		}
		if n := len(g.steps); n < 2 || g.steps[n-1].Ours == g.steps[n-2].Ours || (g.steps[n-1].By+g.steps[n-2].By).Abs() > time.Second {
			t.Errorf("steps %+v", g.steps)
		}
		w.Meddle(200 * time.Millisecond)
		if s := g.check("a little off"); s.Bound < 199 || s.Bound == meter.UnknownBound {
			t.Errorf("a clock that is 200 ms off claims %d ms", s.Bound)
		}
		time.Sleep(2 * time.Hour)
		if s := g.clock.Status(); s.Offset.Abs() > 50*time.Millisecond || w.Steps() != steps+1 {
			t.Errorf("offset %v, %d steps", s.Offset, w.Steps()-steps)
		}
	})
}

// Who may not set the clock says so, and its bound has what it is off by.
func TestNotPermitted(t *testing.T) {
	simulate(t, func(t *testing.T) {
		w := timetest.New(timetest.Config{Seed: 8, Away: 3 * time.Second, Forbidden: true, Servers: three()})
		g := newGateway(t, w, timesync.Config{Discipline: timesync.Agent})
		defer g.stop()
		time.Sleep(time.Hour)
		s := g.state(timesync.Synchronised, "not permitted")
		if b := g.check("not permitted").Bound; b < 3000 || w.Steps() != 0 || len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "cannot be set") {
			t.Errorf("bound %d, %+v", b, s)
		}
	})
}

// A program that is started anew goes on with what it told the kernel.
func TestRestartWithoutServers(t *testing.T) {
	simulate(t, func(t *testing.T) {
		w := timetest.New(timetest.Config{Seed: 9, Drift: 80e-6, Servers: three()})
		g := newGateway(t, w, timesync.Config{Discipline: timesync.Agent})
		defer func() { g.stop() }()
		time.Sleep(time.Hour)
		w.SetLink(false)
		g.stop()
		g.start()
		time.Sleep(time.Hour)
		s := g.state(timesync.Holdover, "after the restart")
		if b := g.check("after the restart").Bound; s.Source != "kernel" || b > 5000 {
			t.Errorf("bound %d, %+v", b, s)
		}
		g.stop()
		w.Reboot()
		g.start()
		time.Sleep(time.Hour)
		if s := g.state(timesync.Unsynchronised, "after a reboot"); s.Source != "last known" {
			t.Errorf("%+v", s)
		}
		if late := w.True().Sub(w.Now().Wall); late < 0 || late > 7*time.Hour {
			t.Errorf("after a reboot without a hardware clock the clock is %v behind", late)
		}
		g.check("after a reboot")
		w.SetLink(true)
		time.Sleep(20 * time.Minute)
		g.state(timesync.Synchronised, "when servers are back")
		c := g.corrections[len(g.corrections)-1]
		if at, bound := c.At(30 * time.Minute); c.Boot != 2 || bound > 2*time.Second || bound < 0 || at.IsZero() {
			t.Errorf("correction %+v", c)
		}
	})
}

// fixed is a network that always says the same.
type fixed struct {
	w   *timetest.World
	off time.Duration
	err error
}

func (f fixed) NetworkTime(context.Context) (time.Time, error) {
	return f.w.True().Add(f.off).Truncate(time.Second), f.err
}

// The fallbacks go in their order, and none of them vouches.
func TestFallbacks(t *testing.T) {
	known := begin.Add(-100 * day)
	for name, tt := range map[string]struct {
		network *fixed
		rtc     bool
		away    time.Duration // of the hardware clock, or of the clock where there is none
		source  string
		off     time.Duration // what the clock may be off by then
	}{
		"modem":                     {&fixed{}, true, -day, "modem", 3 * time.Second},
		"modem, far off":            {&fixed{off: -300 * day}, true, -time.Hour, "hardware clock", 2 * time.Hour},
		"modem without a network":   {&fixed{err: errors.New("no network")}, true, -time.Hour, "hardware clock", 2 * time.Hour},
		"hardware clock":            {nil, true, -time.Hour, "hardware clock", 2 * time.Hour},
		"hardware clock, battery":   {nil, true, -27 * 365 * day, "last known", 101 * day},
		"hardware clock, in future": {nil, true, 50 * 365 * day, "last known", 51 * 365 * day},
		"none":                      {nil, false, -50 * 365 * day, "last known", 101 * day},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(t *testing.T) {
				w := timetest.New(timetest.Config{Seed: 10, Away: tt.away, HasRTC: tt.rtc, Servers: three()})
				w.SetLink(false)
				cfg := timesync.Config{Discipline: timesync.Agent, Memory: &memory{last: known}}
				if tt.network != nil {
					tt.network.w = w
					cfg.Network = tt.network
				}
				g := newGateway(t, w, cfg)
				defer func() { g.stop() }()
				time.Sleep(time.Hour)
				s := g.state(timesync.Unsynchronised, "by a fallback")
				off := w.Now().Wall.Sub(w.True()).Abs()
				if name == "hardware clock, in future" {
					if s.Source == "hardware clock" {
						t.Errorf("%+v", s)
					}
				} else if s.Source != tt.source || off > tt.off {
					t.Errorf("from %q, %v off; want %q, at most %v", s.Source, off, tt.source, tt.off)
				}
				if b := g.check("by a fallback").Bound; b != meter.UnknownBound || g.clock.NotBefore().Before(known) {
					t.Errorf("bound %d, not before %v", b, g.clock.NotBefore())
				}
				w.SetLink(true)
				time.Sleep(20 * time.Minute)
				g.state(timesync.Synchronised, "when servers are there")
				if rtc, err := w.RTC().Read(); tt.rtc && (err != nil || rtc.Sub(w.True()).Abs() > 3*time.Second) {
					t.Errorf("the hardware clock was not set: %v, %v", rtc, err)
				}
			})
		})
	}
}

// A second more or less at the end of a month is followed, by a clock that is
// not asked for hours around it too.
func TestLeapSecond(t *testing.T) {
	for name, by := range map[string]int{"inserted": 1, "left out": -1} {
		for _, how := range []timesync.Discipline{timesync.Agent, timesync.Observe} {
			t.Run(name+" "+string(how), func(t *testing.T) {
				simulate(t, func(t *testing.T) {
					end := time.Date(2027, time.July, 1, 0, 0, 0, 0, time.UTC)
					timetest.Begin(end.Add(-2 * day))
					w := timetest.New(timetest.Config{Seed: 11, Drift: 20e-6, Servers: three()})
					w.LeapAt(end, time.Duration(by)*time.Second)
					g := newGateway(t, w, timesync.Config{Discipline: how})
					defer g.stop()
					time.Sleep(day)
					for i := range three() {
						w.SetServer(i, func(s *timetest.Server) { s.Leap = by })
					}
					for time.Until(end) > 0 {
						time.Sleep(10 * time.Minute)
						g.check("before")
					}
					for i := range three() {
						w.SetServer(i, func(s *timetest.Server) { s.Leap = 0 })
					}
					steps := w.Steps()
					for i := range 200 {
						time.Sleep(10 * time.Minute)
						if s := g.check("after"); how == timesync.Agent && (s.Bound > 1600 || i > 30 && s.Bound > 1000) {
							t.Errorf("%d0 minutes after a leap second the bound is %d ms", i, s.Bound)
						}
					}
					if w.Steps() != steps {
						t.Error("the kernel did not know of the leap second")
					}
					s := g.clock.Status()
					if how == timesync.Agent && (s.Offset.Abs() > 50*time.Millisecond || s.Bound > time.Second) || s.DriftError > 100e-6 {
						t.Errorf("after the leap second: %+v", s)
					}
				})
			})
		}
	}
}

// A leap second of which nobody told, because nobody was heard, is in the bound.
func TestLeapSecondInAnOutage(t *testing.T) {
	simulate(t, func(t *testing.T) {
		end := time.Date(2027, time.July, 1, 0, 0, 0, 0, time.UTC)
		timetest.Begin(end.Add(-5 * day))
		w := timetest.New(timetest.Config{Seed: 12, Drift: 20e-6, Servers: three()})
		w.LeapAt(end, time.Second)
		g := newGateway(t, w, timesync.Config{Discipline: timesync.Agent})
		defer g.stop()
		time.Sleep(4*day + 11*time.Hour)
		w.SetLink(false)
		for range 400 {
			time.Sleep(10 * time.Minute)
			g.check("in the outage")
		}
		g.state(timesync.Holdover, "in the outage")
		w.SetLink(true)
		for range 100 {
			time.Sleep(10 * time.Minute)
			g.check("after it")
		}
		g.state(timesync.Synchronised, "after it")
	})
}

// After a suspension nothing is known until servers were asked.
func TestSuspended(t *testing.T) {
	simulate(t, func(t *testing.T) {
		w := timetest.New(timetest.Config{Seed: 13, Servers: three()})
		g := newGateway(t, w, timesync.Config{Discipline: timesync.Agent})
		defer g.stop()
		time.Sleep(10 * time.Hour)
		g.check("before")
		w.Suspend(time.Hour)
		if s := g.check("suspended"); s.Bound != meter.UnknownBound {
			t.Errorf("after an hour of sleep the clock claims %d ms", s.Bound)
		}
		time.Sleep(2 * time.Minute) // not the hours to the next poll as it was planned
		g.state(timesync.Synchronised, "soon after")
		for range 50 {
			time.Sleep(10 * time.Minute)
			g.check("later")
		}
		g.state(timesync.Synchronised, "later")
	})
}

// The word of the kernel counts where no server has a say.
func TestKernelsWord(t *testing.T) {
	simulate(t, func(t *testing.T) {
		w := timetest.New(timetest.Config{Seed: 14})
		g := newGateway(t, w, timesync.Config{})
		defer g.stop()
		if s := g.state(timesync.Unsynchronised, "nobody vouches"); !strings.HasPrefix(s.Reason, "no time servers") {
			t.Errorf("%q", s.Reason)
		}
		w.Discipliner(20 * time.Millisecond)
		if s := g.state(timesync.Synchronised, "the kernel vouches"); s.Source != "kernel" || s.Bound != 20*time.Millisecond {
			t.Errorf("%+v", s)
		}
		if b := g.check("the kernel vouches").Bound; b < 20 || b > 25 {
			t.Errorf("bound %d ms", b)
		}
	})
}

// An oscillator that follows the day and the night is held over through both.
func TestHoldoverOverDayAndNight(t *testing.T) {
	for hour := range 8 {
		t.Run("", func(t *testing.T) {
			simulate(t, func(t *testing.T) {
				w := timetest.New(timetest.Config{Seed: 15, Drift: 50e-6, Swing: 10e-6, Servers: three()})
				g := newGateway(t, w, timesync.Config{Discipline: timesync.Agent})
				defer g.stop()
				time.Sleep(3*day + time.Duration(3*hour)*time.Hour)
				w.SetLink(false)
				for range 100 {
					time.Sleep(10 * time.Minute)
					g.check("in holdover")
				}
				if s := g.state(timesync.Holdover, "in holdover"); s.Bound > 3*time.Second {
					t.Errorf("after 17 hours the bound is %v", s.Bound)
				}
				g.corrected("in holdover")
			})
		})
	}
}

// What was stamped before the first majority is corrected by it, days later too.
func TestCorrectionOfTheTimeBefore(t *testing.T) {
	simulate(t, func(t *testing.T) {
		w := timetest.New(timetest.Config{Seed: 16, Drift: 95e-6, Servers: three()})
		w.SetLink(false)
		g := newGateway(t, w, timesync.Config{Discipline: timesync.Agent})
		defer g.stop()
		for range 100 {
			time.Sleep(time.Hour)
			g.check("before")
		}
		if len(g.corrections) > 0 {
			t.Errorf("%d corrections from nothing", len(g.corrections))
		}
		w.SetLink(true)
		time.Sleep(day)
		if len(g.corrections) < 2 {
			t.Errorf("%d corrections in a day", len(g.corrections))
		}
		g.corrected("before")
	})
}
