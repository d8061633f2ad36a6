package modbus

import "strings"

// Function 43/14 reads who made a device and what it is (Modbus Application
// Protocol V1.1b3, 6.21):
//
//	function      1 byte  43
//	type          1 byte  14
//	code          1 byte  1: basic, as a stream
//	conformity    1 byte
//	more follows  1 byte  0 or FF
//	next object   1 byte
//	objects       1 byte  how many
//	  id          1 byte  0 vendor, 1 product code, 2 revision
//	  length      1 byte
//	  text
const (
	encapsulated = 0x2B
	readDeviceID = 0x0E
	basicObjects = 0x01
	deviceIDHead = 7
)

// DeviceID is what a device says of itself by function 43/14.
type DeviceID struct{ Vendor, Product, Revision string }

// DeviceIDPDU is the request for a DeviceID.
func DeviceIDPDU() []byte { return []byte{encapsulated, readDeviceID, basicObjects, 0} }

// ParseDeviceID decodes an answer from its function on.
func ParseDeviceID(pdu []byte) (id DeviceID, ok bool) {
	if n := identificationLen(pdu); n == 0 || n != len(pdu) {
		return id, false
	}
	rest := pdu[deviceIDHead:]
	for range pdu[deviceIDHead-1] {
		text := strings.TrimSpace(printableText(rest[2 : 2+int(rest[1])]))
		switch rest[0] {
		case 0:
			id.Vendor = text
		case 1:
			id.Product = text
		case 2:
			id.Revision = text
		}
		rest = rest[2+int(rest[1]):]
	}
	return id, true
}

// identificationLen gives the length of the answer that b begins with, 0 where it
// is none or not whole.
func identificationLen(b []byte) int {
	if len(b) < deviceIDHead || b[0] != encapsulated || b[1] != readDeviceID {
		return 0
	}
	n := deviceIDHead
	for range b[deviceIDHead-1] {
		if len(b) < n+2 || len(b) < n+2+int(b[n+1]) {
			return 0
		}
		n += 2 + int(b[n+1])
	}
	return n
}

func printableText(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7E {
			return -1
		}
		return r
	}, string(b))
}
