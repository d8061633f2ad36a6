package modee

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// ErrIdentification says that a line is not the identification of a meter.
var ErrIdentification = errors.New("not an identification")

// Identification is what a meter says of itself (IEC 62056-21, 6.3.2).
//
//	/        1 octet
//	maker    3 letters; a small third one: it answers within 20 ms
//	rate     1       0 to 6: 300 to 19200 bit/s
//	\W       any number of times 2; \2 is a meter that has HDLC, mode E
//	device   what the maker likes
//	CR LF
type Identification struct {
	Maker  string // three letters
	Rate   byte   // as it is on the line
	Marks  string // the W of each \W
	Device string // printable, not beginning with a backslash
}

// maxDevice is more than the 16 characters of the standard: makes write more.
const maxDevice = 48

// HasHDLC says whether the meter says that it has HDLC. Some that have it say nothing.
func (i Identification) HasHDLC() bool { return strings.Contains(i.Marks, "2") }

// Baud gives the rate that the meter offers in bit/s; ok is false for a meter
// that does not let the client choose one.
func (i Identification) Baud() (baud int, ok bool) {
	for rate, baud := range bauds() {
		if byte('0'+rate) == i.Rate {
			return baud, true
		}
	}
	return 0, false
}

// bauds are the rates of modes C and E by their digits.
func bauds() []int { return []int{300, 600, 1200, 2400, 4800, 9600, 19200} }

// String gives the line as it came, without its end.
func (i Identification) String() string {
	b, err := i.AppendBinary(nil)
	if err != nil {
		return err.Error()
	}
	return string(b[:len(b)-2])
}

// AppendBinary appends the line to b.
func (i Identification) AppendBinary(b []byte) ([]byte, error) {
	start := len(b)
	out := append(append(b, '/'), i.Maker...)
	out = append(out, i.Rate)
	for n := range len(i.Marks) {
		out = append(out, '\\', i.Marks[n])
	}
	out = append(append(out, i.Device...), "\r\n"...)
	if back, err := ParseIdentification(out[start:]); err != nil || back != i {
		return b, fmt.Errorf("%w: %q", ErrIdentification, out[start:])
	}
	return out, nil
}

// ParseIdentification decodes a line, its CR LF included.
func ParseIdentification(b []byte) (Identification, error) {
	wrong := fmt.Errorf("%w: %q", ErrIdentification, b[:min(len(b), 2*maxDevice)])
	rest, ended := bytes.CutSuffix(b, []byte("\r\n"))
	rest, began := bytes.CutPrefix(rest, []byte("/"))
	if !ended || !began || len(rest) < 4 {
		return Identification{}, wrong
	}
	for _, c := range rest {
		if c < ' ' || c > '~' || c == '/' {
			return Identification{}, wrong
		}
	}
	for _, c := range rest[:3] {
		if c |= 0x20; c < 'a' || c > 'z' {
			return Identification{}, wrong
		}
	}
	i := Identification{Maker: string(rest[:3]), Rate: rest[3]}
	var marks []byte
	for rest = rest[4:]; len(rest) >= 2 && rest[0] == '\\'; rest = rest[2:] {
		marks = append(marks, rest[1])
	}
	if len(rest) > maxDevice || len(marks) > maxDevice || bytes.HasPrefix(rest, []byte(`\`)) {
		return Identification{}, wrong
	}
	i.Marks, i.Device = string(marks), string(rest)
	return i, nil
}
