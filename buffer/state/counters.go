package state

import (
	"encoding/binary"
	"fmt"

	"gridgate/dlms/security"
)

// lastCounter is the highest invocation counter that there is.
const lastCounter = 1<<32 - 1

// counter is what may be given away of an invocation counter without a write:
// next to end-1. The copies hold end.
type counter struct{ next, end uint64 }

// KnownCounters says whether counters of that title and key were ever reserved
// here. Where not, the first must be above what the meter took from others:
// see Raise.
func (s *State) KnownCounters(title security.Title, key security.KeyID) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, known := s.find(kindCounter, counterKey(title, key))
	return known, s.mayWrite()
}

// Reserve gives away n invocation counters, as security.Store says.
//
// When it has to write, it sees to it that every title and key has as many left,
// and twice as many where it was drawn from since Open: a start of a gateway with
// a thousand meters, each of which is read and pushes, is two writes, and not two
// thousand of the whole state.
func (s *State) Reserve(title security.Title, key security.KeyID, n uint32) (first uint32, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mayWrite(); err != nil {
		return 0, err
	}
	name := counterKey(title, key)
	c := s.counter(name)
	if c.next+uint64(n) > lastCounter+1 {
		return 0, fmt.Errorf("state %s: %w", s.dir, security.ErrExhausted)
	}
	if c.end-c.next < uint64(n) || s.dirty {
		ahead := s.reserveAhead(name, uint64(n))
		if err := s.commit(); err != nil {
			return 0, err
		}
		for name, c := range ahead {
			s.counters[name] = c
		}
		c = ahead[name]
	}
	s.counters[name] = counter{c.next + uint64(n), c.end}
	return uint32(c.next), nil
}

// Raise counts all counters below next as given away, as security.Store says.
func (s *State) Raise(title security.Title, key security.KeyID, next uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mayWrite(); err != nil {
		return err
	}
	name := counterKey(title, key)
	c := s.counter(name)
	raised := counter{max(c.next, uint64(next)), max(c.end, uint64(next))}
	_, known := s.find(kindCounter, name)
	if !known || raised.end != c.end || s.dirty {
		s.put(kindCounter, name, binary.AppendUvarint(nil, raised.end))
		if err := s.commit(); err != nil {
			return err
		}
	}
	s.counters[name] = raised
	return nil
}

// reserveAhead raises the records of all counters that have fewer left than is
// said at Reserve, and that of name, which may be new, as far as there are as many. It gives what there is to give away
// once that is written. mu is held.
func (s *State) reserveAhead(name string, n uint64) map[string]counter {
	if _, known := s.find(kindCounter, name); !known {
		s.put(kindCounter, name, binary.AppendUvarint(nil, 0))
	}
	ahead := map[string]counter{}
	for i, r := range s.records {
		if r.kind != kindCounter {
			continue
		}
		c := s.counter(r.key)
		want := c.next + n
		if _, drawn := s.counters[r.key]; drawn {
			want += n
		}
		if want = min(want, lastCounter+1); c.end < want {
			c.end = want
			s.records[i].value = binary.AppendUvarint(nil, max(c.end, recorded(r.value)))
		}
		ahead[r.key] = c
	}
	return ahead
}

// counter gives what is to be given away of a counter. After Open nothing is:
// what the process before had reserved counts as given away. mu is held.
func (s *State) counter(name string) counter {
	if c, ok := s.counters[name]; ok {
		return c
	}
	if i, ok := s.find(kindCounter, name); ok {
		end := recorded(s.records[i].value)
		return counter{end, end}
	}
	return counter{}
}

// recorded reads a record. One that does not read gives nothing away any more.
func recorded(value []byte) uint64 {
	n, size := binary.Uvarint(value)
	if size <= 0 || n > lastCounter+1 {
		return lastCounter + 1
	}
	return n
}

// commit writes what was put. mu is held.
func (s *State) commit() error {
	if err := s.write(); err != nil {
		return fmt.Errorf("state %s: %w", s.dir, err)
	}
	return nil
}

// mayWrite says whether the state is open and not held. mu is held.
func (s *State) mayWrite() error {
	if s.held != nil && !s.closed {
		return fmt.Errorf("state %s: %w", s.dir, s.held)
	}
	if s.closed {
		return fmt.Errorf("state %s: %w", s.dir, ErrClosed)
	}
	return nil
}

func counterKey(title security.Title, key security.KeyID) string {
	return string(title[:]) + string(key[:])
}
