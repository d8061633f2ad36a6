package sniff

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// Packet is octets of one conversation of a capture.
type Packet struct {
	Chunk
	Talk    string // names the conversation; "" is the line itself
	Network bool   // a connection of TCP, or datagrams
	Lost    bool   // octets before these are not in the capture
}

// What is wrong with a capture.
var (
	ErrNotCapture = errors.New("no capture: neither pcap nor pcapng")
	errCut        = errors.New("capture cut short")
)

// IsCapture says whether a file that begins so is one: it wants four octets.
func IsCapture(head []byte) bool {
	if len(head) < 4 {
		return false
	}
	_, _, ok := pcapOrder(head)
	return ok || binary.LittleEndian.Uint32(head) == blockSection
}

const (
	maxPacket = 256 << 10

	blockSection   = 0x0A0D0D0A
	blockInterface = 1
	blockSimple    = 3
	blockEnhanced  = 6
	orderMagic     = 0x1A2B3C4D
)

func pcapOrder(head []byte) (order binary.ByteOrder, unit time.Duration, ok bool) {
	for _, o := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		switch o.Uint32(head) {
		case 0xA1B2C3D4:
			return o, time.Microsecond, true
		case 0xA1B23C4D:
			return o, time.Nanosecond, true
		}
	}
	return nil, 0, false
}

// ReadCapture reads a file of pcap or pcapng, and gives what is in it of TCP, UDP
// and serial lines to each, in its order.
func ReadCapture(r io.Reader, each func(Packet) error) error {
	in := bufio.NewReader(r)
	head, err := in.Peek(4)
	if err != nil {
		return ErrNotCapture
	}
	c := &capture{in: in, each: each, talks: map[string]*talk{}}
	switch order, unit, ok := pcapOrder(head); {
	case ok:
		c.order = order
		return c.pcap(unit)
	case binary.LittleEndian.Uint32(head) == blockSection:
		return c.pcapng()
	}
	return ErrNotCapture
}

type capture struct {
	in    *bufio.Reader
	order binary.ByteOrder
	each  func(Packet) error
	talks map[string]*talk
}

// pcap reads the older format: a header of 24 octets, packets with one of 16.
func (c *capture) pcap(unit time.Duration) error {
	head, err := c.take(24)
	if err != nil {
		return err
	}
	link := c.order.Uint32(head[20:]) & 0xFFFF
	for n := 1; ; n++ {
		head, err := c.take(16)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("packet %d: %w", n, err)
		}
		at := time.Unix(int64(c.order.Uint32(head)), int64(c.order.Uint32(head[4:]))*int64(unit))
		data, err := c.take(c.order.Uint32(head[8:]))
		if err != nil {
			return fmt.Errorf("packet %d: %w", n, noEnd(err))
		}
		if err := c.packet(link, at, data); err != nil {
			return err
		}
	}
}

// netInterface is where packets of a pcapng are from.
type netInterface struct {
	link uint32
	unit func(ticks uint64) time.Time
}

// pcapng reads the newer format: blocks of a type, a length at both ends.
func (c *capture) pcapng() error {
	var faces []netInterface
	for n := 1; ; n++ {
		head, err := c.take(8)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("block %d: %w", n, err)
		}
		if binary.LittleEndian.Uint32(head) == blockSection {
			magic, err := c.in.Peek(4)
			if err != nil {
				return fmt.Errorf("block %d: %w", n, errCut)
			}
			c.order, faces = binary.ByteOrder(binary.LittleEndian), nil
			if binary.BigEndian.Uint32(magic) == orderMagic {
				c.order = binary.BigEndian
			}
		}
		kind, length := c.order.Uint32(head), c.order.Uint32(head[4:])
		if length < 12 || length%4 != 0 {
			return fmt.Errorf("block %d: a length of %d", n, length)
		}
		body, err := c.take(length - 8)
		if err != nil {
			return fmt.Errorf("block %d: %w", n, noEnd(err))
		}
		body = body[:len(body)-4]
		switch {
		case kind == blockInterface && len(body) >= 8 && len(faces) < 256:
			faces = append(faces, c.netInterface(body))
		case kind == blockEnhanced && len(body) >= 20:
			face, size := c.order.Uint32(body), c.order.Uint32(body[12:])
			if int(face) >= len(faces) || int64(size) > int64(len(body)-20) {
				return fmt.Errorf("block %d: a packet of no interface, or too long", n)
			}
			ticks := uint64(c.order.Uint32(body[4:]))<<32 | uint64(c.order.Uint32(body[8:]))
			err = c.packet(faces[face].link, faces[face].unit(ticks), body[20:20+size])
		case kind == blockSimple && len(body) >= 4 && len(faces) > 0:
			size := min(int64(c.order.Uint32(body)), int64(len(body)-4))
			err = c.packet(faces[0].link, time.Time{}, body[4:4+size])
		}
		if err != nil {
			return err
		}
	}
}

// netInterface reads the link type, and in what units packets tell their time.
func (c *capture) netInterface(body []byte) netInterface {
	const resolution = 9
	f := netInterface{link: uint32(c.order.Uint16(body))}
	per := uint64(1e6)
	for rest := body[8:]; len(rest) >= 4; {
		code, size := c.order.Uint16(rest), int(c.order.Uint16(rest[2:]))
		if code == 0 || len(rest) < 4+size {
			break
		}
		if code == resolution && size == 1 {
			per = ticksOf(rest[4])
		}
		rest = rest[min(len(rest), 4+(size+3)&^3):]
	}
	f.unit = func(ticks uint64) time.Time {
		sec := ticks / per
		frac := float64(ticks%per) / float64(per)
		return time.Unix(int64(sec), int64(frac*1e9))
	}
	return f
}

// ticksOf gives how many units a second has.
func ticksOf(resolution byte) uint64 {
	if resolution&0x80 != 0 {
		return 1 << min(resolution&0x7F, 62)
	}
	per := uint64(1)
	for range min(resolution, 18) {
		per *= 10
	}
	return per
}

func (c *capture) take(n uint32) ([]byte, error) {
	if n > maxPacket {
		return nil, fmt.Errorf("%d octets, more than any packet has", n)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(c.in, b)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errCut
	}
	return b, err
}

// noEnd is for what must follow.
func noEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return errCut
	}
	return err
}
