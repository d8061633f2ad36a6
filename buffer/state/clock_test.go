package state

import (
	"testing"
	"time"
)

func TestLastTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func() *State {
		s, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	if got := s.LastTime(); !got.IsZero() {
		t.Errorf("a new state knows %v", got)
	}
	first := time.Date(2026, 11, 22, 17, 0, 0, 0, time.UTC)
	for _, at := range []time.Time{first, first.Add(-time.Hour), {}, time.Unix(-5, 0)} {
		if err := s.SetLastTime(at); err != nil {
			t.Fatal(err)
		}
		if got := s.LastTime(); !got.Equal(first) {
			t.Errorf("after %v: %v", at, got)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	defer s.Close()
	if got := s.LastTime(); !got.Equal(first) {
		t.Errorf("after a restart: %v", got)
	}
}
