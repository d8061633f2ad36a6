package dlms

import (
	"bytes"

	"gridgate/dlms/axdr"
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

	tagContextName   = 0xA1
	tagResult        = 0xA2
	tagDiagnostic    = 0xA3
	tagRequirements  = 0x8A
	tagMechanismName = 0x8B
	tagAuthValue     = 0xAC
	tagUserInfo      = 0xBE
)

const dlmsVersion = 6

// appendElement appends a BER element with its contents.
func appendElement(b []byte, tag byte, contents ...byte) []byte {
	return append(axdr.AppendLength(append(b, tag), len(contents)), contents...)
}

// appendAARQ appends the association request:
//
//	60 len  A1 09 06 07 60857405080101       application context: logical names, no ciphering
//	        8A 02 07 80                      \
//	        8B 07 60857405080201              | with authentication only
//	        AC len 80 len password           /
//	        BE len 04 len InitiateRequest
func appendAARQ(b []byte, o Options) []byte {
	body := appendElement(nil, tagContextName, 0x06, 0x07, 0x60, 0x85, 0x74, 0x05, 0x08, 0x01, 0x01)
	if o.Mechanism != NoAuthentication {
		body = appendElement(body, tagRequirements, 0x07, 0x80)
		body = appendElement(body, tagMechanismName, 0x60, 0x85, 0x74, 0x05, 0x08, 0x02, byte(o.Mechanism))
		body = appendElement(body, tagAuthValue, appendElement(nil, 0x80, o.Password...)...)
	}
	body = appendElement(body, tagUserInfo, appendElement(nil, 0x04, appendInitiateRequest(nil, o)...)...)
	return appendElement(b, tagAARQ, body...)
}

// appendInitiateRequest appends the xDLMS part of the association request:
//
//	01 00 00 00 06           no dedicated key, response allowed, no quality of service, version
//	5F 1F 04 00 conformance  3 octets
//	max PDU                  2 octets
func appendInitiateRequest(b []byte, o Options) []byte {
	c := o.Conformance
	return append(b, tagInitiateRequest, 0, 0, 0, dlmsVersion, 0x5F, 0x1F, 4, 0,
		byte(c>>16), byte(c>>8), byte(c), byte(o.MaxPDU>>8), byte(o.MaxPDU))
}

// parseAARE decodes the answer to an association request that was made with o.
// A refusal is an *AssociationError.
//
// An answer without the xDLMS part is taken as one that grants what was
// proposed: some meters leave it out, of refusals above all.
func parseAARE(apdu []byte, o Options) (Association, error) {
	outer := reader{b: apdu}
	tag, contents := outer.element()
	if tag != tagAARE || outer.short {
		return Association{}, malformed("%.16x… is no answer to an association request", apdu)
	}
	refusal := AssociationError{Result: 0xFF}
	granted := Association{Conformance: o.Conformance}
	body := reader{b: contents}
	for len(body.b) > 0 {
		tag, contents := body.element()
		if body.short {
			return Association{}, malformed("association response cut short")
		}
		switch tag {
		case tagResult:
			n, ok := parseInteger(contents)
			if !ok {
				return Association{}, malformed("association result %x", contents)
			}
			refusal.Result = Result(n)
		case tagDiagnostic:
			choice := reader{b: contents}
			from, number := choice.element()
			n, ok := parseInteger(number)
			if choice.short || !ok {
				return Association{}, malformed("association diagnostic %x", contents)
			}
			refusal.Provider, refusal.Diagnostic = from == 0xA2, n
		case tagUserInfo:
			info := reader{b: contents}
			tag, octets := info.element()
			if tag != 0x04 || info.short {
				return Association{}, malformed("association response: user information %x", contents)
			}
			var err error
			if granted, refusal.Service, err = parseInitiateResponse(octets); err != nil {
				return Association{}, err
			}
		}
	}
	switch {
	case refusal.Result == 0xFF:
		return Association{}, malformed("association response without a result")
	case refusal.Result != Accepted || refusal.Service != nil:
		return Association{}, &refusal
	}
	return granted, nil
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

// appendRLRQ appends the release request, reason normal.
func appendRLRQ(b []byte) []byte { return append(b, tagRLRQ, 3, 0x80, 1, 0) }

// parseRLRE checks the answer to a release request. Its contents do not
// matter: some meters repeat the initiate response in it.
func parseRLRE(apdu []byte) error {
	r := reader{b: apdu}
	if tag, _ := r.element(); tag != tagRLRE || r.short {
		return malformed("%.16x… is no answer to a release request", apdu)
	}
	return nil
}
