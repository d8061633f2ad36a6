package sniff

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// modbusTalk ties answers to requests.
type modbusTalk struct {
	asked   []byte // the PDU of the request that has no answer yet
	unit    byte
	pending map[uint16][]byte // of TCP, by transaction
}

const (
	maxRTU = 256
	mbap   = 7
)

// isFunction says whether f is a function, or its exception, that meters know.
func isFunction(f byte) bool { return functionName(f&0x7F) != "" }

func functionName(f byte) string {
	switch f {
	case 1:
		return "read coils"
	case 2:
		return "read discrete inputs"
	case 3:
		return "read holding registers"
	case 4:
		return "read input registers"
	case 5:
		return "write coil"
	case 6:
		return "write register"
	case 7:
		return "read exception status"
	case 8:
		return "diagnostics"
	case 11:
		return "event counter"
	case 15:
		return "write coils"
	case 16:
		return "write registers"
	case 17:
		return "report server id"
	case 20:
		return "read file"
	case 22:
		return "mask write register"
	case 23:
		return "read and write registers"
	case 43:
		return "read device identification"
	}
	return ""
}

// rtuFrame finds a frame of RTU: by its CRC, at the lengths that its function has.
func rtuFrame(b []byte) (int, verdict) {
	if len(b) < 2 {
		return 0, partial
	}
	if b[0] > 247 || !isFunction(b[1]) {
		return 0, none
	}
	v := none
	for _, n := range rtuLengths(b) {
		switch {
		case n > maxRTU:
		case n > len(b):
			v = partial
		case crcGood(b[:n]):
			return n, whole
		}
	}
	return 0, v
}

// rtuLengths gives what length a frame with this head may have, as a request and as
// an answer.
func rtuLengths(b []byte) []int {
	if len(b) < 3 {
		return []int{4}
	}
	count := int(b[2])
	switch f := b[1]; {
	case f&0x80 != 0:
		return []int{5}
	case f <= 4:
		return []int{8, 5 + count}
	case f == 5, f == 6, f == 8:
		return []int{8}
	case f == 7:
		return []int{4, 5}
	case f == 11:
		return []int{4, 8}
	case f == 15, f == 16:
		if len(b) > 6 {
			return []int{8, 9 + int(b[6])}
		}
		return []int{8, 9}
	case f == 17:
		return []int{4, 5 + count}
	case f == 22:
		return []int{10}
	case f == 23:
		if len(b) > 10 {
			return []int{5 + count, 13 + int(b[10])}
		}
		return []int{5 + count, 13}
	case f == 20:
		return []int{5 + count}
	case f == 43:
		return []int{7, 4 + encapsulatedLen(b[1:])}
	}
	return nil
}

// encapsulatedLen gives the length of an identification behind its function, as far
// as it is there.
func encapsulatedLen(pdu []byte) int {
	n := 7
	if len(pdu) < n {
		return n
	}
	for range pdu[6] {
		if len(pdu) < n+2 {
			return n + 1
		}
		n += 2 + int(pdu[n+1])
	}
	return n - 1
}

func crcGood(b []byte) bool {
	n := len(b) - 2
	sum := uint16(0xFFFF)
	for _, c := range b[:n] {
		sum ^= uint16(c)
		for range 8 {
			if sum&1 != 0 {
				sum = sum>>1 ^ 0xA001
			} else {
				sum >>= 1
			}
		}
	}
	return sum == binary.LittleEndian.Uint16(b[n:])
}

// mbapFrame finds a frame of Modbus TCP.
func mbapFrame(b []byte) (int, verdict) {
	if len(b) < mbap+1 {
		return 0, partial
	}
	length := int(binary.BigEndian.Uint16(b[4:]))
	if b[2] != 0 || b[3] != 0 || length < 2 || length > 254 || !isFunction(b[7]) {
		return 0, none
	}
	if len(b) < 6+length {
		return 0, firm
	}
	return 6 + length, whole
}

func (t *modbusTalk) rtu(f *Frame) {
	b := f.Octets
	unit, pdu := b[0], b[1:len(b)-2]
	answer := t.isAnswer(unit, pdu, f.From)
	var asked []byte
	if answer {
		if asked = t.asked; unit != t.unit {
			asked = nil
		}
		t.asked = nil
	} else {
		t.asked, t.unit = pdu, unit
	}
	t.tell(f, unit, pdu, answer, asked)
}

func (t *modbusTalk) tcp(f *Frame) {
	id, unit, pdu := binary.BigEndian.Uint16(f.Octets), f.Octets[6], f.Octets[mbap:]
	asked, answer := t.pending[id]
	if answer = answer && asked[0] == pdu[0]&0x7F && f.From != FromMaster || f.From == FromMeter || pdu[0]&0x80 != 0; answer {
		delete(t.pending, id)
	} else {
		if t.pending == nil || len(t.pending) > 256 {
			t.pending = map[uint16][]byte{}
		}
		t.pending[id] = pdu
	}
	t.tell(f, unit, pdu, answer, asked)
	f.Text = fmt.Sprintf("#%d %s", id, f.Text)
}

// isAnswer says which of the two a frame is, where both may be.
func (t *modbusTalk) isAnswer(unit byte, pdu []byte, from Direction) bool {
	switch {
	case from == FromMaster:
		return false
	case from == FromMeter, pdu[0]&0x80 != 0:
		return true
	}
	switch f := pdu[0]; {
	case f <= 4: // a request has four octets behind its function
		return len(pdu) != 5 || int(pdu[1]) == 3 && t.asked != nil && t.asked[0] == f && f < 3
	case f == 15, f == 16:
		return len(pdu) == 5
	case f == 43:
		return len(pdu) > 4
	}
	return t.asked != nil && t.unit == unit && t.asked[0] == pdu[0]
}

// tell puts a PDU into words.
func (t *modbusTalk) tell(f *Frame, unit byte, pdu []byte, answer bool, asked []byte) {
	who := fmt.Sprintf("unit %d", unit)
	if unit == 0 && f.Protocol == ModbusRTU {
		who = "all units"
	}
	if f.From == AnyDirection {
		f.From = FromMaster
		if answer {
			f.From = FromMeter
		}
	}
	switch {
	case pdu[0]&0x80 != 0:
		f.Bad = true
		code := byte(0)
		if len(pdu) > 1 {
			code = pdu[1]
		}
		f.Text = fmt.Sprintf("%s: %s: %s (exception %d)", who, functionName(pdu[0]&0x7F), exceptionName(code), code)
	case answer:
		f.Text = fmt.Sprintf("%s: %s", who, modbusAnswer(pdu, asked))
	default:
		f.Text = fmt.Sprintf("%s: %s", who, modbusRequest(pdu))
	}
	if answer && asked == nil {
		f.Text += " (nobody was seen to ask)"
	}
}

func exceptionName(code byte) string {
	names := [...]string{
		1: "illegal function", 2: "illegal data address", 3: "illegal data value", 4: "device failure", 5: "acknowledge", 6: "busy",
		8: "memory parity error", 10: "the gateway has no path", 11: "the gateway got no answer",
	}
	if int(code) < len(names) && names[code] != "" {
		return names[code]
	}
	return "unknown"
}

func modbusRequest(pdu []byte) string {
	name := functionName(pdu[0])
	if len(pdu) < 5 || pdu[0] == 43 || pdu[0] == 8 || pdu[0] == 20 {
		return name
	}
	at, count := binary.BigEndian.Uint16(pdu[1:]), binary.BigEndian.Uint16(pdu[3:])
	switch pdu[0] {
	case 5, 6, 22:
		return fmt.Sprintf("%s 0x%04X (%d) = %d", name, at, at, count)
	case 15, 16:
		text := fmt.Sprintf("%s 0x%04X (%d) × %d", name, at, at, count)
		if pdu[0] == 16 && len(pdu) > 6 {
			text += " = " + registers(pdu[6:])
		}
		return text
	}
	return fmt.Sprintf("%s 0x%04X (%d) × %d", name, at, at, count)
}

func modbusAnswer(pdu, asked []byte) string {
	name := functionName(pdu[0])
	switch f := pdu[0]; {
	case (f == 3 || f == 4 || f == 23) && len(pdu) > 2:
		text := fmt.Sprintf("%d registers", (len(pdu)-2)/2)
		if len(pdu) == 4 {
			text = "1 register"
		}
		if len(asked) >= 5 {
			at, count := binary.BigEndian.Uint16(asked[1:]), binary.BigEndian.Uint16(asked[3:])
			text += fmt.Sprintf(" from 0x%04X", at)
			if int(count)*2 != len(pdu)-2 {
				text += fmt.Sprintf(", and %d were asked for", count)
			}
		}
		return text + " = " + registers(pdu[2:])
	case (f == 1 || f == 2) && len(pdu) > 2:
		return fmt.Sprintf("%s = % X", name, pdu[2:])
	case f == 43 && len(pdu) > 7:
		return name + " = " + identification(pdu)
	case (f == 5 || f == 6 || f == 15 || f == 16) && len(pdu) >= 5:
		return name + ": done"
	}
	return fmt.Sprintf("%s = %s", name, octets(pdu[1:]))
}

// registers writes the words, the first ones of many.
func registers(b []byte) string {
	const most = 16
	var parts []string
	for i := 0; i+1 < len(b) && i < 2*most; i += 2 {
		parts = append(parts, fmt.Sprintf("%04X", binary.BigEndian.Uint16(b[i:])))
	}
	if len(b) > 2*most {
		parts = append(parts, "…")
	}
	return strings.Join(parts, " ")
}

// identification writes the objects of an answer of function 43/14.
func identification(pdu []byte) string {
	var parts []string
	rest := pdu[7:]
	for len(rest) >= 2 && len(rest) >= 2+int(rest[1]) {
		parts = append(parts, fmt.Sprintf("%q", rest[2:2+int(rest[1])]))
		rest = rest[2+int(rest[1]):]
	}
	return strings.Join(parts, ", ")
}
