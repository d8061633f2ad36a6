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

// Passed is octets that passed on a line.
type Passed struct {
	At       int64  `json:"at"`             // microseconds since 1970
	Sent     bool   `json:"sent,omitempty"` // by the agent
	Settings string `json:"settings,omitempty"`
	Data     []byte `json:"data,omitempty"`
	Lost     int    `json:"lost,omitempty"` // chunks before that were not taken in time
}

// tap sends what passes on a line for as long as the connection stands.
func (c *Control) tap(ctx context.Context, conn *net.UnixConn, line string) {
	if c.cfg.Tap == nil {
		answer(conn, reply{Error: "this agent lets nobody listen"})
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	gone := make(chan struct{})
	go func() { // joined below: a read ends when the listener or serve closes conn
		defer close(gone)
		_, _ = io.Copy(io.Discard, conn)
		cancel()
	}()
	defer func() {
		_ = conn.Close()
		<-gone
	}()
	begun := false
	err := c.cfg.Tap(ctx, line, func(p Passed) error {
		if !begun {
			begun = true
			c.cfg.Log.Info("a tool listens to a line", "line", line)
			answer(conn, reply{OK: true})
			if p.Data == nil {
				return nil
			}
		}
		b, err := json.Marshal(p)
		if err != nil {
			return err
		}
		_ = conn.SetWriteDeadline(time.Now().Add(requestTime))
		_, err = conn.Write(append(b, '\n'))
		return err
	})
	if !begun && err != nil {
		answer(conn, reply{Error: err.Error(), Unused: errors.Is(err, ErrUnused)})
	}
}

// Tap gives each what passes on a line of the agent at path, until ctx ends, each
// fails, or the agent ends it: io.EOF. The first has no data: the agent listens now.
// ErrNoAgent and ErrUnused say that no agent has the line.
func Tap(ctx context.Context, path, line string, each func(Passed) error) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return callError(path, err)
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	b, err := json.Marshal(request{Verb: "tap", Line: line})
	if err != nil {
		return err
	}
	if _, err := conn.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("control socket %s: %w", path, err)
	}
	in := bufio.NewReader(conn)
	for first := true; ; first = false {
		text, err := in.ReadBytes('\n')
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return fmt.Errorf("control socket %s: %w", path, err)
		}
		var p Passed
		if first {
			if err := refusedReply(text); err != nil {
				return fmt.Errorf("control socket %s: %w", path, err)
			}
		} else if err := json.Unmarshal(text, &p); err != nil {
			return fmt.Errorf("control socket %s: %w", path, err)
		}
		if err := each(p); err != nil {
			return err
		}
	}
}
