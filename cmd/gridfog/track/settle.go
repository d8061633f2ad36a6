package track

import (
	"gridgate/internal/mqtt"
)

// Settled is how far a stream came without a gap: every number up to Through
// came, was declared lost, or was confirmed earlier.
type Settled struct {
	Stream
	Through uint64
}

// Settle gives the streams that came further since the last call.
func (t *Tracker) Settle() (further []Settled) {
	for name, s := range t.streams {
		before := s.settled
		for next := s.settled + 1; ; next = s.settled + 1 {
			if last, ok := s.rows.through(next); ok {
				s.settled = last
			} else if last, ok := s.holes.through(next); ok {
				s.settled = last
			} else {
				break
			}
		}
		if s.settled > before {
			further = append(further, Settled{name, s.settled})
		}
	}
	return further
}

// Confirmed notes what was confirmed of a stream before this tracker began.
func (t *Tracker) Confirmed(name Stream, through uint64) {
	s := t.stream(name)
	s.settled = max(s.settled, through)
}

// through gives the end of the stretch that n is in.
func (s set) through(n uint64) (last uint64, ok bool) {
	if i := s.at(n); i < len(s) && s[i].first <= n {
		return s[i].last, true
	}
	return 0, false
}

// confirmation takes what a fog, mostly this one, retained earlier.
func (r *Receiver) confirmation(topic mqtt.Topic, payload []byte) error {
	c, err := mqtt.ParseConfirmation(payload)
	if err != nil {
		return err
	}
	r.Tracker.Confirmed(Stream{string(topic.Site), string(topic.Gateway), c.Epoch, topic.Lane}, c.Sequence)
	return nil
}
