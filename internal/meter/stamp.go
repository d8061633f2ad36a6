package meter

import (
	"math"
	"time"
)

// Source says whose clock a stamp's wall time comes from.
type Source uint8

// The sources. Their numbers are part of the stored and the wire format.
const (
	FromGateway Source = iota // the gateway's clock at the moment of reading
	FromMeter                 // the capture time that the meter gave
)

func (s Source) String() string {
	if s == FromMeter {
		return "meter"
	}
	return "gateway"
}

// UnknownBound is the error bound of a clock that was never synchronised.
const UnknownBound = math.MaxUint32

// Stamp says when a row was taken, and how well that is known. The zero value
// is 1970 by a clock of no error and is not a valid stamp.
type Stamp struct {
	// Time is the wall time in milliseconds since 1970 UTC: the meter's
	// capture time or the gateway's clock, as Source says.
	Time int64
	// Boot numbers the gateway's boot in which Mono counts; the store keeps
	// the table of boots, so that a wall time can be corrected afterwards.
	Boot uint32
	// Mono is when the gateway took the row, in milliseconds of that boot's
	// monotonic clock (CLOCK_BOOTTIME).
	Mono int64
	// Bound is the largest error of Time in milliseconds, UnknownBound when
	// nobody knows.
	Bound  uint32
	Source Source
}

// UTC gives the wall time.
func (s Stamp) UTC() time.Time { return time.UnixMilli(s.Time).UTC() }

// Before orders stamps by wall time.
func (s Stamp) Before(t Stamp) bool { return s.Time < t.Time }
