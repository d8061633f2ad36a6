package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gridgate/buffer/state"
	"gridgate/drivers"
	"gridgate/drivers/address"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
)

// Meters lock out after three to five refusals, some of them for good. So tools
// stop after two with the same credentials, and share the count with the agent.
const (
	refusalLimit = 2
	refusalTime  = 24 * time.Hour
)

// attempts counts what meters refuse.
type attempts struct {
	kept        *keptCounters // nil: nothing is counted
	credentials string
	accepted    bool // the meter took them before
}

// attempts looks whether the meter may be shown the secrets. A tool that cannot
// count says so and goes on.
func (t target) attempts(ctx context.Context, env cli.Env, kept *keptCounters, secrets address.Credentials) (*attempts, error) {
	a := &attempts{kept: kept}
	if len(t.addr.Secrets()) == 0 {
		a.kept = nil
		return a, nil
	}
	var n int
	var last time.Time
	err := kept.with(ctx, func(s ledger) error {
		salt, err := s.Salt()
		if err == nil {
			a.credentials = state.Credentials(salt, drivers.Place(t.addr), drivers.Shown(secrets)...)
			n, last, a.accepted, err = s.Refusals(a.credentials)
		}
		return err
	})
	switch age := time.Since(last); {
	case err != nil:
		fmt.Fprintf(env.Stderr, "gridgate: %srefusals are not counted: %v\n", t.label(), err)
		a.kept = nil
	case n >= refusalLimit && age < refusalTime && !t.force:
		return nil, fmt.Errorf("the meter refused client %d %d times with these credentials, last %s: it may lock out for good: "+
			"correct them, or try them all the same with -force", t.addr.Client, n, last.Format(time.DateTime))
	}
	return a, nil
}

// note counts how a visit ended.
func (a *attempts) note(ctx context.Context, err error) error {
	var doubt interface{ MayBeRefusal() bool }
	refused := errors.Is(err, meter.ErrAuthentication) ||
		!a.accepted && errors.As(err, &doubt) && doubt.MayBeRefusal()
	switch {
	case a.kept == nil || err != nil && !refused:
		return nil
	case ctx.Err() != nil && !refused: // a command that was interrupted knows nothing
		return nil
	}
	err = a.kept.with(context.WithoutCancel(ctx), func(s ledger) error {
		if refused {
			return s.Refused(a.credentials)
		}
		return s.Accepted(a.credentials)
	})
	if err != nil {
		return fmt.Errorf("the refusal cannot be counted: %w", err)
	}
	return nil
}
