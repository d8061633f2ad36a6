package sniff

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

// The link types of captures that are known.
const (
	linkNull     = 0
	linkEthernet = 1
	linkRaw      = 101
	linkRawOld   = 12
	linkLoop     = 108
	linkSLL      = 113
	linkUserLow  = 147 // up to linkUserHigh: what somebody puts there, octets of a line
	linkUserHigh = 162
	linkIPv4     = 228
	linkIPv6     = 229
	linkSerial   = 250 // RTAC serial: a header of 12 octets, and what passed
	linkSLL2     = 276
)

// packet takes a packet of a link apart.
func (c *capture) packet(link uint32, at time.Time, b []byte) error {
	cut := func(n int) []byte { return b[min(n, len(b)):] }
	switch {
	case link == linkEthernet:
		return c.ethernet(at, b)
	case link == linkSLL:
		return c.ip(at, cut(16))
	case link == linkSLL2:
		return c.ip(at, cut(20))
	case link == linkNull || link == linkLoop:
		return c.ip(at, cut(4))
	case link == linkRaw || link == linkRawOld || link == linkIPv4 || link == linkIPv6:
		return c.ip(at, b)
	case link == linkSerial && len(b) > 12:
		return c.each(Packet{Chunk: Chunk{At: at, From: serialSide(b[8]), Data: b[12:]}})
	case link >= linkUserLow && link <= linkUserHigh && len(b) > 0:
		return c.each(Packet{Chunk: Chunk{At: at, Data: b}})
	}
	return nil
}

// serialSide tells who sent by the event type of an RTAC packet: 1 data that was
// sent, 2 data that came.
func serialSide(event byte) Direction {
	switch event & 0x7F {
	case 1:
		return FromMaster
	case 2:
		return FromMeter
	}
	return AnyDirection
}

func (c *capture) ethernet(at time.Time, b []byte) error {
	n := 12
	for len(b) >= n+2 {
		switch binary.BigEndian.Uint16(b[n:]) {
		case 0x8100, 0x88A8: // tagged
			n += 4
			continue
		case 0x0800, 0x86DD:
			return c.ip(at, b[n+2:])
		}
		return nil
	}
	return nil
}

// ip takes a packet of IPv4 or IPv6 apart. Fragments are passed over.
func (c *capture) ip(at time.Time, b []byte) error {
	if len(b) < 20 {
		return nil
	}
	switch b[0] >> 4 {
	case 4:
		head, total := int(b[0]&0x0F)*4, int(binary.BigEndian.Uint16(b[2:]))
		if head < 20 || len(b) < head || binary.BigEndian.Uint16(b[6:])&0x3FFF != 0 {
			return nil
		}
		if total >= head && total < len(b) {
			b = b[:total] // the rest is padding of the link
		}
		return c.transport(at, b[9], netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), b[head:])
	case 6:
		if len(b) < 40 {
			return nil
		}
		if total := 40 + int(binary.BigEndian.Uint16(b[4:])); total > 40 && total < len(b) {
			b = b[:total]
		}
		next, rest := b[6], b[40:]
		for next == 0 || next == 43 || next == 60 { // headers in between
			if len(rest) < 8 || len(rest) < 8+8*int(rest[1]) {
				return nil
			}
			next, rest = rest[0], rest[8+8*int(rest[1]):]
		}
		return c.transport(at, next, netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), rest)
	}
	return nil
}

func (c *capture) transport(at time.Time, protocol byte, from, to netip.Addr, b []byte) error {
	const tcp, udp = 6, 17
	if len(b) < 8 {
		return nil
	}
	a, z := netip.AddrPortFrom(from, binary.BigEndian.Uint16(b)), netip.AddrPortFrom(to, binary.BigEndian.Uint16(b[2:]))
	switch {
	case protocol == udp:
		t, side := c.talk("udp", a, z, false)
		return c.each(Packet{Chunk: Chunk{At: at, From: side, Data: b[8:]}, Talk: t.name, Network: true})
	case protocol == tcp && len(b) >= 20:
		head := int(b[12]>>4) * 4
		if head < 20 || len(b) < head {
			return nil
		}
		const syn, ack = 0x02, 0x10
		t, side := c.talk("tcp", a, z, b[13]&(syn|ack) == syn)
		return t.segment(c, at, side, binary.BigEndian.Uint32(b[4:]), b[13]&syn != 0, b[head:])
	}
	return nil
}

const (
	maxTalks = 4096
	maxHeld  = 64 // segments that came before their turn
)

// talk is a connection of TCP, or who exchanges datagrams.
type talk struct {
	name   string
	client netip.AddrPort
	ways   [3]way // by direction
}

// way is one direction of a connection.
type way struct {
	known bool
	next  uint32
	held  []segment
}

type segment struct {
	at   time.Time
	seq  uint32
	data []byte
}

// talk finds the conversation of two; opens says that from begins it. Who is the
// client is told by that, or else by the port numbers.
func (c *capture) talk(kind string, from, to netip.AddrPort, opens bool) (*talk, Direction) {
	low, high := from, to
	if low.Compare(high) > 0 {
		low, high = high, low
	}
	key := kind + low.String() + high.String()
	t := c.talks[key]
	if t == nil || opens && t.client != from {
		if len(c.talks) >= maxTalks {
			clear(c.talks)
		}
		t = &talk{client: from}
		if !opens && isMeterPort(from.Port()) || !opens && !isMeterPort(to.Port()) && from.Port() < to.Port() {
			t.client = to
		}
		server := from
		if t.client == from {
			server = to
		}
		t.name = fmt.Sprintf("%s→%s", t.client, server)
		c.talks[key] = t
	}
	if t.client == from {
		return t, FromMaster
	}
	return t, FromMeter
}

func isMeterPort(port uint16) bool { return port == 502 || port == 4059 }

// segment hands on what is next in a direction, and keeps what is early.
func (t *talk) segment(c *capture, at time.Time, side Direction, seq uint32, syn bool, data []byte) error {
	w := &t.ways[side]
	if syn {
		*w = way{known: true, next: seq + 1}
		seq++
	}
	if len(data) == 0 {
		return nil
	}
	if !w.known {
		w.known, w.next = true, seq
	}
	w.held = append(w.held, segment{at, seq, append([]byte(nil), data...)})
	lost := false
	for {
		i := w.due()
		if i < 0 && len(w.held) > maxHeld {
			i, lost = w.earliest(), true
			w.next = w.held[i].seq
		}
		if i < 0 {
			return nil
		}
		s := w.held[i]
		w.held = append(w.held[:i], w.held[i+1:]...)
		again := w.next - s.seq // octets that were there before
		if again >= uint32(len(s.data)) {
			continue
		}
		w.next = s.seq + uint32(len(s.data))
		if err := c.each(Packet{Chunk: Chunk{At: s.at, From: side, Data: s.data[again:]}, Talk: t.name, Network: true, Lost: lost}); err != nil {
			return err
		}
		lost = false
	}
}

// due gives the segment that begins at or before what is next, -1 for none.
func (w *way) due() int {
	for i := range w.held {
		if int32(w.held[i].seq-w.next) <= 0 {
			return i
		}
	}
	return -1
}

func (w *way) earliest() int {
	best := 0
	for i := range w.held {
		if int32(w.held[i].seq-w.held[best].seq) < 0 {
			best = i
		}
	}
	return best
}
