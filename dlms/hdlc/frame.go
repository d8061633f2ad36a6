package hdlc

import (
	"encoding/binary"
	"fmt"
)

// Address is the address of a station (IEC 62056-46, 6.4.2.3). A client has
// one octet. A meter has one, for its logical device alone, or two halves of
// one or two octets each: the logical device above, the physical one below.
type Address struct {
	Upper uint16 // client, or logical device: 7 bits, 14 where Size is 4
	Lower uint16 // physical device: as Upper; 0 where Size is 1
	Size  uint8  // octets: 1, 2 or 4
}

// ClientAddress is the address of a client, 1 to 127: 16 is the public client.
func ClientAddress(client uint8) Address { return Address{Upper: uint16(client & 0x7F), Size: 1} }

// ServerAddress is the address of a logical device in a physical device, in
// size octets. Size 0 takes the fewest that do.
func ServerAddress(logical, physical uint16, size int) (Address, error) {
	if size == 0 {
		switch size = 4; {
		case physical == 0 && logical < 1<<7:
			size = 1
		case logical < 1<<7 && physical < 1<<7:
			size = 2
		}
	}
	a := Address{Upper: logical, Lower: physical, Size: uint8(size)}
	if size < 0 || size > 4 || !a.fits() {
		return Address{}, fmt.Errorf("%w: logical device %d, physical %d in %d octets", ErrAddress, logical, physical, size)
	}
	return a, nil
}

func (a Address) fits() bool {
	switch a.Size {
	case 1:
		return a.Upper < 1<<7 && a.Lower == 0
	case 2:
		return a.Upper < 1<<7 && a.Lower < 1<<7
	case 4:
		return a.Upper < 1<<14 && a.Lower < 1<<14
	}
	return false
}

// String gives the address as people write it: "1", or "1/17" with the
// physical device.
func (a Address) String() string {
	if a.Size == 1 {
		return fmt.Sprint(a.Upper)
	}
	return fmt.Sprintf("%d/%d", a.Upper, a.Lower)
}

// AppendBinary appends a to b.
func (a Address) AppendBinary(b []byte) ([]byte, error) {
	if !a.fits() {
		return b, fmt.Errorf("%w: %v in %d octets", ErrAddress, a, a.Size)
	}
	low := func(v uint16) byte { return byte(v) << 1 }
	switch a.Size {
	case 1:
		return append(b, low(a.Upper)|1), nil
	case 2:
		return append(b, low(a.Upper), low(a.Lower)|1), nil
	default:
		return append(b, low(a.Upper>>7), low(a.Upper), low(a.Lower>>7), low(a.Lower)|1), nil
	}
}

// ParseAddress decodes the address that b starts with and gives what is after it.
func ParseAddress(b []byte) (a Address, rest []byte, err error) {
	n := 0
	for n < len(b) && n < 4 && b[n]&1 == 0 {
		n++
	}
	if n == len(b) {
		return Address{}, nil, fmt.Errorf("%w in an address", ErrShort)
	}
	if n++; n != 1 && n != 2 && n != 4 {
		return Address{}, nil, fmt.Errorf("%w: % x", ErrAddress, b[:min(n, 4)])
	}
	a.Size = uint8(n)
	half := func(b []byte) (v uint16) {
		for _, o := range b {
			v = v<<7 | uint16(o>>1)
		}
		return v
	}
	if n == 1 {
		a.Upper = half(b[:1])
	} else {
		a.Upper, a.Lower = half(b[:n/2]), half(b[n/2:n])
	}
	return a, b[n:], nil
}

// Frame is one frame.
type Frame struct {
	Segmented           bool // more segments of the same information follow
	Destination, Source Address
	Control             Control
	Info                []byte // at most MaxInfo octets
}

// AppendBinary appends f, both flags with it, to b.
func (f Frame) AppendBinary(b []byte) ([]byte, error) {
	if len(f.Info) > MaxInfo {
		return b, fmt.Errorf("information of %d octets: %w: at most %d", len(f.Info), ErrTooLong, MaxInfo)
	}
	start := len(b)
	out := append(b, flag, 0, 0)
	out, err := f.Destination.AppendBinary(out)
	if err != nil {
		return b, err
	}
	if out, err = f.Source.AppendBinary(out); err != nil {
		return b, err
	}
	out = append(out, byte(f.Control))
	length := len(out) - start - 1 + checkLen
	if len(f.Info) > 0 {
		length += checkLen + len(f.Info)
	}
	format := uint16(formatType)<<8 | uint16(length)
	if f.Segmented {
		format |= segmentBit << 8
	}
	binary.BigEndian.PutUint16(out[start+1:], format)
	if len(f.Info) > 0 {
		out = appendCheck(out, out[start+1:])
		out = append(out, f.Info...)
	}
	out = appendCheck(out, out[start+1:])
	return append(out, flag), nil
}

// ParseFrame decodes a frame with both flags, and nothing after it. Info
// aliases b.
func ParseFrame(b []byte) (Frame, error) {
	length, err := parseFormat(b)
	switch {
	case err != nil:
		return Frame{}, err
	case len(b) < length+2:
		return Frame{}, fmt.Errorf("%w: %d octets, want %d", ErrShort, len(b), length+2)
	case len(b) > length+2 || b[length+1] != flag:
		return Frame{}, fmt.Errorf("%w: no flag after %d octets", ErrFormat, length)
	}
	f := Frame{Segmented: b[1]&segmentBit != 0}
	body := b[1 : length+1]
	if !isChecked(body) {
		return Frame{}, fmt.Errorf("frame: %w", ErrCheck)
	}
	at, err := f.parseHeader(body)
	if err != nil {
		return Frame{}, err
	}
	switch rest := len(body) - at; {
	case rest == checkLen:
		return f, nil
	case rest <= 2*checkLen:
		return Frame{}, fmt.Errorf("%w: %d octets after the control field", ErrFormat, rest)
	}
	if !isChecked(body[:at+checkLen]) {
		return Frame{}, fmt.Errorf("header: %w", ErrCheck)
	}
	f.Info = body[at+checkLen : len(body)-checkLen]
	if len(f.Info) > MaxInfo {
		return Frame{}, fmt.Errorf("information of %d octets: %w: at most %d", len(f.Info), ErrTooLong, MaxInfo)
	}
	return f, nil
}

// parseFormat gives the length in the format field after the flag that b
// starts with.
func parseFormat(b []byte) (int, error) {
	if len(b) < 3 {
		return 0, fmt.Errorf("%w: %d octets", ErrShort, len(b))
	}
	length := int(b[1]&0x07)<<8 | int(b[2])
	if b[0] != flag || b[1]&0xF0 != formatType || length < minLength {
		return 0, fmt.Errorf("%w: it starts % x", ErrFormat, b[:3])
	}
	return length, nil
}

// parseHeader decodes addresses and control field of the frame body b, and
// says where they end.
func (f *Frame) parseHeader(b []byte) (at int, err error) {
	rest := b[2:]
	if f.Destination, rest, err = ParseAddress(rest); err != nil {
		return 0, fmt.Errorf("destination: %w", err)
	}
	if f.Source, rest, err = ParseAddress(rest); err != nil {
		return 0, fmt.Errorf("source: %w", err)
	}
	if len(rest) == 0 {
		return 0, fmt.Errorf("%w before the control field", ErrShort)
	}
	f.Control = Control(rest[0])
	return len(b) - len(rest) + 1, nil
}

// check gives the CRC of ISO/IEC 13239 (CRC-16/X.25) of b.
func check(b []byte) uint16 {
	crc := uint16(0xFFFF)
	for _, o := range b {
		x := byte(crc) ^ o
		x ^= x << 4
		crc = crc>>8 ^ uint16(x)<<8 ^ uint16(x)<<3 ^ uint16(x>>4)
	}
	return ^crc
}

func appendCheck(b, of []byte) []byte { return binary.LittleEndian.AppendUint16(b, check(of)) }

// isChecked says whether b ends with the check of what is before.
func isChecked(b []byte) bool {
	at := len(b) - checkLen
	return at >= 0 && binary.LittleEndian.Uint16(b[at:]) == check(b[:at])
}
