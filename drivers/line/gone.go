package line

import (
	"errors"
	"io/fs"
	"syscall"

	"gridgate/internal/meter"
)

// goneError is a failure of the line itself, in its own words: it is
// meter.ErrNoLine too, and says nothing of a meter.
type goneError struct{ err error }

func (e *goneError) Error() string   { return e.err.Error() }
func (e *goneError) Unwrap() []error { return []error{e.err, meter.ErrNoLine} }

// markGone marks what says that there is no port, or that another has it. What
// a peer in a network does to its connection may be the meter's doing.
func markGone(err error) error {
	var busy *BusyError
	gone := errors.As(err, &busy)
	for _, e := range []error{fs.ErrNotExist, fs.ErrPermission, syscall.EIO, syscall.ENXIO, syscall.ENODEV} {
		gone = gone || errors.Is(err, e)
	}
	if gone {
		return &goneError{err}
	}
	return err
}
