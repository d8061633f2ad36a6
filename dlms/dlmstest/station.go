package dlmstest

import (
	"bytes"
	"errors"
	"io"
)

// Station is the meter's end of an HDLC connection: a secondary station in
// normal response mode, written from IEC 62056-46 and not from this project's
// client. It serves one client address and one connection at a time.
type Station struct {
	// Server is the meter's address as it is on the line; nil is 03, the
	// management logical device in one octet.
	Server []byte
	// MaxInfo and Window are the most that the station takes and sends; 0 is
	// 128 octets and 1 frame.
	MaxInfo, Window int
	// Answer gives the answer to an APDU of a client; nil is none.
	Answer func(client byte, apdu []byte) []byte
	// Busy is how often the station says RR, or RNR where NotReady, before it
	// gives an answer.
	Busy     int
	NotReady bool
	// Reject is the number of the I frame, from 1, that is answered with FRMR;
	// 0 is none.
	Reject int
	// Push, if not nil, is sent in a UI frame before the first answer.
	Push []byte
	// Params, if not nil, is the information of the UA, whatever was proposed.
	Params []byte
}

// stationState is one connection.
type stationState struct {
	*Station
	out io.Writer

	client    byte
	connected bool
	tx, rx    int // octets of information
	wtx       int // frames
	ns, nr    int // to send and to come next
	acked     int // N(S) of the first segment that the client may not have
	request   []byte
	segments  [][]byte // of the answer, from acked on
	busy      int
	count     int // I frames that came
	pushed    bool
}

// Serve serves a stream until the client hangs up.
func (s *Station) Serve(stream io.ReadWriter) error {
	c := *s
	if c.Server == nil {
		c.Server = []byte{3}
	}
	if c.MaxInfo == 0 {
		c.MaxInfo = 128
	}
	c.Window = max(c.Window, 1)
	state := &stationState{Station: &c, out: stream}
	var in []byte
	chunk := make([]byte, 512)
	for {
		n, err := stream.Read(chunk)
		in = append(in, chunk[:n]...)
		for {
			body, rest, ok := findFrame(in)
			if !ok {
				break
			}
			in = rest
			if err := state.frame(body); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		in = in[max(0, len(in)-4096):]
	}
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

func (s *stationState) frame(body []byte) error {
	// Format, destination, source of one octet, control.
	if !bytes.HasPrefix(body[2:], s.Server) || len(body) < 2+len(s.Server)+2+2 {
		return nil
	}
	rest := body[2+len(s.Server):]
	client, control, info := rest[0], rest[1], rest[2:len(rest)-2]
	if client&1 == 0 {
		return nil
	}
	if len(info) > 0 {
		if header := body[:len(body)-len(info)-2+2]; fcs16(header) != fcsGood {
			return nil
		}
		info = info[2:]
	}
	more, poll := body[0]&8 != 0, control&0x10 != 0
	switch {
	case control == 0x93:
		*s = stationState{Station: s.Station, out: s.out, client: client, connected: true, pushed: s.pushed}
		return s.write(0x73, false, s.negotiate(info))
	case client != s.client || !s.connected:
		return s.write(0x1F, false, nil, client)
	case control == 0x53:
		s.connected = false
		return s.write(0x73, false, nil)
	}
	nr := int(control >> 5)
	if control&3 == 3 {
		return nil
	}
	n := (nr - s.acked) & 7
	if n > (s.ns-s.acked)&7 {
		return s.reject(control, 8)
	}
	s.acked = nr
	s.segments = s.segments[n:]
	if control&1 == 0 {
		s.count++
		if s.count == s.Reject {
			return s.reject(control, 1)
		}
		if len(info) > s.rx {
			return s.reject(control, 4)
		}
		if int(control>>1&7) == s.nr {
			s.nr = (s.nr + 1) & 7
			s.request = append(s.request, info...)
			if !more {
				s.work()
			}
		}
	}
	if !poll {
		return nil
	}
	return s.respond()
}

// negotiate takes the parameters of an SNRM and gives those of the UA.
func (s *stationState) negotiate(b []byte) []byte {
	rxOfClient, txOfClient, winRx := 128, 128, 1
	for i := 3; i+1 < len(b); i += 2 + int(b[i+1]) {
		v := 0
		for _, o := range b[i+2 : min(len(b), i+2+int(b[i+1]))] {
			v = v<<8 | int(o)
		}
		switch b[i] {
		case 5:
			txOfClient = v
		case 6:
			rxOfClient = v
		case 8:
			winRx = v
		}
	}
	s.tx, s.rx, s.wtx = min(s.MaxInfo, rxOfClient), min(s.MaxInfo, txOfClient), min(s.Window, winRx)
	if s.Params != nil {
		return s.Params
	}
	w := byte(s.Window)
	if s.MaxInfo < 256 {
		return []byte{0x81, 0x80, 18, 5, 1, byte(s.MaxInfo), 6, 1, byte(s.MaxInfo), 7, 4, 0, 0, 0, w, 8, 4, 0, 0, 0, w}
	}
	high, low := byte(s.MaxInfo>>8), byte(s.MaxInfo)
	return []byte{0x81, 0x80, 20, 5, 2, high, low, 6, 2, high, low, 7, 4, 0, 0, 0, w, 8, 4, 0, 0, 0, w}
}

// work makes the answer to the request that is whole now.
func (s *stationState) work() {
	apdu, ok := bytes.CutPrefix(s.request, []byte{0xE6, 0xE6, 0})
	s.request = nil
	if !ok || s.Answer == nil {
		return
	}
	answer := s.Answer(s.client>>1, bytes.Clone(apdu))
	if answer == nil {
		return
	}
	s.busy = s.Busy
	answer = append([]byte{0xE6, 0xE7, 0}, answer...)
	for len(answer) > s.tx {
		s.segments = append(s.segments, answer[:s.tx])
		answer = answer[s.tx:]
	}
	s.segments = append(s.segments, answer)
}

// respond uses the permission to send: the segments that the client does not
// have, or RR.
func (s *stationState) respond() error {
	s.ns = s.acked
	if s.Push != nil && !s.pushed {
		s.pushed = true
		if err := s.write(0x03, false, append([]byte{0xE6, 0xE7, 0}, s.Push...)); err != nil {
			return err
		}
	}
	if len(s.segments) == 0 || s.busy > 0 {
		kind := 0x11
		if s.busy > 0 && s.NotReady {
			kind = 0x15
		}
		s.busy = max(0, s.busy-1)
		return s.write(byte(kind|s.nr<<5), false, nil)
	}
	n := min(s.wtx, len(s.segments))
	for i, segment := range s.segments[:n] {
		control := s.nr<<5 | s.ns<<1
		if i == n-1 {
			control |= 0x10
		}
		s.ns = (s.ns + 1) & 7
		if err := s.write(byte(control), i < len(s.segments)-1, segment); err != nil {
			return err
		}
	}
	return nil
}

func (s *stationState) reject(control, why byte) error {
	s.connected = false
	return s.write(0x97, false, []byte{control, byte(s.nr<<5 | s.ns<<1), why})
}

// write sends a frame to the client, or to another.
func (s *stationState) write(control byte, more bool, info []byte, to ...byte) error {
	client := s.client
	if len(to) > 0 {
		client = to[0]
	}
	body := append([]byte{0, 0, client}, s.Server...)
	body = append(body, control)
	n := len(body) + 2
	if len(info) > 0 {
		n += len(info) + 2
	}
	body[0], body[1] = 0xA0|byte(n>>8), byte(n)
	if more {
		body[0] |= 8
	}
	seal := func() {
		c := ^fcs16(body)
		body = append(body, byte(c), byte(c>>8))
	}
	if len(info) > 0 {
		seal()
		body = append(body, info...)
	}
	seal()
	_, err := s.out.Write(append(append([]byte{0x7E}, body...), 0x7E))
	return err
}
