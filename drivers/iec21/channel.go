package iec21

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

// errAddress says that an address of a data set is not an OBIS code.
var errAddress = errors.New("not an OBIS code")

// The groups C that have letters (IEC 62056-61, annex A).
const (
	groupGeneral = 96 // C: general purpose
	groupErrors  = 97 // F: errors
	groupLists   = 98 // L: lists
	groupProfile = 99 // P: profiles
)

// parseAddress reads the address of a data set. The groups A, B, E and F may
// be left out:
//
//	1-0:1.8.0*255   1.8.0   1.8.0*01   1.8.0&01   32.7   C.1.0   F.F   P.01
//
// Behind '*' or '&' is the billing period, counted on by itself or reset by
// hand. Without A-B an address is of electricity, or of no medium where its
// group C is general purpose, errors or lists, or it is the clock.
func parseAddress(s string) (obis.Code, error) {
	wrong := fmt.Errorf("%w: %q", errAddress, s)
	c := obis.Code{5: 255}
	rest, hasMedium := s, false
	if medium, after, ok := strings.Cut(s, ":"); ok {
		a, b, both := strings.Cut(medium, "-")
		if !both || !group(&c[0], a) || !group(&c[1], b) {
			return obis.Code{}, wrong
		}
		rest, hasMedium = after, true
	}
	if at := strings.IndexAny(rest, "*&"); at >= 0 {
		if !group(&c[5], rest[at+1:]) {
			return obis.Code{}, wrong
		}
		rest = rest[:at]
	}
	parts := strings.Split(rest, ".")
	if len(parts) < 2 || len(parts) > 3 {
		return obis.Code{}, wrong
	}
	for i, p := range parts {
		if !lettered(&c[2+i], p) {
			return obis.Code{}, wrong
		}
	}
	if !hasMedium {
		c[0] = medium(c)
	}
	return c, nil
}

// medium is the group A of codes that are written without.
func medium(c obis.Code) byte {
	switch {
	case c[2] == groupGeneral, c[2] == groupErrors, c[2] == groupLists:
		return 0
	case c[2] == 1 && c[3] == 0:
		return 0 // the clock
	}
	return 1
}

func group(into *byte, s string) bool {
	n, err := strconv.ParseUint(s, 10, 8)
	*into = byte(n)
	return err == nil && len(s) <= 3
}

func lettered(into *byte, s string) bool {
	switch s {
	case "C":
		*into = groupGeneral
	case "F":
		*into = groupErrors
	case "L":
		*into = groupLists
	case "P":
		*into = groupProfile
	default:
		return group(into, s)
	}
	return true
}

// addressOf gives a code as meters of this protocol are asked for it.
func addressOf(c obis.Code) string {
	var b []byte
	if c[1] != 0 || c[0] != medium(c) {
		b = fmt.Appendf(b, "%d-%d:", c[0], c[1])
	}
	letter := map[byte]string{groupGeneral: "C", groupErrors: "F", groupLists: "L", groupProfile: "P"}[c[2]]
	switch {
	case c[2] == groupErrors && c[3] == groupErrors && c[4] == 0:
		b = append(b, "F.F"...)
	case c[2] == groupProfile && c[4] == 0:
		b = fmt.Appendf(b, "P.%02d", c[3])
	case letter != "":
		b = fmt.Appendf(b, "%s.%d.%d", letter, c[3], c[4])
	default:
		b = fmt.Appendf(b, "%d.%d.%d", c[2], c[3], c[4])
	}
	if c[5] != 255 {
		b = fmt.Appendf(b, "*%02d", c[5])
	}
	return string(b)
}

// valueChannel is the channel of a code's value.
func valueChannel(c obis.Code) meter.Channel {
	channel, err := meter.ParseChannel(c.String())
	if err != nil { // never: it is a code
		return meter.ChannelOf(c, meter.ClassRegister, 2)
	}
	return channel
}

// timeChannel is the channel of the time that stands beside a value.
func timeChannel(c obis.Code) meter.Channel { return meter.ChannelOf(c, meter.ClassExtended, 5) }

// isTimeChannel says whether a channel is the time of its code's value.
func isTimeChannel(class uint16, attribute int8) bool {
	return class == meter.ClassExtended && attribute == 5 || class == meter.ClassDemandRegister && attribute == 6
}

// isTime says whether the values of a code are times: the clock, the billing
// reset, and the times of the general purpose codes.
func isTime(c obis.Code) bool {
	return c[2] == 1 && c[3] == 0 || c[2] == 0 && c[3] == 1 && c[4] == 2 ||
		c[2] == 0 && c[3] == 9 && c[4] == 4 || c[2] == groupGeneral && c[3] == 2
}

// isText says whether the values of a code are names and states, whose leading
// zeros count, and not numbers.
func isText(c obis.Code) bool {
	switch c[2] {
	case 0:
		return c[3] == 0 || c[3] == 2 || c[3] == 9
	case groupGeneral:
		switch c[3] {
		case 1, 2, 4, 5, 13, 14, 90:
			return true
		}
		return false
	case groupErrors:
		return true
	}
	return c[2] == 1 && c[3] == 0 // the clock
}
