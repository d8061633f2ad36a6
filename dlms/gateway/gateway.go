// Package gateway is the header that has an APDU forwarded by a gateway to one
// of the meters behind it (DLMS UA 1000-2, the gateway protocol).
//
//	tag        1 octet     E6 request, E7 response
//	network    1           which of the gateway's networks
//	length     1           octets of the address
//	address    0 to 255    the meter's, as the network has it
//	APDU                   what is left; ciphered or not
//
// It stands where an APDU stands: in HDLC behind the LLC header, which begins
// with the same octets and is not it. Its octets count within the maximum PDU
// size. A response names the meter that it is from.
package gateway

import (
	"errors"
	"fmt"
)

// The tags.
const (
	TagRequest  = 0xE6
	TagResponse = 0xE7
)

// MaxAddress is the longest address, in octets.
const MaxAddress = 255

const fixedLen = 3

// What is wrong with a header.
var (
	ErrShort   = errors.New("gateway header cut short")
	ErrTag     = errors.New("not a gateway header")
	ErrAddress = errors.New("address is longer than 255 octets")
)

// Header says which meter an APDU is for, or from.
type Header struct {
	Response bool // else a request
	Network  uint8
	Address  []byte // at most MaxAddress octets
}

// Len gives the octets that h takes.
func (h Header) Len() int { return fixedLen + len(h.Address) }

// AppendBinary appends h to b; the APDU goes behind it.
func (h Header) AppendBinary(b []byte) ([]byte, error) {
	if len(h.Address) > MaxAddress {
		return b, fmt.Errorf("%w: %d", ErrAddress, len(h.Address))
	}
	tag := byte(TagRequest)
	if h.Response {
		tag = TagResponse
	}
	return append(append(b, tag, h.Network, byte(len(h.Address))), h.Address...), nil
}

// Parse decodes the header that b starts with and gives the APDU behind it.
// Address and apdu alias b.
func Parse(b []byte) (h Header, apdu []byte, err error) {
	switch {
	case len(b) == 0:
		return Header{}, nil, ErrShort
	case b[0] != TagRequest && b[0] != TagResponse:
		return Header{}, nil, fmt.Errorf("%w: it starts %02x", ErrTag, b[0])
	case len(b) < fixedLen || len(b) < fixedLen+int(b[2]):
		return Header{}, nil, fmt.Errorf("%w: %d octets", ErrShort, len(b))
	}
	end := fixedLen + int(b[2])
	h = Header{Response: b[0] == TagResponse, Network: b[1]}
	if end > fixedLen {
		h.Address = b[fixedLen:end:end]
	}
	return h, b[end:], nil
}
