package update

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
)

// What the programs of a package tell one another by their environment.
const (
	EnvSlots    = "GRIDGATE_SLOTS"    // directory of the slots: set by the unit
	EnvSlot     = "GRIDGATE_SLOT"     // the slot that runs: set by the launcher, and by an image's first process
	EnvLauncher = "GRIDGATE_LAUNCHER" // path of the packaged program: set by the launcher
)

// Launcher is what the packaged program is before it is an agent: it puts the
// program of a slot in its own place. The process stays the same one, so that the
// service manager sees one service, whatever runs in it.
type Launcher struct {
	Dir  string // of the slots
	Self string // path of this program
	Env  []string
	// Exec starts a program in the place of this one (execve(2)); it returns only
	// where it cannot.
	Exec func(path string, env []string) error
	Log  *slog.Logger
}

// Launch starts what is on trial, while it has tries left, else what is confirmed.
// It returns where this program is the one to run: neither is there, or each of them
// is missing, damaged or cannot be started, which the log says, or ctx has ended.
func (l *Launcher) Launch(ctx context.Context) {
	if _, err := os.ReadDir(l.Dir); err != nil {
		if !errors.Is(err, fs.ErrNotExist) { // nothing was ever installed
			l.Log.Error("the slots cannot be read: the packaged program runs", "error", err)
		}
		return
	}
	d := linkDir{l.Dir}
	for _, name := range []string{trialLink, currentLink} {
		slot, err := d.link(name)
		if slot != "" && name == trialLink {
			var left int
			if left, err = d.tries(); err == nil && left == 0 {
				l.Log.Warn("the slot on trial is passed over: it was not confirmed in as many starts as it had", "slot", slot)
				continue
			}
			if err == nil {
				err = d.setTries(left - 1) // before it may run
			}
		}
		if slot != "" && err == nil {
			err = l.start(ctx, d, slot, name)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			l.Log.Error("a slot is passed over: it cannot be started", "slot", slot, "as", name, "error", err)
		}
	}
}

// start gives an error, or does not return.
func (l *Launcher) start(ctx context.Context, d linkDir, slot, as string) error {
	path, err := d.check(ctx, slot)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil { // somebody stops the service
		return err
	}
	l.Log.Info("the program of a slot starts", "slot", slot, "as", as, "program", path)
	return l.Exec(path, append(Unlaunched(l.Env), EnvSlot+"="+slot, EnvLauncher+"="+l.Self))
}

// Unlaunched gives an environment as it was before a launcher added to it.
func Unlaunched(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(s string) bool {
		name, _, _ := strings.Cut(s, "=")
		return name == EnvSlot || name == EnvLauncher
	})
}
