package command

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gridgate/internal/meter"
)

// setClock puts meters' clocks right.
type setClock struct{ limit time.Duration }

func newSetClock(decode func(any) error) (Executor, error) {
	var with struct {
		Limit string `yaml:"limit"`
	}
	err := decode(&with)
	if err != nil || with.Limit == "" {
		return setClock{}, err
	}
	limit, err := span("limit", with.Limit, 100*365*24*time.Hour)
	return setClock{limit}, err
}

const (
	// clockTries is how often it is tried to set a clock, clockPause apart: not
	// near the end of a capture period.
	clockTries = 6
	clockPause = 45 * time.Second
)

func (s setClock) Do(ctx context.Context, j *Job) Outcome {
	var last Outcome
	for try := range clockTries {
		if try > 0 {
			pause := time.NewTimer(clockPause)
			select {
			case <-ctx.Done():
				pause.Stop()
				return Fail(context.Cause(ctx))
			case <-pause.C:
			}
		}
		var again bool
		if last, again = s.try(ctx, j); !again {
			return last
		}
		j.Progress(int64(try+1), clockTries, last.Text)
	}
	return last
}

// ClockLater is an error of Clock.MayOrdered that another moment mends.
type ClockLater struct{ Err error }

func (e *ClockLater) Error() string { return e.Err.Error() }

func (e *ClockLater) Unwrap() error { return e.Err }

// try compares a meter's clock and sets it where it is wrong.
func (s setClock) try(ctx context.Context, j *Job) (o Outcome, again bool) {
	var why error
	clock, ok := j.Gateway.Clock(j.Meter)
	if !ok {
		return Refuse("its line is not in use now"), false
	}
	order := &meter.SetClock{Method: j.Gateway.Method(j.Meter), May: func(now meter.Stamp, found meter.ClockOffset) error {
		why = clock.MayOrdered(now, found, s.limit)
		return why
	}}
	got, err := j.Visit(ctx, meter.Ask{Clock: true, SetClock: order})
	if got.ClockSet != nil && got.ClockSet.Sent {
		if kerr := j.Gateway.ClockSet(ctx, j.Meter, &got); kerr != nil && err == nil {
			err = kerr
		}
	}
	set := got.ClockSet
	switch {
	case got.Identity.Exchanged():
		return Outcome{State: Refused, Text: exchanged(got.Identity)}, false
	case set == nil && err != nil:
		return Fail(err), false
	case set == nil:
		return Outcome{State: Failed, Text: "its clock cannot be compared"}, false
	case set.Sent && set.Err == nil && set.After != nil:
		return DoneWith(fmt.Sprintf("was off by %v, now by %v", set.Before.Offset.Round(time.Millisecond), set.After.Offset.Round(time.Millisecond)), nil), false
	case set.Sent && set.Err == nil:
		return DoneWith(fmt.Sprintf("was off by %v, and set; it was not read back", set.Before.Offset.Round(time.Millisecond)), nil), false
	case set.Sent:
		return Outcome{State: Failed, Text: fmt.Sprintf("off by %v: the meter: %v", set.Before.Offset.Round(time.Millisecond), set.Err)}, false
	case isLater(why):
		return Outcome{State: Failed, Text: why.Error()}, true
	case isRight(why):
		return DoneWith(fmt.Sprintf("off by %v: right enough, and left alone", set.Before.Offset.Round(time.Millisecond)), nil), false
	case why == nil: // it was not asked: the meter cannot
		return Refuse("%w", set.Err), false
	}
	return Refuse("off by %v: %w", set.Before.Offset.Round(time.Millisecond), why), false
}

// ClockRight is an error of Clock.MayOrdered that says that there is nothing to
// do.
type ClockRight struct{ Err error }

func (e *ClockRight) Error() string { return e.Err.Error() }

func (e *ClockRight) Unwrap() error { return e.Err }

func isLater(err error) bool { return errors.As(err, new(*ClockLater)) }

func isRight(err error) bool { return errors.As(err, new(*ClockRight)) }
