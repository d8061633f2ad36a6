package status

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gridgate/dlms/security"
)

// kept are counters that are always known.
type kept struct {
	security.Memory
	mu    sync.Mutex
	heard map[security.Title]security.Heard
}

func (k *kept) LastReceived(title security.Title, _ security.KeyID, _ security.Direction) (uint32, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h, ok := k.heard[title]
	return h.Counter, ok, nil
}

func (k *kept) NoteReceived(title security.Title, _ security.KeyID, d security.Direction, counter, loss uint32) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.heard == nil {
		k.heard = map[security.Title]security.Heard{}
	}
	k.heard[title] = security.Heard{Title: title, Direction: d, Counter: counter + loss}
	return nil
}

func (k *kept) Heard(security.KeyID) (all []security.Heard, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, h := range k.heard {
		all = append(all, h)
	}
	return all, nil
}

func (k *kept) ForgetReceived(title security.Title, _ security.KeyID, _ security.Direction) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.heard, title)
	return nil
}

// counts are refusals of one name of credentials.
type counts struct {
	mu       sync.Mutex
	n        int
	accepted bool
}

func (*counts) Salt() ([]byte, error) { return []byte("salt"), nil }

func (c *counts) Refusals(string) (int, time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n, time.Unix(77, 0)
}

func (c *counts) Refused(string, time.Time) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == 2 {
		return 0, errors.New("disk full")
	}
	c.n++
	return c.n, nil
}

func (c *counts) Accepted(string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n, c.accepted = 0, true
	return nil
}

func (c *counts) WasAccepted(string) bool { return c.accepted }

func (*kept) KnownCounters(security.Title, security.KeyID) (bool, error) { return true, nil }

func TestAToolDrawsTheAgentsCounters(t *testing.T) {
	t.Parallel()
	dir, title, key := t.TempDir(), security.Title{1: 1}, security.KeyID{2: 2}
	path := filepath.Join(dir, "c.sock")
	store := &kept{}
	c, err := Listen(Config{Path: path, Log: slog.New(slog.DiscardHandler), Counters: store, StateDir: dir, Refusals: &counts{}})
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

	if _, ok, err := tool.LastReceived(title, key, security.FromServer); ok || err != nil {
		t.Errorf("received before the first: %v, %v", ok, err)
	}
	want := security.Heard{Title: title, Direction: security.FromServer, Counter: 70 + 6}
	if err := tool.NoteReceived(title, key, security.FromServer, 70, 6); err != nil {
		t.Error(err)
	}
	if n, ok, err := tool.LastReceived(title, key, security.FromServer); n != want.Counter || !ok || err != nil {
		t.Errorf("received %d, %v, %v", n, ok, err)
	}
	if all, err := tool.Heard(key); err != nil || len(all) != 1 || all[0] != want {
		t.Errorf("heard %+v, %v", all, err)
	}
	if err := tool.ForgetReceived(title, key, security.FromServer); err != nil || len(store.heard) != 0 {
		t.Errorf("not forgotten, %v", err)
	}

	refused := AgentRefusals{Context: t.Context(), Path: path}
	if salt, err := refused.Salt(); string(salt) != "salt" || err != nil {
		t.Errorf("salt %q, %v", salt, err)
	}
	if err := errors.Join(refused.Refused("c"), refused.Refused("c")); err != nil {
		t.Error(err)
	}
	if n, last, accepted, err := refused.Refusals("c"); n != 2 || last.Unix() != 77 || accepted || err != nil {
		t.Errorf("refused %d at %v, %v, %v", n, last, accepted, err)
	}
	if err := refused.Refused("c"); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("what cannot be counted: %v", err)
	}
	if err := refused.Accepted("c"); err != nil {
		t.Error(err)
	}
	if n, _, accepted, err := refused.Refusals("c"); n != 0 || !accepted || err != nil {
		t.Errorf("after the meter took them: %d, %v, %v", n, accepted, err)
	}
	if _, _, _, err := refused.Refusals(strings.Repeat("c", 200)); err == nil {
		t.Error("a name of 200 octets is taken")
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
