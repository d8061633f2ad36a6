package status

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lender lends one line, "l".
type lender struct {
	free chan struct{}
}

func (l *lender) lend(ctx context.Context, line string) (func(), error) {
	if line != "l" {
		return nil, fmt.Errorf("line %s: %w", line, ErrUnused)
	}
	select {
	case l.free <- struct{}{}:
		return func() { <-l.free }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func serve(t *testing.T) (string, *lender) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", "c.sock")
	l := &lender{free: make(chan struct{}, 1)}
	c, err := Listen(Config{Path: path, Lend: l.lend, Log: slog.New(slog.DiscardHandler), Report: func() Report {
		return Report{Site: "s", Meters: []Meter{{Meter: "m", State: "ok"}}}
	}})
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
	return path, l
}

func TestAskTellsHowTheAgentDoes(t *testing.T) {
	t.Parallel()
	path, _ := serve(t)
	r, err := Ask(t.Context(), path)
	if err != nil || r.Site != "s" || len(r.Meters) != 1 || r.Meters[0].State != "ok" {
		t.Fatalf("%+v, %v", r, err)
	}
}

func TestALineIsLentToOneAtATimeUntilGivenBack(t *testing.T) {
	t.Parallel()
	path, l := serve(t)
	giveBack, err := Borrow(t.Context(), path, "l")
	if err != nil {
		t.Fatal(err)
	}
	if len(l.free) != 1 {
		t.Fatal("the agent did not leave the line")
	}
	second := make(chan error, 1)
	go func() {
		giveBack, err := Borrow(t.Context(), path, "l")
		if err == nil {
			giveBack()
		}
		second <- err
	}()
	giveBack()
	if err := <-second; err != nil {
		t.Fatal(err)
	}
}

func TestABorrowerThatGivesUpLeavesNoLoan(t *testing.T) {
	t.Parallel()
	path, _ := serve(t)
	first, err := Borrow(t.Context(), path, "l")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Borrow(ctx, path, "l"); !errors.Is(err, context.Canceled) {
		t.Fatalf("a cancelled borrower got %v", err)
	}
	first()
	third, err := Borrow(t.Context(), path, "l")
	if err != nil {
		t.Fatal(err)
	}
	third()
}

func TestWhatCannotBeDoneIsSaid(t *testing.T) {
	t.Parallel()
	path, _ := serve(t)
	if _, err := Borrow(t.Context(), path, "x"); !errors.Is(err, ErrUnused) {
		t.Errorf("borrowing a line that is not there: %v", err)
	}
	for send, want := range map[string]string{"{\"verb\":\"fly\"}\n": `unknown verb \"fly\"`, "x\n": "not JSON", strings.Repeat("x", 2*requestMost): "want one line"} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, send)
		answer := make([]byte, 200)
		n, err := conn.Read(answer)
		if !strings.Contains(string(answer[:n]), want) {
			t.Errorf("%.20q: answered %s, %v", send, answer[:n], err)
		}
		_ = conn.Close()
	}
}

func TestNoAgent(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "none")
	if _, err := Ask(t.Context(), path); !errors.Is(err, ErrNoAgent) {
		t.Errorf("no socket: %v", err)
	}
	if _, err := Borrow(t.Context(), path, "l"); !errors.Is(err, ErrNoAgent) {
		t.Errorf("no socket: %v", err)
	}
}

func TestListen(t *testing.T) {
	t.Parallel()
	path, _ := serve(t)
	if _, err := Listen(Config{Path: path}); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("a second agent: %v", err)
	}
	stale := filepath.Join(t.TempDir(), "stale.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	if _, err := Ask(t.Context(), stale); !errors.Is(err, ErrNoAgent) {
		t.Errorf("a dead agent's socket: %v", err)
	}
	c, err := Listen(Config{Path: stale})
	if err != nil {
		t.Fatalf("a dead agent's socket: %v", err)
	}
	_ = c.listener.Close()
	if _, err := Listen(Config{Path: "/tmp/" + strings.Repeat("x", 200)}); err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("a path that is too long: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("keep"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(Config{Path: file}); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file in the way: %v", err)
	}
	if b, _ := os.ReadFile(file); string(b) != "keep" {
		t.Error("the file in the way is gone")
	}
}
