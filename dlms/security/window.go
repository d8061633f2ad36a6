package security

import (
	"errors"
	"fmt"
	"slices"
	"sync"
)

// Direction says who sends.
type Direction uint8

// The directions.
const (
	FromClient Direction = 1
	FromServer Direction = 2
	// Unasked is from the server too, on a way of its own: what it pushes may
	// come later than answers that it protected after it.
	Unasked Direction = 3
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

// Received keeps the highest counters received, over restarts.
type Received interface {
	// LastReceived gives the highest counter received; ok is false where there
	// is none.
	LastReceived(title Title, key KeyID, d Direction) (counter uint32, ok bool, err error)
	// NoteReceived remembers a counter as received; it never lowers. A crash may
	// lose what was noted last, but no more than loss counters by which it
	// rose: with 0 it returns when the counter is on the disk.
	NoteReceived(title Title, key KeyID, d Direction, counter, loss uint32) error
}

// Heard is the highest counter received from a sender.
type Heard struct {
	Title     Title
	Direction Direction
	Counter   uint32
}

// Window remembers the highest counter received by sender, key and direction,
// and refuses what does not rise. A key that is changed has no past, one that
// comes back has its own. The zero value has seen nothing, and remembers as long
// as it lives: see Keep. Safe for concurrent use.
type Window struct {
	mu   sync.Mutex
	last map[windowKey]uint32

	store Received
	loss  uint32
	kept  []KeyID
}

// Keep has the counters that are received under these keys remembered by store,
// which alone counts for them: what it forgets is forgotten. A crash may lose as
// much as loss says (see Received), and what it loses can be sent again once.
// With a high-level authentication that does not matter, for the meter's proof
// is made of a new challenge and raises the counter above all that is old; where
// nothing else proves that a message is new (a push) let loss be 0.
//
// Under such a key a counter that is more than MaxJump ahead of the last is
// refused too, as a *ReceivedJumpError: with keys that only encrypt anybody
// could send the highest, and nothing of the meter would be taken any more.
func (w *Window) Keep(store Received, loss uint32, keys ...KeyID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.store, w.loss, w.kept = store, loss, keys
}

// ReceivedJumpError is the alarm that a received counter is further ahead of the
// last than lost sessions explain.
type ReceivedJumpError struct {
	Title     Title // of the sender
	Last, Got uint32
}

func (e *ReceivedJumpError) Error() string {
	return fmt.Sprintf("alarm: the received invocation counter %d of %v is %d ahead of the last (over %d)", e.Got, e.Title, e.Got-e.Last, MaxJump)
}

// ErrReceivedStore says that the store of received counters does not answer:
// nothing is taken then.
var ErrReceivedStore = errors.New("received invocation counters")

type windowKey struct {
	title     Title
	key       KeyID
	direction Direction
}

// Last gives the highest counter received; ok is false before the first, and
// where the store does not answer.
func (w *Window) Last(title Title, key KeyID, d Direction) (counter uint32, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	counter, ok, err := w.recall(windowKey{title, key, d})
	return counter, ok && err == nil
}

// Note remembers a counter as received. It never lowers. A store that does not
// take it is told again with the next.
func (w *Window) Note(title Title, key KeyID, d Direction, counter uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.note(windowKey{title, key, d}, counter)
}

// Forget forgets a direction: for meters that begin their counter anew with
// each association. What a store keeps is not forgotten.
func (w *Window) Forget(title Title, key KeyID, d Direction) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.last, windowKey{title, key, d})
}

func (w *Window) keeps(k windowKey) bool { return w.store != nil && slices.Contains(w.kept, k.key) }

func (w *Window) recall(k windowKey) (counter uint32, seen bool, err error) {
	if !w.keeps(k) {
		counter, seen = w.last[k]
		return counter, seen, nil
	}
	counter, seen, err = w.store.LastReceived(k.title, k.key, k.direction)
	if err != nil {
		return 0, false, fmt.Errorf("%w: %w", ErrReceivedStore, err)
	}
	return counter, seen, nil
}

func (w *Window) note(k windowKey, counter uint32) error {
	if w.keeps(k) {
		if err := w.store.NoteReceived(k.title, k.key, k.direction, counter, w.loss); err != nil {
			return fmt.Errorf("%w: %w", ErrReceivedStore, err)
		}
		return nil
	}
	if w.last == nil {
		w.last = make(map[windowKey]uint32)
	}
	if last, seen := w.last[k]; !seen || counter > last {
		w.last[k] = counter
	}
	return nil
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
	return w.note(k, counter)
}

func (w *Window) rises(k windowKey, counter uint32) error {
	last, seen, err := w.recall(k)
	switch {
	case err != nil:
		return err
	case seen && counter <= last:
		return &ReplayError{Title: k.title, Last: last, Got: counter}
	case seen && w.keeps(k) && counter-last > MaxJump:
		return &ReceivedJumpError{Title: k.title, Last: last, Got: counter}
	case !seen && len(w.last) >= maxRemembered:
		return fmt.Errorf("%w: %d are remembered", ErrCrowded, len(w.last))
	}
	return nil
}
