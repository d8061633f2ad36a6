package cosem

import (
	"errors"
	"fmt"
	"time"

	"gridgate/dlms/security"
	"gridgate/internal/meter"
)

// A meter that shows no counter (ic=none) cannot be asked where to go on when
// the store is lost or new. So its counters follow the clock: they begin at
// clockRate for every second since 2020, and are drawn no faster than that but
// for clockBurst of them. So whoever begins by the clock again, begins above all
// that was used, unless that is within clockBurst/clockRate seconds (34 minutes)
// of the last use, or by a clock that was set back: the clock must be
// synchronised. The counters of a key last until 2054.
const (
	clockRate  = 4
	clockBurst = 8192
	clockStep  = 128 // reserved at a time: a start of a program wastes them
)

func clockEpoch() time.Time { return time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC) }

// clockIsOff is before this was written: a clock at that time is wrong.
func clockIsOff() time.Time { return time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC) }

// countsByClock says whether the meter shows no counter.
func (m *Meter) countsByClock() bool { return len(m.cfg.CounterObjects) == 0 }

// clockCounter gives the counter that a key begins above at that moment.
func clockCounter(now meter.Stamp) (uint32, error) {
	at, wrong := time.UnixMilli(now.Time), ""
	switch {
	case at.Before(clockIsOff()):
		wrong = "is at " + at.UTC().Format(time.DateOnly)
	case now.Bound == meter.UnknownBound:
		wrong = "is not synchronised (NTP)"
	}
	if wrong != "" {
		return 0, fmt.Errorf("%w: the meter shows none (ic=none), so that it begins by the time, and the clock of this machine %s; "+
			"for a key that nothing has ever used, `gridgate counters accept -sent 0` for this meter does without", ErrCounter, wrong)
	}
	n := clockRate * int64(at.Sub(clockEpoch())/time.Second)
	if n > 1<<32-1-2*counterMargin {
		return 0, fmt.Errorf("%w: %w", ErrCounter, security.ErrExhausted)
	}
	return uint32(n), nil
}

// clocked draws counters no faster than the clock goes.
type clocked struct {
	Counters
	now meter.Now
}

var errTooFast = errors.New("counters of this meter are used up faster than they can be followed by the clock, 4 a second: " +
	"read it less often, or name the object that shows its counter (ic=OBIS)")

// Reserve gives away n counters, if they are not ahead of the clock. What a
// person or the meter itself has put far above goes on there.
func (c clocked) Reserve(title security.Title, key security.KeyID, n uint32) (uint32, error) {
	next, err := c.Counters.Reserve(title, key, 0)
	if err != nil || n == 0 {
		return next, err
	}
	seconds := time.UnixMilli(c.now().Time).Sub(clockEpoch()) / time.Second
	most := clockRate*int64(seconds) + counterMargin + clockBurst
	if end := int64(next) + int64(n); end > most && int64(next) <= most+2*clockBurst {
		return 0, fmt.Errorf("%w: %w", ErrCounter, errTooFast)
	}
	return c.Counters.Reserve(title, key, n)
}
