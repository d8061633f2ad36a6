package status

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
)

// carrier carries out one command.
type carrier struct{}

func (carrier) Command(document []byte) (json.RawMessage, error) {
	if !bytes.HasPrefix(document, []byte("good")) {
		return nil, errors.New("not signed")
	}
	return json.RawMessage(`{"id":"c"}`), nil
}

func (carrier) CommandResult(id string) (json.RawMessage, error) {
	if id != "c" {
		return nil, nil
	}
	return json.RawMessage(`{"state":"done"}`), nil
}

func TestCommands(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c")
	c, err := Listen(Config{Path: path, Commands: carrier{}, Log: slog.New(slog.DiscardHandler)})
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
	if got, err := Command(t.Context(), path, append([]byte("good"), make([]byte, 100<<10)...)); string(got) != `{"id":"c"}` || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := Command(t.Context(), path, []byte("bad")); err == nil || !strings.Contains(err.Error(), "not signed") {
		t.Error(err)
	}
	if _, err := Command(t.Context(), path, nil); err == nil {
		t.Error("nothing is a command")
	}
	if _, err := Command(t.Context(), path, make([]byte, documentMost+1)); err == nil {
		t.Error("more than a document is a command")
	}
	if got, err := CommandResult(t.Context(), path, "c"); string(got) != `{"state":"done"}` || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := CommandResult(t.Context(), path, "d"); got != nil || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := CommandResult(t.Context(), path+"-none", "d"); !errors.Is(err, ErrNoAgent) {
		t.Error(err)
	}
	none, _ := serve(t)
	if _, err := Command(t.Context(), none, []byte("good")); err == nil || !strings.Contains(err.Error(), "none are taken here") {
		t.Error(err)
	}
}
