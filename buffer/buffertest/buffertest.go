// Package buffertest helps to test what stores readings: a store that checks
// itself when the test ends, and a store in memory with the same methods.
package buffertest

import (
	"testing"

	"gridgate/buffer"
)

// Open opens a store in a directory of the test's own. When the test ends it is
// closed and checked: what is not sound fails the test.
func Open(t testing.TB, o buffer.Options) *buffer.Store {
	t.Helper()
	return OpenDir(t, t.TempDir(), o)
}

// OpenDir is Open in dir. The store may be closed before the test ends, to
// open it again.
func OpenDir(t testing.TB, dir string, o buffer.Options) *buffer.Store {
	t.Helper()
	s, err := buffer.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		Check(t, dir)
	})
	return s
}

// Check fails the test when the store in dir is not sound.
func Check(t testing.TB, dir string) {
	t.Helper()
	report, err := buffer.Check(dir)
	if err != nil {
		t.Errorf("check: %v", err)
	}
	for _, p := range report.Problems {
		t.Errorf("check: %s", p)
	}
}
