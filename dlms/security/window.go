package security

import (
	"errors"
	"fmt"
	"sync"
)

// Direction says who sends.
type Direction uint8

// The directions.
const (
	FromClient Direction = 1
	FromServer Direction = 2
)

// ReplayError says which counter did not rise. It is ErrReplay.
type ReplayError struct {
	Title     Title // of the sender
	Last, Got uint32
}

func (e *ReplayError) Error() string {
	return fmt.Sprintf("%v from %v: %d after %d (sent again by somebody, or the meter began anew)", ErrReplay, e.Title, e.Got, e.Last)
}

// Is says that it is ErrReplay.
func (e *ReplayError) Is(target error) bool { return target == ErrReplay }

// maxRemembered is how many senders, keys and directions a Window remembers:
// far above the meters that one program hears.
const maxRemembered = 1 << 16

// ErrCrowded says that a Window remembers as many senders as it can, and takes
// no new one. Who sends what is encrypted only can give himself any title.
var ErrCrowded = errors.New("too many senders")

// Window remembers the highest counter received by sender, key and direction,
// and refuses what does not rise. A key that is changed has no past, one that
// comes back has its own. The zero value has seen nothing. Safe for concurrent
// use.
type Window struct {
	mu   sync.Mutex
	last map[windowKey]uint32
}

type windowKey struct {
	title     Title
	key       KeyID
	direction Direction
}

// Last gives the highest counter received; ok is false before the first.
func (w *Window) Last(title Title, key KeyID, d Direction) (counter uint32, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	counter, ok = w.last[windowKey{title, key, d}]
	return counter, ok
}

// Note remembers a counter as received, as a caller does who keeps Last over a
// restart. It never lowers.
func (w *Window) Note(title Title, key KeyID, d Direction, counter uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note(windowKey{title, key, d}, counter)
}

// Forget forgets a direction: for meters that begin their counter anew with
// each association.
func (w *Window) Forget(title Title, key KeyID, d Direction) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.last, windowKey{title, key, d})
}

func (w *Window) note(k windowKey, counter uint32) {
	if w.last == nil {
		w.last = make(map[windowKey]uint32)
	}
	if last, seen := w.last[k]; !seen || counter > last {
		w.last[k] = counter
	}
}

// check refuses what does not rise. Only what was also opened is taken.
func (w *Window) check(k windowKey, counter uint32) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rises(k, counter)
}

// take remembers a counter; that it rises is looked at again, for others may
// have been taken since.
func (w *Window) take(k windowKey, counter uint32) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.rises(k, counter); err != nil {
		return err
	}
	w.note(k, counter)
	return nil
}

func (w *Window) rises(k windowKey, counter uint32) error {
	last, seen := w.last[k]
	switch {
	case seen && counter <= last:
		return &ReplayError{Title: k.title, Last: last, Got: counter}
	case !seen && len(w.last) >= maxRemembered:
		return fmt.Errorf("%w: %d are remembered", ErrCrowded, len(w.last))
	}
	return nil
}
