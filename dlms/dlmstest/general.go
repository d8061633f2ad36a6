package dlmstest

import (
	"encoding/binary"

	"gridgate/dlms/axdr"
)

// General block transfer (IEC 62056-5-3, 9.5):
//
//	E0  control        80 the last block, 40 more follow in a row,
//	                   lower 6 bits: so many blocks its sender takes in a row
//	    number 2, acknowledged 2, length, octets
const (
	generalHead     = 9 // with a length of three octets
	lastBlock       = 0x80
	streamingBlock  = 0x40
	generalWindow   = 0x3F
	ourWindow       = 4 // blocks that a Meter takes in a row
	maxGeneral      = 1 << 16
	firstOfTheirs   = 1
	windowUntilTold = 1
)

// blocksIn puts together what comes.
type blocksIn struct {
	octets []byte
	got    uint16
}

// blocksOut is what goes in blocks.
type blocksOut struct {
	octets []byte
	size   int
	acked  int // blocks that the client has
	// theirs counts the blocks of the client, those that only acknowledge too:
	// some clients number these 0, and look for the count all the same.
	theirs uint16
}

func (o *blocksOut) count() int {
	if o.size == 0 {
		return 0
	}
	return (len(o.octets) + o.size - 1) / o.size
}

// inBlocks gives an answer as it is, or the first of its blocks where it is
// too long for the client. theirs is the last block of the client's request, 0
// if it had none, and window how many the client takes in a row.
func (s *Session) inBlocks(answer []byte, theirs uint16, window int) [][]byte {
	if s.a == nil || len(answer) <= s.a.pdu || s.a.conformance&conformanceGeneralBlock == 0 || answer[0] == 0x61 {
		return [][]byte{answer}
	}
	s.out = blocksOut{octets: answer, size: max(s.a.pdu-generalHead, 1), theirs: theirs}
	if s.out.count() >= maxGeneral {
		s.out = blocksOut{}
		return [][]byte{exception(serviceNotAllowed, pduTooLong)}
	}
	return s.window(window)
}

// window gives the next blocks, as many as the client takes in a row.
func (s *Session) window(n int) [][]byte {
	o := &s.out
	var blocks [][]byte
	upto := min(o.acked+max(n, 1), o.count())
	for i := o.acked; i < upto; i++ {
		control := byte(ourWindow)
		switch {
		case i == o.count()-1:
			control |= lastBlock
		case i < upto-1:
			control |= streamingBlock
		}
		octets := o.octets[i*o.size : min((i+1)*o.size, len(o.octets))]
		blocks = append(blocks, appendGeneral(nil, control, uint16(i+1), o.theirs, octets))
	}
	return blocks
}

func appendGeneral(b []byte, control byte, n, ack uint16, octets []byte) []byte {
	b = binary.BigEndian.AppendUint16(append(b, 0xE0, control), n)
	b = binary.BigEndian.AppendUint16(b, ack)
	return append(axdr.AppendLength(b, len(octets)), octets...)
}

// general answers a block: the acknowledgement of ours, or one of a request.
func (s *Session) general(apdu []byte) [][]byte {
	r := reader{b: apdu[1:]}
	control, n, ack := r.u8(), r.u16(), int(r.u16())
	octets := r.counted()
	if r.short || s.a.conformance&conformanceGeneralBlock == 0 {
		s.in, s.out = blocksIn{}, blocksOut{}
		return [][]byte{exception(serviceUnknown, serviceNotSupported)}
	}
	if len(octets) == 0 {
		return s.acknowledged(ack, int(control&generalWindow))
	}
	if n == firstOfTheirs && s.in.got != 0 {
		s.in = blocksIn{} // the client begins anew
	}
	s.out = blocksOut{}
	last, streaming := control&lastBlock != 0, control&streamingBlock != 0
	switch {
	case n != s.in.got+1:
		if streaming && !last {
			return nil // the end of the window tells
		}
		return s.acknowledge()
	case len(s.in.octets)+len(octets) > maxWhole || n == maxGeneral-1:
		s.in = blocksIn{}
		return [][]byte{exception(serviceNotAllowed, pduTooLong)}
	}
	s.in.octets, s.in.got = append(s.in.octets, octets...), n
	switch {
	case last:
		whole := s.in.octets
		s.in = blocksIn{}
		answer := s.answer(s.a.client, whole)
		if answer == nil {
			return nil
		}
		return s.inBlocks(answer, n, int(control&generalWindow))
	case !streaming:
		return s.acknowledge()
	}
	return nil
}

// acknowledge says which blocks have come.
func (s *Session) acknowledge() [][]byte {
	return [][]byte{appendGeneral(nil, lastBlock|ourWindow, 0, s.in.got, nil)}
}

// acknowledged sends what comes after the blocks that the client has: new
// ones, or those again that were lost.
func (s *Session) acknowledged(ack, window int) [][]byte {
	o := &s.out
	if o.size == 0 || ack < o.acked || ack > o.count() {
		return nil
	}
	o.theirs++
	if o.acked = ack; ack == o.count() {
		s.out = blocksOut{}
		return nil
	}
	return s.window(window)
}
