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
	security.Received
	KnownCounters(title security.Title, key security.KeyID) (bool, error)
	// Heard lists what was received under a key, and ForgetReceived forgets it.
	Heard(key security.KeyID) ([]security.Heard, error)
	ForgetReceived(title security.Title, key security.KeyID, d security.Direction) error
}

// counting asks for counters. Without what is to be done it asks whether the
// key is known and what would be drawn next; with a direction, what was
// received; with heard, what was received under the key.
type counting struct {
	Dir       string `json:"dir"`
	Title     string `json:"title"`
	Key       string `json:"key"`
	Reserve   uint32 `json:"reserve,omitempty"`
	Raise     uint32 `json:"raise,omitempty"`
	Direction uint8  `json:"direction,omitempty"`
	Note      *noted `json:"note,omitempty"`
	Forget    bool   `json:"forget,omitempty"`
	Heard     bool   `json:"heard,omitempty"`
}

type noted struct {
	Counter uint32 `json:"counter"`
	Loss    uint32 `json:"loss"`
}

type counted struct {
	OK    bool    `json:"ok"`
	Known bool    `json:"known"`
	First uint32  `json:"first"`
	Heard []heard `json:"heard,omitempty"`
}

type heard struct {
	Title     string `json:"title"`
	Direction uint8  `json:"direction"`
	Counter   uint32 `json:"counter"`
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
	t, k, d := security.Title(title), security.KeyID(key), security.Direction(r.Direction)
	switch {
	case r.Reserve > 0:
		done.First, err = c.Reserve(t, k, r.Reserve)
	case r.Raise > 0:
		err = c.Raise(t, k, r.Raise)
	case r.Note != nil:
		err = c.NoteReceived(t, k, d, r.Note.Counter, r.Note.Loss)
	case r.Forget:
		err = c.ForgetReceived(t, k, d)
	case r.Heard:
		var all []security.Heard
		all, err = c.Heard(k)
		for _, h := range all {
			done.Heard = append(done.Heard, heard{h.Title.String(), uint8(h.Direction), h.Counter})
		}
	case r.Direction > 0:
		done.First, done.Known, err = c.LastReceived(t, k, d)
	default:
		if done.Known, err = c.KnownCounters(t, k); err == nil && done.Known {
			done.First, err = c.Reserve(t, k, 0)
		}
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

// LastReceived gives the highest counter received: see security.Received.
func (a AgentCounters) LastReceived(title security.Title, key security.KeyID, d security.Direction) (uint32, bool, error) {
	done, err := a.count(title, key, counting{Direction: uint8(d)})
	return done.First, done.Known, err
}

// NoteReceived remembers a counter as received: see security.Received.
func (a AgentCounters) NoteReceived(title security.Title, key security.KeyID, d security.Direction, counter, loss uint32) error {
	_, err := a.count(title, key, counting{Direction: uint8(d), Note: &noted{counter, loss}})
	return err
}

// ForgetReceived forgets what was received of a sender.
func (a AgentCounters) ForgetReceived(title security.Title, key security.KeyID, d security.Direction) error {
	_, err := a.count(title, key, counting{Direction: uint8(d), Forget: true})
	return err
}

// Heard lists what was received under a key.
func (a AgentCounters) Heard(key security.KeyID) (all []security.Heard, err error) {
	done, err := a.count(security.Title{}, key, counting{Heard: true})
	for _, h := range done.Heard {
		title, err := hex.DecodeString(h.Title)
		if err != nil || len(title) != security.TitleLen {
			return nil, fmt.Errorf("control socket %s: %.40q is no title", a.Path, h.Title)
		}
		all = append(all, security.Heard{Title: security.Title(title), Direction: security.Direction(h.Direction), Counter: h.Counter})
	}
	return all, err
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
