package meter

import (
	"fmt"
	"strconv"
	"strings"

	"gridgate/dlms/obis"
)

// Channel names what is measured, in canonical text. It is either
//
//	1-0:1.8.0*255/3:2   an OBIS code with COSEM class and attribute, or
//	thd.current.l1      a name of its own, for a register that has no OBIS
//	                    code: it starts with a letter, then letters, digits, '.', '-', '_'
//
// Use ParseChannel on text from outside. Channels compare with ==.
type Channel string

// COSEM interface classes (IEC 62056-6-2) that custom gives a code.
const (
	ClassData           = 1
	ClassRegister       = 3
	ClassDemandRegister = 5
	ClassExtended       = 4
	ClassProfile        = 7
	ClassClock          = 8
)

// ChannelOf gives the channel of an attribute of a COSEM object.
func ChannelOf(code obis.Code, class uint16, attribute int8) Channel {
	b := make([]byte, 0, 32)
	b = code.Append(b)
	b = append(b, '/')
	b = strconv.AppendUint(b, uint64(class), 10)
	b = append(b, ':')
	b = strconv.AppendInt(b, int64(attribute), 10)
	return Channel(b)
}

// ParseChannel reads a channel in canonical or in short form and gives it in
// canonical form. In the short form class and attribute, or the group F, are
// left out; they are then what custom has for the code (see customClass).
func ParseChannel(s string) (Channel, error) {
	if s == "" {
		return "", fmt.Errorf("channel %q: empty", s)
	}
	if isLetter(s[0]) {
		for i := range len(s) {
			c := s[i]
			if !isLetter(c) && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
				return "", fmt.Errorf("channel %q: a name has letters, digits, '.', '-' and '_' only", s)
			}
		}
		if len(s) > 64 {
			return "", fmt.Errorf("channel %q: a name has at most 64 characters", s)
		}
		return Channel(s), nil
	}
	head, suffix, long := strings.Cut(s, "/")
	code, err := obis.Parse(head)
	if err != nil {
		return "", fmt.Errorf("channel %q: %w", s, err)
	}
	class, attribute := customClass(code), int8(2)
	if long {
		c, a, ok := strings.Cut(suffix, ":")
		cn, cerr := strconv.ParseUint(c, 10, 16)
		an, aerr := strconv.ParseInt(a, 10, 8)
		if !ok || cerr != nil || aerr != nil {
			return "", fmt.Errorf("channel %q: after '/' want CLASS:ATTRIBUTE, as in /3:2", s)
		}
		class, attribute = uint16(cn), int8(an)
	}
	return ChannelOf(code, class, attribute), nil
}

// Attribute takes a canonical OBIS channel apart. ok is false for a channel
// that is a name of its own.
func (c Channel) Attribute() (code obis.Code, class uint16, attribute int8, ok bool) {
	head, suffix, long := strings.Cut(string(c), "/")
	cl, at, _ := strings.Cut(suffix, ":")
	if !long || head == "" || isLetter(head[0]) {
		return obis.Code{}, 0, 0, false
	}
	code, err := obis.Parse(head)
	cn, cerr := strconv.ParseUint(cl, 10, 16)
	an, aerr := strconv.ParseInt(at, 10, 8)
	if err != nil || cerr != nil || aerr != nil {
		return obis.Code{}, 0, 0, false
	}
	return code, uint16(cn), int8(an), true
}

// Short gives the form for people: without class and attribute when they are
// the customary ones, and without a group F of 255.
func (c Channel) Short() string {
	code, class, attribute, ok := c.Attribute()
	if !ok {
		return string(c)
	}
	if class == customClass(code) && attribute == 2 {
		return code.Short()
	}
	return fmt.Sprintf("%s/%d:%d", code.Short(), class, attribute)
}

// customClass is the class that a code has in nearly every meter. The rule is
// frozen: stored configurations mean by a short form what it says here.
func customClass(c obis.Code) uint16 {
	switch {
	case c[0] == 0 && c[2] == 1 && c[3] == 0:
		return ClassClock // 0-b:1.0.e
	case c[2] == 98 || c[2] == 99:
		return ClassProfile // billing and load profiles, event logs
	case c[0] == 0:
		return ClassData // abstract objects
	case c[2] == 0:
		return ClassData // a-b:0.d.e: ratios, identifiers
	case c[2] == 96:
		return ClassData
	case c[3] == 4:
		return ClassDemandRegister // current average 1
	case c[3] == 6 || c[3] == 16 || c[3] == 26:
		return ClassExtended // maximum, with its capture time
	default:
		return ClassRegister
	}
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
