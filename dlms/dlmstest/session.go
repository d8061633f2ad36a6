package dlmstest

import (
	"bytes"
	"encoding/binary"
	"errors"

	"gridgate/dlms/axdr"
	"gridgate/dlms/security"
)

// state-error and service-error of an exception-response.
const (
	serviceNotAllowed = 1
	serviceUnknown    = 2

	operationNotPossible = 1
	serviceNotSupported  = 2
	otherReason          = 3
	pduTooLong           = 4
	decipheringError     = 5
	counterError         = 6
)

func exception(state, service byte) []byte { return []byte{0xD8, state, service} }

// Session is one connection to a Meter; it has one association at most. It is
// not safe for concurrent use.
type Session struct {
	meter *Meter
	depth int // scripts that run scripts

	a   *association // nil for none
	in  blocksIn
	out blocksOut
}

// association is what a client was granted.
type association struct {
	*login
	name        byte // last arc of the application context
	ready       bool // the client has shown who it is
	standing    bool // it was there before the client came
	over        bool // it ends with the answer
	ciphered    bool
	conformance uint32
	pdu         int // the longest APDU that the client takes
	sender      security.Sender
	receiver    security.Receiver
	handshake   security.Handshake
	since       security.Mark

	get    long
	set    long
	action long
}

// long is a value that goes or comes in the blocks of its service.
type long struct {
	octets []byte
	block  uint32 // the last that was sent, or came
	list   bool
	items  []target // what the octets are for
	on     bool
}

// NewSession gives a connection.
func (m *Meter) NewSession() *Session { return &Session{meter: m} }

// Frame answers what came in a datagram: a frame of the wrapper (IEC 62056-47),
// as it goes over UDP. Anything else has no answer.
func (s *Session) Frame(datagram []byte) [][]byte {
	f, err := readFrame(bytes.NewReader(datagram))
	if err != nil || len(datagram) != headerLen+len(f.apdu) {
		return nil
	}
	return s.frame(f)
}

// Answer gives the answers to an APDU of a client: none, one, or the blocks of
// one.
func (s *Session) Answer(client uint16, apdu []byte) [][]byte {
	s.meter.mu.Lock()
	defer s.meter.mu.Unlock()
	if len(apdu) == 0 {
		return nil
	}
	s.establish(client)
	if s.a != nil && s.a.client == client && len(apdu) > int(s.meter.o.MaxPDU) {
		return [][]byte{exception(serviceNotAllowed, pduTooLong)}
	}
	if apdu[0] == 0xE0 && s.a != nil && s.a.client == client {
		return s.general(apdu)
	}
	s.in, s.out = blocksIn{}, blocksOut{}
	answer := s.answer(client, apdu)
	if answer == nil {
		return nil
	}
	return s.inBlocks(answer, 0, windowUntilTold)
}

// end ends the association.
func (s *Session) end() { s.a, s.in, s.out = nil, blocksIn{}, blocksOut{} }

// answer answers a whole APDU.
func (s *Session) answer(client uint16, apdu []byte) []byte {
	switch {
	case apdu[0] == 0x60:
		return s.associate(client, apdu)
	case s.a == nil || s.a.client != client:
		return exception(serviceNotAllowed, operationNotPossible)
	case apdu[0] == 0x62 && s.a.standing:
		return exception(serviceNotAllowed, operationNotPossible)
	case apdu[0] == 0x62:
		return s.release(apdu)
	}
	plain, how, refusal := s.open(apdu)
	if refusal != nil {
		return refusal
	}
	if !s.a.ready && !isProof(plain) {
		return exception(serviceNotAllowed, operationNotPossible)
	}
	answer := s.serve(plain, s.room(how))
	if isUnconfirmed(plain) {
		answer = nil
	}
	if len(answer) > 0 && how.protected && answer[0] != 0xD8 {
		answer = s.seal(answer, how)
	}
	if s.a.over {
		s.end()
	}
	return answer
}

// serve answers a service in the clear; room is how long the answer may be.
func (s *Session) serve(apdu []byte, room int) []byte {
	r := &reader{b: apdu}
	if s.a != nil && s.a.isShort() {
		return s.serveShort(r, room)
	}
	tag := r.u8()
	service, known := map[byte]uint32{
		0xC0: conformanceGet, 0xC1: conformanceSet, 0xC3: conformanceAction, 0xD9: conformanceAccess,
	}[tag]
	proof := tag == 0xC3 && isProof(apdu)
	if !known || s.a.conformance&service == 0 && !proof {
		return exception(serviceUnknown, serviceNotSupported)
	}
	var answer []byte
	switch tag {
	case 0xC0:
		answer = s.get(r, room)
	case 0xC1:
		answer = s.set(r)
	case 0xC3:
		answer = s.act(r, room)
	default:
		answer = s.access(r, room)
	}
	if answer == nil {
		return exception(serviceUnknown, serviceNotSupported)
	}
	return answer
}

// protection is how a request was protected, and how its answer is.
type protection struct {
	protected, general bool
	set                security.KeySet
	policy             security.Policy

	// of general-ciphering and general-signing
	scheme      security.Scheme
	signed      bool
	transaction string
}

// open gives a request in the clear, or the refusal to read it.
func (s *Session) open(apdu []byte) (plain []byte, how protection, refusal []byte) {
	a := s.a
	plain = apdu
	general := a.conformance&conformanceProtection != 0
	var err error
	switch {
	case general && a.ciphered && apdu[0] == generalCiphering:
		plain, err = s.openExchange(apdu, &how)
	case security.IsProtected(apdu[0]):
		p, wrong := security.Parse(apdu)
		if !a.ciphered || wrong != nil {
			return nil, how, exception(serviceUnknown, serviceNotSupported)
		}
		how = protection{protected: true, general: p.IsGeneral(), set: p.Set, policy: p.Control.Policy() | a.receiver.Policy}
		plain, err = s.unprotect(apdu)
	case a.receiver.Policy != security.Unprotected:
		return nil, how, exception(serviceNotAllowed, operationNotPossible)
	}
	if err == nil && general && plain[0] == generalSigning {
		plain, err = s.verify(plain, &how)
	}
	if err != nil {
		return nil, how, s.refuse(err)
	}
	return plain, how, nil
}

// unprotect opens what the client of s.a protected.
func (s *Session) unprotect(apdu []byte) ([]byte, error) {
	plain, err := s.a.receiver.Unprotect(nil, apdu)
	if err == nil {
		s.note()
	}
	return plain, err
}

// note has the counter objects show the counter received last.
func (s *Session) note() {
	r := &s.a.receiver
	for _, key := range []security.Key{r.Keys.Encryption, r.Keys.Dedicated} {
		if n, ok := r.Window.Last(r.Title, key.ID(), r.Direction); ok && !key.IsZero() {
			s.meter.last = max(s.meter.last, n)
		}
	}
}

// refuse gives the exception for what could not be opened.
func (s *Session) refuse(err error) []byte {
	var replay *security.ReplayError
	switch {
	case errors.As(err, &replay):
		next := replay.Last
		if next < 1<<32-1 {
			next++
		}
		return binary.BigEndian.AppendUint32(exception(serviceNotAllowed, counterError), next)
	case errors.Is(err, security.ErrWeak):
		return exception(serviceNotAllowed, operationNotPossible)
	}
	return exception(serviceNotAllowed, decipheringError)
}

// seal protects an answer as its request was.
func (s *Session) seal(answer []byte, how protection) []byte {
	s.a.sender.Policy = how.policy
	if how.scheme != security.NoScheme || how.signed {
		signed, done, err := s.sealExchange(answer, how)
		switch {
		case err != nil:
			return exception(serviceNotAllowed, otherReason)
		case done:
			return signed
		}
		answer = signed
	}
	out, err := s.a.sender.Protect(nil, answer, how.set, how.general)
	if err != nil {
		return exception(serviceNotAllowed, otherReason)
	}
	return out
}

// room is how many octets an answer may have before it is protected.
func (s *Session) room(how protection) int {
	room := s.a.pdu
	if s.a.conformance&conformanceGeneralBlock != 0 {
		room = maxWhole
	}
	if how.scheme != security.NoScheme || how.signed {
		x := s.a.exchange(s.meter.keys)
		x.Scheme, x.Sign = how.scheme, how.signed
		room -= x.Overhead()
	}
	if how.protected {
		room -= security.Overhead(room, how.policy, how.general)
	}
	return max(room, 16)
}

// release ends the association, whatever else is in the request.
func (s *Session) release(apdu []byte) []byte {
	a := s.a
	user := elements(elements(elements(apdu)[0x62])[0xBE])[4]
	body := []byte{0x80, 1, 0}
	if len(user) > 0 {
		response := s.initiateResponse()
		if a.ciphered && security.IsProtected(user[0]) {
			p, err := security.Parse(user)
			if err == nil {
				_, err = s.unprotect(user)
			}
			if err != nil {
				return s.refuse(err)
			}
			response = s.seal(response, protection{protected: true, general: p.IsGeneral(), policy: p.Control.Policy() | a.receiver.Policy})
		}
		body = appendElement(body, 0xBE, appendElement(nil, 4, response...)...)
	}
	s.end()
	return appendElement(nil, 0x63, body...)
}

// isShort says whether the association is by short names.
func (a *association) isShort() bool { return a.name == 2 || a.name == 4 }

// reader takes octets apart from the front. Past the end it gives zeros and
// remembers that they were cut short.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.b, r.short = nil, true
		return nil
	}
	head := r.b[:n]
	r.b = r.b[n:]
	return head
}

func (r *reader) u8() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// count takes a length or count; it is one that the octets have room for.
func (r *reader) count() int {
	count, n := axdr.ParseLength(r.b)
	r.take(n)
	if n == 0 || count > len(r.b) {
		r.b, r.short = nil, true
		return 0
	}
	return count
}

func (r *reader) counted() []byte { return r.take(r.count()) }

func (r *reader) data() axdr.Value {
	v, n, err := axdr.Parse(r.b)
	if err != nil {
		r.b, r.short = nil, true
		return axdr.Value{}
	}
	r.take(n)
	return v
}

// done says whether all was there, and nothing after it.
func (r *reader) done() bool { return !r.short && len(r.b) == 0 }

// elements takes BER elements with tags of one octet apart, by their tags.
func elements(b []byte) map[byte][]byte {
	m := map[byte][]byte{}
	r := reader{b: b}
	for len(r.b) > 0 {
		tag := r.u8()
		if contents := r.counted(); !r.short {
			m[tag] = contents
		}
	}
	return m
}

func appendElement(b []byte, tag byte, contents ...byte) []byte {
	return append(axdr.AppendLength(append(b, tag), len(contents)), contents...)
}
