package status

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Firmware is what the gateway runs from, and what is done for another.
type Firmware struct {
	Board   string `json:"board,omitempty"`
	Slot    string `json:"slot,omitempty"`    // that runs: a, b, or f for the factory's
	Version string `json:"version,omitempty"` // of the update that was kept last, where it runs
	OnTrial string `json:"on_trial,omitempty"`
	Update  string `json:"update,omitempty"` // that is dealt with, and how far
	Last    string `json:"last,omitempty"`   // what came of the one before
	Error   string `json:"error,omitempty"`
}

// Updates is who looks after firmware.
type Updates interface {
	// Status gives what up/firmware says.
	Status() (json.RawMessage, error)
	// Apply takes a signed manifest, with a folder of objects or none.
	Apply(ctx context.Context, document []byte, objects string) error
	// Back gives up what is on trial.
	Back() error
	// Factory starts what the gateway was flashed or installed with.
	Factory() error
}

type updateRequest struct {
	Do      string `json:"do"` // status, apply, back, factory
	Objects string `json:"objects,omitempty"`
}

type updateReply struct {
	OK     bool            `json:"ok"`
	Report json.RawMessage `json:"report,omitempty"`
}

// update does what is asked for of firmware.
func (c *Control) update(ctx context.Context, conn *net.UnixConn, in *bufio.Reader, r request) {
	w := c.cfg.Updates
	if w == nil || r.Update == nil {
		answer(conn, reply{Error: "update: want what to do, of an agent that can be updated"})
		return
	}
	var err error
	switch r.Update.Do {
	case "status":
	case "apply":
		if r.Size <= 0 || r.Size > documentMost {
			err = fmt.Errorf("update: want a size of 1 to %d octets, and the document after this line", documentMost)
			break
		}
		document := make([]byte, r.Size)
		_ = conn.SetReadDeadline(time.Now().Add(requestTime))
		if _, err = io.ReadFull(in, document); err != nil {
			err = errors.New("update: the document is cut short")
			break
		}
		err = w.Apply(ctx, document, r.Update.Objects)
	case "back":
		err = w.Back()
	case "factory":
		err = w.Factory()
	default:
		err = fmt.Errorf("update: %q: want status, apply, back or factory", r.Update.Do)
	}
	var report json.RawMessage
	if err == nil {
		report, err = w.Status()
	}
	if err != nil {
		answer(conn, reply{Error: err.Error()})
		return
	}
	answer(conn, updateReply{OK: true, Report: report})
}

// Update asks the agent at path to do something with firmware: status, apply a
// signed manifest with a folder of objects or none, back, factory. It gives what
// up/firmware says.
func Update(ctx context.Context, path, do string, document []byte, objects string) (json.RawMessage, error) {
	conn, line, err := call(ctx, path, request{Verb: "update", Size: len(document), Update: &updateRequest{do, objects}}, document...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	var got updateReply
	if err := json.Unmarshal(line, &got); err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	return got.Report, nil
}
