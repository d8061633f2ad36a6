package hdlc

import "fmt"

// Notices takes the APDUs out of UI frames, in which meters send what nobody
// asked for (IEC 62056-46, 6.4.3.6): data-notifications, event-notifications.
// Some send a long APDU in several frames, segmented as I frames are. The zero
// value is ready. Not safe for concurrent use.
//
// A listener that has no Link takes frames out of what comes in with a
// Splitter and ParseFrame, and gives those of any meter to one Notices.
type Notices struct {
	// Max is the longest APDU taken, in octets; 0 is 64 KiB.
	Max int

	from Address // whose segments they are
	info []byte  // so far
}

// Add takes a frame. It gives an APDU when one is whole, good until the next
// call, and nil when more segments follow. A frame that is no UI frame is
// ErrControl; one without LLC header ErrLLC; an APDU that is too long
// ErrTooLong. Segments of two meters do not mix: what the first began is lost.
func (n *Notices) Add(f Frame) (apdu []byte, err error) {
	if f.Control.kind() != UI {
		return nil, fmt.Errorf("%w: %02X is no UI frame", ErrControl, byte(f.Control))
	}
	if f.Source != n.from {
		n.Reset()
		n.from = f.Source
	}
	limit := n.Max
	if limit <= 0 {
		limit = maxAPDU
	}
	if len(n.info)+len(f.Info) > limit+len(llcFromMeter) {
		n.Reset()
		return nil, fmt.Errorf("notification: %w: at most %d octets", ErrTooLong, limit)
	}
	n.info = append(n.info, f.Info...)
	if f.Segmented {
		return nil, nil
	}
	whole := n.info
	n.Reset()
	if len(whole) <= len(llcFromMeter) || string(whole[:len(llcFromMeter)]) != llcFromMeter {
		return nil, fmt.Errorf("%w of a meter: the notification starts % x", ErrLLC, whole[:min(len(whole), len(llcFromMeter))])
	}
	return whole[len(llcFromMeter):], nil
}

// Reset forgets the segments that have come.
func (n *Notices) Reset() { n.info = n.info[:0] }
