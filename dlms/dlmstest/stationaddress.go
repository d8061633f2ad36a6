package dlmstest

import "bytes"

// Addresses of stations that are not one station (IEC 62056-46, 6.4.2.3), in
// one octet and in two, without the bits that mark the end.
const (
	allStations      = 0x7F
	allStationsLong  = 0x3FFF
	callingStation   = 0x7E
	callingLong      = 0x3FFE
	noStation        = 0
	noLower          = -1
	factoryLower     = 16 // the lower address of a station that was given none
	longestOfAddress = 4
)

// address takes an address off the front: octets up to the first odd one.
func address(b []byte) (octets, rest []byte, ok bool) {
	for i, o := range b[:min(len(b), longestOfAddress)] {
		if o&1 == 1 {
			return b[:i+1], b[i+1:], i != 2
		}
	}
	return nil, nil, false
}

// split gives the upper and the lower address; noLower is none.
func split(octets []byte) (upper, lower int) {
	pair := func(b []byte) int { return int(b[0]>>1)<<7 | int(b[1]>>1) }
	switch len(octets) {
	case 1:
		return int(octets[0] >> 1), noLower
	case 2:
		return int(octets[0] >> 1), int(octets[1] >> 1)
	default:
		return pair(octets), pair(octets[2:])
	}
}

// join gives an address of so many octets.
func join(upper, lower, octets int) []byte {
	switch octets {
	case 1:
		return []byte{byte(upper<<1) | 1}
	case 2:
		return []byte{byte(upper << 1), byte(lower<<1) | 1}
	default:
		return []byte{byte(upper>>7) << 1, byte(upper << 1), byte(lower>>7) << 1, byte(lower<<1) | 1}
	}
}

// called says whether the station is meant by the address that a frame goes
// to, and gives the address that it answers from.
func (s *Station) called(to []byte) (own []byte, ok bool) {
	if bytes.Equal(to, s.Server) {
		return s.Server, true
	}
	if !s.AnyForm {
		return nil, false
	}
	upper, lower := split(s.Server)
	u, l := split(to)
	if u != upper {
		return nil, false
	}
	all, calling := allStations, callingStation
	if len(to) == longestOfAddress {
		all, calling = allStationsLong, callingLong
	}
	switch {
	case l == noLower, l == lower:
	case l == noStation:
		return nil, false
	case l == all, l == calling:
		if lower == noLower {
			lower = factoryLower
		}
		if len(to) == 2 && lower > callingStation {
			return nil, false
		}
		return join(upper, lower, len(to)), true
	case lower != noLower:
		return nil, false
	}
	return bytes.Clone(to), true
}
