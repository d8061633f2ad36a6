package update

import (
	"context"
	"io"
)

// Slots is where firmware runs from: two slots of an image's card, or two
// programs of a package, and one more that it was installed with and that is
// never written.
type Slots interface {
	// State says what runs and what the next start takes.
	State() (SlotState, error)
	// Open gives a file of the slot that runs; fs.ErrNotExist where it has none of
	// that name.
	Open(name string) (io.ReadCloser, error)
	// Install replaces all files of the slot that does not run by these. They are
	// on flash, read again and compared on return; what the next start takes is
	// not changed. After an error or a cut the slot holds nothing that may start.
	Install(ctx context.Context, files []Staged) error
	// Switch has the next starts try what was installed last. A few tries later,
	// without Confirm, starts take what runs now again.
	Switch() error
	// Confirm makes the slot that runs, and is on trial, what starts come back to.
	Confirm() error
	// Back ends a trial: the next start takes the slot that is not on trial.
	Back() error
	// Factory has the next start take what the gateway was flashed or installed
	// with.
	Factory() error
	// Restart begins the next start: of the machine, or of the program. It gives
	// at once; the agent is told to stop then.
	Restart() error
}

// SlotState is what Slots.State says.
type SlotState struct {
	Board   string // virt-armv7; for packages linux-armv7
	Running string // a, b, or f for the one of the factory
	First   string // what the next start takes
	OnTrial string // the slot that is not confirmed; empty: none
	Tries   int    // that it has left
}

// Staged is a file that lies ready to be installed.
type Staged struct {
	Name   string
	Path   string
	Size   int64
	SHA256 [32]byte
}
