// Package meter is the vocabulary of gridgate: what a reading is, where it
// came from, when it was taken and how far it can be trusted. Drivers make
// rows, the buffer keeps them, batches carry them; none of these know one
// another, all of them know this package.
//
// It holds values only: no I/O, no clock, no log. Everything in it may be
// copied and compared; nothing aliases a read buffer.
package meter

import (
	"errors"
	"fmt"
)

// ID names a meter within a gateway, and also sites, gateways and groups: one
// to 32 characters of a to z, 0 to 9 and '-', so that it is safe in topics,
// certificate subjects and access lists.
type ID string

// ErrID says that a name is not an ID.
var ErrID = errors.New("want 1 to 32 characters of a-z, 0-9 and '-'")

// ParseID checks s and gives it as an ID.
func ParseID(s string) (ID, error) {
	if len(s) == 0 || len(s) > 32 {
		return "", fmt.Errorf("id %q: %w", s, ErrID)
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return "", fmt.Errorf("id %q: %w", s, ErrID)
		}
	}
	return ID(s), nil
}

// Lane is the queue that a row waits in. The order is the order of importance:
// a lower lane is sent first and dropped last.
type Lane uint8

// The lanes. Their numbers are part of the stored and the wire format.
const (
	Alarm    Lane = iota // tamper, last gasp, breaker, security
	Billing              // the meter's own billing rows
	Interval             // load profile rows
	Instant              // registers read now
	lanes
)

// Lanes lists all lanes, the most important first.
func Lanes() []Lane { return []Lane{Alarm, Billing, Interval, Instant} }

// Valid says whether l is one of the lanes.
func (l Lane) Valid() bool { return l < lanes }

func (l Lane) String() string {
	switch l {
	case Alarm:
		return "alarm"
	case Billing:
		return "billing"
	case Interval:
		return "interval"
	case Instant:
		return "instant"
	case lanes:
	}
	return fmt.Sprintf("lane(%d)", uint8(l))
}

// ParseLane gives the lane of that name.
func ParseLane(s string) (Lane, error) {
	for _, l := range Lanes() {
		if l.String() == s {
			return l, nil
		}
	}
	return 0, fmt.Errorf("lane %q: want alarm, billing, interval or instant", s)
}

// Row is one reading of one channel.
//
// Two rows are the same reading when meter serial, channel, capture time and
// occurrence agree (see Key): equal values are a duplicate, different ones a
// revision, and a revision does not overwrite.
type Row struct {
	Meter   ID     // the name in the configuration
	Serial  string // the serial number as found in this session; empty when the meter has none to show
	Channel Channel
	Stamp   Stamp
	// Occurrence counts, from 0, rows of one profile that carry the same
	// capture time: the hour that daylight saving repeats, a clock set back.
	Occurrence uint8
	Value      Value
	Unit       Unit
	Quality    Quality
	Lane       Lane
	// Period is the length in seconds of the interval that the value covers;
	// the stamp is the END of the interval. 0 for a register read at a moment.
	Period uint32
	// Status is the meter's own status word beside the row, as the meter gave
	// it, and HasStatus says that there was one.
	Status    uint64
	HasStatus bool
}

// Key is the identity of a row.
type Key struct {
	Serial     string
	Meter      ID
	Channel    Channel
	Time       int64
	Occurrence uint8
}

// Key gives the identity of r. Meter stands in for a serial that is not known.
func (r *Row) Key() Key {
	k := Key{Serial: r.Serial, Channel: r.Channel, Time: r.Stamp.Time, Occurrence: r.Occurrence}
	if r.Serial == "" {
		k.Meter = r.Meter
	}
	return k
}
