package command

import (
	"context"
	"encoding/json"
	"time"

	"gridgate/internal/meter"
)

// Gateway is what the conductor offers to actions, beside the visits of meters.
// Its functions may be called at once.
type Gateway struct {
	Meters MeterServices
	// Groups gives the groups of registers of a meter, as configured.
	Groups func(id meter.ID) ([]meter.Group, error)
	// Fill has rows of a profile read again, or for the first time, and sent.
	Fill func(ctx context.Context, j *Job, profile meter.Channel, from, to time.Time, progress func(rows int)) (rows int, err error)
	// Resend has what the buffer still holds of a lane sent again.
	Resend func(lane meter.Lane, first, last uint64) error
	// Range gives the numbers of a lane that rows of a time have.
	Range func(lane meter.Lane, from, to time.Time) (first, last uint64, ok bool, err error)
	// SetClock gives the order to put a meter's clock right now, or why not.
	SetClock func(id meter.ID, limit time.Duration) (*meter.SetClock, error)
	// Restart ends the agent, which begins anew. It returns at once.
	Restart func()
	// Started says when the agent began, and Version which one it is.
	Started time.Time
	Version string
	// LogLevel sets how much is logged until then.
	LogLevel func(level string, until time.Time) error
	// BufferStat tells what is in the buffer.
	BufferStat func() (json.RawMessage, error)
	// Bundle gives what support wants to see: a .tar.gz.
	Bundle func(ctx context.Context) ([]byte, error)
	// Output sets an output until then; Outputs tells how all are.
	Output  func(name string, on bool, until time.Time) error
	Outputs func() []Output
}

// Output is how an output of the gateway is.
type Output struct {
	Name  string     `json:"output"`
	On    bool       `json:"on"`
	Until *time.Time `json:"until,omitempty"` // when it returns to rest
	Error string     `json:"error,omitempty"`
}
