package command

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"gridgate/agent/order"
	"gridgate/internal/meter"
)

// State is how far a command has come, or what came of it at one meter.
type State string

// The states. The last four are final.
const (
	Waiting  State = "waiting"  // until the gateway knows the time
	Accepted State = "accepted" // it is kept, and its turn comes
	Running  State = "running"
	Done     State = "done"
	Refused  State = "refused" // nothing was changed
	Failed   State = "failed"  // it was tried and did not happen
	Unknown  State = "unknown" // nobody knows whether it happened; it is not tried again
)

// Final says whether nothing more comes.
func (s State) Final() bool { return s == Done || s == Refused || s == Failed || s == Unknown }

// AfterCut says what happens when an action was cut off at a meter.
type AfterCut uint8

// What may happen, see the package comment.
const (
	Repeat AfterCut = iota
	Never
	Resume
)

// Targets says of how many meters an action is.
type Targets uint8

// The numbers of meters.
const (
	Nothing Targets = iota // it is of the gateway: a command names no meters
	One
	Some // one or more
)

// Action is something that can be ordered.
type Action struct {
	Name     string     // as the command says it
	Role     order.Role // whose key has to sign: order.Command or order.Control
	AfterCut AfterCut
	Targets  Targets
	// Switches says that it changes what a customer gets: a meter that is
	// protected is never its target.
	Switches bool
	// Disconnects says that each meter counts against the disconnects that the
	// trust document allows an hour.
	Disconnects bool
	// Two says that two keys of the role have to sign. More than ten meters ask
	// for that too, where AfterCut is not Repeat, and so may the trust document.
	Two bool
	// Most is how long it may take at one meter; 0 is an hour.
	Most time.Duration
	// New decodes and checks the parameters.
	New func(decode func(into any) error) (Executor, error)
}

// Executor carries out one command. Where it has a method String it tells what
// was ordered, for the audit log: never a secret.
type Executor interface {
	// Do does it at one meter, or, for an action of Nothing, at the gateway.
	Do(ctx context.Context, j *Job) Outcome
}

// ReadBack is what an Executor of an action with AfterCut Never may have: it
// looks what is the case now, and changes nothing. The State of what it gives is
// not used: it is unknown.
type ReadBack interface {
	ReadBack(ctx context.Context, j *Job) Outcome
}

// Outcome is what came of a command at one meter or at the gateway.
type Outcome struct {
	State State  // Done, Refused, Failed or Unknown
	Text  string // for people; never a secret
	// Data, where it is not nil, is told with it as JSON.
	Data any
	// File, where it is not nil, is sent in parts beside the result. Only for
	// actions of Nothing.
	File *File
}

// File is something that is too long for a result.
type File struct {
	Name string // such as bundle.tar.gz
	Type string // such as application/gzip
	Data []byte
}

// DoneWith gives the outcome of what was done.
func DoneWith(text string, data any) Outcome { return Outcome{State: Done, Text: text, Data: data} }

// Refuse gives the outcome of what is not done, and changed nothing.
func Refuse(format string, args ...any) Outcome {
	return Outcome{State: Refused, Text: fmt.Errorf(format, args...).Error()}
}

// Fail gives the outcome of what did not happen, though it was tried.
func Fail(err error) Outcome { return Outcome{State: Failed, Text: err.Error()} }

// Lost gives the outcome of what perhaps happened.
func Lost(err error) Outcome { return Outcome{State: Unknown, Text: err.Error()} }

// Job is the turn of one meter, or of the gateway.
type Job struct {
	Command string    // its id
	Meter   meter.ID  // as configured; empty for the gateway
	Serial  string    // as configured, or as the command named it; may be empty
	Expires time.Time // of the command: not_after
	// Visit has the meter visited before anything else. The driver compares the
	// serial number before it does anything.
	Visit func(ctx context.Context, ask meter.Ask) (meter.Got, error)
	// Gateway is what the gateway offers beside meters.
	Gateway *Gateway
	// Progress tells how far it is; of 0 is not known. It may be called as often
	// as one likes: little of it is sent.
	Progress func(done, of int64, text string)
	// Note keeps something durably, which Noted gives after a cut: the last note
	// of this meter. At most 4 KiB.
	Note  func(v any) error
	Noted json.RawMessage // nil: nothing was noted
	// Resumed says that this turn had begun before a cut (AfterCut Resume).
	Resumed bool
}
