package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// crowd is the process of the gateways.
type crowd struct {
	*process
	stdin io.WriteCloser

	mu   sync.Mutex
	last progress
	done chan struct{} // closed when the process prints no more
}

// startGateways starts all gateways; they connect at once, and read their
// meters when they are told to.
func startGateways(s *stage, o gatewayOptions) (*crowd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	in, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	stdin, options, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c := &crowd{stdin: options, done: make(chan struct{})}
	c.process, err = s.start("gateways", func(cmd *exec.Cmd) { cmd.Stdin, cmd.Stdout = stdin, out }, self, "gateways")
	_ = out.Close()
	_ = stdin.Close()
	if err != nil {
		return nil, err
	}
	go func() {
		defer close(c.done)
		_ = lines(in, func(b []byte) error {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.last = progress{}
			return json.Unmarshal(b, &c.last)
		})
	}()
	return c, json.NewEncoder(options).Encode(o)
}

func (c *crowd) progress() progress {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// begin has the gateways read their meters for so many quarter hours more, as
// fast as they can.
func (c *crowd) begin(quarters int) error {
	_, err := fmt.Fprintln(c.stdin, quarters)
	return err
}

// gridfog builds the fog's tool.
func gridfog(ctx context.Context, root, dir string) (string, error) {
	path := filepath.Join(dir, "gridfog")
	_, err := output(ctx, func(c *exec.Cmd) { c.Dir = root; c.Env = append(os.Environ(), "CGO_ENABLED=0") },
		"go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "./cmd/gridfog")
	return path, err
}
