package main

import (
	"testing"

	"gridgate/buffer/state"
	"gridgate/dlms/security"
)

// TestACrashForgetsNoMoreThanItMay: a tool that is killed within a long
// conversation has handed on what was received, but for what may be lost.
func TestACrashForgetsNoMoreThanItMay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	title, key := security.Title{1}, security.KeyID{2}
	k := &keptCounters{ctx: t.Context(), dir: dir, control: dir + "/none"}
	const loss, last = 256, 5000
	for n := range uint32(last) {
		if err := k.NoteReceived(title, key, security.FromServer, n+1, loss); err != nil {
			t.Fatal(err)
		}
	}
	s, err := state.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if n, _, err := s.LastReceived(title, key, security.FromServer); err != nil || n+loss < last {
		t.Errorf("remembered %d of %d, %v", n, last, err)
	}
}
