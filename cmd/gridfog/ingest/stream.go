package ingest

import (
	"time"

	"gridgate/agent/batch"
)

// streamKey names a sequence of numbers.
type streamKey struct {
	Site, Gateway string
	Epoch         uint64
	Lane          batch.Lane
}

// stream is how far a sequence is stored, as the table streams has it.
//
//	1 ....... floor ....... through ............ high
//	all settled │ stored or lost  │ stored, lost, missing
//
// Numbers up to floor are settled for good. Above it stored and lost say which
// are what, so that a row that was given up is taken when it comes after all.
type stream struct {
	id           int32
	floor        int64
	stored, lost numbers
	high         int64
	rows         int64
	gapSince     time.Time // zero when nothing is missing
}

// maxLost is how many stretches of lost numbers are remembered apart; with
// more, the oldest are settled for good.
const maxLost = 200

// isStored says whether a row with this number is here already, or is taken no
// more.
func (s *stream) isStored(n int64) bool { return n <= s.floor || s.stored.has(n) }

// store notes rows.
func (s *stream) store(first, last int64) {
	s.stored.add(first, last)
	s.lost = s.lost.minus(numbers{{first, last}})
	s.high = max(s.high, last)
}

// lose notes numbers that carry no row, and gives those of them that were
// missing until now.
func (s *stream) lose(first, last int64) (fresh numbers) {
	s.high = max(s.high, last)
	first = max(first, s.floor+1)
	for _, part := range s.stored.without(first, last) {
		fresh = append(fresh, s.lost.without(part.first, part.last)...)
	}
	for _, f := range fresh {
		s.lost.add(f.first, f.last)
	}
	return fresh
}

// settle moves the floor up as far as it goes, and notes since when numbers are
// missing.
func (s *stream) settle(now time.Time) {
	s.rise()
	for through := s.through(); len(s.lost) > maxLost && s.lost[0].last <= through; s.rise() {
		s.floor = max(s.floor, s.lost[0].last)
		s.lost = s.lost[1:]
	}
	switch {
	case len(s.missing()) == 0:
		s.gapSince = time.Time{}
	case s.gapSince.IsZero():
		s.gapSince = now
	}
}

// rise moves the floor over what is stored above it.
func (s *stream) rise() {
	for len(s.stored) > 0 && s.stored[0].first <= s.floor+1 {
		s.floor = max(s.floor, s.stored[0].last)
		s.stored = s.stored[1:]
	}
}

// through is the number up to which all are stored or lost.
func (s *stream) through() int64 {
	n := s.floor
	for a, b := s.stored, s.lost; ; {
		switch {
		case len(a) > 0 && a[0].first <= n+1:
			n, a = max(n, a[0].last), a[1:]
		case len(b) > 0 && b[0].first <= n+1:
			n, b = max(n, b[0].last), b[1:]
		default:
			return n
		}
	}
}

// missing gives the numbers up to the highest seen that are neither stored nor
// lost.
func (s *stream) missing() (gaps numbers) {
	if s.floor >= s.high {
		return nil
	}
	for _, part := range s.stored.without(s.floor+1, s.high) {
		gaps = append(gaps, s.lost.without(part.first, part.last)...)
	}
	return gaps
}
