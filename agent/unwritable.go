package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"gridgate/agent/status"
	"gridgate/buffer"
	"gridgate/buffer/state"
	"gridgate/configs"
	"gridgate/internal/meter"
)

// The gateway reads meters whatever its disk does. Without a buffer what was read
// waits in memory, within intake.max_waiting; profiles are not asked for, since
// nobody knows how far they were read, and wait in their meters. Without the
// state no invocation counter is reserved, so what ciphers is not read. Both are
// tried again, and go on by themselves. docs/decisions/0017-unwritable.md has why.

// EventStoreClosed is the channel of the alarm, of the gateway itself, that the
// buffer or the state could not be opened at a start; its value says why. It waits
// in memory for the buffer, as everything does.
const EventStoreClosed meter.Channel = "event.store-closed"

// The pauses between attempts to open what could not be opened.
const (
	reopenFirst = time.Second
	reopenMost  = time.Minute
)

// isForOthers says whether an error of opening is no reason to go on without: the
// files belong to another process, or to a newer program.
func isForOthers(err error) bool {
	var inUse *buffer.InUseError
	var newer *buffer.FormatError
	var newerState *state.FormatError
	return errors.As(err, &inUse) || errors.As(err, &newer) || errors.As(err, &newerState) || errors.Is(err, state.ErrInUse)
}

// isUnwritable says whether an error tells of a disk that takes no writes.
func isUnwritable(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ENOSPC) ||
		errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EIO)
}

const (
	noBuffer  = "buffer: not open, readings wait in memory"
	noState   = "state: not open, meters that need invocation counters are not read"
	noControl = "control socket: not open"
)

// tellClosed says that something could not be opened: to who reads the log or
// asks for the status, and to the fog once the buffer is there.
func (a *Agent) tellClosed(what string, err error) {
	a.log.Error("the agent goes on without what cannot be opened, and tries again", "what", what, "error", err)
	a.note(what + ": " + err.Error())
	text := what + ": " + err.Error()
	a.intake.Submit([]meter.Row{{
		Meter: a.cfg.Gateway, Channel: EventStoreClosed, Lane: meter.Alarm, Stamp: a.now(),
		Value: meter.TextValue(strings.ToValidUTF8(text[:min(len(text), 1000)], "")),
	}}, nil, nil)
}

// forget removes the notes that begin so. mu is held.
func (a *Agent) forget(prefix string) {
	a.notes = slices.DeleteFunc(a.notes, func(n string) bool { return strings.HasPrefix(n, prefix) })
}

// isAllOpen says whether there is nothing to try again. mu is not held.
func (a *Agent) isAllOpen() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.store.Epoch() != 0 && a.state.Held() == nil
}

// reopen tries again what could not be opened. It says whether all is open.
func (a *Agent) reopen(ctx context.Context) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.running || a.lines == nil {
		return false
	}
	if a.store.Epoch() == 0 {
		a.reopenStore(ctx)
	}
	if a.state.Held() != nil {
		a.reopenState(ctx)
	}
	return a.store.Epoch() != 0 && a.state.Held() == nil
}

func (a *Agent) reopenStore(ctx context.Context) {
	recovered, err := a.store.renew()
	if err != nil {
		return // it was said
	}
	a.forget(noBuffer)
	a.log.Info("the buffer is open; what waited is stored", "epoch", fmt.Sprintf("%016x", a.store.Epoch()))
	if recovered != nil {
		a.recovered(recovered)
	}
	if err := a.checkFresh(); err != nil {
		a.log.Error("that the state was lost cannot be kept", "error", err)
	}
	a.uplink.stop() // it knows of no buffer
	a.startUplink(ctx, a.cfg)
	a.intake.Retry()
}

func (a *Agent) reopenState(ctx context.Context) {
	if err := a.state.Retry(time.Now()); err != nil {
		return // it was said
	}
	a.forget(noState)
	a.log.Info("the state is open; meters that need invocation counters are read")
	if err := a.checkFresh(); err != nil {
		a.log.Error("that the state was lost cannot be kept", "error", err)
	}
	a.keepHash(a.cfg)
	stopLines(a.lines) // their meters wait, and know no salt
	clear(a.lines)
	for _, l := range a.cfg.Lines() {
		a.startLine(ctx, a.cfg, l)
	}
}

// hasFiles says whether there is something in a directory.
func hasFiles(dir string) bool {
	all, err := os.ReadDir(dir)
	return err == nil && len(all) > 0
}

// checkFresh marks a state that began anew as lost where there are readings.
func (a *Agent) checkFresh() error {
	if lost := a.state.Held() == nil && a.state.Fresh() && (a.used || a.store.wasUsed()); !lost {
		return nil
	}
	// Both copies were taken away, by somebody or by a file system's repair.
	a.log.Error("the state is gone and begins anew", "error", state.ErrLost)
	a.note("state: " + state.ErrLost.Error())
	return a.state.SetLost()
}

// openControl opens the control socket. Where the disk does not take it, serveControl
// tries again.
func (a *Agent) openControl(cfg *configs.Config) (err error) {
	c := status.Config{
		Path: cfg.Control.Socket, Report: a.Report, Metrics: a.Metrics, Lend: a.lend, Tap: a.tap, Counters: a.state, StateDir: cfg.Buffer.Path,
		Refusals: a.state, Readings: look{a}, Submit: a.Submit, Secrets: secretControl{a}, Commands: a, Updates: a.updates, Parts: a.bundleParts, Log: a.log,
	}
	a.control, err = status.Listen(c)
	return err
}

// serveControl serves the control socket, once it can be opened.
func (a *Agent) serveControl(ctx context.Context) error {
	pause := reopenFirst
	for a.control == nil {
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		pause = min(2*pause, reopenMost)
		a.mu.Lock()
		cfg := a.cfg
		a.mu.Unlock()
		if a.openControl(cfg) == nil {
			a.mu.Lock()
			a.forget(noControl)
			a.mu.Unlock()
		}
	}
	return a.control.Run(ctx)
}
