package timesync

import (
	"time"

	"gridgate/internal/meter"
)

// MayOrdered says whether the clock, having been found so, may be set now because
// somebody orders it: not more than limit off, or than the policy says where
// that is 0; how long ago it was set last does not count. Errors are those of
// May.
func (c *MeterClock) MayOrdered(now meter.Stamp, o meter.ClockOffset, limit time.Duration) error {
	if limit <= 0 {
		limit = c.policy.Limit
	}
	switch sure := Sure(o); {
	case now.Bound == meter.UnknownBound, o.At.Bound == meter.UnknownBound,
		time.Duration(max(now.Bound, o.At.Bound))*time.Millisecond > c.policy.Threshold/2:
		return ErrGatewayUnsure
	case sure <= c.policy.Threshold:
		return ErrRightEnough
	case o.Offset.Abs() > limit-Uncertainty(o):
		return ErrTooFarOff
	}
	if c.moment(o) >= 0 {
		return c.phase(now, o, c.policy.Guard)
	}
	// The two are never within one capture period: each stays away from its own
	// ends.
	away, period := (c.guard(c.policy.Guard) + Uncertainty(o)).Milliseconds(), c.period().Milliseconds()
	for _, at := range []int64{now.Time, now.Time + o.Offset.Milliseconds()} {
		if into := floorMod(at, period); into < away || into > period-away {
			return ErrNearCapture
		}
	}
	return nil
}
