package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// again opens the state that a crash of this process would leave: what a setter
// returned for must be in each of the two copies alone.
func again(t *testing.T, dir string, check func(s *State)) {
	t.Helper()
	for _, name := range []string{"state.db", "state.db.2"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		other := t.TempDir()
		if err := os.WriteFile(filepath.Join(other, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
		check(mustOpen(t, other))
	}
}

func TestDocuments(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := mustOpen(t, dir)
	if _, ok := s.Document("config", "gw1"); ok {
		t.Error("a document before the first")
	}
	first, second := Document{Version: 7, Hash: Hash{1}}, Document{Version: 8, Hash: Hash{2}}
	for _, d := range []Document{first, second, second} {
		if err := s.SetDocument("config", "gw1", d); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []Document{first, {Version: 8, Hash: Hash{3}}, {}} {
		if err := s.SetDocument("config", "gw1", d); !errors.Is(err, ErrBackwards) {
			t.Errorf("%d after 8: %v", d.Version, err)
		}
	}
	if err := s.SetDocument("config", "group", first); err != nil {
		t.Error(err)
	}
	again(t, dir, func(s *State) {
		if d, ok := s.Document("config", "gw1"); !ok || d != second {
			t.Errorf("%+v %v", d, ok)
		}
		if d, ok := s.Document("config", "group"); !ok || d != first {
			t.Errorf("%+v %v", d, ok)
		}
	})
}

func TestAuditHead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := mustOpen(t, dir)
	if _, ok := s.AuditHead(); ok {
		t.Error("an end before the first entry")
	}
	for n := range uint64(3) {
		if err := s.SetAuditHead(AuditHead{Number: n + 1, Hash: Hash{byte(n)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SetAuditHead(AuditHead{Number: 2}); !errors.Is(err, ErrBackwards) {
		t.Error(err)
	}
	again(t, dir, func(s *State) {
		if h, ok := s.AuditHead(); !ok || h != (AuditHead{Number: 3, Hash: Hash{2}}) {
			t.Errorf("%+v %v", h, ok)
		}
	})
}

func TestTrustAndTrial(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := mustOpen(t, dir)
	if _, ok := s.Trial(); ok || s.Trust() != nil {
		t.Error("something before the first")
	}
	trial := Trial{Step: 3, Deadline: time.Unix(1_700_000_000, 0), Candidate: Hash{1}, Previous: Hash{2}}
	if err := errors.Join(s.SetTrust([]byte("keys")), s.SetTrial(trial)); err != nil {
		t.Fatal(err)
	}
	again(t, dir, func(s *State) {
		got, ok := s.Trial()
		if d := cmp.Diff(trial, got); !ok || d != "" || string(s.Trust()) != "keys" {
			t.Errorf("%v %s %q", ok, d, s.Trust())
		}
	})
	if err := s.EndTrial(); err != nil {
		t.Fatal(err)
	}
	again(t, dir, func(s *State) {
		if got, ok := s.Trial(); ok {
			t.Errorf("%+v", got)
		}
	})
}

func TestCommands(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := mustOpen(t, dir)
	now := time.Unix(1_700_000_000, 0)
	if err := s.EndCommand("a", Done, nil); err == nil {
		t.Error("ended before it was begun")
	}
	if err := errors.Join(s.BeginCommand("a", now.Add(time.Hour), now), s.BeginCommand("b", now.Add(2*time.Hour), now)); err != nil {
		t.Fatal(err)
	}
	again(t, dir, func(s *State) {
		if err := s.BeginCommand("a", now.Add(time.Hour), now); !errors.Is(err, ErrExecuted) {
			t.Error(err)
		}
		if d := cmp.Diff([]string{"a", "b"}, s.OpenCommands()); d != "" {
			t.Error(d)
		}
	})
	if err := s.EndCommand("a", Done, []byte("on")); err != nil {
		t.Fatal(err)
	}
	again(t, dir, func(s *State) {
		want := Command{Stage: Done, Expires: now.Add(time.Hour), Result: []byte("on")}
		if c, ok := s.Command("a"); !ok || cmp.Diff(want, c) != "" {
			t.Errorf("%+v", c)
		}
		// Past its end it is forgotten, and no sooner.
		if err := s.BeginCommand("c", now.Add(9*time.Hour), now.Add(time.Hour)); err != nil {
			t.Error(err)
		}
		if _, ok := s.Command("a"); !ok {
			t.Error("forgotten too early")
		}
		if err := s.BeginCommand("d", now.Add(9*time.Hour), now.Add(time.Hour+time.Second)); err != nil {
			t.Error(err)
		}
		if _, ok := s.Command("a"); ok {
			t.Error("not forgotten")
		}
		// What has no end yet is not: it would be new after a restart.
		if err := s.BeginCommand("e", now.Add(99*time.Hour), now.Add(48*time.Hour)); err != nil {
			t.Error(err)
		}
		if c, ok := s.Command("b"); !ok || c.Stage != Begun {
			t.Errorf("one that goes on is %+v, %v", c, ok)
		}
	})
}

func TestCommandsAreBounded(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, memoryDir(t))
	now := time.Unix(1_700_000_000, 0)
	for i := range 4096 {
		if err := s.BeginCommand(fmt.Sprint(i), now.Add(time.Hour), now); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.BeginCommand("more", now.Add(time.Hour), now); !errors.Is(err, ErrTooMany) {
		t.Error(err)
	}
	if err := s.EndCommand("7", Done, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.BeginCommand("more", now.Add(9*time.Hour), now.Add(2*time.Hour)); err != nil {
		t.Error(err)
	}
}

// TestAnchor ends what a loss of both copies left.
func TestAnchor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Renew(dir, time.Unix(0, 0))
	if err != nil || !s.Lost() {
		t.Fatalf("%v %v", s.Lost(), err)
	}
	if err := errors.Join(s.Anchor(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if mustOpen(t, dir).Lost() {
		t.Error("still lost")
	}
}

// memoryDir is a directory in memory where there is one, for many writes.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "state")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// TestCommandsOfAFraction: a command is remembered until the fraction of a second
// that it is valid for has passed.
func TestCommandsOfAFraction(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, t.TempDir())
	ends := time.Unix(1_800_000_000, 900_000_000)
	if err := errors.Join(s.BeginCommand("a", ends, ends.Add(-time.Hour)), s.EndCommand("a", Done, nil)); err != nil {
		t.Fatal(err)
	}
	if err := s.BeginCommand("b", ends.Add(time.Hour), ends.Add(-time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, known := s.Command("a"); !known {
		t.Error("forgotten while it is valid")
	}
}

// TestOpenUsed: a state that should be there and is not is lost from its first
// write on, and one that is there is not.
func TestOpenUsed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for range 2 {
		s, err := OpenUsed(dir)
		if err != nil || !s.Lost() {
			t.Fatalf("%v", err)
		}
		again(t, dir, func(s *State) {
			if !s.Lost() {
				t.Error("after a cut it is not lost")
			}
		})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	dir = t.TempDir()
	if err := mustOpen(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	s, err := OpenUsed(dir)
	if err != nil || s.Lost() {
		t.Errorf("one that is there: %v", err)
	}
	_ = s.Close()
}
