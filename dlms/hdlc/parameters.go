package hdlc

import (
	"encoding/binary"
	"fmt"
)

// Parameters is what stations tell each other in SNRM and UA (IEC 62056-46,
// 6.4.4.4.3.2), each from its own point of view.
//
//	81 80 len            format, group, length of the group
//	05 n  max info tx    octets; n is 1, 2 or 4
//	06 n  max info rx
//	07 04 window tx      frames
//	08 04 window rx
//
// What is not told is 128 octets and 1 frame.
type Parameters struct {
	MaxInfoTx, MaxInfoRx uint16 // octets, 1 to MaxInfo
	WindowTx, WindowRx   uint8  // frames, 1 to MaxWindow
}

const (
	groupFormat = 0x81
	groupID     = 0x80
	userData    = 0xF0 // a group of the application's

	paramInfoTx   = 5
	paramInfoRx   = 6
	paramWindowTx = 7
	paramWindowRx = 8
)

// Default gives the parameters that hold when nothing is told.
func Default() Parameters {
	return Parameters{MaxInfoTx: defaultInfo, MaxInfoRx: defaultInfo, WindowTx: defaultWindow, WindowRx: defaultWindow}
}

// normal replaces zeros by defaults and brings the rest into range.
func (p Parameters) normal() Parameters {
	info := func(v uint16) uint16 {
		if v == 0 {
			return defaultInfo
		}
		return min(v, MaxInfo)
	}
	return Parameters{
		MaxInfoTx: info(p.MaxInfoTx), MaxInfoRx: info(p.MaxInfoRx),
		WindowTx: min(max(p.WindowTx, 1), MaxWindow), WindowRx: min(max(p.WindowRx, 1), MaxWindow),
	}
}

// AppendBinary appends p to b.
func (p Parameters) AppendBinary(b []byte) ([]byte, error) {
	start := len(b)
	b = append(b, groupFormat, groupID, 0)
	b = appendInfo(b, paramInfoTx, p.MaxInfoTx)
	b = appendInfo(b, paramInfoRx, p.MaxInfoRx)
	b = append(b, paramWindowTx, 4, 0, 0, 0, p.WindowTx, paramWindowRx, 4, 0, 0, 0, p.WindowRx)
	b[start+2] = byte(len(b) - start - 3)
	return b, nil
}

func appendInfo(b []byte, id byte, v uint16) []byte {
	if v < 1<<8 {
		return append(b, id, 1, byte(v))
	}
	return binary.BigEndian.AppendUint16(append(b, id, 2), v)
}

// ParseParameters decodes the information of an SNRM or UA; none is Default.
// The length of the group is not believed: meters send 0 with parameters
// behind it. What is out of range is brought into it, 0 is the default.
func ParseParameters(b []byte) (Parameters, error) {
	p := Default()
	if len(b) == 0 {
		return p, nil
	}
	if len(b) < 3 || b[0] != groupFormat || b[1] != groupID {
		return p, fmt.Errorf("%w: they start % x", ErrParameters, b[:min(3, len(b))])
	}
	for b = b[3:]; len(b) > 0 && b[0] != userData; {
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return Default(), fmt.Errorf("%w: cut short in parameter %d", ErrParameters, b[0])
		}
		id, value := b[0], b[2:2+int(b[1])]
		b = b[2+int(b[1]):]
		v, ok := number(value)
		if !ok && id >= paramInfoTx && id <= paramWindowRx {
			return Default(), fmt.Errorf("%w: parameter %d has %d octets", ErrParameters, id, len(value))
		}
		switch id {
		case paramInfoTx:
			p.MaxInfoTx = uint16(min(v, MaxInfo))
		case paramInfoRx:
			p.MaxInfoRx = uint16(min(v, MaxInfo))
		case paramWindowTx:
			p.WindowTx = uint8(min(v, MaxWindow))
		case paramWindowRx:
			p.WindowRx = uint8(min(v, MaxWindow))
		}
	}
	return p.normal(), nil
}

// number decodes the 1, 2 or 4 octets that a value has; meters differ.
func number(b []byte) (uint32, bool) {
	switch len(b) {
	case 1:
		return uint32(b[0]), true
	case 2:
		return uint32(binary.BigEndian.Uint16(b)), true
	case 4:
		return binary.BigEndian.Uint32(b), true
	}
	return 0, false
}
