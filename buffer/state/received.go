package state

import (
	"encoding/binary"
	"fmt"

	"gridgate/dlms/security"
)

// The most senders that are remembered under a key, and in all: far above the
// meters of a gateway and the keys that they ever have, far below what fills the
// state. Who sends what is encrypted only can give himself any title.
const (
	maxReceivedOfKey = 1 << 12
	maxReceived      = 1 << 16
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
// latest that of Close. So many meters that are read alike are one write. Where
// there are too many senders, a new one is security.ErrCrowded.
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
	} else if err := s.roomFor(key); err != nil {
		return err
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

// roomFor says whether a new sender under a key may be remembered. mu is held.
func (s *State) roomFor(key security.KeyID) error {
	all, alike := 0, 0
	for _, r := range s.records {
		if r.kind == kindReceived {
			if all++; isUnder(r, key) {
				alike++
			}
		}
	}
	if alike >= maxReceivedOfKey || all >= maxReceived {
		return fmt.Errorf("state %s: %w: %d are remembered, %d of this key", s.dir, security.ErrCrowded, all, alike)
	}
	return nil
}

// isUnder says whether a record of what was received is under a key.
func isUnder(r record, key security.KeyID) bool {
	return len(r.key) == security.TitleLen+len(key)+1 && r.key[security.TitleLen:len(r.key)-1] == string(key[:])
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

// Heard lists what was received under a key.
func (s *State) Heard(key security.KeyID) ([]security.Heard, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []security.Heard
	for _, r := range s.records {
		if r.kind != kindReceived || !isUnder(r, key) {
			continue
		}
		all = append(all, security.Heard{
			Title: security.Title([]byte(r.key[:security.TitleLen])), Direction: security.Direction(r.key[len(r.key)-1]),
			Counter: receivedCounter(r.value),
		})
	}
	return all, s.mayWrite()
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
