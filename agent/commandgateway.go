package agent

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"gridgate/agent/command"
	"gridgate/agent/timesync"
	"gridgate/buffer"
	"gridgate/configs"
	"gridgate/internal/meter"
)

// commandGateway gives what commands may do at the gateway.
func (a *Agent) commandGateway() *command.Gateway {
	return &command.Gateway{
		Meters: a.meterServices(),
		Now:    a.now, Started: a.started, Version: a.opts.Version,
		Groups: a.configuredGroups, Store: a.storeOrdered, Again: a.sendAgain, Range: a.numbersOf,
		ClockSet: a.clockWasSet, Method: a.clockMethod, Clock: a.clockOf,
		Restart: a.restart, LogLevel: a.logLevel, BufferStat: look{a}.StatJSON, Bundle: a.bundle,
		Most: a.outputs.most, Output: a.outputs.set, Outputs: a.outputs.list,
	}
}

func (a *Agent) meterConfig(id meter.ID) (configs.Meter, bool) { return a.config().Meter(id) }

func (a *Agent) configuredGroups(id meter.ID) (all []command.Group) {
	m, ok := a.meterConfig(id)
	if !ok {
		return nil
	}
	for _, g := range m.Groups {
		all = append(all, command.Group{Group: meter.Group{Name: string(g.Name), Lane: g.Lane, Channels: g.Channels}, Profile: g.Profile})
	}
	return all
}

// keepMost is how long rows may take to the disk.
const keepMost = 5 * time.Minute

// storeOrdered stores rows that were ordered, and returns when they are on the
// disk.
func (a *Agent) storeOrdered(ctx context.Context, rows []meter.Row) error {
	return a.storeRows(ctx, rows, nil)
}

func (a *Agent) storeRows(ctx context.Context, rows []meter.Row, cursors []meter.Cursor) error {
	stored := make(chan struct{})
	a.intake.Submit(rows, cursors, func() { close(stored) })
	limit := time.NewTimer(keepMost)
	defer limit.Stop()
	select {
	case <-stored:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-limit.C:
		return fmt.Errorf("what was read was not stored within %v: is the disk full?", keepMost)
	}
}

// sendAgain has the uplink send numbers again.
func (a *Agent) sendAgain(lane meter.Lane, first, last uint64) error {
	if have := a.store.Last(lane); first > have {
		return fmt.Errorf("lane %s has numbers to %d only", lane, have)
	}
	if !a.orders.box.Again(lane, first, last) {
		return errors.New("too many ranges wait to be sent again")
	}
	return nil
}

// numbersOf gives the numbers that the rows of a time have.
func (a *Agent) numbersOf(lane meter.Lane, from, to time.Time) (first, last uint64, n int, err error) {
	q := buffer.Query{Lanes: []meter.Lane{lane}, From: from.UnixMilli(), To: to.UnixMilli()}
	err = a.store.get().Query(q, func(sequence uint64, _ *meter.Row) error {
		if n++; n == 1 {
			first = sequence
		}
		first, last = min(first, sequence), max(last, sequence)
		return nil
	})
	return first, last, n, a.store.look(err)
}

// clockOf gives who decides about the clock of a meter.
func (a *Agent) clockOf(id meter.ID) (command.Clock, bool) {
	k, ok := a.meterClock(id)
	return k, ok
}

func (a *Agent) meterClock(id meter.ID) (*meterClock, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.lines {
		if k, ok := l.clocks[id]; ok {
			return k, true
		}
	}
	return nil, false
}

// clockMethod is how the clock of a meter is set.
func (a *Agent) clockMethod(id meter.ID) meter.ClockMethod {
	m, ok := a.meterConfig(id)
	if !ok {
		return meter.WriteTime
	}
	_, method := a.config().MeterClock(m)
	return method
}

// clockWasSet has it stored that a clock was set, as if the agent had done so by
// itself: rows of that interval are flagged, and it is not set again today.
func (a *Agent) clockWasSet(ctx context.Context, id meter.ID, got *meter.Got) error {
	k, ok := a.meterClock(id)
	if !ok {
		return nil
	}
	rows, keep := k.Took(a.now(), got)
	for i := range rows {
		rows[i].Meter, rows[i].Serial = id, got.Identity.Found
		if got.Identity.Found == "" {
			rows[i].Quality |= meter.IdentityNotProven
		}
	}
	var cursors []meter.Cursor
	if keep != 0 {
		cursors = append(cursors, meter.Cursor{Meter: id, Serial: got.Identity.Found, Profile: meter.ClockCursor, Time: keep})
	}
	if len(rows) == 0 && len(cursors) == 0 {
		return nil
	}
	return a.storeRows(ctx, rows, cursors)
}

// MayOrdered says whether a clock may be set because somebody orders it.
func (k *meterClock) MayOrdered(now meter.Stamp, found meter.ClockOffset, limit time.Duration) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch err := k.c.MayOrdered(now, found, limit); {
	case errors.Is(err, timesync.ErrNearCapture):
		return &command.ClockLater{Err: err}
	case errors.Is(err, timesync.ErrRightEnough):
		return &command.ClockRight{Err: err}
	default:
		return err
	}
}

// ErrRestart is why Run returns when a command orders it.
var ErrRestart = errors.New("restart: somebody ordered it")

func (a *Agent) restart() {
	select {
	case a.failed <- ErrRestart:
	default: // it ends anyway
	}
}

// logLevel sets how much is logged for a time.
func (a *Agent) logLevel(name string, d time.Duration) error {
	level := a.opts.Level
	if level == nil {
		return errors.New("this agent was started with a log that has no level to set")
	}
	var to slog.Level
	if err := to.UnmarshalText([]byte(name)); err != nil {
		return err
	}
	c := a.commands
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.levelBack == nil {
		c.level = level.Level()
	} else {
		c.levelBack.Stop()
	}
	before := c.level
	a.log.Warn("somebody ordered another log level", "level", name, "duration", d)
	level.Set(to)
	c.levelBack = time.AfterFunc(d, func() { c.levelEnds(level, before) })
	return nil
}

// levelEnds puts the log level back.
func (c *commands) levelEnds(level *slog.LevelVar, to slog.Level) {
	c.mu.Lock()
	defer c.mu.Unlock()
	level.Set(to)
	c.levelBack = nil
}

// bundle gives what support wants to see.
func (a *Agent) bundle(ctx context.Context) ([]byte, error) {
	var b bytes.Buffer
	err := a.Bundle(ctx, &b)
	return b.Bytes(), err
}

// outputsOf gives the outputs of a configuration.
func outputsOf(cfg *configs.Config) map[string]configs.Output {
	all := make(map[string]configs.Output, len(cfg.Outputs))
	for _, o := range cfg.Outputs {
		o.Most = cmp.Or(o.Most, configs.DefaultOutputMost)
		all[string(o.Name)] = o
	}
	return all
}
