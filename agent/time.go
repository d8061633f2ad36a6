package agent

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"gridgate/agent/status"
	"gridgate/agent/timesync"
	"gridgate/configs"
	"gridgate/internal/meter"
	"gridgate/internal/sys"
)

// runningClock is the gateway's clock with its task.
type runningClock struct {
	*timesync.Clock
	ctx  context.Context // of its task, for what it calls
	task *task
	// servers says that there are some to ask.
	servers bool
	// corrected says that the store was told what time it was before.
	corrected atomic.Bool
}

// now gives the stamp of this moment.
func (a *Agent) now() meter.Stamp { return a.clock.Load().Now() }

// clockConfig is what the configuration says of the time.
func clockConfig(t configs.Time, log *slog.Logger) (timesync.Config, error) {
	c := timesync.Config{
		Discipline: timesync.Discipline(t.Discipline), MinPoll: t.MinPoll, MaxPoll: t.MaxPoll,
		StepAbove: t.Step, MaxError: t.MaxError, System: sys.Clock{}, Log: log,
	}
	for _, s := range t.Servers {
		c.Servers = append(c.Servers, timesync.Server(s))
	}
	if t.Hardware != "" {
		c.Hardware = sys.RTC(t.Hardware)
	}
	if t.CA == "" {
		return c, nil
	}
	c.Roots = x509.NewCertPool() // when it cannot be read nobody is trusted
	pem, err := os.ReadFile(t.CA)
	if err == nil && !c.Roots.AppendCertsFromPEM(pem) {
		err = fmt.Errorf("%s: no certificate in it", t.CA)
	}
	if err != nil {
		return c, fmt.Errorf("time.ca: %w", err)
	}
	return c, nil
}

// newClock makes the clock; startClock starts it.
func (a *Agent) newClock(cfg *configs.Config) *runningClock {
	c, err := clockConfig(cfg.Time, a.log)
	if err != nil {
		a.log.Error("servers with NTS cannot be asked", "error", err)
		a.note(err.Error())
	}
	if n := a.networkTime(cfg); n != nil {
		c.Network = n
	}
	r := &runningClock{servers: len(c.Servers) > 0}
	c.Boot, c.Memory = a.store.Boot, a.state
	c.Corrected = func(c timesync.Correction) {
		if err := a.store.look(a.store.get().Correct(r.ctx, correctionOf(c))); err != nil && r.ctx.Err() == nil {
			a.log.Error("times of readings cannot be put right", "error", err)
		}
		r.corrected.Store(true)
		a.tellUplink() // what waited for it may go
	}
	r.Clock = timesync.New(c)
	return r
}

// startClock starts the clock.
func (a *Agent) startClock(ctx context.Context, r *runningClock) {
	r.task = a.start(ctx, "clock", func(ctx context.Context) error {
		r.ctx = ctx
		return r.Run(ctx)
	})
}

// MeasureClock asks the time servers of a configuration once, sets nothing,
// and tells what the system clock is worth.
func MeasureClock(ctx context.Context, cfg *configs.Config) (status.GatewayClock, error) {
	c, err := clockConfig(cfg.Time, slog.New(slog.DiscardHandler))
	if err != nil {
		return status.GatewayClock{}, err
	}
	c.Discipline, c.Hardware, c.Network = timesync.Observe, nil, nil
	c.Boot = func() uint32 { return 0 }
	clock := timesync.New(c)
	if err := clock.Once(ctx); err != nil {
		return status.GatewayClock{}, err
	}
	r := reportClock(clock.Status(), time.Now())
	r.Discipline = string(cfg.Time.Discipline)
	return r, nil
}

// reportClock tells how the clock does.
func reportClock(s timesync.Status, now time.Time) status.GatewayClock {
	r := status.GatewayClock{
		Time: now.UTC(), State: s.State.String(), Reason: s.Reason, Discipline: string(s.Discipline), Source: s.Source,
		Offset: s.Offset.Seconds(), Slewing: s.Slewing.Seconds(), Drift: s.Drift * 1e6, DriftError: s.DriftError * 1e6,
		Interval: s.Interval.Seconds(), Leap: s.Leap, Steps: s.Steps, NotBefore: s.NotBefore.Truncate(time.Second),
		Servers: []status.TimeServer{}, Warnings: s.Warnings,
	}
	if s.State != timesync.Unsynchronised {
		bound := s.Bound.Seconds()
		r.Bound = &bound
	}
	if s.Since >= 0 {
		last := now.Add(-s.Since).UTC().Truncate(time.Second)
		r.LastSync = &last
	}
	for _, t := range s.Servers {
		r.Servers = append(r.Servers, status.TimeServer{
			Server: t.Server, Address: t.Address, Verdict: t.Verdict.String(), Reason: t.Reason, Offset: t.Offset.Seconds(),
			Trip: t.Trip.Seconds(), Distance: t.Distance.Seconds(), Stratum: t.Stratum, NTS: t.NTS, Polls: t.Polls, Failures: t.Failures,
		})
	}
	return r
}
