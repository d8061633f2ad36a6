package dlmstest

import "bytes"

// stationLink is a station's end of one connection.
type stationLink struct {
	station  *stationState
	own      []byte // the station's address as the client has it
	client   byte
	tx, rx   int // octets of information
	wtx      int // frames
	ns, nr   int // to send and to come next
	acked    int // N(S) of the first segment that the client may not have
	request  []byte
	segments []segment // of the answers, from acked on
	busy     int
	count    int    // I frames that came
	rejected []byte // the information of the FRMR, once there was one
}

// segment is the information of an I frame.
type segment struct {
	octets []byte
	more   bool // of the same APDU follow
}

// The parameters of a connection (IEC 62056-46, 6.4.4.4.3.2).
const (
	parameterInfoTx   = 5
	parameterInfoRx   = 6
	parameterWindowTx = 7
	parameterWindowRx = 8
)

// negotiate takes the parameters that the client proposes and gives those that
// hold: never more than were proposed, and the defaults where none were.
func (l *stationLink) negotiate(b []byte) []byte {
	p := parameters(b)
	s := l.station
	l.tx, l.rx = min(s.MaxInfo, p[parameterInfoRx]), min(s.MaxInfo, p[parameterInfoTx])
	l.wtx = min(s.Window, p[parameterWindowRx])
	if s.Params != nil {
		return s.Params
	}
	group := []byte{0x81, 0x80, 0}
	for _, info := range [][2]int{{parameterInfoTx, l.tx}, {parameterInfoRx, l.rx}} {
		if info[1] < 256 {
			group = append(group, byte(info[0]), 1, byte(info[1]))
		} else {
			group = append(group, byte(info[0]), 2, byte(info[1]>>8), byte(info[1]))
		}
	}
	group = append(group, parameterWindowTx, 4, 0, 0, 0, byte(l.wtx))
	group = append(group, parameterWindowRx, 4, 0, 0, 0, byte(min(s.Window, p[parameterWindowTx])))
	group[2] = byte(len(group) - 3)
	return group
}

// parameters gives what an SNRM proposes by the numbers of the parameters: 81
// 80 length, then number, length, value. What makes no sense is not there.
func parameters(b []byte) [9]int {
	p := [9]int{parameterInfoTx: defaultInfo, parameterInfoRx: defaultInfo, parameterWindowTx: 1, parameterWindowRx: 1}
	if len(b) < 3 || b[0] != 0x81 || b[1] != 0x80 {
		return p
	}
	r := reader{b: b[3:]}
	for len(r.b) > 0 {
		number, value := r.u8(), r.take(int(r.u8()))
		v := 0
		for _, o := range value[:min(len(value), 4)] {
			v = v<<8 | int(o)
		}
		if number >= parameterInfoTx && number <= parameterWindowRx && v > 0 {
			p[number] = v
		}
	}
	return p
}

// Why a frame is rejected: the bits of the last octet of an FRMR.
const (
	whyControl  = 1 // undefined
	whyTooLong  = 4
	whySequence = 8
)

// frame takes a frame that is not of making or ending the connection.
func (l *stationLink) frame(control byte, more bool, info []byte) error {
	if l.rejected != nil { // until the client connects anew, or disconnects
		return l.write(controlFRMR|pollFinal, false, l.rejected)
	}
	if control&3 == 3 {
		return l.reject(control, whyControl)
	}
	nr := int(control >> 5)
	n := (nr - l.acked) & 7
	if n > (l.ns-l.acked)&7 {
		return l.reject(control, whySequence)
	}
	l.acked = nr
	l.segments = l.segments[n:]
	if control&1 == 0 {
		s := l.station
		if l.count++; l.count == s.Reject || s.Rejects != nil && s.Rejects() {
			return l.reject(control, whyControl)
		}
		if len(info) > l.rx {
			return l.reject(control, whyTooLong)
		}
		if int(control>>1&7) == l.nr {
			l.nr = (l.nr + 1) & 7
			if l.request = append(l.request, info...); len(l.request) > maxWhole {
				return l.reject(control, whyTooLong)
			}
			if !more {
				l.work()
			}
		}
	}
	if control&pollFinal == 0 {
		return nil
	}
	return l.respond(control&0xF == 5)
}

// work makes the answer to the request that is whole now. What the client did
// not fetch of the answer before is forgotten.
func (l *stationLink) work() {
	l.segments, l.ns = nil, l.acked
	apdu, ok := bytes.CutPrefix(l.request, []byte{0xE6, 0xE6, 0})
	l.request = nil
	s := l.station
	if !ok {
		return
	}
	for _, answer := range s.answers(l.client>>1, bytes.Clone(apdu)) {
		l.busy = s.Busy
		answer = append([]byte{0xE6, 0xE7, 0}, answer...)
		for len(answer) > l.tx {
			l.segments = append(l.segments, segment{answer[:l.tx], true})
			answer = answer[l.tx:]
		}
		l.segments = append(l.segments, segment{answer, false})
	}
}

// answers gives the answers to an APDU, of which there may be none.
func (s *Station) answers(client byte, apdu []byte) [][]byte {
	switch {
	case s.Answers != nil:
		return s.Answers(client, apdu)
	case s.Answer == nil:
		return nil
	}
	answer := s.Answer(client, apdu)
	if answer == nil {
		return nil
	}
	return [][]byte{answer}
}

// respond uses the permission to send: the segments that the client does not
// have, or RR; RR too where the client is not ready.
func (l *stationLink) respond(notReady bool) error {
	l.ns = l.acked
	s := l.station
	if s.Push != nil && !s.pushed {
		s.pushed = true
		if err := l.write(controlUI, false, append([]byte{0xE6, 0xE7, 0}, s.Push...)); err != nil {
			return err
		}
	}
	if len(l.segments) == 0 || l.busy > 0 || notReady {
		kind := 0x11
		if l.busy > 0 && s.NotReady {
			kind = 0x15
		}
		l.busy = max(0, l.busy-1)
		return l.write(byte(kind|l.nr<<5), false, nil)
	}
	n := min(l.wtx, len(l.segments))
	for i, segment := range l.segments[:n] {
		control := l.nr<<5 | l.ns<<1
		if i == n-1 {
			control |= pollFinal
		}
		l.ns = (l.ns + 1) & 7
		if err := l.write(byte(control), segment.more, segment.octets); err != nil {
			return err
		}
	}
	return nil
}

// reject answers with FRMR: the control of the frame, the numbers of the
// station, and why.
func (l *stationLink) reject(control, why byte) error {
	l.rejected = []byte{control, byte(l.nr<<5 | pollFinal | l.ns<<1), why}
	return l.write(controlFRMR|pollFinal, false, l.rejected)
}

func (l *stationLink) write(control byte, more bool, info []byte) error {
	return l.station.write(l.own, l.client, control, more, info)
}
