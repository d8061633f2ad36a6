package meter

import (
	"math/bits"
	"strconv"
	"strings"
)

// Quality says what is known against a row; 0 is good. The bits are part of
// the stored and the wire format.
type Quality uint32

// The bits of Quality.
const (
	ClockUnsynchronised Quality = 1 << iota // the gateway's clock was not synchronised when it stamped the row
	TimeCorrected                           // the stamp was corrected after the fact
	Estimated                               // made from bracketing reads, not read
	Substituted                             // put in place by hand or rule
	OutOfRange                              // outside what is plausible for the channel
	RanBackwards                            // a cumulative register is lower than before
	MeterClockInvalid                       // the meter says that its clock is not valid
	MeterClockAdjusted                      // the meter's clock was set within the interval
	DaylightSaving                          // the meter's clock was in daylight saving time
	PowerFailure                            // the supply failed within the interval
	IntervalMissing                         // the meter has no value for the interval
	Overflow                                // the value does not fit and is not given
	IdentityNotProven                       // the meter's serial number could not be compared
	Test                                    // taken in a test, not for billing
	Inconsistent                            // contradicts another value of the same meter: a register's step is not what the interval says
	RolledOver                              // a cumulative register went past its last digit and began again at 0
	qualityEnd
)

var qualityNames = [...]string{ //nolint:gochecknoglobals // a constant table
	"clock-unsynchronised", "time-corrected", "estimated", "substituted",
	"out-of-range", "ran-backwards", "meter-clock-invalid", "meter-clock-adjusted",
	"daylight-saving", "power-failure", "interval-missing", "overflow",
	"identity-not-proven", "test", "inconsistent", "rolled-over",
}

// KnownQuality has every bit that this version knows.
const KnownQuality = qualityEnd - 1

// String gives "good", or the names of the bits joined by '+'; a bit that this
// version does not know is given by its number.
func (q Quality) String() string {
	if q == 0 {
		return "good"
	}
	var names []string
	for rest := uint32(q); rest != 0; rest &= rest - 1 {
		i := bits.TrailingZeros32(rest)
		if i < len(qualityNames) {
			names = append(names, qualityNames[i])
		} else {
			names = append(names, "bit"+strconv.Itoa(i))
		}
	}
	return strings.Join(names, "+")
}
