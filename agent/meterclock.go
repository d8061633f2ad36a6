package agent

import (
	"math"
	"time"

	"gridgate/agent/timesync"
	"gridgate/buffer"
)

// correctionOf gives what time it was in a boot as the store takes it: in
// milliseconds, the bound rounded up.
func correctionOf(c timesync.Correction) buffer.Correction {
	up := func(d time.Duration) uint32 {
		return uint32(min((d+time.Millisecond-1)/time.Millisecond, math.MaxUint32-1))
	}
	return buffer.Correction{
		Mono: c.Mono.Milliseconds(), Offset: c.Offset.Milliseconds(), Bound: up(c.Bound) + 1,
		Rate: uint32(min(math.Ceil(c.Rate*1e9), math.MaxUint32)),
	}
}
