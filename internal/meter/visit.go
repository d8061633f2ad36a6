package meter

import (
	"context"
	"errors"
	"fmt"
)

// Visitor is the driver contract: one method a turn. Visit opens or reuses a
// session with one meter, checks who it is, and does what ask says.
//
// What was read before an error is in Got all the same; the error says what
// stopped the visit. A failure of one channel is in Got.Failures and stops
// nothing. Cancelling ctx returns at once. A Visitor is not safe for
// concurrent use; Close ends its session.
type Visitor interface {
	Visit(ctx context.Context, ask Ask) (Got, error)
	Close() error
}

// Ask is what one visit is to do.
type Ask struct {
	Groups   []Group   // registers to read now
	Profiles []Profile // profiles to read since a cursor
	Clock    bool      // compare the meter's clock with the gateway's
	// ClockToo compares it where that costs no turn of its own: the clock is
	// among what is read anyway.
	ClockToo bool
	// SetClock, when not nil, puts the meter's clock right, after all else.
	SetClock *SetClock
	Clears   []Clear // bits of registers to set to 0, before anything is read
	// Acts is what to do, in order, before anything is read. What comes behind
	// one that is not done is not tried.
	Acts []Act
	// Serial, where it is not empty, is the serial number that the meter must
	// show for Acts, beside the configured one.
	Serial string
}

// Clear takes bits that are stored out of a register that holds them until
// somebody does: the alarm register. The register is read first, so that a bit
// that came since then stays.
type Clear struct {
	Channel Channel
	Bits    uint64
}

// Group is a set of channels read together into one lane.
type Group struct {
	Name     string
	Lane     Lane
	Channels []Channel
}

// Profile asks for the rows of a profile generic that are newer than Since.
//
// Rows come oldest first, and the cursor in Got says how far they reach: a
// visit that is cut short gives what it has. Where Until is set, a cursor with
// the Time Until says that the meter has no more rows in the stretch.
type Profile struct {
	Channel Channel // the profile's buffer, class 7 attribute 2
	Lane    Lane
	// Since is a time in milliseconds since 1970 UTC: rows captured after it
	// are wanted.
	Since int64
	// Until, where it is not 0, ends the stretch: rows captured after it are
	// not wanted.
	Until int64
}

// Got is what came of one visit.
type Got struct {
	Identity Identity
	Rows     []Row
	Cursors  []Cursor
	Clock    *ClockOffset // nil when not asked or not to be had; before a setting
	ClockSet *ClockSet    // nil when it was not ordered, or not come to
	Failures []Failure
	Done     []Outcome // of Ask.Acts, one each
}

// Identity is who answered.
type Identity struct {
	Want   string // the configured serial number, empty when none is configured
	Found  string // the serial number that the meter showed, empty when it shows none
	Proven bool   // Found was read in this session and, where Want is set, equals it
}

// Exchanged says that another meter answered than the configured one.
func (i Identity) Exchanged() bool { return i.Want != "" && i.Found != "" && i.Want != i.Found }

// Failure is one channel that could not be read while others could.
type Failure struct {
	Channel Channel
	Err     error
}

func (f Failure) Error() string { return fmt.Sprintf("%s: %v", f.Channel.Short(), f.Err) }

func (f Failure) Unwrap() error { return f.Err }

// The decisions that callers of a Visitor take on an error.
var (
	// ErrAuthentication says that the meter refused the credentials. After two
	// in a row nobody tries again until the configuration changes, since
	// meters lock out.
	ErrAuthentication = errors.New("authentication failed")
	// ErrNoAnswer says that nothing came back within the time-out: the meter
	// is off, the line is cut, the address or the rate is wrong.
	ErrNoAnswer = errors.New("no answer")
	// ErrGarbled says that something came back which is not an answer.
	ErrGarbled = errors.New("garbled answer")
	// ErrNoLine says that the line itself cannot be used: the serial port is
	// gone, the connection is refused. It says nothing of the meter.
	ErrNoLine = errors.New("no line")
)

// Now gives the time for stamps; drivers have no other clock.
type Now func() Stamp
