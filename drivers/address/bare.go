package address

import (
	"strings"
)

// Bare is a line on which nobody knows yet what there is.
type Bare struct {
	// Scheme is what is to be spoken on it; "" is anything.
	Scheme Scheme
	// Line has the line, and of a serial port its settings; nothing else in it
	// counts.
	Line Address
	// HasBaud and HasFormat say that these were told, and are no default.
	HasBaud, HasFormat bool
}

// ParseBare reads the address of a line that is scanned or listened to:
//
//	serial:///dev/ttyS1?baud=9600&format=8E1   a serial port; 7E1 as well
//	tcp://HOST:PORT                            a device or serial server
//
// or one of a meter, of which nothing but the line need be there. Errors quote
// nothing that may be a secret.
func ParseBare(text string) (b Bare, err error) {
	name, place, ok := strings.Cut(text, "://")
	if !ok {
		return b, &KeyError{Text: "want serial:///dev/ttyUSB0, tcp://HOST:PORT, or one of " + schemeList() + " with :// behind it"}
	}
	where, query, _ := strings.Cut(place, "?")
	for part := range strings.SplitSeq(query, "&") {
		key, _, _ := strings.Cut(part, "=")
		b.HasBaud = b.HasBaud || key == "baud"
		b.HasFormat = b.HasFormat || key == "format"
	}
	isPath := strings.HasPrefix(where, "/") || strings.HasPrefix(where, ".")
	switch scheme := strings.ToLower(name); scheme {
	case "serial", "tcp":
		if scheme == "serial" && !isPath {
			return b, &KeyError{Text: "a serial port is an absolute path after three slashes: want serial:///dev/ttyUSB0"}
		}
		if scheme == "tcp" && (isPath || where == "") {
			return b, &KeyError{Text: "want tcp://HOST:PORT, with two slashes; a serial port is serial:///dev/ttyUSB0"}
		}
		// HDLC has all that a line has, but for seven bits.
		const seven, eight = "format=7E1", "format=8E1"
		rest, isSeven := where, false
		for i, part := range strings.Split(query, "&") {
			if part == seven && scheme == "serial" {
				part, isSeven = eight, true
			}
			if query != "" {
				rest += string("?&"[min(i, 1)]) + part
			}
		}
		if b.Line, err = ParseLine(string(DLMSHDLC) + "://" + rest); isSeven && err == nil {
			b.Line.DataBits = 7
		}
	default:
		b.Line, err = ParseLine(text)
		b.Scheme = b.Line.Scheme
	}
	return b, err
}
