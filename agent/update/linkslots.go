package update

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"gridgate/internal/sys"
)

// LinkSlots are the slots of a package: programs in a directory that the service
// may write to, and the packaged one, called f, which belongs to the package
// manager and is never written:
//
//	a/gridgate  a/slot.json   slot.json says what the files have to be; without it
//	b/gridgate  b/slot.json   a slot holds nothing that may start
//	current -> a              what is confirmed; absent: the packaged program
//	trial -> b                what is to prove itself; absent: nothing
//	tries                     how many starts it has left
//
// The packaged program reads this at its start: see Launcher. Each change of what
// starts take is one rename or one removal in this directory.
type LinkSlots struct {
	linkDir

	running   string
	program   string // that runs
	installed string // the slot that Install filled last
	restart   func()
}

var _ Slots = (*LinkSlots)(nil)

// trialTries is how many starts a trial has.
const trialTries = 3

// NewLinkSlots gives the slots in dir. running is what EnvSlot says, empty for the
// packaged program; restart has the agent stop so that its program starts anew, and
// does not wait for that.
func NewLinkSlots(dir, running string, restart func()) *LinkSlots {
	if running == "" {
		running = packagedSlot
	}
	return &LinkSlots{linkDir: linkDir{dir}, running: running, program: "/proc/self/exe", restart: restart}
}

// State is Slots.State. A trial with no tries left is named until Back ends it.
func (s *LinkSlots) State() (SlotState, error) {
	state := SlotState{Board: linkBoard(), Running: s.running, First: packagedSlot}
	current, err := s.link(currentLink)
	if err != nil {
		return state, err
	}
	if current != "" {
		state.First = current
	}
	if state.OnTrial, err = s.link(trialLink); err != nil || state.OnTrial == "" {
		return state, err
	}
	if state.Tries, err = s.tries(); err != nil {
		return state, err
	}
	if state.Tries > 0 {
		state.First = state.OnTrial
	}
	return state, nil
}

// linkBoard names what packages are made for.
func linkBoard() string {
	if runtime.GOARCH == "arm" {
		return "linux-armv7" // the only one that is built
	}
	return "linux-" + runtime.GOARCH
}

// Open is Slots.Open.
func (s *LinkSlots) Open(name string) (io.ReadCloser, error) {
	switch {
	case !slotFileName(name):
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	case s.running != packagedSlot:
		return os.Open(s.path(s.running, name))
	case name != programName:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return os.Open(s.program) // also after a package manager has exchanged it
}

// target gives the slot that may be written.
func (s *LinkSlots) target() (string, error) {
	current, err := s.link(currentLink)
	if err != nil {
		return "", err
	}
	trial, err := s.link(trialLink)
	if err != nil {
		return "", err
	}
	if trial == s.running {
		return "", fmt.Errorf("slot %s is on trial itself", trial)
	}
	if left, err := s.tries(); err == nil && left == 0 {
		trial = "" // it has ended
	}
	for _, slot := range []string{"a", "b"} {
		if !slices.Contains([]string{s.running, current, trial}, slot) {
			return slot, nil
		}
	}
	return "", fmt.Errorf("no slot is free: %s runs, %s is what starts come back to, %s is on trial", s.running, named(current), named(trial))
}

func named(slot string) string {
	if slot == "" {
		return "none"
	}
	return slot
}

// Install is Slots.Install. The slot that runs, the confirmed one and the one on
// trial are never written.
func (s *LinkSlots) Install(ctx context.Context, files []Staged) error {
	if err := checkStaged(files); err != nil {
		return err
	}
	if err := s.mend(); err != nil {
		return err
	}
	slot, err := s.target()
	if err != nil {
		return err
	}
	s.installed = ""
	if trial, err := s.link(trialLink); err == nil && trial == slot {
		if err := s.remove(trialLink); err != nil { // it has no tries left
			return err
		}
	}
	if err := s.fill(ctx, slot, files); err != nil {
		_ = s.clear(slot) // its room is wanted; it does not start as it is
		return fmt.Errorf("slot %s: %w", slot, err)
	}
	s.installed = slot
	return nil
}

// mend makes the directories, and removes links that lead to no slot.
func (s *LinkSlots) mend() error {
	parent := filepath.Dir(s.dir)
	for _, dir := range []string{parent, s.dir, s.path("a"), s.path("b")} {
		if dir == parent {
			if _, err := os.Stat(dir); err == nil {
				continue // whose it is and what it is in is not ours
			}
		}
		if err := sys.MakeDir(dir, 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{currentLink, trialLink} {
		if _, err := s.link(name); errors.Is(err, errNoSlot) {
			if err := s.remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// Switch is Slots.Switch.
func (s *LinkSlots) Switch() error {
	slot := s.installed
	if slot == "" {
		var err error
		if slot, err = s.target(); err != nil {
			return err
		}
	}
	if _, err := s.list(slot); err != nil {
		return fmt.Errorf("nothing is installed that could be tried: %w", err)
	}
	// A cut between the two leaves a number that nothing asks for.
	if err := s.setTries(trialTries); err != nil {
		return err
	}
	return s.setLink(trialLink, slot)
}

// Confirm is Slots.Confirm: one rename. Said again it does nothing.
func (s *LinkSlots) Confirm() error {
	trial, err := s.link(trialLink)
	if err != nil {
		return err
	}
	if trial == "" {
		if current, err := s.link(currentLink); err != nil || current == s.running {
			return err
		}
	}
	if trial != s.running {
		return fmt.Errorf("slot %s runs, and %s is on trial", s.running, named(trial))
	}
	if err := os.Rename(s.path(trialLink), s.path(currentLink)); err != nil {
		return err
	}
	return sys.SyncDir(s.dir)
}

// Back is Slots.Back. Without a trial it does nothing.
func (s *LinkSlots) Back() error { return s.remove(trialLink) }

// Factory is Slots.Factory. What the slots hold stays.
func (s *LinkSlots) Factory() error {
	return errors.Join(s.remove(trialLink), s.remove(currentLink))
}

// Restart is Slots.Restart: the agent stops, and the packaged program looks anew what
// is to start.
func (s *LinkSlots) Restart() error {
	s.restart()
	return nil
}
