package status

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
)

// bundled are the parts of a support bundle that only the agent has, by name.
type bundled struct {
	OK    bool              `json:"ok"`
	Parts map[string]string `json:"parts"`
}

func (c *Control) bundle(conn *net.UnixConn) {
	if c.cfg.Parts == nil {
		answer(conn, reply{Error: "bundle: this agent has no parts for one"})
		return
	}
	answer(conn, bundled{OK: true, Parts: c.cfg.Parts()})
}

// Parts gives the parts of a support bundle that only the agent at path has: its
// last log lines, what is in its buffer. ErrNoAgent when there is none.
func Parts(ctx context.Context, path string) (map[string]string, error) {
	conn, line, err := call(ctx, path, request{Verb: "bundle"})
	if err != nil {
		return nil, err
	}
	_ = conn.Close()
	var b bundled
	if err := json.Unmarshal(line, &b); err != nil || !b.OK {
		return nil, fmt.Errorf("control socket %s: %.100q is no part of a bundle", path, line)
	}
	return b.Parts, nil
}
