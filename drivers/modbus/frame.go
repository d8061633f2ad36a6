package modbus

import (
	"bytes"
	"encoding/binary"
)

// An RTU frame is (Modbus over Serial Line V1.02, 2.5.1)
//
//	unit      1 byte
//	function  1 byte   with 0x80 set: an exception
//	data
//	CRC       2 bytes  low byte first, over all before it
//
// of which two are answers to a read of n registers, and the third and fourth to
// a write of them (function 16):
//
//	unit function 2n data[2n] CRC
//	unit function|0x80 code CRC
//	unit 16 address[2] n[2] CRC
//	unit 16|0x80 code CRC
const (
	headLen      = 3
	crcLen       = 2
	requestLen   = 8
	exceptionLen = 5
	writtenLen   = 8
	exceptionBit = 0x80

	writeMultiple = 16
)

// shape is what tells the answer to one read from that to another: RTU has no
// other mark.
type shape struct {
	function uint8
	count    uint16
}

// answerLen is how long the answer to a read of count registers is.
func answerLen(count uint16) int { return headLen + 2*int(count) + crcLen }

// matcher finds the answer to one request in what a line gives: among noise,
// echoes, answers that come late, and the talk of others.
type matcher struct {
	request []byte
	unit    uint8
	want    shape
	buf     []byte
	found
	settled found // of the bytes that need not be looked at again
}

// found is what a scan saw up to a place in the buffer.
type found struct {
	at int
	// late has the shapes of our unit's whole answers that were skipped.
	late []shape
	// strange says that there were bytes that belong to no whole frame.
	strange bool
}

// newMatcher takes a request as encoded: a read of function 3 or 4, or a write of
// function 16.
func newMatcher(request []byte) *matcher {
	return &matcher{
		request: request,
		unit:    request[0],
		want:    shape{request[1], binary.BigEndian.Uint16(request[4:])},
	}
}

// newListener gives a matcher for when nothing was asked: it only notes what
// comes late.
func newListener(unit uint8) *matcher { return &matcher{unit: unit} }

// feed takes what has arrived and looks for the answer. An answer that lies
// within what may yet become a longer frame is not believed until missing more
// bytes have come, or have not: final says that nothing more will come.
func (m *matcher) feed(b []byte, final bool) (answer []byte, missing int) {
	m.buf = append(m.buf, b...)
	m.found = m.settled
	settled := true
	for m.at < len(m.buf) {
		rest := m.buf[m.at:]
		if n := m.answers(rest); n > 0 {
			if missing > 0 && !final {
				return nil, missing
			}
			return rest[:n], 0
		}
		n, more := m.frame(rest)
		if n == 0 {
			missing = max(missing, more)
			settled = settled && more == 0 && len(rest) >= requestLen
			m.strange = true
			n = 1
		}
		m.at += n
		if settled {
			m.settled = m.found
		}
	}
	return nil, 0
}

// frame is wholeFrame, and knows our own request, by a transceiver that hears
// itself.
func (m *matcher) frame(b []byte) (n, missing int) {
	if m.request != nil && bytes.HasPrefix(b, m.request) {
		return len(m.request), 0
	}
	n, missing = wholeFrame(b)
	if s, ok := readAnswer(b[:n]); ok && b[0] == m.unit {
		m.late = append(m.late[:len(m.late):len(m.late)], s)
	}
	return n, missing
}

// answers gives the length of the answer that b begins with, or 0.
func (m *matcher) answers(b []byte) int {
	if m.request == nil || len(b) < exceptionLen || b[0] != m.unit {
		return 0
	}
	n := 0
	switch {
	case m.want.function == writeMultiple && len(b) >= 6 && bytes.Equal(b[1:6], m.request[1:6]):
		n = writtenLen
	case m.want.function == writeMultiple && b[1] == writeMultiple: // another's, or late
	case b[1] == m.want.function && int(b[2]) == 2*int(m.want.count):
		n = answerLen(m.want.count)
	case b[1] == m.want.function|exceptionBit && b[2] != 0:
		n = exceptionLen
	}
	if n == 0 || len(b) < n || !checked(b[:n]) {
		return 0
	}
	return n
}

// readAnswer gives the shape of a whole answer to a read of registers.
func readAnswer(frame []byte) (shape, bool) {
	if len(frame) > exceptionLen && (frame[1] == 3 || frame[1] == 4) && answerLen(uint16(frame[2]/2)) == len(frame) {
		return shape{frame[1], uint16(frame[2] / 2)}, true
	}
	return shape{}, false
}

// wholeFrame gives the length of the frame of anybody's that b begins with, or
// else how many bytes are missing of the longest that it may be the beginning
// of.
func wholeFrame(b []byte) (n, missing int) {
	for _, n := range frameLens(b) {
		switch {
		case n > len(b):
			missing = max(missing, n-len(b))
		case checked(b[:n]):
			return n, 0
		}
	}
	return 0, missing
}

// frameLens gives the lengths that a frame with this head can have, as an
// answer and as a request.
func frameLens(b []byte) []int {
	if len(b) < headLen {
		return nil
	}
	count := int(b[2])
	switch function := b[1]; {
	case function > exceptionBit && function <= exceptionBit|0x2B:
		return []int{exceptionLen}
	case function == 3 || function == 4:
		if count%2 == 0 && count > 0 && count <= 2*maxRegs {
			return []int{headLen + count + crcLen, requestLen}
		}
		return []int{requestLen}
	case function == 1 || function == 2:
		return []int{headLen + count + crcLen, requestLen}
	case function == 5 || function == 6:
		return []int{requestLen}
	case function == 15 || function == 16:
		lens := []int{requestLen}
		if len(b) > 6 {
			lens = append(lens, 7+int(b[6])+crcLen)
		}
		return lens
	}
	return nil
}

// checked says whether b ends in its CRC.
func checked(b []byte) bool {
	n := len(b) - crcLen
	return n >= 2 && crc(b[:n]) == binary.LittleEndian.Uint16(b[n:])
}

// crc is CRC-16/MODBUS: polynomial 0x8005 reflected, from 0xFFFF.
func crc(b []byte) uint16 {
	sum := uint16(0xFFFF)
	for _, c := range b {
		sum ^= uint16(c)
		for range 8 {
			if sum&1 != 0 {
				sum = sum>>1 ^ 0xA001
			} else {
				sum >>= 1
			}
		}
	}
	return sum
}
