// Package obis parses and prints OBIS codes (IEC 62056-61), the six value
// groups A to F that name what a meter holds.
//
//	A-B:C.D.E*F     the notation of the standard; *F may be left out (255)
//	A.B.C.D.E.F     the dotted notation of tools
//	AABBCCDDEEFF    twelve hexadecimal digits, as on the wire
//
// It is a leaf: it imports nothing of the project.
package obis

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Code is an OBIS code: the value groups A, B, C, D, E, F. The zero value is
// 0-0:0.0.0*0, which names nothing. Codes compare with ==.
type Code [6]byte

// String gives the standard's notation with all six groups: 1-0:1.8.0*255.
func (c Code) String() string { return string(c.Append(nil)) }

// Append appends the standard's notation with all six groups to b.
func (c Code) Append(b []byte) []byte {
	for i, sep := range [6]byte{'-', ':', '.', '.', '*', 0} {
		b = strconv.AppendUint(b, uint64(c[i]), 10)
		if sep != 0 {
			b = append(b, sep)
		}
	}
	return b
}

// Short gives the standard's notation without the group F when it is 255.
func (c Code) Short() string {
	s := c.String()
	return strings.TrimSuffix(s, "*255")
}

// Dotted gives the notation of tools: 1.0.1.8.0.255.
func (c Code) Dotted() string {
	return fmt.Sprintf("%d.%d.%d.%d.%d.%d", c[0], c[1], c[2], c[3], c[4], c[5])
}

// Parse reads a code in any of the package's three notations. A group F that
// is left out is 255.
func Parse(s string) (Code, error) {
	var c Code
	if len(s) == 12 && !strings.ContainsAny(s, "-:.*") {
		if _, err := hex.Decode(c[:], []byte(s)); err != nil {
			return Code{}, fmt.Errorf("obis code %q: not twelve hexadecimal digits", s)
		}
		return c, nil
	}
	seps := "-:..*"
	if !strings.ContainsAny(s, "-:*") {
		seps = "....."
	}
	rest := s
	for i := range c {
		group := rest
		if i < 5 {
			at := strings.IndexByte(rest, seps[i])
			switch {
			case at >= 0:
				group, rest = rest[:at], rest[at+1:]
			case i == 4:
				rest = "255" // group F left out
			default:
				return Code{}, fmt.Errorf("obis code %q: want A-B:C.D.E*F or A.B.C.D.E.F", s)
			}
		}
		n, err := strconv.ParseUint(group, 10, 8)
		if err != nil {
			return Code{}, fmt.Errorf("obis code %q: group %c is %q, want 0 to 255", s, 'A'+i, group)
		}
		c[i] = byte(n)
	}
	return c, nil
}
