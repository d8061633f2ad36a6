package mqtt

import (
	"errors"
	"fmt"
)

// Packet types that a broker sends (MQTT 3.1.1, 2.2.1).
const (
	typeConnack    = 2
	typePublish    = 3
	typeSuback     = 9
	typePingresp   = 13
	typeDisconnect = 14
)

// ErrTooLong says that a message was longer than is taken. It ended the connection.
var ErrTooLong = errors.New("message too long")

// frames follows the packets in what the broker sends, and refuses what the
// library does not survive: it allocates whatever length a header claims, takes
// a CONNACK code that it does not know for a success, and panics on a SUBACK
// with more codes than filters were asked for.
//
// The zero value with max set stands before the first packet.
type frames struct {
	asked  int // filters of the last SUBSCRIBE; 0 is 1
	pongs  int // PINGRESPs that were seen
	max    int // longest packet body, in bytes
	kind   byte
	head   int // bytes of the fixed header that were seen
	length int // body length, as far as it was seen
	seen   int // bytes of the body that were seen
}

// check takes the next bytes. An error ends the connection.
func (f *frames) check(p []byte) error {
	for len(p) > 0 {
		if f.head >= 0 {
			if err := f.header(p[0]); err != nil {
				return err
			}
			p = p[1:]
		} else {
			n := min(len(p), f.length-f.seen)
			if f.kind == typeConnack && f.seen <= 1 && f.seen+n > 1 && p[1-f.seen] > 5 {
				return fmt.Errorf("the broker sent a CONNACK with the unknown code %d", p[1-f.seen])
			}
			p, f.seen = p[n:], f.seen+n
		}
		if f.head < 0 && f.seen == f.length {
			*f = frames{max: f.max, asked: f.asked, pongs: f.pongs}
		}
	}
	return nil
}

// header takes one byte of the fixed header; head is -1 after the last one.
func (f *frames) header(b byte) error {
	if f.head == 0 {
		f.kind, f.head = b>>4, 1
		if f.kind == typeDisconnect {
			return fmt.Errorf("the broker ended the session")
		}
		if f.kind < typeConnack || f.kind > typePingresp {
			return fmt.Errorf("the broker sent a packet of type %d: is this an MQTT broker?", f.kind)
		}
		return nil
	}
	f.length |= int(b&0x7F) << (7 * (f.head - 1))
	f.head++
	if b&0x80 != 0 {
		if f.head > 4 {
			return fmt.Errorf("the broker sent a packet with a bad length: is this an MQTT broker?")
		}
		return nil
	}
	f.head = -1
	if f.kind == typePingresp {
		f.pongs++
	}
	switch {
	case f.kind == typePublish && f.length > f.max:
		return fmt.Errorf("%w: the broker sent one of %d bytes, more than %d", ErrTooLong, f.length, f.max)
	case f.kind == typeConnack && f.length != 2, f.kind == typeSuback && f.length != 2+max(1, f.asked),
		f.kind != typePublish && f.kind != typeSuback && f.length > 3:
		return fmt.Errorf("the broker sent a packet of type %d with %d bytes: is this an MQTT broker?", f.kind, f.length)
	}
	return nil
}
