package meter

import (
	"errors"
	"time"
)

// ClockOffset is a meter's clock against the gateway's.
type ClockOffset struct {
	Offset time.Duration // meter minus gateway
	// Uncertainty is half the round trip plus the resolution of the meter's
	// answer. What the gateway's own clock may be off is not in it: see At.
	Uncertainty time.Duration
	Valid       bool  // false when the meter says that its clock is invalid
	At          Stamp // when, by the gateway's clock
}

// ClockMethod is how a meter's clock is put right.
type ClockMethod uint8

// The methods.
const (
	// WriteTime writes the time: attribute 2 of a COSEM clock, registers, a data
	// set.
	WriteTime ClockMethod = iota
	// ShiftTime moves the clock by whole seconds, at most 900: method 6 of a
	// COSEM clock. Other meters have nothing like it.
	ShiftTime
)

func (m ClockMethod) String() string {
	if m == ShiftTime {
		return "shift"
	}
	return "set"
}

// SetClock orders a meter's clock to be put right. The driver compares it anew
// and asks May at once before it sends anything: an error of May is why the
// clock is left alone.
type SetClock struct {
	Method ClockMethod
	May    func(now Stamp, found ClockOffset) error
}

// ClockSet is what came of a SetClock.
type ClockSet struct {
	At     Stamp        // when, by the gateway's clock
	Before ClockOffset  // found at once before
	After  *ClockOffset // read back; nil when it was not to be had
	// Sent says that the meter was sent the time: it may have taken it also
	// where Err is not nil.
	Sent bool
	Err  error // why the clock was left alone, or what the meter said to it
}

// ErrClockMethod says that a meter's clock cannot be put right in that way, or
// not at all.
var ErrClockMethod = errors.New("the meter's clock cannot be set in that way")

// What is told of a meter's clock, as rows of the meter.
const (
	// ClockOffsetChannel is the meter's clock less the gateway's, in seconds, and
	// ClockUncertaintyChannel by how much that may be wrong, the gateway's own
	// error included. Both are stamped with when they were compared.
	ClockOffsetChannel      Channel = "clock.offset"
	ClockUncertaintyChannel Channel = "clock.uncertainty"
	// The events, with text that says what is the case.
	ClockSetChannel     Channel = "event.meter-clock-set"     // it was put right: old and new
	ClockRefusedChannel Channel = "event.meter-clock-refused" // it was not, though that was tried
	ClockOffChannel     Channel = "event.meter-clock-off"     // too far off to be put right
	ClockDriftsChannel  Channel = "event.meter-clock-drifts"  // it is off again within a day
	// ClockCursor is the name of the cursor that keeps when a clock was put right
	// or was about to be.
	ClockCursor Channel = "clock.set"
)
