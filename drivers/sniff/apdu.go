package sniff

import (
	"encoding/binary"
	"fmt"
	"strings"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

// apdu is what there is to say of one.
type apdu struct {
	text    string
	bad     bool // a refusal, or not to be read
	secret  bool // ciphered
	request bool // of a client
}

var apduNames = [...]string{ //nolint:gochecknoglobals // a constant table
	0x01: "initiate-request",
	0x05: "read-request",
	0x06: "write-request",
	0x08: "initiate-response",
	0x0C: "read-response",
	0x0D: "write-response",
	0x0E: "confirmed-service-error",
	0x0F: "data-notification",
	0x10: "data-notification-confirm",
	0x18: "information-report",
	0x60: "AARQ",
	0x61: "AARE",
	0x62: "RLRQ",
	0x63: "RLRE",
	0xC0: "get-request",
	0xC1: "set-request",
	0xC2: "event-notification",
	0xC3: "action-request",
	0xC4: "get-response",
	0xC5: "set-response",
	0xC7: "action-response",
	0xD8: "exception-response",
	0xD9: "access-request",
	0xDA: "access-response",
	0xDB: "general-glo-ciphering",
	0xDC: "general-ded-ciphering",
	0xDD: "general-ciphering",
	0xDF: "general-signing",
	0xE0: "block",
	0xE6: "gateway-request",
	0xE7: "gateway-response",
}

// apduName gives the standard's name of what begins with tag (IEC 62056-5-3, 9.5),
// "" for none.
func apduName(tag byte) string {
	if int(tag) < len(apduNames) && apduNames[tag] != "" {
		return apduNames[tag]
	}
	return cipheredName(tag)
}

// cipheredName names the APDUs that are another one, ciphered: with the global key
// or the one of the session.
func cipheredName(tag byte) string {
	switch {
	case tag >= 0x21 && tag <= 0x2D && apduPlain(tag-0x20) != "":
		return "glo-" + apduPlain(tag-0x20)
	case tag >= 0x41 && tag <= 0x4D && apduPlain(tag-0x40) != "":
		return "ded-" + apduPlain(tag-0x40)
	case tag >= 0xC8 && tag <= 0xCF && apduPlain(tag-8) != "":
		return "glo-" + apduPlain(tag-8)
	case tag >= 0xD0 && tag <= 0xD7 && apduPlain(tag-16) != "":
		return "ded-" + apduPlain(tag-16)
	}
	return ""
}

func apduPlain(tag byte) string {
	switch tag {
	case 0x01, 0x05, 0x06, 0x08, 0x0C, 0x0D, 0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC5, 0xC7:
		return apduName(tag)
	}
	return ""
}

// describe puts an APDU into words.
func describe(b []byte) (a apdu) {
	if len(b) == 0 {
		return apdu{text: "nothing", bad: true}
	}
	name := apduName(b[0])
	if name == "" {
		return apdu{text: fmt.Sprintf("unknown APDU %02X: %s", b[0], octets(b)), bad: true}
	}
	a.text, a.request = name, strings.Contains(name, "request") || name == "AARQ" || name == "RLRQ"
	if cipheredName(b[0]) != "" {
		a.secret = true
		a.text += cipheredService(b[1:])
		return a
	}
	switch b[0] {
	case 0xDB, 0xDC:
		a.secret = true
		a.text += generalCiphering(b[1:])
	case 0xDD, 0xDF:
		a.secret = b[0] == 0xDD
		a.text += fmt.Sprintf(" of %d octets", len(b))
	case 0x60, 0x61:
		association(&a, b)
	case 0xC0, 0xC1, 0xC3:
		a.text += service(b)
	case 0xC4, 0xC5, 0xC7:
		response(&a, b)
	case 0xD8:
		a.bad = true
		if len(b) >= 3 {
			a.text += strings.TrimPrefix((&dlms.ExceptionError{State: b[1], Service: b[2]}).Error(), "exception")
		}
	case 0xE0:
		a.text += block(b)
	case 0x0E:
		a.bad = true
		a.text += fmt.Sprintf(" % X", b[1:min(len(b), 4)])
	case 0x0F, 0x10, 0xC2:
		notification(&a, b)
	case 0xD9, 0xDA:
		if len(b) >= 5 {
			a.text += fmt.Sprintf(" #%d, %d octets%s", binary.BigEndian.Uint32(b[1:])&0xFFFFFF, len(b), accessed(b[5:]))
		}
	case 0xE6, 0xE7:
		gateway(&a, b)
	case 0x05, 0x06, 0x0C, 0x0D, 0x18:
		a.text += " " + octets(b[1:])
	}
	return a
}

// cipheredService tells of the header behind the tag of a ciphered service.
func cipheredService(b []byte) string {
	length, n := axdr.ParseLength(b)
	if n <= 0 || len(b) < n+5 {
		return ", cut short"
	}
	return fmt.Sprintf(", %d octets %s, counter %d", length, protection(b[n]), binary.BigEndian.Uint32(b[n+1:]))
}

// generalCiphering is with the system title of the sender.
func generalCiphering(b []byte) string {
	if len(b) < 1 || len(b) < 1+int(b[0]) || b[0] > 8 {
		return ", cut short"
	}
	title := b[1 : 1+int(b[0])]
	who := fmt.Sprintf(" of %X", title)
	if b[0] == 0 {
		who = " without a title"
	}
	return who + cipheredService(b[1+int(b[0]):])
}

// protection says what a security control octet asks for.
func protection(control byte) string {
	kinds := [...]string{"open", "authenticated", "encrypted", "authenticated and encrypted"}
	text := fmt.Sprintf("%s, suite %d", kinds[control>>4&3], control&0x0F)
	if control&0x40 != 0 {
		text += ", broadcast key"
	}
	if control&0x80 != 0 {
		text += ", compressed"
	}
	return text
}

const attributeLen = 9

// attribute reads class, code and number.
func attribute(b []byte) (a dlms.Attribute, ok bool) {
	if len(b) < attributeLen {
		return a, false
	}
	return dlms.Attribute{Class: binary.BigEndian.Uint16(b), Code: obis.Code(b[2:8]), ID: int8(b[8])}, true
}

// service tells of requests: GET, SET, ACTION.
func service(b []byte) string {
	if len(b) < 3 {
		return ", cut short"
	}
	head := fmt.Sprintf(" #%d", b[2]&0x0F)
	switch b[1] {
	case 1, 4:
		if at, ok := attribute(b[3:]); ok {
			head += " " + at.String()
			if rest := b[3+attributeLen:]; len(rest) > 1 && rest[0] == 1 {
				head += " " + selection(b[0], rest[1:])
			} else if b[0] == 0xC1 && len(rest) > 1 {
				head += " = " + data(rest[1:])
			}
			return head
		}
	case 2, 6:
		if len(b) >= 7 {
			return head + fmt.Sprintf(" next block after %d", binary.BigEndian.Uint32(b[3:]))
		}
	case 3:
		return head + list(b)
	}
	return head + fmt.Sprintf(" form %d, %d octets", b[1], len(b))
}

// list tells of the attributes of a request with several.
func list(b []byte) string {
	if len(b) < 4 {
		return ", cut short"
	}
	var names []string
	rest := b[4:]
	for range b[3] {
		at, ok := attribute(rest)
		if !ok || len(rest) <= attributeLen || rest[attributeLen] != 0 {
			break // a selection, or cut short: its length is not known here
		}
		names = append(names, at.String())
		rest = rest[attributeLen+1:]
	}
	return fmt.Sprintf(" list of %d: %s", b[3], strings.Join(names, ", "))
}

// selection tells of rows that are asked for, or of the argument of a method.
func selection(tag byte, b []byte) string {
	if tag == 0xC3 {
		return "(" + data(b) + ")"
	}
	switch b[0] {
	case 1:
		return "by time " + data(b[1:])
	case 2:
		return "by entry " + data(b[1:])
	}
	return fmt.Sprintf("selector %d", b[0])
}

// response tells of answers: GET, SET, ACTION.
func response(a *apdu, b []byte) {
	if len(b) < 4 {
		a.text, a.bad = a.text+", cut short", true
		return
	}
	a.text += fmt.Sprintf(" #%d", b[2]&0x0F)
	switch form := b[1]; {
	case b[0] == 0xC4 && form == 1 && b[3] == 0:
		a.text += " = " + data(b[4:])
	case b[0] == 0xC4 && form == 1 && len(b) > 4:
		a.text, a.bad = a.text+": "+dlms.AccessError(b[4]).Error(), true
	case b[0] == 0xC4 && form == 2 && len(b) >= 9:
		last := ""
		if b[3] != 0 {
			last = ", the last"
		}
		a.text += fmt.Sprintf(" block %d%s, %d octets", binary.BigEndian.Uint32(b[4:]), last, len(b))
	case form == 1 && b[0] != 0xC4 && b[3] != 0:
		a.text, a.bad = a.text+": "+dlms.AccessError(b[3]).Error(), true
	case form == 1 && b[0] == 0xC7 && len(b) > 6 && b[4] == 1 && b[5] == 0:
		a.text += " done = " + data(b[6:])
	case form == 1 && b[0] != 0xC4:
		a.text += " done"
	case form == 3 && b[0] == 0xC4:
		a.text += fmt.Sprintf(" list of %d: %s", b[3], results(int(b[3]), b[4:]))
	case form == 3:
		a.text += fmt.Sprintf(" list of %d, %d octets", b[3], len(b))
	default:
		a.text += fmt.Sprintf(" form %d, %d octets", form, len(b))
	}
}

// results writes the results of a list: data, or why not.
func results(n int, b []byte) string {
	const most = 4096 // values of each
	var parts []string
	for range n {
		if len(b) >= 2 && b[0] == 1 {
			parts, b = append(parts, dlms.AccessError(b[1]).Error()), b[2:]
			continue
		}
		if len(b) < 2 || b[0] != 0 {
			return strings.Join(append(parts, "cut short"), ", ")
		}
		v, size, _, err := axdr.ParseSome(b[1:], most)
		if err != nil {
			return strings.Join(append(parts, "no data"), ", ")
		}
		parts, b = append(parts, text(v, 0)), b[1+size:]
	}
	return strings.Join(parts, ", ")
}

// block tells of a general block transfer.
func block(b []byte) string {
	if len(b) < 6 {
		return ", cut short"
	}
	text := fmt.Sprintf(" %d, acknowledges %d, window %d", binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint16(b[4:]), b[1]&0x3F)
	if b[1]&0x80 != 0 {
		text += ", the last"
	}
	if b[1]&0x40 != 0 {
		text += ", streaming"
	}
	return text
}

// notification tells of what a meter pushes.
func notification(a *apdu, b []byte) {
	n, err := dlms.ParseNotification(b)
	if err != nil {
		a.text += fmt.Sprintf(" of %d octets", len(b))
		return
	}
	switch {
	case n.Attribute.Class != 0:
		a.text += fmt.Sprintf(" %v = %s", n.Attribute, text(n.Value, 0))
	default:
		a.text += fmt.Sprintf(" #%d = %s", n.Number(), text(n.Value, 0))
	}
}

// accessed lists what an ACCESS asks for, behind its number: a date-time, and of each
// thing what is to be done with which attribute.
func accessed(b []byte) string {
	const specLen = 1 + attributeLen
	if len(b) < 1 || len(b) < 2+int(b[0]) {
		return ""
	}
	rest := b[2+int(b[0]):]
	var names []string
	for range b[1+int(b[0])] {
		if len(rest) < specLen || rest[0] < 1 || rest[0] > 3 {
			break
		}
		at, _ := attribute(rest[1:])
		names = append(names, [...]string{"", "get ", "set ", "run "}[rest[0]]+at.String())
		rest = rest[specLen:]
	}
	if len(names) == 0 {
		return ""
	}
	return ": " + strings.Join(names, ", ")
}

// gateway tells of a request or an answer with the header of a gateway.
func gateway(a *apdu, b []byte) {
	if len(b) < 4 || len(b) < 4+int(b[2]) {
		a.text, a.bad = a.text+", cut short", true
		return
	}
	inner := describe(b[3+int(b[2]):])
	a.text += fmt.Sprintf(" network %d node %X: %s", b[1], b[3:3+int(b[2])], inner.text)
	a.bad, a.secret = inner.bad, inner.secret
}
