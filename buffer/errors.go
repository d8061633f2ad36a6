package buffer

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	berrors "go.etcd.io/bbolt/errors"
)

// The decisions that callers of a Store take on an error.
var (
	// ErrFull says that there is no room: the disk is full (the error then
	// wraps syscall.ENOSPC too) or the store has reached Options.MaxSize.
	// Nothing was stored, the store stays usable: keep the rows, try again.
	ErrFull = errors.New("no room")
	// ErrDamaged says that the file is not what was written. Close the store
	// and open it again: Open moves a damaged file aside.
	ErrDamaged = errors.New("damaged")
	// ErrClosed says that the store was closed.
	ErrClosed = errors.New("closed")
	// ErrBeyond says that an acknowledgement is for a number that the lane
	// has not reached.
	ErrBeyond = errors.New("beyond the last sequence number")
	// ErrNoStore says that there is no store in the directory.
	ErrNoStore = errors.New("no readings.db there")
)

// InUseError says that another process has the store open.
type InUseError struct {
	Path string // the file
	PID  int    // the process, 0 when it cannot be told
}

func (e *InUseError) Error() string {
	who := "another process"
	if e.PID > 0 {
		who = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("buffer %s: in use by %s: ask the running agent with `gridgate status`, or stop it first", e.Path, who)
}

// FormatError says that a file is of a format that this version does not
// know. The file was not touched.
type FormatError struct {
	Path  string
	Found uint32 // the file's format
	Known uint32 // the newest format that this version knows
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("buffer %s: format %d is newer than this program's %d: install the version that wrote it, or move the file away to start anew",
		e.Path, e.Found, e.Known)
}

// diskError makes sure that the causes which callers decide on can be found
// with errors.Is: bbolt passes some of them on as text only.
func diskError(err error) error {
	switch {
	case err == nil, errors.Is(err, ErrFull):
		return err
	case errors.Is(err, berrors.ErrMaxSizeReached):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case strings.Contains(err.Error(), syscall.ENOSPC.Error()):
		return fmt.Errorf("%w: %w: %w", ErrFull, syscall.ENOSPC, err)
	}
	return err
}
