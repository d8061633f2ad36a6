package dlmstest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
	"gridgate/dlms/security"
)

// Association-result and Associate-source-diagnostics (IEC 62056-5-3, 9.5).
const (
	accepted, rejected = 0, 1

	diagnosticNull             = 0
	diagnosticNoReason         = 1
	diagnosticContextName      = 2
	diagnosticTitle            = 3
	diagnosticMechanismUnknown = 11
	diagnosticFailure          = 13
	diagnosticRequired         = 14
)

// mechanismLLS and mechanismHLS are the first of their level.
const (
	mechanismLLS = 1
	mechanismHLS = 2
)

// arcs start the names of application contexts and of mechanisms.
const (
	contextArcs   = "\x60\x85\x74\x05\x08\x01"
	mechanismArcs = "\x60\x85\x74\x05\x08\x02"
)

// aarq is an association request.
type aarq struct {
	context   byte // last arc of the application context; 0 for another name
	title     []byte
	mechanism byte
	value     []byte // password or challenge
	signer    []byte // certificate of the client's signing key
	user      []byte
	otherACSE bool // its protocol-version has no version 1
}

func parseAARQ(apdu []byte) aarq {
	fields := elements(elements(apdu)[0x60])
	q := aarq{
		title: elements(fields[0xA6])[4],
		value: elements(fields[0xAC])[0x80],
		user:  elements(fields[0xBE])[4],

		signer: elements(fields[0xA7])[4],
	}
	if version := fields[0x80]; len(version) == 2 {
		q.otherACSE = version[1]&0x80 == 0
	}
	if name := fields[0xA1]; len(name) == 9 && string(name[:8]) == "\x06\x07"+contextArcs {
		q.context = name[8]
	}
	if name := fields[0x8B]; len(name) == 7 && string(name[:6]) == mechanismArcs {
		q.mechanism = name[6]
	} else if name != nil {
		q.mechanism = 0xFF
	}
	return q
}

// aare gives an association response. fields go between diagnostic and user
// information.
func aare(context, result, diagnostic byte, fields, user []byte) []byte {
	b := appendElement(nil, 0xA1, append([]byte("\x06\x07"+contextArcs), max(context, 1))...)
	b = append(b, 0xA2, 3, 2, 1, result, 0xA3, 5, 0xA1, 3, 2, 1, diagnostic)
	b = append(b, fields...)
	if len(user) > 0 {
		b = appendElement(b, 0xBE, appendElement(nil, 4, user...)...)
	}
	return appendElement(nil, 0x61, b...)
}

func (s *Session) associate(client uint16, apdu []byte) []byte {
	s.end()
	q := parseAARQ(apdu)
	reject := func(diagnostic byte, user ...byte) []byte {
		s.end()
		return aare(q.context, rejected, diagnostic, nil, user)
	}
	if q.otherACSE {
		const provider, noCommonVersion = 0xA2, 2
		refusal := aare(q.context, rejected, noCommonVersion, nil, nil)
		refusal[len(refusal)-5] = provider
		return refusal
	}
	l, known := s.meter.logins[client]
	if !known {
		return reject(diagnosticNoReason)
	}
	if diagnostic := s.meter.knows(l, q); diagnostic != diagnosticNull {
		return reject(diagnostic)
	}
	s.a = s.meter.newAssociation(l, q)
	initiate, how, refusal := s.openInitiate(q)
	if refusal != nil {
		s.end()
		return refusal
	}
	if code := s.initiate(initiate); code != initiateFine {
		return reject(diagnosticNoReason, 0x0E, 1, 6, code) // confirmed service error: initiate
	}
	response := s.initiateResponse()
	if how.protected {
		response = s.seal(response, how)
	}
	var fields []byte
	high := l.Mechanism >= mechanismHLS
	if title := s.meter.keys.Title; !title.IsZero() && (s.a.ciphered || len(q.title) > 0) {
		fields = appendElement(fields, 0xA4, appendElement(nil, 4, title[:]...)...)
	}
	if certificate := s.meter.keys.Certificate; len(certificate) > 0 && l.Mechanism == byte(security.HLSECDSA) {
		fields = appendElement(fields, 0xA5, appendElement(nil, 4, certificate...)...)
	}
	if !high {
		s.a.ready = true
		return aare(q.context, accepted, diagnosticNull, fields, response)
	}
	challenge := make([]byte, security.Mechanism(l.Mechanism).ChallengeLen())
	if _, err := io.ReadFull(s.meter.o.Random, challenge); err != nil {
		return reject(diagnosticNoReason)
	}
	s.a.handshake.OwnChallenge, s.a.handshake.PeerChallenge = challenge, bytes.Clone(q.value)
	if s.a.handshake.Check() != nil {
		return reject(diagnosticFailure)
	}
	s.a.since = s.a.handshake.Mark()
	fields = append(fields, 0x88, 2, 7, 0x80)
	fields = appendElement(fields, 0x89, append([]byte(mechanismArcs), l.Mechanism)...)
	fields = appendElement(fields, 0xAA, appendElement(nil, 0x80, challenge...)...)
	return aare(q.context, accepted, diagnosticRequired, fields, response)
}

// knows says what is wrong with a request for an association, before its
// user information is looked at.
func (m *Meter) knows(l *login, q aarq) byte {
	short := q.context == 2 || q.context == 4
	ciphered := q.context == 3 || q.context == 4
	_, titleErr := security.ParseTitle(q.title)
	switch {
	case q.context == 0 || q.context > 4 || short != (l.conformance()&conformanceRead != 0):
		return diagnosticContextName
	case ciphered && m.keys.Keys.Encryption.IsZero(), !ciphered && l.Policy != security.Unprotected:
		return diagnosticContextName
	case ciphered && titleErr != nil:
		return diagnosticTitle
	case l.Mechanism == 0 && q.mechanism <= mechanismLLS:
		return diagnosticNull // a password that nobody needs
	case q.mechanism == 0:
		return diagnosticRequired
	case q.mechanism != l.Mechanism:
		return diagnosticMechanismUnknown
	case l.Mechanism == mechanismLLS && string(q.value) != l.Secret:
		return diagnosticFailure
	}
	return diagnosticNull
}

func (l *login) conformance() uint32 {
	if l.Conformance == 0 {
		return Everything
	}
	return l.Conformance
}

func (m *Meter) newAssociation(l *login, q aarq) *association {
	k := m.keys
	a := &association{login: l, name: q.context, ciphered: q.context >= 3}
	title, _ := security.ParseTitle(q.title) // zero where none is needed
	a.sender = security.Sender{Suite: k.Suite, Policy: l.Policy, Title: k.Title, Keys: k.Keys, Counter: m.counter}
	a.receiver = security.Receiver{
		Suite: k.Suite, Policy: l.Policy, Title: title, Keys: k.Keys, Direction: security.FromClient, Window: &m.window,
	}
	a.handshake = security.Handshake{
		Mechanism: security.Mechanism(l.Mechanism), Own: k.Title, Peer: title, Secret: []byte(l.Secret),
		SigningKey: k.SigningKey, PeerKey: k.signer(q.signer), Random: m.o.Random, Sender: &a.sender, Receiver: &a.receiver,
	}
	return a
}

// openInitiate gives the xDLMS part of the request in the clear, or the whole
// refusal.
func (s *Session) openInitiate(q aarq) (plain []byte, how protection, refusal []byte) {
	a := s.a
	if len(q.user) == 0 || !security.IsProtected(q.user[0]) {
		if a.receiver.Policy != security.Unprotected {
			return nil, how, aare(q.context, rejected, diagnosticFailure, nil, nil)
		}
		return q.user, how, nil
	}
	p, err := security.Parse(q.user)
	if err == nil && a.ciphered {
		plain, err = s.unprotect(q.user)
	}
	switch {
	case errors.Is(err, security.ErrReplay):
		return nil, how, s.refuse(err)
	case err != nil || !a.ciphered:
		return nil, how, aare(q.context, rejected, diagnosticFailure, nil, []byte{0x0E, 1, 0, 6})
	}
	return plain, protection{protected: true, general: p.IsGeneral(), policy: p.Control.Policy() | a.receiver.Policy}, nil
}

// What may be wrong with an initiate request, as in a confirmed service error.
const (
	initiateOther        = 0
	initiateVersion      = 1
	initiateIncompatible = 2
	initiatePDU          = 3
	initiateFine         = 0xFF
)

// minPDU is the shortest APDU that a client must take.
const minPDU = 12

// initiate takes the xDLMS part of the request:
//
//	01  dedicated key  response allowed  quality of service   each 00, or 01 and it
//	06  5F 1F 04 00 conformance 3  PDU 2                       or 5F 04 00
func (s *Session) initiate(b []byte) byte {
	r := reader{b: b}
	tag := r.u8()
	var dedicated []byte
	if r.u8() != 0 {
		dedicated = r.counted()
	}
	if r.u8() != 0 {
		r.u8()
	}
	if r.u8() != 0 {
		r.u8()
	}
	version := r.u8()
	application := r.u8()
	length := r.u8()
	if length == 0x1F {
		length = r.u8()
	}
	unused, proposed, pdu := r.u8(), uint32(r.u8())<<16|uint32(r.u16()), int(r.u16())
	switch {
	case !r.done() || tag != 1 || application != 0x5F || length != 4 || unused != 0:
		return initiateOther
	case version < 6:
		return initiateVersion
	case pdu != 0 && pdu < minPDU:
		return initiatePDU
	}
	a := s.a
	a.conformance = proposed & a.login.conformance()
	if a.conformance == 0 {
		return initiateIncompatible
	}
	if a.pdu = int(s.meter.o.MaxPDU); pdu != 0 {
		a.pdu = min(a.pdu, pdu)
	}
	if len(dedicated) > 0 && a.ciphered {
		key, err := security.NewKey(dedicated)
		if err != nil || key.Len() != s.meter.keys.Suite.KeyLen() {
			return initiateOther
		}
		a.sender.Keys.Dedicated, a.receiver.Keys.Dedicated = key, key
	}
	return initiateFine
}

func (s *Session) initiateResponse() []byte {
	c, pdu := s.a.conformance, s.meter.o.MaxPDU
	b := []byte{8, 0, 6, 0x5F, 0x1F, 4, 0, byte(c >> 16), byte(c >> 8), byte(c)}
	b = binary.BigEndian.AppendUint16(b, pdu)
	if s.a.isShort() {
		return append(b, 0xFA, 0x00)
	}
	return append(b, 0, 7)
}

// proofMethod starts an action-request that runs reply_to_HLS_authentication
// of the association, but for the invoke id.
const proofMethod = "\x00\x0F\x00\x00\x28\x00\x00\xFF\x01"

// isProof says whether a request is the third pass of an authentication.
func isProof(apdu []byte) bool {
	if len(apdu) > 3 && apdu[0] == 0xC3 {
		return apdu[1] == 1 && bytes.HasPrefix(apdu[3:], []byte(proofMethod))
	}
	return len(apdu) > 4 && (apdu[0] == 5 || apdu[0] == 6) && isShortProof(apdu)
}

// prove takes the client's proof and gives the meter's: the passes 3 and 4.
func (s *Session) prove(argument axdr.Value) (axdr.Value, Result) {
	a := s.a
	if a.Mechanism < mechanismHLS || a.ready {
		return axdr.Value{}, ReadWriteDenied
	}
	if argument.Tag != axdr.TagOctetString || a.handshake.Verify([]byte(argument.Str), a.since) != nil {
		a.over = true
		return axdr.Value{}, ReadWriteDenied
	}
	s.note()
	proof, err := a.handshake.Reply(nil)
	if err != nil {
		return axdr.Value{}, OtherReason
	}
	a.ready = true
	return axdr.OctetString(string(proof)), Success
}

// currentAssociation is the name under which every client finds its own.
func currentAssociation() obis.Code { return obis.Code{0, 0, 40, 0, 0, 255} }
