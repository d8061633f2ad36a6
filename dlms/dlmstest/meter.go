package dlmstest

import (
	"bytes"
	"encoding/binary"
	"io"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

// The data-access-results that a Meter gives.
const (
	resultReadWriteDenied = 3
	resultObjectUndefined = 4
	resultTypeUnmatched   = 12
	resultNoLongGet       = 16
	resultBlockNumber     = 19
)

// Conformance bits that a Meter grants when they are proposed.
const (
	conformanceBlockGet  = 0x001000
	conformanceGet       = 0x000010
	conformanceSelective = 0x000004
)

// Options is what a Meter is like. The zero value is a meter with nothing in
// it that lets the public client, wPort 16, in.
type Options struct {
	// Logins has the clients by wPort, each with the password of its low level
	// security, "" for none. nil is the public client alone.
	Logins map[uint16]string
	// Server is the wPort of the logical device; 0 is 1.
	Server uint16
	// MaxPDU is the longest APDU that the meter sends and takes; 0 is 1024.
	MaxPDU  uint16
	Objects []Object
	// Tamper, if not nil, changes the answers on their way out, header and
	// all; an empty one is silence. It may be called by several sessions at once.
	Tamper func(request, frame []byte) []byte
}

// Meter is a logical-name server in memory: association with and without a
// password, GET with blocks and selection by range. It may serve any number
// of connections at once.
type Meter struct {
	o Options
}

// NewMeter gives a meter.
func NewMeter(o Options) *Meter {
	if o.Logins == nil {
		o.Logins = map[uint16]string{16: ""}
	}
	if o.Server == 0 {
		o.Server = 1
	}
	if o.MaxPDU == 0 {
		o.MaxPDU = 1024
	}
	return &Meter{o: o}
}

// Serve serves one connection until the client hangs up or the stream fails.
// Frames for other logical devices are not answered.
func (m *Meter) Serve(stream io.ReadWriter) error {
	s := session{meter: m}
	return serveFrames(stream, func(f frame) []byte {
		if f.destination != m.o.Server || len(f.apdu) == 0 {
			return nil
		}
		out := f.answer(s.answer(f.source, f.apdu))
		if m.o.Tamper != nil {
			out = m.o.Tamper(f.apdu, out)
		}
		return out
	})
}

// session is one connection; it has one association at most.
type session struct {
	meter  *Meter
	client uint16 // the wPort of the association, 0 for none
	pdu    int    // the longest APDU that the client takes
	rest   []byte // what is left of an answer in blocks
	block  uint32 // the block sent last
}

func (s *session) answer(client uint16, apdu []byte) []byte {
	switch {
	case apdu[0] == 0x60:
		return s.associate(client, apdu)
	case s.client == 0 || s.client != client:
		return []byte{0xD8, 1, 1} // service not allowed, operation not possible
	case apdu[0] == 0x62:
		s.client = 0
		return []byte{0x63, 3, 0x80, 1, 0}
	case apdu[0] == 0xC0 && len(apdu) >= 3:
		return s.get(apdu)
	}
	return []byte{0xD8, 2, 2} // service unknown, service not supported
}

// Association-result and Associate-source-diagnostics.
const (
	accepted, rejected = 0, 1

	diagnosticNull                = 0
	diagnosticNoReason            = 1
	diagnosticContextName         = 2
	diagnosticMechanismUnknown    = 11
	diagnosticFailure             = 13
	diagnosticAuthenticationNeeds = 14
)

func aare(result, diagnostic byte, user ...byte) []byte {
	b := []byte{
		0xA1, 9, 6, 7, 0x60, 0x85, 0x74, 5, 8, 1, 1,
		0xA2, 3, 2, 1, result,
		0xA3, 5, 0xA1, 3, 2, 1, diagnostic,
	}
	if len(user) > 0 {
		b = append(append(b, 0xBE, byte(len(user)+2), 4, byte(len(user))), user...)
	}
	return append([]byte{0x61, byte(len(b))}, b...)
}

func (s *session) associate(client uint16, apdu []byte) []byte {
	s.client, s.rest = 0, nil
	fields := elements(elements(apdu)[0x60])
	want, known := s.meter.o.Logins[client]
	if !known {
		return aare(rejected, diagnosticNoReason)
	}
	if !bytes.Equal(fields[0xA1], []byte{6, 7, 0x60, 0x85, 0x74, 5, 8, 1, 1}) {
		return aare(rejected, diagnosticContextName)
	}
	if want != "" {
		mechanism, offered := fields[0x8B]
		switch {
		case !offered:
			return aare(rejected, diagnosticAuthenticationNeeds)
		case !bytes.Equal(mechanism, []byte{0x60, 0x85, 0x74, 5, 8, 2, 1}):
			return aare(rejected, diagnosticMechanismUnknown)
		case string(elements(fields[0xAC])[0x80]) != want:
			return aare(rejected, diagnosticFailure)
		}
	}
	// The xDLMS part with nothing optional in it: 01 000000 06 5F1F0400 and
	// the proposal, 3 and 2 octets.
	user := elements(fields[0xBE])[4]
	if len(user) != 14 || !bytes.HasPrefix(user, []byte{1, 0, 0, 0, 6, 0x5F, 0x1F, 4, 0}) {
		return aare(rejected, diagnosticNoReason, 0x0E, 1, 6, 0) // initiate error: other
	}
	proposed := uint32(user[9])<<16 | uint32(user[10])<<8 | uint32(user[11])
	granted := proposed & (conformanceBlockGet | conformanceGet | conformanceSelective)
	s.pdu = int(min(binary.BigEndian.Uint16(user[12:]), s.meter.o.MaxPDU))
	s.client = client
	return aare(accepted, diagnosticNull, 8, 0, 6, 0x5F, 0x1F, 4, 0, byte(granted>>16), byte(granted>>8), byte(granted),
		byte(s.meter.o.MaxPDU>>8), byte(s.meter.o.MaxPDU), 0, 7)
}

// elements takes BER elements with short lengths apart, by their tags.
func elements(b []byte) map[byte][]byte {
	m := map[byte][]byte{}
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		m[b[0]] = b[2 : 2+int(b[1])]
		b = b[2+int(b[1]):]
	}
	return m
}

func (s *session) get(apdu []byte) []byte {
	form, invoke, body := apdu[1], apdu[2], apdu[3:]
	switch {
	case form == 2 && len(body) == 4:
		return s.next(invoke, binary.BigEndian.Uint32(body))
	case form != 1 || len(body) < 10:
		return []byte{0xD8, 2, 2}
	}
	s.rest = nil
	class, code, id := binary.BigEndian.Uint16(body), obis.Code(body[2:8]), int8(body[8])
	var rows *Selection
	if body[9] != 0 {
		var ok bool
		if rows, ok = parseSelection(body[10:]); !ok {
			return []byte{0xC4, 1, invoke, 1, resultTypeUnmatched}
		}
	}
	value, result := s.meter.read(class, code, id, rows)
	if result != 0 {
		return []byte{0xC4, 1, invoke, 1, result}
	}
	data, err := value.AppendBinary(nil)
	if err != nil {
		return []byte{0xC4, 1, invoke, 1, resultTypeUnmatched}
	}
	if len(data)+4 <= s.pdu {
		return append([]byte{0xC4, 1, invoke, 0}, data...)
	}
	s.rest, s.block = data, 0
	return s.next(invoke, 0)
}

// next gives the block after the one that the client has.
func (s *session) next(invoke byte, have uint32) []byte {
	head := []byte{0xC4, 2, invoke, 1}
	if s.rest == nil {
		return append(head, 0, 0, 0, 0, 1, resultNoLongGet)
	}
	if have != s.block {
		s.rest = nil
		return append(head, 0, 0, 0, 0, 1, resultBlockNumber)
	}
	s.block++
	const overhead = 12 // with a length of three octets
	raw := s.rest[:min(len(s.rest), max(1, s.pdu-overhead))]
	s.rest = s.rest[len(raw):]
	if len(s.rest) > 0 {
		head[3] = 0
	} else {
		s.rest = nil
	}
	b := append(binary.BigEndian.AppendUint32(head, s.block), 0)
	return append(axdr.AppendLength(b, len(raw)), raw...)
}

func (m *Meter) read(class uint16, code obis.Code, id int8, rows *Selection) (axdr.Value, byte) {
	for _, o := range m.o.Objects {
		if o.Class != class || o.Code != code {
			continue
		}
		if id == 1 {
			return axdr.OctetString(string(code[:])), 0
		}
		v, ok := o.Read(id, rows)
		if !ok {
			return axdr.Value{}, resultReadWriteDenied
		}
		return v, 0
	}
	return axdr.Value{}, resultObjectUndefined
}
