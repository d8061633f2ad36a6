package status

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"gridgate/dlms/security"
)

// kept are counters that are always known.
type kept struct{ security.Memory }

func (*kept) KnownCounters(security.Title, security.KeyID) (bool, error) { return true, nil }

func TestAToolDrawsTheAgentsCounters(t *testing.T) {
	t.Parallel()
	dir, title, key := t.TempDir(), security.Title{1: 1}, security.KeyID{2: 2}
	path := filepath.Join(dir, "c.sock")
	store := &kept{}
	c, err := Listen(Config{Path: path, Log: slog.New(slog.DiscardHandler), Counters: store, StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})

	tool := AgentCounters{Context: t.Context(), Path: path, Dir: dir + "/."}
	if first, err := store.Reserve(title, key, 10); err != nil || first != 0 {
		t.Fatal(first, err)
	}
	if known, err := tool.KnownCounters(title, key); err != nil || !known {
		t.Errorf("known %v, %v", known, err)
	}
	if first, err := tool.Reserve(title, key, 5); err != nil || first != 10 {
		t.Errorf("the tool got %d, %v, want 10", first, err)
	}
	if err := tool.Raise(title, key, 1000); err != nil {
		t.Error(err)
	}
	if first, err := store.Reserve(title, key, 1); err != nil || first != 1000 {
		t.Errorf("the agent got %d, %v, want 1000", first, err)
	}
	if _, err := tool.Reserve(title, key, 1<<32-1); err == nil || !strings.Contains(err.Error(), security.ErrExhausted.Error()) {
		t.Errorf("more than there are: %v", err)
	}

	elsewhere := AgentCounters{Context: t.Context(), Path: path, Dir: t.TempDir()}
	if _, err := elsewhere.Reserve(title, key, 1); !errors.Is(err, ErrOtherCounters) {
		t.Errorf("counters of another directory: %v", err)
	}
	nobody := AgentCounters{Context: t.Context(), Path: path + "x", Dir: dir}
	if _, err := nobody.Reserve(title, key, 1); !errors.Is(err, ErrNoAgent) {
		t.Errorf("no agent: %v", err)
	}
}
