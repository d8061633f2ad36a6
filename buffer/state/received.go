package state

import (
	"encoding/binary"
	"fmt"

	"gridgate/dlms/security"
)

// LastReceived gives the highest invocation counter received of a sender, as
// security.Received says.
func (s *State) LastReceived(title security.Title, key security.KeyID, d security.Direction) (counter uint32, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mayWrite(); err != nil {
		return 0, false, err
	}
	i, ok := s.find(kindReceived, receivedKey(title, key, d))
	if !ok {
		return 0, false, nil
	}
	return receivedCounter(s.records[i].value), true, nil
}

// NoteReceived remembers an invocation counter as received, as
// security.Received says. It writes when the counter is loss above what the
// copies hold; what is below goes along with the next write of anything, at the
// latest that of Close. So many meters that are read alike are one write.
func (s *State) NoteReceived(title security.Title, key security.KeyID, d security.Direction, counter, loss uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mayWrite(); err != nil {
		return err
	}
	name := receivedKey(title, key, d)
	last := int64(-1)
	if i, ok := s.find(kindReceived, name); ok {
		last = int64(receivedCounter(s.records[i].value))
	}
	base, waits := s.received[name]
	if !waits {
		base = last
	}
	if int64(counter) > last {
		if last = int64(counter); base < 0 {
			base = last - 1
		}
		s.put(kindReceived, name, binary.AppendUvarint(nil, uint64(counter)))
		s.received[name], s.pending = base, true
	}
	if last-base <= int64(loss) {
		return nil
	}
	return s.commit()
}

// ForgetReceived forgets what was received of a sender: what comes next is
// taken, whatever its counter. It is for when a person has decided.
func (s *State) ForgetReceived(title security.Title, key security.KeyID, d security.Direction) error {
	name := receivedKey(title, key, d)
	if err := s.set(kindReceived, name, nil); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.received, name)
	return nil
}

// Counter is what is kept of the invocation counters of one system title, key
// and direction.
type Counter struct {
	Title    security.Title // of who sends
	Key      security.KeyID
	Received bool   // received of a meter; else drawn by this gateway
	Counter  uint64 // the last received; or the next that will be drawn
}

// Counters lists all invocation counters that are kept.
func (s *State) Counters() ([]Counter, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mayWrite(); err != nil {
		return nil, err
	}
	const names = security.TitleLen + len(security.KeyID{})
	var all []Counter
	for _, r := range s.records {
		if r.kind != kindCounter && r.kind != kindReceived || len(r.key) < names {
			continue
		}
		c := Counter{
			Title: security.Title([]byte(r.key[:security.TitleLen])), Key: security.KeyID([]byte(r.key[security.TitleLen:names])),
			Received: r.kind == kindReceived,
		}
		if c.Counter = s.counter(r.key).next; c.Received {
			c.Counter = uint64(receivedCounter(r.value))
		}
		all = append(all, c)
	}
	return all, nil
}

// receivedCounter reads a record. One that does not read takes nothing any more.
func receivedCounter(value []byte) uint32 {
	n, size := binary.Uvarint(value)
	if size <= 0 || n > lastCounter {
		return lastCounter
	}
	return uint32(n)
}

func receivedKey(title security.Title, key security.KeyID, d security.Direction) string {
	return counterKey(title, key) + string([]byte{byte(d)})
}

// flush writes what waits for a write. mu is held.
func (s *State) flush() error {
	if !s.pending {
		return nil
	}
	if err := s.commit(); err != nil {
		return fmt.Errorf("what was received last: %w", err)
	}
	return nil
}
