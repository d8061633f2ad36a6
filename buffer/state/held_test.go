package state

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"gridgate/dlms/security"
)

// TestAHeldStateGivesNoCounterAway pins that what cannot be written is not used:
// a counter that was given away without a record would be given away again.
func TestAHeldStateGivesNoCounterAway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var title security.Title
	var key security.KeyID
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Raise(title, key, 1000); err != nil {
		t.Fatal(err)
	}
	salt, err := s.Salt()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Refused("before", time.Unix(5, 0)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	h := Hold(dir, syscall.EROFS)
	if !errors.Is(h.Held(), ErrHeld) || !errors.Is(h.Held(), syscall.EROFS) {
		t.Errorf("held: %v", h.Held())
	}
	if _, err := h.Reserve(title, key, 1); !errors.Is(err, ErrHeld) {
		t.Errorf("reserve: %v", err)
	}
	if err := h.Raise(title, key, 5000); !errors.Is(err, ErrHeld) {
		t.Errorf("raise: %v", err)
	}
	if _, err := h.KnownCounters(title, key); !errors.Is(err, ErrHeld) {
		t.Errorf("known: %v", err)
	}
	if _, _, err := h.LastReceived(title, key, 0); !errors.Is(err, ErrHeld) {
		t.Errorf("last received: %v", err)
	}
	if err := h.SetConfigHash(Hash{1}); !errors.Is(err, ErrHeld) {
		t.Errorf("hash: %v", err)
	}
	if again, err := h.Salt(); err != nil || string(again) != string(salt) {
		t.Errorf("salt: %v", err)
	}
	if n, _ := h.Refusals("before"); n != 1 {
		t.Errorf("%d refusals read, want 1", n)
	}
	for range 2 {
		if _, err := h.Refused("during", time.Unix(6, 0)); err != nil {
			t.Error(err)
		}
	}
	if err := h.Accepted("before"); err != nil {
		t.Error(err)
	}
	before, err := os.ReadFile(filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}

	if err := h.Retry(time.Now()); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(filepath.Join(dir, "state.db")); err != nil || string(after) == string(before) {
		t.Errorf("what was kept in memory is not written: %v", err)
	}
	if first, err := h.Reserve(title, key, 1); err != nil || first != 1000 {
		t.Errorf("reserved %d, want 1000: %v", first, err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	n, _ := s.Refusals("during")
	if m, _ := s.Refusals("before"); n != 2 || m != 0 || !s.WasAccepted("before") {
		t.Errorf("%d and %d refusals kept, want 2 and 0", n, m)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAHeldStateWithoutCopies pins that a first start on a disk that takes
// nothing is held, and writes what it kept once the disk does.
func TestAHeldStateWithoutCopies(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "not", "there")
	h := Hold(dir, syscall.ENOSPC)
	salt, err := h.Salt()
	if err != nil || len(salt) == 0 {
		t.Fatalf("salt %x: %v", salt, err)
	}
	if err := h.Retry(time.Now()); err != nil || h.Held() != nil || !h.Fresh() {
		t.Fatalf("retry: %v, held %v, fresh %t", err, h.Held(), h.Fresh())
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Salt(); err != nil || string(again) != string(salt) {
		t.Errorf("salt %x, want %x: %v", again, salt, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAHeldStateThatIsTaken stays held while another process has it.
func TestAHeldStateThatIsTaken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	h := Hold(dir, syscall.EACCES)
	if err := h.Retry(time.Now()); !errors.Is(err, ErrInUse) || h.Held() == nil {
		t.Errorf("retry: %v, held %v", err, h.Held())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
}
