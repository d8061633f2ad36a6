// Package bridge gives readings to consumers who want a standard: SenML
// (RFC 8428, JSON) and Sparkplug B 3.0. What each maps to is in docs/bridge.md.
//
//	broker ──gridgate/1/#──> Source ──> track.Receiver ─┬─> SenML ──> topics, or lines
//	                                                    └─> Sparkplug: a Node a gateway ──> spBv1.0/#
//
// It tells gateways nothing: what it has taken is not confirmed to them.
package bridge

import (
	"strconv"
	"strings"

	"gridgate/agent/batch"
)

// ChannelName gives a channel's name in both standards: the short OBIS code,
// or the channel's own name, with letters that SenML names may have (RFC 8428,
// 4.5.1) and that make no folders in Sparkplug:
//
//	1-0:1.8.0*255/3:2   1-0:1.8.0       class and attribute are the customary ones
//	1-0:1.8.0*1/3:2     1-0:1.8.0.1
//	1-0:1.8.0*255/5:3   1-0:1.8.0_5:3
//
// What no channel has in it comes as '_'.
func ChannelName(c batch.Channel) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '*':
			return '.'
		case r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == ':' || r == '.':
			return r
		default:
			return '_'
		}
	}, c.Short())
}

// rowName is the name of a row's quantity within its meter: a value read now is
// another quantity than the meter's own billing value of the same register, and
// what was used in 900 s another one than what was used in an hour.
//
//	instant/1-0:1.8.0   interval/900s/1-0:1.29.0
func rowName(r *batch.Row) string {
	name := r.Lane.String() + "/"
	if r.Period != 0 {
		name += strconv.FormatUint(uint64(r.Period), 10) + "s/"
	}
	return name + ChannelName(r.Channel)
}

// circumstances are the bits of a quality that tell of a value that is right how
// it came about, or that its time has no guarantee. All others put the value, or
// the interval that it is of, in doubt; so does a bit that this version does not
// know.
const circumstances = batch.ClockUnsynchronised | batch.TimeCorrected | batch.MeterClockAdjusted | batch.DaylightSaving |
	batch.PowerFailure | batch.RolledOver

// Doubtful says whether a value of this quality must not be taken for good.
func Doubtful(q batch.Quality) bool { return q&^circumstances != 0 }
