package timesync

import (
	"fmt"
	"time"
)

// slowPath is a round trip that people want to know of.
const slowPath = 500 * time.Millisecond

// Advise says what is wrong with a number of servers; empty for nothing.
func Advise(servers int) string {
	switch servers {
	case 1:
		return "one time server only: if it is wrong nobody notices; configure three or more"
	case 2:
		return "two time servers only: if one is wrong it cannot be told which; configure three or more"
	default:
		return ""
	}
}

// warnings are what an operator should know. mu is held.
func (c *Clock) warnings(v view) (list []string) {
	if w := Advise(len(c.cfg.Servers)); w != "" {
		list = append(list, w)
	}
	slowest, trip := "", time.Duration(0)
	for _, s := range c.shown.Servers {
		switch s.Verdict {
		case Rejected:
			list = append(list, fmt.Sprintf("time server %s is a false ticker: it is %s off", s.Server, round((s.Offset-v.offset).Abs())))
		case Chosen:
			if s.Trip > trip {
				slowest, trip = s.Server, s.Trip
			}
		default:
		}
	}
	if trip > slowPath {
		list = append(list, fmt.Sprintf("the round trip to %s takes %s: if the way there and back differ the time may be off by half of it, which the bound covers",
			slowest, round(trip)))
	}
	if c.cfg.Discipline == Observe && v.known && v.offset.Abs() > v.err+c.cfg.StepAbove {
		list = append(list, fmt.Sprintf("the system clock is %s off, and its discipline is not ours: see to chrony or systemd-timesyncd, or configure `discipline: agent`", round(v.offset.Abs())))
	}
	return list
}
