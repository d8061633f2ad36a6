package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Document is the newest document of its kind for a target that was accepted.
type Document struct {
	Version uint64 // rises, and never goes back
	Hash    Hash   // of its octets
}

// ErrBackwards says that a version, or the number of an audit entry, is not
// above the one before.
var ErrBackwards = errors.New("would go backwards")

// Document gives the newest document of a kind for a target; ok is false when
// none was accepted. One that does not read has the highest version that there
// is: nothing is taken any more.
func (s *State) Document(kind, target string) (d Document, ok bool) {
	v := s.get(kindDocument, documentKey(kind, target))
	if v == nil {
		return Document{}, false
	}
	if d.Version, d.Hash, ok = numberAndHash(v); !ok {
		return Document{Version: 1<<64 - 1}, true
	}
	return d, true
}

// SetDocument stores that a document was accepted. The same again changes
// nothing; a version that is not above the one before is ErrBackwards.
func (s *State) SetDocument(kind, target string, d Document) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := documentKey(kind, target)
	return s.raise(kindDocument, key, d.Version, d.Hash)
}

func documentKey(kind, target string) string { return kind + "\x00" + target }

// AuditHead is the end of the chain of audit entries.
type AuditHead struct {
	Number uint64 // of the last entry, from 1 on
	Hash   Hash   // of it and so of all before
}

// AuditHead gives the end of the chain; ok is false when there is none, or it
// does not read.
func (s *State) AuditHead() (h AuditHead, ok bool) {
	h.Number, h.Hash, ok = numberAndHash(s.get(kindAudit, ""))
	return h, ok
}

// SetAuditHead stores the end of the chain. Its number rises: another is
// ErrBackwards.
func (s *State) SetAuditHead(h AuditHead) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.raise(kindAudit, "", h.Number, h.Hash)
}

// raise stores a number that only rises, and a hash. mu is held.
func (s *State) raise(kind byte, key string, n uint64, h Hash) error {
	if err := s.mayWrite(); err != nil {
		return err
	}
	if i, ok := s.find(kind, key); ok {
		have, hash, whole := numberAndHash(s.records[i].value)
		switch {
		case !whole:
			return fmt.Errorf("state %s: %w: what was before does not read", s.dir, ErrBackwards)
		case n == have && h == hash && !s.dirty:
			return nil
		case n < have || n == have && h != hash:
			return fmt.Errorf("state %s: %d after %d: %w", s.dir, n, have, ErrBackwards)
		}
	}
	s.put(kind, key, append(binary.AppendUvarint(nil, n), h[:]...))
	return s.commit()
}

func numberAndHash(v []byte) (n uint64, h Hash, ok bool) {
	n, size := binary.Uvarint(v)
	if size <= 0 || len(v)-size != len(h) {
		return 0, Hash{}, false
	}
	copy(h[:], v[size:])
	return n, h, true
}

// Trust gives the keys that documents are verified with, as SetTrust was given
// them; nil when there are none. Do not change it.
func (s *State) Trust() []byte { return s.get(kindTrust, "") }

// SetTrust stores the keys that documents are verified with.
func (s *State) SetTrust(keys []byte) error {
	return s.set(kindTrust, "", append([]byte{}, keys...))
}

// Trial is a configuration or a firmware that has to prove itself.
type Trial struct {
	Step      uint8     // how far it has come; what the steps are its owner knows
	Deadline  time.Time // in whole seconds: not proven by then, it is reverted
	Candidate Hash
	Previous  Hash // what to go back to
}

// Trial gives the trial that runs; ok is false when none does.
func (s *State) Trial() (t Trial, ok bool) {
	v := s.get(kindTrial, "")
	if len(v) < 1 {
		return Trial{}, false
	}
	at, size := binary.Uvarint(v[1:])
	if size <= 0 || len(v)-1-size != len(t.Candidate)+len(t.Previous) {
		return Trial{}, false
	}
	copy(t.Candidate[:], v[1+size:])
	copy(t.Previous[:], v[1+size+len(t.Candidate):])
	t.Step, t.Deadline = v[0], time.Unix(int64(min(at, 1<<40)), 0)
	return t, true
}

// SetTrial stores how far a trial has come.
func (s *State) SetTrial(t Trial) error {
	v := binary.AppendUvarint([]byte{t.Step}, uint64(max(t.Deadline.Unix(), 0)))
	v = append(v, t.Candidate[:]...)
	return s.set(kindTrial, "", append(v, t.Previous[:]...))
}

// EndTrial stores that no trial runs.
func (s *State) EndTrial() error { return s.set(kindTrial, "", nil) }
