package hdlc

import (
	"bytes"
	"errors"
)

// Splitter finds the frames in the octets that come in. What is no frame is
// passed over; two frames may share a flag. The zero value is ready. Not safe
// for concurrent use.
//
// A frame begun holds up what comes after it until it is whole, or until Skip:
// whoever sees the line fall silent within a frame calls that.
type Splitter struct {
	buf   []byte // what came in
	from  int    // octets of buf that are through
	taken int    // octets after from that the frame given last takes
}

// Feed takes what came in. It voids the frame that Next gave.
func (s *Splitter) Feed(b []byte) {
	s.drop(s.taken)
	if s.from > 0 {
		s.buf, s.from = s.buf[:copy(s.buf, s.buf[s.from:])], 0
	}
	s.buf = append(s.buf, b...)
}

// Next gives the next frame that is whole and whose checks are right, with
// both its flags. It is good until the next call of any method.
func (s *Splitter) Next() (frame []byte, ok bool) {
	for s.drop(s.taken); ; s.drop(1) {
		s.drop(indexFlag(s.buf[s.from:]))
		switch length, state := s.first(); state {
		case partial: // or nothing
			return nil, false
		case whole:
			s.taken = length + 1 // the flag at its end may start the next
			return s.buf[s.from : s.from+length+2], true
		case none:
		}
	}
}

// indexFlag gives where the first flag is that may start a frame, or the end.
func indexFlag(b []byte) int {
	if i := bytes.IndexByte(b, flag); i >= 0 {
		return i
	}
	return len(b)
}

// Partial says whether a frame has begun and is not whole. A flag alone is
// none: it may be the end of the frame before.
func (s *Splitter) Partial() bool { return len(s.buf)-s.from-s.taken > 1 }

// Skip gives up the frame that has begun: one that is within it may be next.
func (s *Splitter) Skip() {
	s.drop(s.taken)
	s.drop(1)
}

// Reset drops all that came in.
func (s *Splitter) Reset() { s.buf, s.from, s.taken = s.buf[:0], 0, 0 }

func (s *Splitter) drop(n int) {
	s.taken = 0
	s.from = min(s.from+n, len(s.buf))
}

type candidate uint8

const (
	none    candidate = iota // what the flag starts is no frame
	partial                  // it may become one
	whole
)

// first says what the flag that buf starts with is.
func (s *Splitter) first() (length int, state candidate) {
	b := s.buf[s.from:]
	switch {
	case len(b) < 2:
		return 0, partial
	case b[1]&0xF0 != formatType:
		return 0, none
	case len(b) < 3:
		return 0, partial
	}
	length, err := parseFormat(b)
	if err != nil {
		return 0, none
	}
	switch {
	case !headerFits(b, length):
		return 0, none
	case len(b) < length+2:
		return length, partial
	case b[length+1] != flag, !isChecked(b[1 : length+1]):
		return 0, none
	}
	return length, whole
}

// headerFits says whether the header of what b starts with, as far as it is
// there, may be one: it unmasks most of what noise begins, before the length
// that noise tells is waited for.
func headerFits(b []byte, length int) bool {
	body := b[1:min(len(b), length+1)]
	var f Frame
	at, err := f.parseHeader(body)
	if err != nil {
		return errors.Is(err, ErrShort) && len(body) < length-checkLen
	}
	return length <= at+checkLen || len(body) < at+checkLen || isChecked(body[:at+checkLen])
}
