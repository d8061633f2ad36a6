package sniff

import (
	"fmt"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
)

// association tells of AARQ and AARE: context, mechanism, result. What stands for
// a password is not shown.
func association(a *apdu, b []byte) {
	mechanisms := [...]string{"no authentication", "password (LLS)", "HLS 2", "MD5", "SHA-1", "GMAC", "SHA-256", "ECDSA"}
	contexts := [...]string{1: "logical names", 2: "short names", 3: "logical names, ciphered", 4: "short names, ciphered"}
	body, ok := tlv(b)
	for ok && len(body) > 0 {
		tag := body[0]
		value, fits := tlv(body)
		if !fits {
			break
		}
		last := byte(0)
		if len(value) > 0 {
			last = value[len(value)-1]
		}
		switch {
		case tag == 0xA1 && int(last) < len(contexts) && contexts[last] != "":
			a.text += " " + contexts[last]
		case (tag == 0x8B || tag == 0x89) && int(last) < len(mechanisms):
			a.text += ", " + mechanisms[last]
		case (tag == 0xA6 || tag == 0xA4 && b[0] == 0x61) && len(value) > 2:
			a.text += fmt.Sprintf(", title %X", value[2:])
		case tag == 0xA2 && b[0] == 0x61:
			a.text += ", " + dlms.Result(last).String()
			a.bad = last != 0
		case tag == 0xA3 && b[0] == 0x61 && last != 0:
			a.text += ", " + diagnostic(last)
		case tag == 0xBE && len(value) > 2 && cipheredName(value[2]) != "":
			a.secret = true
			a.text += ", " + cipheredName(value[2]) + cipheredService(value[3:])
		}
		body = body[len(body)-restLen(body):]
	}
}

// diagnostic names what the meter says of an association (IEC 62056-5-3, 9.4.2.2).
func diagnostic(code byte) string {
	switch code {
	case 1:
		return "no reason given"
	case 2:
		return "context not supported"
	case 11:
		return "mechanism not known"
	case 12:
		return "mechanism required"
	case 13:
		return "authentication failed"
	case 14:
		return "authentication required"
	}
	return fmt.Sprintf("diagnostic %d", code)
}

// tlv gives the contents of the element of BER that b begins with.
func tlv(b []byte) (value []byte, ok bool) {
	if len(b) < 2 {
		return nil, false
	}
	length, n := axdr.ParseLength(b[1:])
	if n <= 0 || length < 0 || len(b) < 1+n+length {
		return nil, false
	}
	return b[1+n : 1+n+length], true
}

// restLen gives how much is behind the element that b begins with.
func restLen(b []byte) int {
	length, n := axdr.ParseLength(b[1:])
	return len(b) - 1 - n - length
}
