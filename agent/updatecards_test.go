package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"gridgate/agent/update"
)

// cards are slots in memory, with the boot loader before them.
type cards struct {
	mu        sync.Mutex
	files     map[string]map[string][]byte
	running   string
	first     string
	trial     string
	tries     int
	restarted bool
	fails     map[string]error
	calls     []string
}

func newCards(files map[string][]byte) *cards {
	return &cards{files: map[string]map[string][]byte{"a": files, "b": {}}, running: "a", first: "a", fails: map[string]error{}}
}

// boot is the next start.
func (c *cards) boot() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.restarted = false
	if c.running = c.first; c.trial != "" && c.tries > 0 {
		c.tries--
		c.running = c.trial
	}
}

func (c *cards) other() string {
	if c.running == "a" {
		return "b"
	}
	return "a"
}

// do notes a call.
func (c *cards) do(what string, change func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, what)
	if err := c.fails[what]; err != nil {
		return err
	}
	change()
	return nil
}

func (c *cards) State() (update.SlotState, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := update.SlotState{Board: "test-board", Running: c.running, First: c.first, OnTrial: c.trial}
	if c.trial != "" {
		s.Tries = c.tries
	}
	return s, nil
}

func (c *cards) Open(name string) (io.ReadCloser, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	data, ok := c.files[c.running][name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (c *cards) Install(_ context.Context, files []update.Staged) error {
	got := map[string][]byte{}
	for _, f := range files {
		data, err := os.ReadFile(f.Path)
		if err != nil {
			return err
		}
		if sha256.Sum256(data) != f.SHA256 {
			return fmt.Errorf("%s is another", f.Name)
		}
		got[f.Name] = data
	}
	return c.do("install", func() { c.files[c.other()] = got })
}

func (c *cards) Switch() error {
	return c.do("switch", func() { c.trial, c.tries = c.other(), 3 })
}

func (c *cards) Confirm() error {
	return c.do("confirm", func() { c.first, c.trial, c.tries = c.running, "", 0 })
}

func (c *cards) Back() error {
	return c.do("back", func() { c.trial, c.tries = "", 0 })
}

func (c *cards) Factory() error { return c.do("factory", func() { c.first, c.trial = "f", "" }) }

func (c *cards) Restart() error { return c.do("restart", func() { c.restarted = true }) }

func (c *cards) isRestarted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.restarted
}
