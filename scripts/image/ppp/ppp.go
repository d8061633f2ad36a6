// Package ppp is the client's end of the Point-to-Point Protocol over a modem: the
// negotiation, which is Go, beside the kernel's framing and network interface, the
// dialler before it, and the keeper that redials.
//
//	dial ──> LCP ──> PAP or CHAP, if the peer asks ──> IPCP ──> interface, route
//	  ^                                                            │
//	  └──────── pause, 5 s to 10 min <── hang up <── no answer ────┘
//
// A frame is what stands between the kernel and this package: the protocol, most
// significant octet first, and for every protocol that is spoken here the same packet
// (RFC 1661, 5):
//
//	protocol    2 octets: LCP c021, PAP c023, CHAP c223, IPCP 8021
//	code        1
//	identifier  1
//	length      2, of code to data; octets after it are padding
//	data
//
// and within Configure packets data is a list of options:
//
//	type 1 | length 1, of all three | data
//
// Address, control, escapes and checksum (RFC 1662) are the kernel's.
package ppp

import "encoding/binary"

// Protocols.
const (
	protoLCP  = 0xc021
	protoPAP  = 0xc023
	protoCHAP = 0xc223
	protoIPCP = 0x8021
)

// Codes of RFC 1661, 5.
const (
	confReq byte = 1 + iota
	confAck
	confNak
	confRej
	termReq
	termAck
	codeRej
	protoRej
	echoReq
	echoReply
	discardReq
)

const headLen = 4

// packet is what stands behind the protocol. data aliases what it was parsed from.
type packet struct {
	code, id byte
	data     []byte
}

// parsePacket gives false for what is to be dropped silently (RFC 1661, 5).
func parsePacket(b []byte) (packet, bool) {
	if len(b) < headLen {
		return packet{}, false
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n < headLen || n > len(b) {
		return packet{}, false
	}
	return packet{b[0], b[1], b[headLen:n]}, true
}

// frame gives the packet behind its protocol.
func (p packet) frame(proto uint16) []byte {
	b := make([]byte, 0, 2+headLen+len(p.data))
	b = binary.BigEndian.AppendUint16(b, proto)
	b = append(b, p.code, p.id)
	b = binary.BigEndian.AppendUint16(b, uint16(headLen+len(p.data))) //nolint:gosec // data is at most a frame received
	return append(b, p.data...)
}

// option is one of a Configure packet.
type option struct {
	kind byte
	data []byte
}

func parseOptions(b []byte) ([]option, bool) {
	var all []option
	for len(b) > 0 {
		if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
			return nil, false
		}
		all = append(all, option{b[0], b[2:b[1]]})
		b = b[b[1]:]
	}
	return all, true
}

func appendOptions(b []byte, all []option) []byte {
	for _, o := range all {
		b = append(b, o.kind, byte(2+len(o.data))) //nolint:gosec // an option parsed, or one of ours
		b = append(b, o.data...)
	}
	return b
}

func uint32Option(kind byte, v uint32) option {
	return option{kind, binary.BigEndian.AppendUint32(nil, v)}
}
