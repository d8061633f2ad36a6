package plc

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// The messages that a PRIME base node and its client exchange beside DLMS. They
// stand in the wrapper where an APDU stands. The base node sends them from wPort
// 0 to 1, the client from 1 to 0; all else that comes is from the node whose
// device id is the source.
const (
	msgNewDevice        = 1 // device id 2, capabilities 2, length 1, DLMS id, EUI-48 6
	msgRemoveDevice     = 2 // device id 2
	msgStartReporting   = 3 // nothing
	msgDeleteDevice     = 4 // device id 2
	msgEnableAutoClose  = 5 // device id 2
	msgDisableAutoClose = 6 // device id 2
)

const (
	basePort   = 0 // wPort of the base node itself
	clientPort = 1 // wPort of its client, for messages
)

// What is wrong with a message.
var (
	errShortMessage = errors.New("message of the base node cut short")
	errLongMessage  = errors.New("message of the base node with octets behind it")
	errMessage      = errors.New("unknown message of the base node")
	errName         = errors.New("name is longer than 255 octets")
)

// EUI48 is the hardware address of a node; zero is none.
type EUI48 [6]byte

// String gives the address as 00:80:E1:00:00:07, "" for none.
func (e EUI48) String() string {
	if e == (EUI48{}) {
		return ""
	}
	var b strings.Builder
	for i, o := range e {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(strings.ToUpper(hex.EncodeToString([]byte{o})))
	}
	return b.String()
}

// parseEUI48 reads 12 hexadecimal digits, with ':' or '-' between or without.
func parseEUI48(s string) (e EUI48, ok bool) {
	b, err := hex.DecodeString(strings.NewReplacer(":", "", "-", "").Replace(s))
	if err != nil || len(b) != len(e) {
		return e, false
	}
	return EUI48(b), true
}

// message is one of the messages. Of DLMS id and EUI-48 only msgNewDevice has any.
type message struct {
	kind         byte
	device       uint16
	capabilities uint16 // 1: the connection repeats what is lost (ARQ)
	name         string // DLMS id: the serial number as the network knows it
	eui          EUI48
}

// parseMessage decodes a message. Behind it must be nothing.
func parseMessage(b []byte) (m message, err error) {
	if len(b) == 0 {
		return m, errShortMessage
	}
	m.kind = b[0]
	rest := b[1:]
	switch m.kind {
	case msgStartReporting:
	case msgNewDevice, msgRemoveDevice, msgDeleteDevice, msgEnableAutoClose, msgDisableAutoClose:
		if len(rest) < 2 {
			return m, errShortMessage
		}
		m.device, rest = binary.BigEndian.Uint16(rest), rest[2:]
	default:
		return m, fmt.Errorf("%w: type %d", errMessage, m.kind)
	}
	if m.kind == msgNewDevice {
		if len(rest) < 3 || len(rest) < 3+int(rest[2])+len(m.eui) {
			return m, errShortMessage
		}
		m.capabilities = binary.BigEndian.Uint16(rest)
		end := 3 + int(rest[2])
		m.name = string(rest[3:end])
		m.eui = EUI48(rest[end : end+len(m.eui)])
		rest = rest[end+len(m.eui):]
	}
	if len(rest) > 0 {
		return m, fmt.Errorf("%w: %d", errLongMessage, len(rest))
	}
	return m, nil
}

// append appends the message to b.
func (m message) append(b []byte) ([]byte, error) {
	b = append(b, m.kind)
	if m.kind == msgStartReporting {
		return b, nil
	}
	b = binary.BigEndian.AppendUint16(b, m.device)
	if m.kind != msgNewDevice {
		return b, nil
	}
	if len(m.name) > 255 {
		return b, errName
	}
	b = binary.BigEndian.AppendUint16(b, m.capabilities)
	b = append(b, byte(len(m.name)))
	b = append(b, m.name...)
	return append(b, m.eui[:]...), nil
}
