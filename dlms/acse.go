package dlms

import (
	"bytes"

	"gridgate/dlms/axdr"
	"gridgate/dlms/security"
)

// The APDUs of ACSE and of the initiate service (IEC 62056-5-3, 9.5), and what
// is in them, by tag.
const (
	tagInitiateRequest  = 0x01
	tagInitiateResponse = 0x08
	tagServiceError     = 0x0E
	tagAARQ             = 0x60
	tagAARE             = 0x61
	tagRLRQ             = 0x62
	tagRLRE             = 0x63

	tagContextName         = 0xA1
	tagResult              = 0xA2
	tagDiagnostic          = 0xA3
	tagRespondingTitle     = 0xA4
	tagRespondingQualifier = 0xA5
	tagCallingTitle        = 0xA6
	tagCallingQualifier    = 0xA7
	tagRespondingMechanism = 0x89
	tagRequirements        = 0x8A
	tagMechanismName       = 0x8B
	tagRespondingValue     = 0xAA
	tagAuthValue           = 0xAC
	tagUserInfo            = 0xBE
)

const dlmsVersion = 6

// appendElement appends a BER element with its contents.
func appendElement(b []byte, tag byte, contents ...byte) []byte {
	return append(axdr.AppendLength(append(b, tag), len(contents)), contents...)
}

// appendAARQ appends the association request:
//
//	60 len  A1 09 06 07 60857405080101       application context
//	        A6 0A 04 08 system title         of the client, if it has one
//	        A7 len 04 len certificate        of the client's signing key, if given
//	        8A 02 07 80                      \
//	        8B 07 60857405080201              | with authentication only
//	        AC len 80 len password           /  or the client's challenge
//	        BE len 04 len InitiateRequest       protected or not
func appendAARQ(b []byte, o Options, challenge, info []byte) []byte {
	body := appendElement(nil, tagContextName, 0x06, 0x07, 0x60, 0x85, 0x74, 0x05, 0x08, 0x01, contextName(o))
	if title := o.Security.Title; !title.IsZero() {
		body = appendElement(body, tagCallingTitle, appendElement(nil, 0x04, title[:]...)...)
	}
	if certificate := o.Security.Certificate; len(certificate) > 0 {
		body = appendElement(body, tagCallingQualifier, appendElement(nil, 0x04, certificate...)...)
	}
	if o.Mechanism != NoAuthentication {
		value := []byte(o.Password)
		if o.Mechanism.isHigh() {
			value = challenge
		}
		body = appendElement(body, tagRequirements, 0x07, 0x80)
		body = appendElement(body, tagMechanismName, 0x60, 0x85, 0x74, 0x05, 0x08, 0x02, byte(o.Mechanism))
		body = appendElement(body, tagAuthValue, appendElement(nil, 0x80, value...)...)
	}
	return appendElement(b, tagAARQ, appendUserInfo(body, info)...)
}

func appendUserInfo(b, info []byte) []byte {
	return appendElement(b, tagUserInfo, appendElement(nil, 0x04, info...)...)
}

// contextName is the last arc of the application context: 1 logical names, 2
// short names, 3 and 4 the same with ciphering.
func contextName(o Options) byte {
	name := byte(1)
	if o.ShortNames {
		name = 2
	}
	if o.Security.ciphers() {
		name += 2
	}
	return name
}

// appendInitiateRequest appends the xDLMS part of the association request:
//
//	01
//	00, or 01 len key        the dedicated key, if there is one
//	00 00 06                 response allowed, no quality of service, version
//	5F 1F 04 00 conformance  3 octets
//	max PDU                  2 octets
func appendInitiateRequest(b []byte, o Options, dedicated security.Key) []byte {
	c := o.Conformance
	b = append(b, tagInitiateRequest)
	if dedicated.IsZero() {
		b = append(b, 0)
	} else {
		b = dedicated.AppendSecret(append(b, 1, byte(dedicated.Len())))
	}
	return append(b, 0, 0, dlmsVersion, 0x5F, 0x1F, 4, 0,
		byte(c>>16), byte(c>>8), byte(c), byte(o.MaxPDU>>8), byte(o.MaxPDU))
}

// aare is an association response.
type aare struct {
	result     Result
	answered   bool // there is a result
	provider   bool // the diagnostic is the service provider's
	diagnostic uint8
	context    byte   // last arc of the application context; 0 not said
	title      []byte // of the meter

	certificate []byte // the meter's, nil for none
	mechanism   *byte  // nil not said
	challenge   []byte // the meter's
	info        []byte // nil if it was left out
}

// parseAARE decodes the answer to an association request. What it gives
// aliases nothing.
func parseAARE(apdu []byte) (aare, error) {
	outer := reader{b: bytes.Clone(apdu)}
	tag, contents := outer.element()
	if tag != tagAARE || outer.short {
		return aare{}, malformed("%.16x… is no answer to an association request", apdu)
	}
	var a aare
	body := reader{b: contents}
	for len(body.b) > 0 {
		tag, contents := body.element()
		if body.short {
			return aare{}, malformed("association response cut short")
		}
		if err := a.field(tag, contents); err != nil {
			return aare{}, err
		}
	}
	if !a.answered {
		return aare{}, malformed("association response without a result")
	}
	return a, nil
}

// field takes an element of the response. Names and titles that are not as
// they should be are as if they were not there: few associations need them.
func (a *aare) field(tag byte, contents []byte) error {
	switch tag {
	case tagContextName:
		if len(contents) == 9 {
			a.context = contents[8]
		}
	case tagResult:
		n, ok := parseInteger(contents)
		if !ok {
			return malformed("association result %x", contents)
		}
		a.result, a.answered = Result(n), true
	case tagDiagnostic:
		choice := reader{b: contents}
		from, number := choice.element()
		n, ok := parseInteger(number)
		if choice.short || !ok {
			return malformed("association diagnostic %x", contents)
		}
		a.provider, a.diagnostic = from == 0xA2, n
	case tagRespondingTitle:
		inner := reader{b: contents}
		if tag, title := inner.element(); tag == 0x04 && !inner.short {
			a.title = title
		}
	case tagRespondingQualifier:
		inner := reader{b: contents}
		if tag, certificate := inner.element(); tag == 0x04 && !inner.short && len(certificate) > 0 {
			a.certificate = certificate
		}
	case tagRespondingMechanism:
		if len(contents) == 7 {
			a.mechanism = &contents[6]
		}
	case tagRespondingValue:
		inner := reader{b: contents}
		if _, value := inner.element(); !inner.short {
			a.challenge = value
		}
	case tagUserInfo:
		info := reader{b: contents}
		tag, octets := info.element()
		if tag != 0x04 || info.short || len(octets) == 0 {
			return malformed("association response: user information %x", contents)
		}
		a.info = octets
	}
	return nil
}

// refused gives the meter's refusal as an *AssociationError, nil if it granted.
func (a aare) refused() error {
	if a.result == Accepted {
		return nil
	}
	var service *ServiceError
	if len(a.info) > 0 && a.info[0] == tagServiceError {
		service, _ = parseServiceError(a.info) // the refusal says enough without it
	}
	return a.error(service)
}

func (a aare) error(service *ServiceError) error {
	return &AssociationError{Result: a.result, Provider: a.provider, Diagnostic: a.diagnostic, Service: service}
}

// parseInteger decodes a BER INTEGER of one octet.
func parseInteger(b []byte) (uint8, bool) {
	if len(b) != 3 || !bytes.HasPrefix(b, []byte{0x02, 0x01}) {
		return 0, false
	}
	return b[2], true
}

// parseInitiateResponse decodes the xDLMS part of the association response, or
// the confirmed-service-error in its place.
//
//	08 00 06                 quality of service absent (or 01 and an octet), version
//	5F 1F 04 00 conformance  3 octets; old meters send 5F 04 00
//	max PDU, VAA             2 octets each
func parseInitiateResponse(b []byte) (Association, *ServiceError, error) {
	r := reader{b: b}
	switch tag := r.u8(); tag {
	case tagServiceError:
		e, err := parseServiceError(b)
		return Association{}, e, err
	case tagInitiateResponse:
	default:
		return Association{}, nil, malformed("association response: user information %.16x…", b)
	}
	if r.u8() != 0 {
		r.u8() // quality of service
	}
	version := r.u8()
	if r.u8() != 0x5F {
		return Association{}, nil, malformed("association response: no conformance in %x", b)
	}
	length := r.u8()
	if length == 0x1F {
		length = r.u8()
	}
	if length != 4 {
		return Association{}, nil, malformed("association response: conformance of %d octets", length)
	}
	a := Association{Conformance: Conformance(r.u32() & 0xFFFFFF), MaxPDU: r.u16(), VAA: r.u16()}
	switch {
	case r.short:
		return Association{}, nil, malformed("association response: initiate response cut short: %x", b)
	case version != dlmsVersion:
		return Association{}, nil, malformed("association response: dlms version %d, want %d", version, dlmsVersion)
	}
	return a, nil, nil
}

// parseServiceError decodes 0E, the service, the kind and the code.
func parseServiceError(b []byte) (*ServiceError, error) {
	if len(b) < 4 {
		return nil, malformed("confirmed service error cut short: %x", b)
	}
	return &ServiceError{Service: b[1], Kind: b[2], Code: b[3]}, nil
}

// appendRLRQ appends the release request, reason normal, with the initiate
// request unless it is empty.
func appendRLRQ(b, info []byte) []byte {
	body := []byte{0x80, 1, 0}
	if len(info) > 0 {
		body = appendUserInfo(body, info)
	}
	return appendElement(b, tagRLRQ, body...)
}

// parseRLRE checks the answer to a release request. Its contents do not
// matter: some meters repeat the initiate response in it.
func parseRLRE(apdu []byte) error {
	r := reader{b: apdu}
	if tag, _ := r.element(); tag != tagRLRE || r.short {
		return malformed("%.16x… is no answer to a release request", apdu)
	}
	return nil
}
