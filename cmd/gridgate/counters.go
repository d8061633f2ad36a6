package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"gridgate/agent/status"
	"gridgate/buffer/state"
	"gridgate/dlms/security"
	"gridgate/internal/cli"
)

// agentState is where the agent of an ordinary installation keeps its state.
const agentState = "/var/lib/gridgate/buffer"

// keptCounters are invocation counters, and counts of refused credentials, in a
// state directory, which is open only while they are looked at: several tools may
// use it at once. It is the agent's where there is one, since two that count
// apart use the same counter twice.
type keptCounters struct {
	ctx context.Context //nolint:containedctx // of the command: the counters are drawn deep within it
	dir string
	// control is the socket of the agent that has the directory open, if one does.
	control string
	// agents says that they are that agent's, wherever it keeps them.
	agents bool

	mu    sync.Mutex
	heard map[heardKey]heardSince // received, and perhaps not handed on before flush
}

// heardSince is the highest counter received, and the last that was handed on.
type heardSince struct{ counter, handed uint32 }

type heardKey struct {
	title     security.Title
	key       security.KeyID
	direction security.Direction
}

// ledger is a state, or the agent that has it.
type ledger interface {
	security.Store
	security.Received
	KnownCounters(title security.Title, key security.KeyID) (bool, error)
	Heard(key security.KeyID) ([]security.Heard, error)
	ForgetReceived(title security.Title, key security.KeyID, d security.Direction) error

	Salt() ([]byte, error)
	Refusals(credentials string) (n int, last time.Time, accepted bool, err error)
	Refused(credentials string) error
	Accepted(credentials string) error
}

// openState is a state as a ledger.
type openState struct{ *state.State }

func (s openState) Refusals(credentials string) (n int, last time.Time, accepted bool, err error) {
	n, last = s.State.Refusals(credentials)
	return n, last, s.WasAccepted(credentials), nil
}

func (s openState) Refused(credentials string) error {
	_, err := s.State.Refused(credentials, time.Now())
	return err
}

// agentLedger is an agent as a ledger.
type agentLedger struct {
	status.AgentCounters
	status.AgentRefusals
}

func agentAt(ctx context.Context, path, dir string) agentLedger {
	return agentLedger{status.AgentCounters{Context: ctx, Path: path, Dir: dir}, status.AgentRefusals{Context: ctx, Path: path}}
}

// keptCounters gives the place where the invocation counters of the meter are:
// one place, for as long as the meter is read. When nobody says, it is that of
// the agent that runs.
func (t target) keptCounters(ctx context.Context, env cli.Env) (*keptCounters, error) {
	k := &keptCounters{ctx: ctx, dir: t.counters, control: t.control}
	if len(t.addr.Secrets()) == 0 && !t.addr.UsesKeys() || k.dir != "" {
		return k, nil
	}
	switch _, err := agentAt(ctx, k.control, "").KnownCounters(security.Title(t.addr.Security.Title), security.KeyID{}); {
	case err == nil:
		k.agents = true
		return k, nil
	case !errors.Is(err, status.ErrNoAgent) && !errors.Is(err, status.ErrOtherCounters):
		return k, fmt.Errorf("invocation counters: %w", err)
	}
	var err error
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

func (k *keptCounters) KnownCounters(title security.Title, key security.KeyID) (known bool, err error) {
	err = k.with(k.ctx, func(s ledger) error {
		known, err = s.KnownCounters(title, key)
		return err
	})
	return known, err
}

func (k *keptCounters) Reserve(title security.Title, key security.KeyID, n uint32) (first uint32, err error) {
	err = k.with(k.ctx, func(s ledger) error {
		first, err = s.Reserve(title, key, n)
		return err
	})
	return first, err
}

func (k *keptCounters) Raise(title security.Title, key security.KeyID, next uint32) error {
	return k.with(k.ctx, func(s ledger) error { return s.Raise(title, key, next) })
}

func (k *keptCounters) LastReceived(title security.Title, key security.KeyID, d security.Direction) (counter uint32, ok bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h, ok := k.heard[heardKey{title, key, d}]; ok {
		return h.counter, true, nil
	}
	err = k.with(k.ctx, func(s ledger) error {
		counter, ok, err = s.LastReceived(title, key, d)
		return err
	})
	return counter, ok, err
}

// NoteReceived hands on at once what must not be lost, and the rest with flush,
// or when it is too much to lose.
func (k *keptCounters) NoteReceived(title security.Title, key security.KeyID, d security.Direction, counter, loss uint32) error {
	if loss == 0 {
		return k.with(k.ctx, func(s ledger) error { return s.NoteReceived(title, key, d, counter, 0) })
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.heard == nil {
		k.heard = map[heardKey]heardSince{}
	}
	at := heardKey{title, key, d}
	h, known := k.heard[at]
	if !known && counter > 0 {
		h.handed = counter - 1
	}
	if h.counter = max(counter, h.counter); h.counter-h.handed > loss {
		err := k.with(k.ctx, func(s ledger) error { return s.NoteReceived(title, key, d, h.counter, loss) })
		if err != nil {
			return err
		}
		h.handed = h.counter
	}
	k.heard[at] = h
	return nil
}

// flush hands on what was received, also when the command is interrupted.
func (k *keptCounters) flush(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.heard) == 0 {
		return nil
	}
	return k.with(context.WithoutCancel(ctx), func(s ledger) error {
		for at, h := range k.heard {
			if err := s.NoteReceived(at.title, at.key, at.direction, h.counter, 1<<32-1); err != nil {
				return err
			}
		}
		return nil
	})
}

// with does something with the state when no other tool has it, or has the
// agent do it where that has it.
func (k *keptCounters) with(ctx context.Context, do func(ledger) error) error {
	const patience, pause = 3 * time.Second, 50 * time.Millisecond
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	again := time.NewTicker(pause)
	defer again.Stop()
	if k.agents {
		return do(agentAt(ctx, k.control, ""))
	}
	for {
		s, err := state.Open(k.dir)
		switch {
		case err == nil:
			return errors.Join(do(openState{s}), s.Close())
		case errors.Is(err, os.ErrPermission):
			return fmt.Errorf("invocation counters: %w (run as the user that the agent runs as, "+
				"or, with a title of your own, give -counters DIR)", err)
		case !errors.Is(err, state.ErrInUse):
			return fmt.Errorf("invocation counters: %w", err)
		}
		err = do(agentAt(ctx, k.control, k.dir))
		free := errors.Is(err, status.ErrNoAgent) || errors.Is(err, status.ErrOtherCounters)
		late := errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil // of ctx, a moment before it says so
		if !free && !late {
			return err
		}
		select {
		case <-ctx.Done():
			if whole.Err() != nil {
				return whole.Err()
			}
			return fmt.Errorf("invocation counters: %s: %w; two that count apart would use one counter twice, which gives "+
				"the key away (-control SOCKET of the agent that has them? Or, with a title of your own, -counters DIR)", k.dir, state.ErrInUse)
		case <-again.C:
		}
	}
}
