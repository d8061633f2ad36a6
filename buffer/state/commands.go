package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Stage is how far a command has come.
type Stage uint8

// The stages. The numbers are part of the stored format.
const (
	// Begun stands before the first octet goes to a meter. Found after a
	// restart, nobody knows whether the command was carried out.
	Begun Stage = iota + 1
	Done
	Failed
	Unknown // begun, and cut off
)

// Command is a command that was taken to be carried out.
type Command struct {
	Stage   Stage
	Expires time.Time // in whole seconds: from then on it would be refused anyway
	Result  []byte    // as EndCommand was given it
}

const (
	// maxCommands bounds how many commands are remembered that have not
	// expired; maxResult the octets of a result.
	maxCommands = 4096
	maxResult   = 512
)

var (
	// ErrExecuted says that a command was begun before: it is not to be
	// carried out again.
	ErrExecuted = errors.New("begun before")
	// ErrTooMany says that there are as many commands as can be remembered,
	// none of which has expired.
	ErrTooMany = errors.New("too many commands that have not expired")
)

// Command gives what is known of a command; ok is false when it was never
// begun, or has ended and expired and was forgotten. One that does not read is Unknown.
func (s *State) Command(id string) (c Command, ok bool) {
	v := s.get(kindCommand, id)
	if v == nil {
		return Command{}, false
	}
	return parseCommand(v), true
}

func parseCommand(v []byte) Command {
	if len(v) < 1 {
		return Command{Stage: Unknown}
	}
	at, size := binary.Uvarint(v[1:])
	if size <= 0 || Stage(v[0]) < Begun || Stage(v[0]) > Unknown {
		return Command{Stage: Unknown}
	}
	return Command{Stage: Stage(v[0]), Expires: time.Unix(int64(min(at, 1<<40)), 0), Result: v[1+size:]}
}

func appendCommand(c Command) []byte {
	v := binary.AppendUvarint([]byte{byte(c.Stage)}, uint64(max(c.Expires.Unix(), 0)))
	return append(v, c.Result...)
}

// BeginCommand stores that a command is about to be carried out: at most once,
// whatever happens after. A second time is ErrExecuted. Commands that have ended
// and expired before now are forgotten.
func (s *State) BeginCommand(id string, expires, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mayWrite(); err != nil {
		return err
	}
	if _, known := s.find(kindCommand, id); known {
		return fmt.Errorf("state %s: command %s: %w", s.dir, id, ErrExecuted)
	}
	if s.forgetCommands(now) >= maxCommands {
		return fmt.Errorf("state %s: command %s: %w", s.dir, id, ErrTooMany)
	}
	if expires.Nanosecond() > 0 { // not forgotten while it is valid
		expires = expires.Truncate(time.Second).Add(time.Second)
	}
	s.put(kindCommand, id, appendCommand(Command{Stage: Begun, Expires: expires}))
	return s.commit()
}

// forgetCommands forgets those that have ended and expired, and counts the others:
// one that takes longer than it was valid for is not taken for new after a
// restart. It is written with what comes next. mu is held.
func (s *State) forgetCommands(now time.Time) (left int) {
	kept := s.records[:0:0]
	for _, r := range s.records {
		if r.kind == kindCommand {
			c := parseCommand(r.value)
			if c.Stage != Begun && !c.Expires.IsZero() && c.Expires.Before(now) {
				continue
			}
			left++
		}
		kept = append(kept, r)
	}
	if len(kept) != len(s.records) {
		s.records, s.pending = kept, true
	}
	return left
}

// EndCommand stores what became of a command that was begun. A result is cut
// off after 512 octets.
func (s *State) EndCommand(id string, stage Stage, result []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mayWrite(); err != nil {
		return err
	}
	i, known := s.find(kindCommand, id)
	if !known {
		return fmt.Errorf("state %s: command %s was never begun", s.dir, id)
	}
	c := parseCommand(s.records[i].value)
	c.Stage, c.Result = stage, result[:min(len(result), maxResult)]
	s.put(kindCommand, id, appendCommand(c))
	return s.commit()
}

// OpenCommands gives the commands that were begun and have no end: after a
// restart nobody knows what became of them.
func (s *State) OpenCommands() (ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.records {
		if r.kind == kindCommand && parseCommand(r.value).Stage == Begun {
			ids = append(ids, r.key)
		}
	}
	return slices.Clip(ids)
}
