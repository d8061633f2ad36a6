package line

import (
	"errors"
	"sync/atomic"

	"gridgate/internal/meter"
)

// Count is how requests on a line went, since it was made.
type Count struct{ Asked, Silent, Damaged uint64 }

// counts is Count in the making.
type counts struct{ asked, silent, damaged atomic.Uint64 }

// Note counts a request that a driver sent, by its error: meter.ErrNoAnswer,
// meter.ErrGarbled, none, or another. Drivers repeat what fails, so that only the
// line knows how often that was.
func (l *Line) Note(err error) {
	l.counts.asked.Add(1)
	switch {
	case errors.Is(err, meter.ErrGarbled):
		l.counts.damaged.Add(1)
	case errors.Is(err, meter.ErrNoAnswer):
		l.counts.silent.Add(1)
	}
}

// Count gives how requests went; zero where the driver of a line does not count.
// It is safe for concurrent use.
func (l *Line) Count() Count {
	return Count{l.counts.asked.Load(), l.counts.silent.Load(), l.counts.damaged.Load()}
}
