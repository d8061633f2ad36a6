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
	// Now gives the time with its bound.
	Now meter.Now
	// Groups gives what is configured to be read of a meter.
	Groups func(id meter.ID) []Group
	// Store keeps rows as those of a poll are, and returns when they are on the
	// disk.
	Store func(ctx context.Context, rows []meter.Row) error
	// Again has numbers of a lane sent again, as far as the buffer has them.
	Again func(lane meter.Lane, first, last uint64) error
	// Range gives the numbers that the rows of a time have; n is how many there
	// are.
	Range func(lane meter.Lane, from, to time.Time) (first, last uint64, n int, err error)
	// ClockSet is told what came of a clock's setting, which was ordered.
	ClockSet func(ctx context.Context, id meter.ID, got *meter.Got) error
	// Clock gives who decides about the clock of a meter.
	Clock func(id meter.ID) (Clock, bool)
	// Method is how the clock of a meter is set.
	Method func(id meter.ID) meter.ClockMethod
	// Restart ends the agent, which begins anew. It returns at once.
	Restart func()
	// Started says when the agent began, and Version which one it is.
	Started time.Time
	Version string
	// LogLevel sets how much is logged for a time.
	LogLevel func(level string, d time.Duration) error
	// BufferStat tells what is in the buffer.
	BufferStat func() (json.RawMessage, error)
	// Bundle gives what support wants to see: a .tar.gz.
	Bundle func(ctx context.Context) ([]byte, error)
	// Most says how long an output may be on, or that there is none of that name.
	Most func(output string) (time.Duration, error)
	// Output switches an output on until a time, durably; the zero time lets it
	// go. Outputs tells how all are.
	Output  func(name string, until time.Time) error
	Outputs func() []Output
}

// Clock decides about the clock of a meter.
type Clock interface {
	// MayOrdered says whether a clock that was found so may be set now; limit is
	// what it may be off by at most, 0 what the configuration says. Errors may be a
	// ClockLater or a ClockRight.
	MayOrdered(now meter.Stamp, found meter.ClockOffset, limit time.Duration) error
}

// Group is a group of registers, or a profile, as it is configured for a meter.
type Group struct {
	meter.Group
	Profile meter.Channel // empty for registers
}

// Output is how an output of the gateway is.
type Output struct {
	Name  string     `json:"output"`
	On    bool       `json:"on"`
	Until *time.Time `json:"until,omitempty"` // when it returns to rest
	Error string     `json:"error,omitempty"`
}
