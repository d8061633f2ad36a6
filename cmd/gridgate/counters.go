package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"gridgate/agent/status"
	"gridgate/buffer/state"
	"gridgate/dlms/security"
	"gridgate/internal/cli"
)

// agentState is where the agent of an ordinary installation keeps its state.
const agentState = "/var/lib/gridgate/buffer"

// keptCounters are invocation counters in a state directory, which is open only
// while they are drawn: several tools may use it at once. It is the agent's
// where there is one, since two that count apart use the same counter twice.
type keptCounters struct {
	ctx context.Context //nolint:containedctx // of the command: the counters are drawn deep within it
	dir string
	// control is the socket of the agent that has the directory open, if one does.
	control string
	// agents says that they are that agent's, wherever it keeps them.
	agents bool
}

// counters is both: a state, and the agent that has it.
type counters interface {
	security.Store
	KnownCounters(title security.Title, key security.KeyID) (bool, error)
}

// keptCounters gives the place where the invocation counters of the meter are:
// one place, for as long as the meter is read. When nobody says, it is that of
// the agent that runs.
func (t target) keptCounters(ctx context.Context, env cli.Env) (k keptCounters, err error) {
	k = keptCounters{ctx: ctx, dir: t.counters, control: t.control}
	if !t.addr.UsesKeys() || k.dir != "" {
		return k, nil
	}
	agent := status.AgentCounters{Context: ctx, Path: k.control}
	switch _, err := agent.KnownCounters(security.Title(t.addr.Security.Title), security.KeyID{}); {
	case err == nil:
		k.agents = true
		return k, nil
	case !errors.Is(err, status.ErrNoAgent) && !errors.Is(err, status.ErrOtherCounters):
		return k, fmt.Errorf("invocation counters: %w", err)
	}
	k.dir, err = counterDir(env)
	return k, err
}

// counterDir is where counters are kept when nobody says and no agent runs:
// with the agent's on a gateway, else with the user's own state.
func counterDir(env cli.Env) (string, error) {
	if _, err := os.Stat(filepath.Join(agentState, "state.db")); err == nil || errors.Is(err, os.ErrPermission) {
		return agentState, nil
	}
	if dir := env.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "gridgate"), nil
	}
	if home := env.Getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "gridgate"), nil
	}
	return "", errors.New("no place to keep invocation counters: want -counters DIR")
}

func (k keptCounters) KnownCounters(title security.Title, key security.KeyID) (known bool, err error) {
	err = k.with(func(s counters) error {
		known, err = s.KnownCounters(title, key)
		return err
	})
	return known, err
}

func (k keptCounters) Reserve(title security.Title, key security.KeyID, n uint32) (first uint32, err error) {
	err = k.with(func(s counters) error {
		first, err = s.Reserve(title, key, n)
		return err
	})
	return first, err
}

func (k keptCounters) Raise(title security.Title, key security.KeyID, next uint32) error {
	return k.with(func(s counters) error { return s.Raise(title, key, next) })
}

// with does something with the state when no other tool has it, or has the
// agent do it where that has it.
func (k keptCounters) with(do func(counters) error) error {
	const patience, pause = 3 * time.Second, 50 * time.Millisecond
	ctx, cancel := context.WithTimeout(k.ctx, patience)
	defer cancel()
	again := time.NewTicker(pause)
	defer again.Stop()
	if k.agents {
		return do(status.AgentCounters{Context: ctx, Path: k.control})
	}
	for {
		s, err := state.Open(k.dir)
		switch {
		case err == nil:
			return errors.Join(do(s), s.Close())
		case errors.Is(err, os.ErrPermission):
			return fmt.Errorf("invocation counters: %w (run as the user that the agent runs as, "+
				"or, with a title of your own, give -counters DIR)", err)
		case !errors.Is(err, state.ErrInUse):
			return fmt.Errorf("invocation counters: %w", err)
		}
		err = do(status.AgentCounters{Context: ctx, Path: k.control, Dir: k.dir})
		free := errors.Is(err, status.ErrNoAgent) || errors.Is(err, status.ErrOtherCounters)
		late := errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil // of ctx, a moment before it says so
		if !free && !late {
			return err
		}
		select {
		case <-ctx.Done():
			if k.ctx.Err() != nil {
				return k.ctx.Err()
			}
			return fmt.Errorf("invocation counters: %s: %w; two that count apart would use one counter twice, which gives "+
				"the key away (-control SOCKET of the agent that has them? Or, with a title of your own, -counters DIR)", k.dir, state.ErrInUse)
		case <-again.C:
		}
	}
}
