// Package timesync knows what time it is, and how sure it is of that.
//
// It asks several NTP servers (RFC 5905), keeps what most of them can agree
// on, learns how fast the gateway's oscillator drifts, and from then on can
// say at any moment how far the system clock may be off:
//
//	         first majority                 no majority for a while
//	unsynchronised ───────────> synchronised ───────────> holdover
//	     ^                           ^                       │ │
//	     │                           └───────────────────────┘ │
//	     └─────────────────────────────────────────────────────┘
//	            the bound is larger than MaxError, or the system was suspended
//
// The time of a stamp is always that of the system clock. In the mode Agent
// this package keeps that clock right: it steps it when it is far off or was
// never right, slews it otherwise, and writes the hardware clock. In the mode
// Observe somebody else does (chrony, systemd-timesyncd), and only the bound
// is ours.
//
// What is measured is the true time against the raw oscillator (Instant.Raw),
// which no discipline touches: true − Raw. The system clock's error at any
// moment is then true − Wall, whoever has stepped or slewed the clock since.
// The bound of a stamp is
//
//	|true − Wall| + uncertainty of the measurement + (what is not known of the drift) × time since
//
// It is a bound, not a deviation: the uncertainty of a measurement is the
// server's root distance with half of our own round trip, so that an
// asymmetric path is covered.
//
// Modem network time, the hardware clock and the last time that was known to
// be right set a clock that is obviously wrong. They vouch for nothing: the
// state stays unsynchronised, and stamps carry meter.UnknownBound.
package timesync

import (
	"time"

	"gridgate/internal/meter"
)

// State says what the system clock is worth.
type State uint8

// The states.
const (
	// Unsynchronised says that nobody vouches for the clock: stamps have
	// meter.UnknownBound.
	Unsynchronised State = iota
	// Holdover says that the clock was right, and how far off it can be by now.
	Holdover
	// Synchronised says that the last poll found a majority.
	Synchronised
)

func (s State) String() string {
	switch s {
	case Synchronised:
		return "synchronised"
	case Holdover:
		return "holdover"
	default:
		return "unsynchronised"
	}
}

// Discipline says who keeps the system clock right.
type Discipline string

// The disciplines.
const (
	Agent   Discipline = "agent"   // this package
	Observe Discipline = "observe" // another program; this package measures
)

// Correction says what time it was in a stretch of a boot: the true time at
// the monotonic time m is
//
//	m + Offset, at most Bound + Rate × |m − Mono| off
//
// for any m of the boot up to Mono: what comes later may be slewed as it was not
// before. Rows of the boot that were stamped with meter.UnknownBound are
// corrected by it; of several corrections the one with the smallest bound for m
// is the best.
type Correction struct {
	Boot   uint32
	Mono   time.Duration // CLOCK_BOOTTIME at which it was determined
	Offset time.Duration // true time since 1970 UTC, minus Mono
	Bound  time.Duration
	Rate   float64 // seconds a second: what the bound grows by away from Mono
}

// At gives the true time at the monotonic time m, and the bound of its error.
func (c Correction) At(m time.Duration) (t time.Time, bound time.Duration) {
	return time.Unix(0, int64(m+c.Offset)).UTC(), c.Bound + time.Duration(c.Rate*float64((m-c.Mono).Abs()))
}

// Step says that the system clock was set, by us or by somebody else.
type Step struct {
	Mono time.Duration // CLOCK_BOOTTIME when it was noticed
	By   time.Duration // Wall after it minus Wall before it
	Ours bool
}

// Status is how the clock does, for people and for metrics.
type Status struct {
	State      State
	Reason     string // why it is not synchronised; empty when it is
	Discipline Discipline
	Source     string        // what the clock comes from: "ntp", "kernel", "modem", "hardware clock", "last known", or ""
	Bound      time.Duration // largest error of the system clock; meaningless while Unsynchronised
	Offset     time.Duration // true time minus system clock, as far as known
	Slewing    time.Duration // what is left of a correction that is made slowly
	Since      time.Duration // since the last majority; negative when there was none in this boot
	Drift      float64       // of the oscillator, seconds a second: positive when it is slow
	DriftError float64       // what is not known of Drift
	Interval   time.Duration // between polls
	Leap       int           // +1 or -1 second at the end of the month, as the majority says
	Steps      uint64        // of the system clock since the start
	NotBefore  time.Time     // it is certainly not earlier than that
	Servers    []ServerStatus
	Warnings   []string // what an operator should know
}

// ServerStatus is what the last poll had from one server.
type ServerStatus struct {
	Server   string
	Address  string // it was reached at, empty when it was not
	Verdict  Verdict
	Reason   string        // why it is not chosen
	Offset   time.Duration // server minus system clock, at the time of the poll
	Trip     time.Duration // round trip of the best sample
	Distance time.Duration // root distance: largest error of Offset if the server is honest
	Stratum  uint8
	NTS      bool
	Polls    uint64 // that were answered
	Failures uint64 // that were not
}

// Verdict is what became of a server in the last poll.
type Verdict uint8

// The verdicts.
const (
	Unasked     Verdict = iota
	Unreachable         // no valid answer
	Unusable            // it answered, but is not synchronised, or too uncertain
	Refused             // it told us to go away: DENY or RSTR
	Rejected            // its time contradicts the majority's
	Candidate           // it answered, and there was no majority
	Chosen              // it is of the majority
)

func (v Verdict) String() string {
	switch v {
	case Unreachable:
		return "unreachable"
	case Unusable:
		return "unusable"
	case Refused:
		return "refused"
	case Rejected:
		return "false ticker"
	case Candidate:
		return "candidate"
	case Chosen:
		return "chosen"
	default:
		return "not asked"
	}
}

// Gateway is what the rest of the agent needs of a Clock. The Clock of this
// package is one; tests of others may have their own.
type Gateway interface {
	// Now gives the stamp of this moment. Its bound is meter.UnknownBound
	// while the state is Unsynchronised.
	Now() meter.Stamp
	// Trusted says that the state claims a bound: what depends on the time,
	// such as the expiry of a document or the setting of a meter's clock, may
	// be decided.
	Trusted() bool
	// NotBefore is a time that has certainly passed, trusted or not.
	NotBefore() time.Time
	Status() Status
}
