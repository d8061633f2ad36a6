package timesync

import (
	"errors"
	"testing"
	"time"

	"gridgate/internal/meter"
)

// TestMayOrdered: who orders may go beyond the limit and the day, and no further.
func TestMayOrdered(t *testing.T) {
	t.Parallel()
	middle := time.Date(2026, 11, 22, 10, 2, 30, 0, time.UTC)
	for _, c := range []struct {
		name  string
		at    time.Time
		off   time.Duration
		bound uint32
		limit time.Duration
		want  error
	}{
		{"wrong, in the middle", middle, 20 * time.Second, 10, 0, nil},
		{"set a moment ago", middle, -20 * time.Second, 10, 0, nil},
		{"right enough", middle, 3 * time.Second, 10, 0, ErrRightEnough},
		{"beyond the policy", middle, 2 * time.Hour, 10, 0, ErrTooFarOff},
		{"as far as is ordered", middle, 2 * time.Hour, 10, 3 * time.Hour, nil},
		{"further", middle, 4 * time.Hour, 10, 3 * time.Hour, ErrTooFarOff},
		{"near an end", middle.Add(2 * time.Minute), 20 * time.Second, 10, 0, ErrNearCapture},
		{"the meter near an end", middle, 2*time.Hour + 2*time.Minute + 20*time.Second, 10, 3 * time.Hour, ErrNearCapture},
		{"a gateway that does not know", middle, 20 * time.Second, meter.UnknownBound, 0, ErrGatewayUnsure},
		{"a gateway that is not sure", middle, 20 * time.Second, 4000, 0, ErrGatewayUnsure},
	} {
		k := NewMeterClock(MeterPolicy{})
		k.setAt = middle.UnixMilli() - 1000
		now := meter.Stamp{Time: c.at.UnixMilli(), Bound: c.bound}
		o := meter.ClockOffset{Offset: c.off, Valid: true, At: now}
		if err := k.MayOrdered(now, o, c.limit); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v; want %v", c.name, err, c.want)
		}
	}
}
