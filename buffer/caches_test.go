package buffer_test

import (
	"bytes"
	"fmt"
	"testing"

	"gridgate/buffer"
	"gridgate/buffer/buffertest"
	"gridgate/internal/meter"
)

// A cache waits for the next commit and is then there after a restart.
func TestCache(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := buffertest.OpenDir(t, dir, buffer.Options{})
	want := bytes.Repeat([]byte("scaler"), 300)
	s.SaveCache("m1", "A1", want)
	look := func(s *buffer.Store, id meter.ID, serial string, want []byte) {
		t.Helper()
		if got, err := s.Cache(id, serial); err != nil || !bytes.Equal(got, want) {
			t.Errorf("cache of %s %s: %d octets, %v, want %d", id, serial, len(got), err, len(want))
		}
	}
	look(s, "m1", "A1", want)
	look(s, "m1", "B2", nil)
	look(s, "m2", "A1", nil)
	before := commits(t, s)
	if err := s.Flush(t.Context()); err != nil || commits(t, s) != before {
		t.Fatalf("a commit for a cache alone, %v", err)
	}
	appendN(t, s, meter.Instant, 1)
	look(s, "m1", "A1", want)
	s.SaveCache("m1", "A1", want[:6])
	s.SaveCache("m2", "", nil)
	look(s, "m1", "A1", want[:6])
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = buffertest.OpenDir(t, dir, buffer.Options{})
	look(s, "m1", "A1", want[:6])
	look(s, "m1", "", nil)
	s.SaveCache("m1", "B2", want)
	look(s, "m1", "A1", nil)
	s.SaveCache("m9", "A", make([]byte, 1<<20))
	look(s, "m9", "A", nil)
	for i := range 500 {
		s.SaveCache(meter.ID(fmt.Sprint("n", i)), "S", want)
	}
	appendN(t, s, meter.Instant, 1)
	look(s, "m1", "A1", nil)
	look(s, "m1", "B2", want)
	look(s, "n499", "S", want)
}

func commits(t *testing.T, s *buffer.Store) uint64 {
	t.Helper()
	stat, err := s.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return stat.Commits
}
