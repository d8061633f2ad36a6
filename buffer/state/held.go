package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// ErrHeld says that the state cannot be written for now: the disk is full, read
// only, or not the agent's.
var ErrHeld = errors.New("cannot be written")

// Hold gives a state in dir that Open could not open, for reason. It has what its
// copies say, where they can be read, and takes nothing that must survive:
// counters are neither reserved nor compared, so that none is ever used twice.
// What meters refused and took is kept in memory, so that a run of the process
// tries no password more often than it may. Retry ends it.
func Hold(dir string, reason error) *State {
	s := &State{
		dir: dir, counters: map[string]counter{}, received: map[string]int64{},
		held: fmt.Errorf("%w: %w", ErrHeld, reason), touched: map[recordKey]bool{},
	}
	for _, name := range copies() {
		c, err := readCopy(filepath.Join(dir, name), os.O_RDONLY)
		if err == nil && c.whole && c.generation >= s.generation {
			s.records, s.generation = c.records, c.generation
		}
	}
	return s
}

// Held says why the state cannot be written, nil when it can.
func (s *State) Held() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// recordKey names a record.
type recordKey struct {
	kind byte
	key  string
}

// isKept says whether a record of that kind may be kept in memory while the
// state is held.
func isKept(kind byte) bool {
	return kind == kindRefusals || kind == kindAccepted || kind == kindExchanged || kind == kindSalt
}

// Retry opens a held state: what is on the disk counts, and what was kept in
// memory since is added to it. An error leaves it held; ErrInUse and a
// *FormatError are among them. A state that is not held is left as it is.
func (s *State) Retry(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil || s.closed {
		return nil
	}
	n, err := Open(s.dir)
	if errors.Is(err, ErrLost) {
		n, err = Renew(s.dir, now)
	}
	if err != nil {
		s.held = fmt.Errorf("%w: %w", ErrHeld, err)
		return err
	}
	for k := range s.touched {
		if _, there := n.find(k.kind, k.key); there && k.kind == kindSalt {
			continue // names made with the other one say nothing any more
		}
		var value []byte
		if i, ok := s.find(k.kind, k.key); ok {
			value = s.records[i].value
		}
		n.put(k.kind, k.key, value)
	}
	if len(s.touched) > 0 {
		if err := n.commit(); err != nil {
			return errors.Join(err, n.Close())
		}
	}
	s.lock, s.fresh, s.repaired = n.lock, n.fresh, n.repaired
	s.records, s.generation, s.dirty, s.pending = n.records, n.generation, n.dirty, n.pending
	s.counters, s.received = n.counters, n.received
	s.held, s.touched = nil, nil
	return nil
}
