package status

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
)

type metrics struct {
	OK   bool   `json:"ok"`
	Text string `json:"metrics"`
}

// metrics answers with the metrics.
func (c *Control) metrics(conn *net.UnixConn) {
	m := metrics{OK: true}
	if c.cfg.Metrics != nil {
		m.Text = string(c.cfg.Metrics(nil))
	}
	answer(conn, m)
}

// AskMetrics asks the agent at path for its metrics, in the text format of
// Prometheus. ErrNoAgent when there is none.
func AskMetrics(ctx context.Context, path string) (string, error) {
	conn, line, err := call(ctx, path, request{Verb: "metrics"})
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	var m metrics
	if err := json.Unmarshal(line, &m); err != nil {
		return "", fmt.Errorf("control socket %s: %w", path, err)
	}
	return m.Text, nil
}
