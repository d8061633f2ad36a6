package mqtt

import "fmt"

// Packet types that a broker sends (MQTT 3.1.1, 2.2.1).
const (
	typeConnack    = 2
	typePublish    = 3
	typeSuback     = 9
	typePingresp   = 13
	typeDisconnect = 14
)

// frames follows the packets in what the broker sends, and refuses what the
// library does not survive: it allocates whatever length a header claims, takes
// a CONNACK code that it does not know for a success, and panics on a SUBACK
// with more codes than filters were asked for.
//
// Of a message that is too long only max+1 bytes of the body are let through,
// with a header that says so, where cut is set: it is acknowledged, and what
// follows it is heard. Otherwise it ends the connection.
//
// The zero value with max set stands before the first packet.
type frames struct {
	asked  int // filters of the last SUBSCRIBE; 0 is 1
	pongs  int // PINGRESPs that were seen
	max    int // longest packet body, in bytes
	cut    bool
	kind   byte
	first  byte
	head   int // bytes of the fixed header that were seen
	length int // body length, as far as it was seen
	seen   int // bytes of the body that were seen
}

// pass takes the next bytes and appends what the library may see of them. An
// error ends the connection.
func (f *frames) pass(out, p []byte) ([]byte, error) {
	for len(p) > 0 {
		if f.head >= 0 {
			if err := f.header(p[0]); err != nil {
				return out, err
			}
			if p = p[1:]; f.head < 0 {
				out = appendHeader(out, f.first, min(f.length, f.max+1))
			}
		} else {
			n := min(len(p), f.length-f.seen)
			if f.kind == typeConnack && f.seen <= 1 && f.seen+n > 1 && p[1-f.seen] > 5 {
				return out, fmt.Errorf("the broker sent a CONNACK with the unknown code %d", p[1-f.seen])
			}
			out = append(out, p[:min(n, max(0, f.max+1-f.seen))]...)
			p, f.seen = p[n:], f.seen+n
		}
		if f.head < 0 && f.seen == f.length {
			*f = frames{max: f.max, cut: f.cut, asked: f.asked, pongs: f.pongs}
		}
	}
	return out, nil
}

// appendHeader appends a fixed header (MQTT 3.1.1, 2.2).
func appendHeader(out []byte, first byte, length int) []byte {
	out = append(out, first)
	for ; length > 0x7F; length >>= 7 {
		out = append(out, byte(length)|0x80)
	}
	return append(out, byte(length))
}

// header takes one byte of the fixed header; head is -1 after the last one.
func (f *frames) header(b byte) error {
	if f.head == 0 {
		f.kind, f.first, f.head = b>>4, b, 1
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
	case f.kind == typePublish && f.length > f.max && !f.cut:
		return fmt.Errorf("the broker sent a message of %d bytes, more than %d", f.length, f.max)
	case f.kind == typeConnack && f.length != 2, f.kind == typeSuback && f.length != 2+max(1, f.asked),
		f.kind != typePublish && f.kind != typeSuback && f.length > 3:
		return fmt.Errorf("the broker sent a packet of type %d with %d bytes: is this an MQTT broker?", f.kind, f.length)
	}
	return nil
}
