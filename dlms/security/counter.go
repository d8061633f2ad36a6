package security

import (
	"errors"
	"fmt"
	"sync"
)

// MaxJump is how far the counter of a meter may be ahead of ours before that
// is an alarm and not a lost session: counters are read in the clear, and who
// can make us jump can use up the key.
const MaxJump = 1 << 20

// DefaultStep is how many counters are reserved at a time: a crash loses as
// many, and a store is written once for as many.
const DefaultStep = 256

const lastCounter = 1<<32 - 1

// Store keeps, over crashes and power cuts, which invocation counters were
// given away. It must never be restored from a backup and never be shared by
// copying: a counter used twice gives the key away.
type Store interface {
	// Reserve gives away n counters, the first of which it returns, and none of
	// which it gave away before: 0 to n-1 for a title and key that it does not
	// know. It returns only when that is on the disk. It is ErrExhausted when
	// there are no n left. With n of 0 nothing is given away: first is the next
	// that would be, or 0 where that is not known.
	Reserve(title Title, key KeyID, n uint32) (first uint32, err error)
	// Raise counts all counters below next as given away; it never lowers. It
	// returns only when that is on the disk.
	Raise(title Title, key KeyID, next uint32) error
}

// JumpError is the alarm that a meter's counter is further ahead than lost
// sessions explain: somebody else uses the key, the store is an old one, or
// what was read is a lie.
type JumpError struct {
	Next uint32 // the counter that we would use, or would if we had not followed the meter before
	Read uint32 // the last that the meter says it took
}

func (e *JumpError) Error() string {
	return fmt.Sprintf("alarm: the meter's invocation counter %d is %d ahead of ours (over %d): is the key used elsewhere?",
		e.Read, uint64(e.Read)+1-uint64(e.Next), MaxJump)
}

// errBackwards: the store broke its promise.
var errBackwards = errors.New("the store gave away a counter twice")

// Counter draws the invocation counters of one title and key, all that this
// process uses: two Counters over one Store do not collide, but each reserves
// its own. Keep it from association to association, lest each costs a step.
// Safe for concurrent use.
type Counter struct {
	mu        sync.Mutex
	store     Store
	title     Title
	key       KeyID
	step      uint32
	next, end uint64 // reserved and not drawn
	leapt     uint64 // by Resync, since the meter took a counter
	fresh     bool   // the first reservation began at 0
}

// NewCounter gives the counters of the device with that title under that key.
// They are reserved step at a time; 0 is DefaultStep.
func NewCounter(store Store, title Title, key Key, step uint32) *Counter {
	if step == 0 {
		step = DefaultStep
	}
	return &Counter{store: store, title: title, key: key.ID(), step: step}
}

// Next draws a counter. It is given to nobody else, whatever happens after.
func (c *Counter) Next() (uint32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.fill(); err != nil {
		return 0, err
	}
	n := uint32(c.next)
	c.next++
	return n, nil
}

// Fresh says whether the store did not know title and key before: that is a
// new key, or a store that was lost. See Anchor.
func (c *Counter) Fresh() (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.fill()
	return c.fresh, err
}

// Resync goes on after what a meter says is the last counter it took. It is
// for after a failure; a counter that is ahead of the meter's stays. Over
// MaxJump, in all since the meter took a counter (Took), it is a *JumpError, and
// nothing changes; until somebody raises the counter in the store, which Resync
// then goes by.
func (c *Counter) Resync(read uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.fill(); err != nil {
		return err
	}
	next := uint64(read) + 1
	if next > c.next && next > c.next-c.leapt+MaxJump {
		if err := c.lookAgain(); err != nil {
			return err
		}
	}
	switch from := c.next - c.leapt; {
	case next <= c.next:
		return nil
	case next > from+MaxJump:
		return &JumpError{Next: uint32(from), Read: read}
	}
	leap := next - c.next
	err := c.raise(next)
	if err == nil {
		c.leapt += leap
	}
	return err
}

// Took says that the meter took a counter, so that where Resync went was right.
func (c *Counter) Took() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leapt = 0
}

// lookAgain goes on where the store does: somebody who looked at a jump may have
// raised it there.
func (c *Counter) lookAgain() error {
	first, err := c.store.Reserve(c.title, c.key, 0)
	if err != nil {
		return fmt.Errorf("reserve invocation counters: %w", err)
	}
	if uint64(first) > c.end {
		c.next, c.end, c.leapt = uint64(first), uint64(first), 0
	}
	return nil
}

// Anchor goes on with next or higher, however far that is. It is for the first
// use of a key and for when an operator has decided.
func (c *Counter) Anchor(next uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.raise(uint64(next))
}

// raise draws nothing below next any more.
func (c *Counter) raise(next uint64) error {
	switch {
	case next <= c.next:
		return nil
	case next < c.end:
		c.next = next
		return nil
	case next > lastCounter:
		return ErrExhausted
	}
	if err := c.store.Raise(c.title, c.key, uint32(next)); err != nil {
		return fmt.Errorf("raise invocation counter: %w", err)
	}
	c.next, c.end = next, next
	return nil
}

// fill reserves when nothing is left.
func (c *Counter) fill() error {
	if c.next < c.end {
		return nil
	}
	first, err := c.store.Reserve(c.title, c.key, c.step)
	switch {
	case err != nil:
		return fmt.Errorf("reserve invocation counters: %w", err)
	case uint64(first) < c.end:
		return fmt.Errorf("reserve invocation counters: %w: %d after %d", errBackwards, first, c.end)
	}
	c.fresh = c.fresh || first == 0
	c.next, c.end = uint64(first), uint64(first)+uint64(c.step)
	return nil
}

// fits says whether the counter is that of title and key.
func (c *Counter) fits(title Title, key Key) error {
	switch {
	case c == nil:
		return errors.New("no invocation counter given")
	case c.title != title:
		return fmt.Errorf("%w: the invocation counter is that of %v", ErrTitle, c.title)
	case c.key != key.ID():
		return fmt.Errorf("%w: the invocation counter is that of another", ErrKey)
	}
	return nil
}

// Memory is a Store for as long as the process lives: for tests, and for tools
// that read the counter from the meter before each use. The zero value is
// ready. Safe for concurrent use.
type Memory struct {
	mu   sync.Mutex
	next map[titleKey]uint64
}

type titleKey struct {
	title Title
	key   KeyID
}

// Reserve gives away the next n.
func (m *Memory) Reserve(title Title, key KeyID, n uint32) (uint32, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	first := m.next[titleKey{title, key}]
	if first+uint64(n) > lastCounter+1 {
		return 0, ErrExhausted
	}
	m.set(titleKey{title, key}, first+uint64(n))
	return uint32(first), nil
}

// Raise counts all below next as given away.
func (m *Memory) Raise(title Title, key KeyID, next uint32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set(titleKey{title, key}, max(uint64(next), m.next[titleKey{title, key}]))
	return nil
}

func (m *Memory) set(k titleKey, next uint64) {
	if m.next == nil {
		m.next = make(map[titleKey]uint64)
	}
	m.next[k] = next
}
