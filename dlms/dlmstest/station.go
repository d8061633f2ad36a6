package dlmstest

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"
	"time"
)

// Station is the meter's end of an HDLC line: a secondary station in normal
// response mode, written from IEC 62056-46 and not from this project's client.
// Each client address has a connection of its own.
type Station struct {
	// Server is the meter's address as it is on the line; nil is 03, the
	// management logical device in one octet.
	Server []byte
	// AnyForm has the station answer to other forms of its address too: in one
	// octet, two or four; if Server has no lower address, with any; and to all
	// stations and the calling station in the place of the lower address. It
	// answers from the address that was called.
	AnyForm bool
	// MaxInfo and Window are the most that the station takes and sends; 0 is
	// 128 octets and 1 frame.
	MaxInfo, Window int
	// Inactivity is after how long without a frame all connections are over;
	// 0 is never.
	Inactivity time.Duration
	// Answer gives the answer to an APDU of a client; nil is none.
	Answer func(client byte, apdu []byte) []byte
	// Answers goes before Answer for APDUs that come in the connection, if it is
	// not nil: it gives several in a row, as blocks that are streamed.
	Answers func(client byte, apdu []byte) [][]byte
	// Ended, if not nil, is told that the connection of a client is over, or
	// made anew.
	Ended func(client byte)
	// Busy is how often the station says RR, or RNR where NotReady, before it
	// gives an answer.
	Busy     int
	NotReady bool
	// Reject is the number of the I frame of a connection, from 1, that is
	// answered with FRMR; 0 is none. Rejects, if not nil, is asked of each.
	Reject  int
	Rejects func() bool
	// Push, if not nil, is sent in a UI frame before the first answer.
	Push []byte
	// Params, if not nil, is the information of the UA, whatever was proposed.
	Params []byte
}

// defaultInfo is the information field that holds where nothing else is said.
const defaultInfo = 128

// withDefaults gives s with its zero fields filled in.
func (s Station) withDefaults() Station {
	if s.Server == nil {
		s.Server = []byte{3}
	}
	if s.MaxInfo <= 0 {
		s.MaxInfo = defaultInfo
	}
	s.Window = max(s.Window, 1)
	return s
}

// Serve serves a stream until the client hangs up.
func (s *Station) Serve(stream io.ReadWriter) error { return ServeBus(stream, *s) }

// ServeBus serves a stream to which several stations listen, each at its own
// address, until the client hangs up.
func ServeBus(stream io.ReadWriter, stations ...Station) error {
	b := newBus(stream, stations)
	defer b.stop()
	chunk := make([]byte, 512)
	for {
		n, err := stream.Read(chunk)
		if err := b.feed(chunk[:n]); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// bus is the stations of a line, and what came that is no whole frame yet.
type bus struct {
	stations []*stationState
	in       []byte
}

func newBus(out io.Writer, stations []Station) *bus {
	b := &bus{}
	for _, s := range stations {
		state := &stationState{Station: s.withDefaults(), out: out, links: map[byte]*stationLink{}}
		if s.Inactivity > 0 {
			state.timer = time.AfterFunc(s.Inactivity, func() { state.expired.Store(true) })
		}
		b.stations = append(b.stations, state)
	}
	return b
}

func (b *bus) stop() {
	for _, s := range b.stations {
		if s.timer != nil {
			s.timer.Stop()
		}
		s.hangUp()
	}
}

// maxWaiting is how many octets are kept that may become a frame.
const maxWaiting = 4096

// feed takes octets that came, and has the stations answer the frames in them.
func (b *bus) feed(octets []byte) error {
	b.in = append(b.in, octets...)
	for {
		body, rest, ok := findFrame(b.in)
		if !ok {
			break
		}
		b.in = rest
		for _, s := range b.stations {
			if err := s.frame(body); err != nil {
				return err
			}
		}
	}
	begins := bytes.IndexByte(b.in, 0x7E)
	if begins < 0 {
		begins = len(b.in)
	}
	b.in = b.in[max(begins, len(b.in)-maxWaiting):]
	return nil
}

// findFrame gives the first whole frame in b with its checks right, without
// flags, and what follows it.
func findFrame(b []byte) (body, rest []byte, ok bool) {
	for at := range b {
		f := b[at:]
		if len(f) < 9 || f[0] != 0x7E || f[1]>>4 != 0xA {
			continue
		}
		n := (int(f[1])<<8 | int(f[2])) & 0x7FF
		if n < 7 || len(f) < n+2 || f[n+1] != 0x7E || fcs16(f[1:n+1]) != fcsGood {
			continue
		}
		return f[1 : n+1], f[n+1:], true
	}
	return nil, b, false
}

const fcsGood = 0xF0B8

// fcs16 is the CRC of RFC 1662, C.2, bit by bit and not complemented.
func fcs16(b []byte) uint16 {
	r := uint16(0xFFFF)
	for _, o := range b {
		for bit := range 8 {
			feedback := (r ^ uint16(o)>>bit) & 1
			r >>= 1
			if feedback == 1 {
				r ^= 0x8408
			}
		}
	}
	return r
}

// stationState is a station on a line.
type stationState struct {
	Station
	out     io.Writer
	links   map[byte]*stationLink // by client address
	pushed  bool
	timer   *time.Timer // nil for none
	expired atomic.Bool
}

// hangUp ends all connections.
func (s *stationState) hangUp() {
	for client := range s.links {
		s.end(client)
	}
}

func (s *stationState) end(client byte) {
	delete(s.links, client)
	if s.Ended != nil {
		s.Ended(client >> 1)
	}
}

// The controls of frames without sequence numbers, their P/F bit cleared.
const (
	controlUI   = 0x03
	controlDM   = 0x0F
	controlDISC = 0x43
	controlUA   = 0x63
	controlSNRM = 0x83
	controlFRMR = 0x87
	pollFinal   = 0x10
)

// frame takes a frame: format, destination, source, control, and, if there is
// information, the check of what is before it.
func (s *stationState) frame(body []byte) error {
	to, rest, ok := address(body[2:])
	if !ok {
		return nil
	}
	own, ok := s.called(to)
	from, rest, one := address(rest)
	if !ok || !one || len(from) != 1 || len(rest) < 1+2 {
		return nil
	}
	client, control, info := from[0], rest[0], rest[1:len(rest)-2]
	if len(info) > 0 {
		if len(info) < 2 || fcs16(body[:len(body)-len(info)]) != fcsGood {
			return nil
		}
		info = info[2:]
	}
	if s.timer != nil {
		s.timer.Reset(s.Inactivity)
		if s.expired.Swap(false) {
			s.hangUp()
		}
	}
	more, poll := body[0]&8 != 0, control&pollFinal != 0
	answer := func(control byte, info []byte) error {
		if !poll {
			return nil
		}
		return s.write(own, client, control|pollFinal, false, info)
	}
	l := s.links[client]
	switch {
	case control&^pollFinal == controlSNRM:
		if l != nil {
			s.end(client)
		}
		l = &stationLink{station: s, own: own, client: client}
		s.links[client] = l
		return answer(controlUA, l.negotiate(info))
	case control&^pollFinal == controlUI:
		return s.unnumbered(own, client, poll, info)
	case l == nil:
		return answer(controlDM, nil)
	case control&^pollFinal == controlDISC:
		s.end(client)
		return answer(controlUA, nil)
	}
	l.own = own
	return l.frame(control, more, info)
}

// unnumbered takes an APDU of a UI frame, connection or not. Its answer, if
// any, goes in one too, where the client gave permission to send.
func (s *stationState) unnumbered(own []byte, client byte, poll bool, info []byte) error {
	apdu, ok := bytes.CutPrefix(info, []byte{0xE6, 0xE6, 0})
	if !ok || s.Answer == nil {
		return nil
	}
	answer := s.Answer(client>>1, bytes.Clone(apdu))
	if !poll || len(answer) == 0 || 3+len(answer) > s.MaxInfo {
		return nil
	}
	return s.write(own, client, controlUI|pollFinal, false, append([]byte{0xE6, 0xE7, 0}, answer...))
}

func (s *stationState) write(own []byte, client, control byte, more bool, info []byte) error {
	_, err := s.out.Write(appendFrame(own, client, control, more, info))
	return err
}

// Notification gives the UI frame in which the station sends an APDU to a
// client unasked.
func (s Station) Notification(client byte, apdu []byte) []byte {
	own := s.withDefaults().Server
	return appendFrame(own, client<<1|1, controlUI, false, append([]byte{0xE6, 0xE7, 0}, apdu...))
}

// appendFrame gives a frame from the station at own to a client.
func appendFrame(own []byte, client, control byte, more bool, info []byte) []byte {
	body := append([]byte{0x7E, 0, 0, client}, own...)
	body = append(body, control)
	n := len(body) - 1 + 2
	if len(info) > 0 {
		n += len(info) + 2
	}
	body[1], body[2] = 0xA0|byte(n>>8), byte(n)
	if more {
		body[1] |= 8
	}
	seal := func() {
		c := ^fcs16(body[1:])
		body = append(body, byte(c), byte(c>>8))
	}
	if len(info) > 0 {
		seal()
		body = append(body, info...)
	}
	seal()
	return append(body, 0x7E)
}
