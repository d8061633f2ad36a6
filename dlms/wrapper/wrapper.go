// Package wrapper carries APDUs over TCP and UDP: the wrapper of IEC 62056-47
// (IEC 62056-4-7, 5.2).
//
//	version      2 octets   1
//	source       2 octets   the sender's wPort: a client is 16 (public), 17, …
//	destination  2 octets   the receiver's wPort: a management logical device is 1
//	length       2 octets   octets of the APDU that follows
//
// The well-known port of meters is 4059.
package wrapper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// HeaderLen is the length of a header in octets.
const HeaderLen = 8

// MaxLength is the longest APDU that a header can announce.
const MaxLength = 1<<16 - 1

const version = 1

// Header is what goes before an APDU.
type Header struct {
	Source, Destination uint16 // wPorts
	Length              uint16 // octets of the APDU
}

// What is wrong with a header or an APDU. After ErrVersion and ErrTooLong
// nobody knows where in the stream the next header is: close the connection.
var (
	ErrVersion = errors.New("not a wrapper of version 1")
	ErrTooLong = errors.New("longer than agreed")
	ErrShort   = errors.New("header cut short")
)

// AppendBinary appends h to b.
func (h Header) AppendBinary(b []byte) ([]byte, error) {
	b = binary.BigEndian.AppendUint16(b, version)
	b = binary.BigEndian.AppendUint16(b, h.Source)
	b = binary.BigEndian.AppendUint16(b, h.Destination)
	return binary.BigEndian.AppendUint16(b, h.Length), nil
}

// ParseHeader decodes the header that b starts with.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderLen {
		return Header{}, fmt.Errorf("%w: %d octets, want %d", ErrShort, len(b), HeaderLen)
	}
	if v := binary.BigEndian.Uint16(b); v != version {
		return Header{}, fmt.Errorf("%w: it starts %x: does this port speak DLMS over TCP?", ErrVersion, b[:HeaderLen])
	}
	return Header{
		Source:      binary.BigEndian.Uint16(b[2:]),
		Destination: binary.BigEndian.Uint16(b[4:]),
		Length:      binary.BigEndian.Uint16(b[6:]),
	}, nil
}

// Conn exchanges APDUs with one logical device over a stream. It takes from
// the stream exactly what belongs to the frames it reads, so that several may
// share a stream one after the other. It sets no deadline: whoever owns the
// stream does. Not safe for concurrent use.
type Conn struct {
	stream         io.ReadWriter
	client, server uint16
	max            int
	out            []byte
}

// NewConn gives the connection of the client with that wPort to the server
// with that wPort. APDUs over max octets are refused both ways; 0 is MaxLength.
func NewConn(stream io.ReadWriter, client, server uint16, maxAPDU int) *Conn {
	if maxAPDU <= 0 || maxAPDU > MaxLength {
		maxAPDU = MaxLength
	}
	return &Conn{stream: stream, client: client, server: server, max: maxAPDU}
}

// Send writes apdu with its header in one Write.
func (c *Conn) Send(apdu []byte) error {
	if len(apdu) > c.max {
		return fmt.Errorf("apdu of %d octets: %w: at most %d", len(apdu), ErrTooLong, c.max)
	}
	h := Header{Source: c.client, Destination: c.server, Length: uint16(len(apdu))}
	c.out, _ = h.AppendBinary(c.out[:0])
	c.out = append(c.out, apdu...)
	if _, err := c.stream.Write(c.out); err != nil {
		return err
	}
	return nil
}

// Receive reads the next APDU from the server to the client and appends it to
// b. Frames between other wPorts are skipped. io.EOF is a stream that ended
// between frames, io.ErrUnexpectedEOF one that ended within; the stream's
// other errors come wrapped. After an error the stream is out of step: close it.
func (c *Conn) Receive(b []byte) ([]byte, error) {
	skipped := 0
	var last Header
	fail := func(err error) ([]byte, error) {
		if skipped > 0 {
			return nil, fmt.Errorf("%w (%d frames for others came, the last from wPort %d to %d; expected %d to %d)",
				err, skipped, last.Source, last.Destination, c.server, c.client)
		}
		return nil, err
	}
	for {
		var head [HeaderLen]byte
		if _, err := io.ReadFull(c.stream, head[:]); err != nil {
			return fail(err)
		}
		h, err := ParseHeader(head[:])
		if err != nil {
			return fail(err)
		}
		if int(h.Length) > c.max {
			return fail(fmt.Errorf("apdu of %d octets: %w: at most %d", h.Length, ErrTooLong, c.max))
		}
		start := len(b)
		b = append(b, make([]byte, h.Length)...)
		if _, err := io.ReadFull(c.stream, b[start:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fail(err)
		}
		if h.Source == c.server && h.Destination == c.client {
			return b, nil
		}
		b, last = b[:start], h
		skipped++
	}
}
