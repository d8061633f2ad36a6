package dlmstest

import "gridgate/dlms/security"

// establish makes the association of a client that has one without asking
// (IEC 62056-5-3, 7.2.4): it is by logical names, or by short ones if the
// client may use no others, and has all that the client may have.
func (s *Session) establish(client uint16) {
	l := s.meter.logins[client]
	if s.a != nil || l == nil || !l.PreEstablished {
		return
	}
	q := aarq{context: 1}
	if l.conformance()&conformanceRead != 0 {
		q.context = 2
	}
	if l.Policy != security.Unprotected {
		q.context += 2
		q.title = l.Title[:]
	}
	s.a = s.meter.newAssociation(l, q)
	s.a.conformance, s.a.pdu = l.conformance(), int(s.meter.o.MaxPDU)
	s.a.ready, s.a.standing = true, true
}

// isUnconfirmed says whether a request asks for no answer: a SET, ACTION or
// ACCESS of the unconfirmed service class.
func isUnconfirmed(apdu []byte) bool {
	const confirmed = 0x40
	switch {
	case len(apdu) > 2 && (apdu[0] == 0xC1 || apdu[0] == 0xC3):
		return apdu[2]&confirmed == 0
	case len(apdu) > 1 && apdu[0] == 0xD9:
		return apdu[1]&confirmed == 0
	}
	return false
}
