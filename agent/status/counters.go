package status

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"gridgate/dlms/security"
)

// Counters is where the agent keeps its invocation counters.
type Counters interface {
	security.Store
	KnownCounters(title security.Title, key security.KeyID) (bool, error)
}

// counting asks for counters; without reserve and raise, whether the key is known.
type counting struct {
	Dir     string `json:"dir"`
	Title   string `json:"title"`
	Key     string `json:"key"`
	Reserve uint32 `json:"reserve,omitempty"`
	Raise   uint32 `json:"raise,omitempty"`
}

type counted struct {
	OK    bool   `json:"ok"`
	Known bool   `json:"known"`
	First uint32 `json:"first"`
}

// count answers a request for counters. Those of another directory are not
// given: two that count apart use the same counter twice. Who names none takes
// the agent's.
func (c *Control) count(conn *net.UnixConn, r *counting) {
	if r == nil || c.cfg.Counters == nil || r.Dir != "" && !sameDir(r.Dir, c.cfg.StateDir) {
		answer(conn, reply{Error: ErrOtherCounters.Error(), Unused: true})
		return
	}
	done, err := count(c.cfg.Counters, r)
	if err != nil {
		answer(conn, reply{Error: err.Error()})
		return
	}
	answer(conn, done)
}

func count(c Counters, r *counting) (counted, error) {
	title, terr := hex.DecodeString(r.Title)
	key, kerr := hex.DecodeString(r.Key)
	if terr != nil || kerr != nil || len(title) != security.TitleLen || len(key) != len(security.KeyID{}) {
		return counted{}, errors.New("counters: want title and key, 16 hexadecimal digits each")
	}
	done := counted{OK: true}
	var err error
	switch {
	case r.Reserve > 0:
		done.First, err = c.Reserve(security.Title(title), security.KeyID(key), r.Reserve)
	case r.Raise > 0:
		err = c.Raise(security.Title(title), security.KeyID(key), r.Raise)
	default:
		done.Known, err = c.KnownCounters(security.Title(title), security.KeyID(key))
	}
	return done, err
}

func sameDir(a, b string) bool {
	x, xerr := os.Stat(a)
	y, yerr := os.Stat(b)
	return xerr == nil && yerr == nil && os.SameFile(x, y)
}

// ErrOtherCounters says that the agent keeps its counters elsewhere.
var ErrOtherCounters = errors.New("the agent does not keep its invocation counters there")

// AgentCounters are the invocation counters of the agent at Path, if it keeps
// them in Dir, or wherever it keeps them if Dir is empty. Else it is
// ErrOtherCounters, or ErrNoAgent.
type AgentCounters struct {
	Context context.Context //nolint:containedctx // of the command that draws them
	Path    string
	Dir     string
}

// KnownCounters says whether counters of that title and key were ever reserved.
func (a AgentCounters) KnownCounters(title security.Title, key security.KeyID) (bool, error) {
	done, err := a.count(title, key, counting{})
	return done.Known, err
}

// Reserve gives away n counters: see security.Store.
func (a AgentCounters) Reserve(title security.Title, key security.KeyID, n uint32) (uint32, error) {
	done, err := a.count(title, key, counting{Reserve: n})
	return done.First, err
}

// Raise counts all below next as given away: see security.Store.
func (a AgentCounters) Raise(title security.Title, key security.KeyID, next uint32) error {
	_, err := a.count(title, key, counting{Raise: next})
	return err
}

func (a AgentCounters) count(title security.Title, key security.KeyID, c counting) (counted, error) {
	if a.Dir != "" {
		dir, err := filepath.Abs(a.Dir)
		if err != nil {
			return counted{}, err
		}
		c.Dir = dir
	}
	c.Title, c.Key = title.String(), key.String()
	conn, line, err := call(a.Context, a.Path, request{Verb: "counters", Counters: &c})
	if errors.Is(err, ErrUnused) {
		return counted{}, ErrOtherCounters
	}
	if err != nil {
		return counted{}, err
	}
	_ = conn.Close()
	var done counted
	if err := json.Unmarshal(line, &done); err != nil || !done.OK {
		return counted{}, fmt.Errorf("control socket %s: %.100q is no answer about counters", a.Path, line)
	}
	return done, nil
}
