// Package sniff says what passes on a line: it finds the frames of Modbus, HDLC,
// the wrapper and IEC 62056-21 in octets that somebody else exchanges, and puts
// each into a line of text. It is pure: it opens nothing and sends nothing.
//
//	octets → Stream.Feed → Frames: protocol, direction, text
//
// Which protocol it is need not be told: each kind of frame has a check of its own,
// and after two frames of a kind the others are not looked for. What belongs to no
// frame is told as such, once a frame follows or the line falls silent. Passwords
// are not shown, keys are not needed, and what is ciphered stays so.
package sniff

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Protocol is what a frame is of.
type Protocol string

// The protocols. Unknown is octets that belong to no frame.
const (
	Unknown   Protocol = "?"
	ModbusRTU Protocol = "modbus"
	ModbusTCP Protocol = "modbus-tcp"
	HDLC      Protocol = "hdlc"
	Wrapper   Protocol = "wrapper"
	IEC21     Protocol = "iec21"
)

// Protocols lists what a Stream may be told to look for.
func Protocols() []Protocol { return []Protocol{ModbusRTU, ModbusTCP, HDLC, Wrapper, IEC21} }

// Direction is who sent something, where that is known.
type Direction uint8

// The directions.
const (
	AnyDirection Direction = iota
	FromMaster             // the client, the gateway
	FromMeter
)

// Chunk is octets as they came in.
type Chunk struct {
	At   time.Time // zero where nobody knows
	From Direction
	Data []byte
}

// Frame is something that passed.
type Frame struct {
	At       time.Time
	Protocol Protocol
	From     Direction
	Text     string // one line
	Bad      bool   // no frame, a wrong check, a refusal
	Secret   bool   // what is in it is ciphered
	Octets   []byte // as they were on the line
}

// Options say what a Stream looks for.
type Options struct {
	// Only, if not empty, is the protocols to look for.
	Only []Protocol
	// Network says that octets are of a TCP connection: the wrapper and Modbus TCP
	// are looked for, and silence parts nothing.
	Network bool
}

const (
	maxBuffer = 32 << 10 // octets that wait for a frame to become whole
	certain   = 2        // frames of a kind after which others are not looked for
	maxShown  = 24       // octets that are shown of what is no frame
	maxText   = 400      // characters of a Frame
)

// Stream is the octets of one line, or of one connection. Make it with NewStream;
// it is not safe for concurrent use.
type Stream struct {
	options Options
	sides   [3]side // by direction

	counts map[Protocol]int
	sure   Protocol // "" is none yet

	modbus modbusTalk
	dlms   dlmsTalk
	iec    iecTalk

	out []Frame
}

// side is what came from one direction and is no frame yet.
type side struct {
	buf []byte
	at  time.Time // of the first octet
	end time.Time // of the last
}

// NewStream gives a stream that has seen nothing.
func NewStream(o Options) *Stream {
	return &Stream{options: o, counts: map[Protocol]int{}}
}

// Feed takes octets and gives the frames that are whole.
func (s *Stream) Feed(c Chunk) []Frame {
	s.out = nil
	if s.sure == IEC21 || s.sure == HDLC || s.sure == ModbusRTU {
		for from := range s.sides { // one speaks at a time
			if Direction(from) != c.From {
				s.flush(Direction(from))
			}
		}
	}
	d := &s.sides[c.From]
	if !s.options.Network && len(d.buf) > 0 && !c.At.IsZero() && c.At.Sub(d.end) > silence {
		s.flush(c.From)
	}
	if len(d.buf) == 0 {
		d.at = c.At
	}
	d.end = c.At
	d.buf = append(d.buf, c.Data...)
	s.scan(c.From, false)
	if len(d.buf) > maxBuffer {
		s.flush(c.From)
	}
	return s.out
}

// silence is a pause within which no frame of a serial line goes on.
const silence = 500 * time.Millisecond

// Flush gives what has begun and was not whole: the line is silent, or over.
func (s *Stream) Flush() []Frame {
	s.out = nil
	for from := range s.sides {
		s.flush(Direction(from))
	}
	return s.out
}

// Pending says whether something has begun that Flush would give.
func (s *Stream) Pending() bool {
	return len(s.sides[0].buf)+len(s.sides[1].buf)+len(s.sides[2].buf) > 0
}

// Protocol gives what the stream is sure to be; "" is not yet.
func (s *Stream) Protocol() Protocol { return s.sure }

func (s *Stream) flush(from Direction) { s.scan(from, true) }

// verdict is what a finder says of the octets that a buffer begins with.
type verdict uint8

const (
	none    verdict = iota
	partial         // it may become a frame
	firm            // it has begun as a frame, and its head is checked: wait for it
	whole
)

// found is a frame at the beginning of a buffer.
type found struct {
	protocol Protocol
	n        int
}

// scan takes frames from what came from a direction. At the end nothing is waited
// for.
func (s *Stream) scan(from Direction, end bool) {
	d := &s.sides[from]
	for len(d.buf) > 0 {
		at, f, ok := s.next(d.buf, end)
		if !ok {
			if end {
				s.strange(from, d.buf)
				d.buf = nil
			}
			return
		}
		if at > 0 {
			s.strange(from, d.buf[:at])
		}
		s.take(from, f.protocol, d.buf[at:at+f.n])
		d.buf = append([]byte(nil), d.buf[at+f.n:]...)
		d.at = d.end
	}
}

// next finds the first frame.
func (s *Stream) next(b []byte, end bool) (at int, f found, ok bool) {
	for at = range b {
		f, v := s.first(b[at:])
		switch {
		case v == whole:
			return at, f, true
		case v == firm && !end:
			return 0, found{}, false
		}
	}
	return 0, found{}, false
}

// first says what b begins with.
func (s *Stream) first(b []byte) (f found, v verdict) {
	best := none
	for _, p := range Protocols() {
		if !s.looksFor(p) {
			continue
		}
		var n int
		switch p {
		case HDLC:
			n, v = hdlcFrame(b)
		case ModbusRTU:
			n, v = rtuFrame(b)
		case ModbusTCP:
			n, v = mbapFrame(b)
		case Wrapper:
			n, v = wrapperFrame(b)
		case IEC21:
			n, v = iecMessage(b, s.sure == IEC21)
		case Unknown:
		}
		if v == whole {
			return found{p, n}, whole
		}
		best = max(best, v)
	}
	return found{}, best
}

func (s *Stream) looksFor(p Protocol) bool {
	if len(s.options.Only) > 0 {
		for _, o := range s.options.Only {
			if o == p {
				return true
			}
		}
		return false
	}
	isNetwork := p == ModbusTCP || p == Wrapper
	if isNetwork && !s.options.Network {
		return false
	}
	if s.sure == HDLC || s.sure == IEC21 { // mode E goes from the one to the other
		return p == HDLC || p == IEC21
	}
	return s.sure == "" || p == s.sure
}

// take tells of a frame.
func (s *Stream) take(from Direction, p Protocol, b []byte) {
	if s.counts[p]++; s.sure == "" && s.counts[p] >= certain {
		s.sure = p
	}
	f := Frame{At: s.sides[from].at, Protocol: p, From: from, Octets: append([]byte(nil), b...)}
	switch p {
	case HDLC:
		s.dlms.hdlc(&f)
	case ModbusRTU:
		s.modbus.rtu(&f)
	case ModbusTCP:
		s.modbus.tcp(&f)
	case Wrapper:
		s.dlms.wrapped(&f)
	case IEC21:
		s.iec.message(&f)
	case Unknown:
	}
	f.Text = shorten(f.Text)
	s.out = append(s.out, f)
}

// strange tells of octets that belong to no frame.
func (s *Stream) strange(from Direction, b []byte) {
	f := Frame{At: s.sides[from].at, Protocol: Unknown, From: from, Bad: true, Octets: append([]byte(nil), b...)}
	if s.sure == IEC21 && len(b) == 1 && (b[0]&0x7F == ack || b[0]&0x7F == nak) {
		f.Protocol, f.Bad, f.Text = IEC21, b[0]&0x7F == nak, "acknowledged"
		if f.Bad {
			f.Text = "not acknowledged"
		}
		s.out = append(s.out, f)
		return
	}
	shown := octets(b)
	if bytes.Contains(b, []byte{soh, 'P'}) {
		shown = "not shown: it may have a password"
	}
	f.Text = shorten(fmt.Sprintf("%s: %s", s.suspect(b), shown))
	s.out = append(s.out, f)
}

// suspect says what octets that are no frame may have been.
func (s *Stream) suspect(b []byte) string {
	n := len(b)
	switch {
	case s.looksFor(ModbusRTU) && n >= 4 && isFunction(b[1]) && (s.sure == ModbusRTU || b[0] > 0 && b[0] <= 247):
		return fmt.Sprintf("%d octets, Modbus with a wrong CRC or cut short", n)
	case s.looksFor(HDLC) && n >= 3 && b[0] == 0x7E && b[1]&0xF0 == 0xA0:
		return fmt.Sprintf("%d octets, HDLC with a wrong check or cut short", n)
	}
	return fmt.Sprintf("%d octets of no frame", n)
}

// ErrNothing says that a source had nothing that could be decoded.
var ErrNothing = errors.New("nothing that could be decoded")

// octets writes octets in hexadecimal digits, the first ones of many.
func octets(b []byte) string {
	if len(b) > maxShown {
		return fmt.Sprintf("% X …", b[:maxShown])
	}
	return fmt.Sprintf("% X", b)
}

// shorten cuts a text, and keeps what would move a terminal out of it.
func shorten(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7F || r == '\uFFFD' {
			return '.'
		}
		return r
	}, s)
	if r := []rune(s); len(r) > maxText {
		return string(r[:maxText]) + "…"
	}
	return s
}
