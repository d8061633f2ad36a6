package ppp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Options of LCP (RFC 1661, 6; RFC 1662, 7).
const (
	optMRU   = 1
	optACCM  = 2
	optAuth  = 3
	optMagic = 5
	optPFC   = 7
	optACFC  = 8
)

const (
	defaultMRU = 1500
	leastMRU   = 128 // as pppd's
	chapMD5    = 5
	// loopsMost is how often our own magic number may come back.
	loopsMost = 5
)

var (
	errLooped    = errors.New("what is sent comes back: the modem is not connected, or echoes")
	errNoAnswer  = errors.New("the peer does not negotiate")
	errEnded     = errors.New("the peer ended the connection")
	errNoAddress = errors.New("the peer gives no address")
)

// lcp is the link's own negotiation. Little is asked for: no octets escaped, which
// lines that carry eight bits need not, and a magic number, which finds loops.
// Compressed headers are granted and never sent.
type lcp struct {
	s *Session

	askACCM, askMagic bool
	accm, magic       uint32

	peer  linked // what the peer asked for, and we granted
	loops int
}

// linked is what the peer wants of what is sent to it.
type linked struct {
	accm uint32
	mru  int
	auth uint16 // protoPAP, protoCHAP, or 0
}

// unasked is what holds where the peer asks for nothing (RFC 1662, 7.1).
func unasked() linked { return linked{accm: 0xffffffff, mru: defaultMRU} }

func (l *lcp) request() []option {
	var all []option
	if l.askACCM {
		all = append(all, uint32Option(optACCM, l.accm))
	}
	if l.askMagic {
		all = append(all, uint32Option(optMagic, l.magic))
	}
	return all
}

func (l *lcp) judge(all []option, final bool) (byte, []option) {
	var rejected, better []option
	for _, o := range all {
		switch verdict, instead := l.judgeOne(o); {
		case verdict == confRej, verdict == confNak && final:
			rejected = append(rejected, o)
		case verdict == confNak && !slices.ContainsFunc(better, func(b option) bool { return b.kind == o.kind }):
			better = append(better, instead)
		}
	}
	switch {
	case len(rejected) > 0:
		return confRej, rejected
	case len(better) > 0:
		return confNak, better
	}
	return confAck, all
}

// judgeOne gives what is better where an option is well known but not well chosen.
func (l *lcp) judgeOne(o option) (verdict byte, better option) {
	switch {
	case o.kind == optMRU && len(o.data) == 2:
		if int(binary.BigEndian.Uint16(o.data)) >= leastMRU {
			return confAck, o
		}
		return confNak, option{optMRU, binary.BigEndian.AppendUint16(nil, defaultMRU)}
	case o.kind == optACCM && len(o.data) == 4, (o.kind == optPFC || o.kind == optACFC) && len(o.data) == 0:
		return confAck, o
	case o.kind == optAuth && len(o.data) >= 2:
		if authOf(o) != 0 {
			return confAck, o
		}
		l.s.note(fmt.Errorf("the peer wants an authentication that is not known here: %x", clip(o.data, 8)))
		return confNak, option{optAuth, []byte{protoCHAP >> 8, protoCHAP & 0xff, chapMD5}}
	case o.kind == optMagic && len(o.data) == 4:
		magic := binary.BigEndian.Uint32(o.data)
		if l.askMagic && magic == l.magic {
			if l.loops++; l.loops >= loopsMost {
				l.s.end(errLooped)
			}
		} else if magic != 0 {
			l.loops = 0
			return confAck, o
		}
		return confNak, uint32Option(optMagic, l.s.random())
	}
	return confRej, o
}

// authOf gives the protocol of an Authentication-Protocol option that is known.
func authOf(o option) uint16 {
	switch proto := binary.BigEndian.Uint16(o.data); {
	case proto == protoPAP && len(o.data) == 2, proto == protoCHAP && len(o.data) == 3 && o.data[2] == chapMD5:
		return proto
	}
	return 0
}

func (l *lcp) accept(all []option) {
	l.peer = unasked()
	for _, o := range all {
		switch o.kind {
		case optMRU:
			l.peer.mru = int(binary.BigEndian.Uint16(o.data))
		case optACCM:
			l.peer.accm = binary.BigEndian.Uint32(o.data)
		case optAuth:
			l.peer.auth = authOf(o)
		}
	}
}

func (l *lcp) refused(code byte, all []option) {
	for _, o := range all {
		switch {
		case o.kind == optACCM && code == confNak && len(o.data) == 4:
			l.accm |= binary.BigEndian.Uint32(o.data)
		case o.kind == optMagic && code == confNak:
			l.magic = l.s.random()
		case o.kind == optACCM && code == confRej:
			l.askACCM = false
		case o.kind == optMagic && code == confRej:
			l.askMagic = false
		default: // what we did not ask for is not taken up
		}
	}
}

func (l *lcp) up()       { l.s.linkUp() }
func (l *lcp) down()     { l.s.linkDown() }
func (l *lcp) finished() { l.s.end(errNoAnswer) }

func (l *lcp) rejected(code byte) bool {
	if code == echoReq || code == echoReply || code == discardReq {
		l.s.echo.off = true
		return true
	}
	return code == protoRej || code > discardReq
}

func (l *lcp) other(p packet) bool {
	switch p.code {
	case echoReq:
		answer := binary.BigEndian.AppendUint32(nil, l.ownMagic())
		if len(p.data) >= 4 {
			answer = append(answer, p.data[4:]...)
		}
		l.s.lcp.tell(packet{echoReply, p.id, clip(answer, l.peer.mru-headLen)})
	case echoReply:
		l.s.echoed(p)
	case protoRej:
		l.s.protocolRejected(p)
	}
	return true
}

// ownMagic is 0 where the peer knows of none (RFC 1661, 5.8).
func (l *lcp) ownMagic() uint32 {
	if l.askMagic {
		return l.magic
	}
	return 0
}
