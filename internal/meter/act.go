package meter

import (
	"errors"
	"fmt"
	"io"
	"time"

	"gridgate/dlms/obis"
)

// Act is one thing that a meter is ordered to do. It is one of the types of this
// file. The zero obis.Code of an Object is the one that the standard names for
// it.
//
// A driver does acts to the meter that it was configured for, or that
// Ask.Serial names, and to no other: it compares the serial number at once
// before. What changes anything is sent once in a visit, whatever becomes of
// the answer: where that is lost the outcome is Unknown, and says what the
// meter showed afterwards.
type Act interface {
	// Name is what an order calls it: disconnect, limit, …
	Name() string
	isAct()
}

// Disconnect opens a breaker or a valve by remote_disconnect (IEC 62056-6-2,
// class 70).
type Disconnect struct{ Object obis.Code }

// Connect runs remote_reconnect of a breaker or a valve. In control modes 2 and
// 4 that energises at once, and is done only where Direct; in 1, 3, 5 and 6 it
// makes ready for the customer to close it. One that has tripped, or that
// somebody opened by hand, is left alone.
type Connect struct {
	Object obis.Code
	Direct bool
}

// Limit sets what a limiter holds a load to (class 71). With an Emergency the
// threshold holds for a time and the meter itself lets go after it; without,
// it is the normal one and holds until it is changed.
type Limit struct {
	Object    obis.Code
	Threshold Value // a whole number with its scale, of Unit; of the zero value the threshold stays as it is
	Unit      Unit
	Emergency *Emergency
}

// Emergency is when a limiter uses its emergency threshold, by the meter's own
// clock.
type Emergency struct {
	// Profile is the number of the emergency profile; 0 is the first that the
	// meter belongs to, or 1.
	Profile uint16
	Start   time.Time     // the zero value is at once
	Length  time.Duration // whole seconds; 0 ends one that is in force
}

// Calendar is a tariff calendar (class 20): it is written as the passive one,
// read back, and made the active one at the time At, or at once.
type Calendar struct {
	Object   obis.Code
	CalName  string
	Seasons  []Season
	Weeks    []Week
	Days     []DayProfile
	At       time.Time // the zero value is at once
	PassOver bool      // leave it passive: somebody else activates it
}

// Season is from when on which week holds. 0xFF, and 0xFFFF for the year, stand
// for any.
type Season struct {
	Name       string
	Year       uint16
	Month, Day uint8
	Week       string
}

// Week has the day profiles of Monday to Sunday.
type Week struct {
	Name string
	Days [7]uint8
}

// DayProfile says which script runs when: which tariff is in force.
type DayProfile struct {
	ID       uint8
	Switches []TariffSwitch
}

// TariffSwitch runs a script of a script table.
type TariffSwitch struct {
	Hour, Minute uint8
	Table        obis.Code // the zero value is 0-0:10.0.100*255
	Script       uint16
}

// SpecialDays sets days that have another day profile (class 11).
type SpecialDays struct {
	Object  obis.Code
	Days    []SpecialDay
	Replace bool // the whole table; else those with the same index
}

// SpecialDay is one of them; 0xFFFF and 0xFF stand for any.
type SpecialDay struct {
	Index      uint16
	Year       uint16
	Month, Day uint8
	Profile    uint8
}

// Script runs a script of a script table (class 9): the end of a billing
// period, which resets the demand, is script 1 of 0-0:10.0.1*255.
type Script struct {
	Table    obis.Code
	Selector uint16
}

// KeyKind is which of a meter's keys it is, by the numbers of the security
// setup (class 64, key_transfer).
type KeyKind uint8

// The keys.
const (
	UnicastKey        KeyKind = 0 // the global unicast encryption key
	BroadcastKey      KeyKind = 1
	AuthenticationKey KeyKind = 2
	MasterKey         KeyKind = 3
)

func (k KeyKind) String() string {
	switch k {
	case UnicastKey:
		return "ek"
	case BroadcastKey:
		return "bek"
	case AuthenticationKey:
		return "ak"
	case MasterKey:
		return "kek"
	}
	return fmt.Sprintf("key(%d)", uint8(k))
}

// ChangeKeys gives a meter new keys, wrapped by its master key (RFC 3394), and
// shows that it has them by an association that uses them. Whoever orders it
// has kept the new keys beside the old ones before, durably: a cut leaves a
// meter that has the one or the other. See Outcome.Keys.
type ChangeKeys struct {
	Object obis.Code
	Keys   map[KeyKind]Secret
	Master Secret // what they are wrapped by: the master key as it is now
}

// TryKeys finds out which keys a meter has after a ChangeKeys that nobody knows
// the end of. It changes nothing.
type TryKeys struct {
	Keys map[KeyKind]Secret // that it may have instead of those configured
}

// Image gives a meter new firmware (class 18). One visit does as much of it as
// fits into Budget; its outcome is Pending until all is done, and then the same
// act with Begun as Outcome.Begun says is for the next visit.
type Image struct {
	Object     obis.Code
	Identifier string // as the maker calls it, octets
	Size       uint32
	Octets     io.ReaderAt
	Begun      bool          // the transfer of this image was begun: go on where it is
	Budget     time.Duration // of one visit, by the gateway's clock; 0 is without end
	// Activate says to run it after it was verified, at the time At, or at once.
	Activate bool
	At       time.Time
}

// Tunnel lets somebody else talk to the meter in its own protocol: what they say
// goes to the line as it is, and what comes goes to them. The line is theirs
// until it ends. It is alone in its visit.
type Tunnel struct {
	// Opened is called when the line is theirs.
	Opened func()
	// Next gives what they say next, nothing if that has not come; it does not
	// wait. An error ends the tunnel, io.EOF in good order.
	Next func() ([]byte, error)
	// To gives them what came, which it may keep.
	To func([]byte)
	// Length is how long it lasts at most, and Idle how long nothing may pass.
	Length, Idle time.Duration
}

// Look reads what an act is about and changes nothing: after an outcome that
// is Unknown.
type Look struct{ At Act }

// Name says what it is.
func (Disconnect) Name() string { return "disconnect" }

// Name says what it is.
func (Connect) Name() string { return "connect" }

// Name says what it is.
func (Limit) Name() string { return "limit" }

// Name says what it is.
func (Calendar) Name() string { return "calendar" }

// Name says what it is.
func (SpecialDays) Name() string { return "special-days" }

// Name says what it is.
func (Script) Name() string { return "script" }

// Name says what it is.
func (ChangeKeys) Name() string { return "change-keys" }

// Name says what it is.
func (TryKeys) Name() string { return "try-keys" }

// Name says what it is.
func (Image) Name() string { return "image" }

// Name says what it is.
func (*Tunnel) Name() string { return "tunnel" }

// Name says what it is.
func (l Look) Name() string { return "look" }

func (Disconnect) isAct()  {}
func (Connect) isAct()     {}
func (Limit) isAct()       {}
func (Calendar) isAct()    {}
func (SpecialDays) isAct() {}
func (Script) isAct()      {}
func (ChangeKeys) isAct()  {}
func (TryKeys) isAct()     {}
func (Image) isAct()       {}
func (*Tunnel) isAct()     {}
func (Look) isAct()        {}

// Secret is a key or a password. However it is printed or marshalled it says
// only that it is one.
type Secret []byte

const redacted = "[redacted]"

// String says that it is a secret.
func (Secret) String() string { return redacted }

// Format says that it is a secret, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText says that it is a secret.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Result is what came of an act.
type Result uint8

// The results.
const (
	NotTried Result = iota // it was not come to
	Done                   // the meter said so, and shows it
	Pending                // part of it is done: visit again
	Refused                // by the rules or by the meter; nothing has changed
	Failed                 // the meter took it, and does not show it
	Unknown                // it was sent, and no answer came
)

func (r Result) String() string {
	switch r {
	case NotTried:
		return "not tried"
	case Done:
		return "done"
	case Pending:
		return "pending"
	case Refused:
		return "refused"
	case Failed:
		return "failed"
	case Unknown:
		return "unknown"
	}
	return fmt.Sprintf("result(%d)", uint8(r))
}

// Outcome is what came of one act.
type Outcome struct {
	Act    Act
	Result Result
	Err    error // why, where it is not Done or Pending
	// Sent says that the meter was sent what changes it. Where it was not and
	// the result is Done, it was so already.
	Sent bool
	At   Stamp // when it was sent, or else when it was given up
	// Before and After are what the meter showed.
	Before, After []Fact
	// Begun is for the next visit of an Image; Reached and All count its octets.
	Begun        bool
	Reached, All uint32
	// Keys are, of a ChangeKeys and a TryKeys, which ones the meter has.
	Keys KeysFound
}

// Fact is one thing that a meter showed.
type Fact struct{ Name, Value string }

// KeysFound says which keys a meter has.
type KeysFound uint8

// What may be known of them.
const (
	KeysUnknown KeysFound = iota
	OldKeys               // it answers to those that were configured
	NewKeys               // it answers to those that it was given
)

func (k KeysFound) String() string {
	switch k {
	case KeysUnknown:
		return "unknown"
	case OldKeys:
		return "old"
	case NewKeys:
		return "new"
	}
	return fmt.Sprintf("keys(%d)", uint8(k))
}

// The decisions that are taken on why an act was not done.
var (
	// ErrCannotAct says that a meter has nothing that could do it.
	ErrCannotAct = errors.New("this meter cannot do that")
	// ErrNotProven says that the serial number was not compared: nothing is done
	// to a meter that may be another.
	ErrNotProven = errors.New("the meter's serial number is not proven")
	// ErrMustNot says that a rule forbids it.
	ErrMustNot = errors.New("not allowed")
)

// RefuseActs gives the outcomes of acts that a meter has nothing for.
func RefuseActs(acts []Act, at Stamp, why error) []Outcome {
	out := make([]Outcome, len(acts))
	for i, a := range acts {
		out[i] = Outcome{Act: a, Result: Refused, Err: fmt.Errorf("%s: %w", a.Name(), why), At: at}
	}
	return out
}
