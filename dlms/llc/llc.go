// Package llc is the logical link control of IEC 61334-4-32, as S-FSK power
// line carriers and the 4-32 convergence of PRIME have it around an APDU.
//
//	service       1 octet   90, DL-Data
//	destination   1         L-SAP of the receiver
//	source        1         L-SAP of the sender
//	APDU                    what is left
//
// A management logical device is L-SAP 1, the public client 16.
package llc

import (
	"errors"
	"fmt"
)

// Data is the service of all APDUs: DL-Data.
const Data = 0x90

// HeaderLen is the length of a header in octets.
const HeaderLen = 3

// What is wrong with a header.
var (
	ErrShort   = errors.New("llc header cut short")
	ErrService = errors.New("not DL-Data of IEC 61334-4-32")
)

// Header is what goes before an APDU.
type Header struct{ Destination, Source uint8 } // L-SAPs

// AppendBinary appends h to b; the APDU goes behind it.
func (h Header) AppendBinary(b []byte) ([]byte, error) {
	return append(b, Data, h.Destination, h.Source), nil
}

// Parse decodes the header that b starts with and gives the APDU behind it,
// which aliases b.
func Parse(b []byte) (h Header, apdu []byte, err error) {
	switch {
	case len(b) == 0:
		return Header{}, nil, ErrShort
	case b[0] != Data:
		return Header{}, nil, fmt.Errorf("%w: it starts %02x", ErrService, b[0])
	case len(b) < HeaderLen:
		return Header{}, nil, fmt.Errorf("%w: %d octets", ErrShort, len(b))
	}
	return Header{Destination: b[1], Source: b[2]}, b[HeaderLen:], nil
}
