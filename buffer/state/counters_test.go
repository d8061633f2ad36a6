package state

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"gridgate/dlms/security"
)

var _ security.Store = (*State)(nil)

func titleOf(n byte) security.Title { return security.Title{'G', 'R', 'G', n, 0, 0, 0, n} }
func keyIDOf(n byte) security.KeyID { return security.KeyID{n, 7} }

func reserve(t *testing.T, s *State, of byte, n uint32) uint32 {
	t.Helper()
	first, err := s.Reserve(titleOf(of), keyIDOf(of), n)
	if err != nil {
		t.Fatal(err)
	}
	return first
}

func TestCountersAreGivenAwayOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := mustOpen(t, dir)
	known := func(title, key byte) bool {
		t.Helper()
		known, err := s.KnownCounters(titleOf(title), keyIDOf(key))
		if err != nil {
			t.Fatal(err)
		}
		return known
	}
	if known(1, 1) {
		t.Error("a counter is known that was never reserved")
	}
	a, b := reserve(t, s, 1, 10), reserve(t, s, 1, 10)
	if a != 0 || b != 10 || !known(1, 1) || known(1, 2) || known(2, 1) {
		t.Errorf("reserved from %d and %d", a, b)
	}
	if c := reserve(t, s, 2, 5); c != 0 {
		t.Errorf("another key begins at %d", c)
	}
	if err := errors.Join(s.Raise(titleOf(1), keyIDOf(1), 15), s.Raise(titleOf(2), keyIDOf(2), 1000)); err != nil {
		t.Fatal(err)
	}
	if a, b := reserve(t, s, 1, 1), reserve(t, s, 2, 1); a != 20 || b != 1000 {
		t.Errorf("after raising, reserved from %d and %d, want 20 and 1000", a, b)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Reserve(titleOf(1), keyIDOf(1), 1); !errors.Is(err, ErrClosed) {
		t.Errorf("reserved after close: %v", err)
	}
	if err := s.Raise(titleOf(1), keyIDOf(1), 1<<20); !errors.Is(err, ErrClosed) {
		t.Errorf("raised after close: %v", err)
	}
	s = mustOpen(t, dir)
	if a, b := reserve(t, s, 1, 1), reserve(t, s, 2, 1); a < 21 || b < 1001 {
		t.Errorf("after a restart, reserved from %d and %d", a, b)
	}
}

func TestCountersEnd(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, t.TempDir())
	if err := s.Raise(titleOf(1), keyIDOf(1), lastCounter-9); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Reserve(titleOf(1), keyIDOf(1), 11); !errors.Is(err, security.ErrExhausted) {
		t.Errorf("more than there are: %v", err)
	}
	reserve(t, s, 2, 1000) // does not trip over the other
	if first := reserve(t, s, 1, 10); first != lastCounter-9 {
		t.Errorf("the last begin at %d", first)
	}
	if _, err := s.Reserve(titleOf(1), keyIDOf(1), 1); !errors.Is(err, security.ErrExhausted) {
		t.Errorf("after the last: %v", err)
	}
}

// TestCountersSpareFlash pins that a start of many meters is one write, and so
// are every two rounds of reservations after it.
func TestCountersSpareFlash(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := mustOpen(t, dir)
	const meters = 100
	for m := range byte(meters) {
		reserve(t, s, m, 1)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir)
	before := s.generation
	for range 3 {
		for m := range byte(meters) {
			reserve(t, s, m, 1024)
		}
	}
	if err := s.Raise(titleOf(1), keyIDOf(1), 1<<20); err != nil {
		t.Fatal(err)
	}
	if writes := s.generation - before; writes != 3 {
		t.Errorf("%d writes for 3 rounds of %d meters and a raise, want 3", writes, meters)
	}
}

// TestCounterGivenAwaySurvivesACut cuts a reservation's write after every octet
// of each copy: nothing that was given away before comes again.
func TestCounterGivenAwaySurvivesACut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := mustOpen(t, dir)
	given := reserve(t, s, 1, 200) + 200
	before, _ := read(t, dir)
	reserve(t, s, 1, 200) // its write is cut: it was not given away
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	after, _ := read(t, dir)
	for cut := range 2 * len(after) {
		first, second := min(cut, len(after)), max(0, cut-len(after))
		torn := func(n int) []byte {
			b := append([]byte{}, after[:n]...)
			return append(b, before[min(n, len(before)):]...)
		}
		dir := t.TempDir()
		err := errors.Join(os.WriteFile(filepath.Join(dir, "state.db"), torn(first), 0o600),
			os.WriteFile(filepath.Join(dir, "state.db.2"), torn(second), 0o600))
		if err != nil {
			t.Fatal(err)
		}
		if got := reserve(t, mustOpen(t, dir), 1, 1); got < given {
			t.Fatalf("cut after %d octets: %d is given away again, %d were", cut, got, given)
		}
	}
}

// TestNoCounterTwice draws, raises, restarts and fails to write at random.
func TestNoCounterTwice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := mustOpen(t, dir)
	random := rand.New(rand.NewPCG(1, 2))
	var highest [4]uint64 // first that was never given away
	for i := range 2000 {
		of := byte(random.IntN(len(highest)))
		switch random.IntN(12) {
		case 0:
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, dir)
		case 1:
			next := highest[of] + uint64(random.IntN(300))
			if err := s.Raise(titleOf(of), keyIDOf(of), uint32(next)); err != nil {
				t.Fatal(err)
			}
			highest[of] = next
		case 2: // the second copy cannot be written
			second := filepath.Join(dir, copies()[1])
			if err := errors.Join(os.Rename(second, second+".away"), os.Mkdir(second, 0o700)); err != nil {
				t.Fatal(err)
			}
			if first, err := s.Reserve(titleOf(of), keyIDOf(of), 1<<20); err == nil {
				t.Fatalf("step %d: %d is given away and not on the disk", i, first)
			}
			if err := errors.Join(os.Remove(second), os.Rename(second+".away", second)); err != nil {
				t.Fatal(err)
			}
		default:
			n := uint32(1 + random.IntN(200))
			first := reserve(t, s, of, n)
			if uint64(first) < highest[of] {
				t.Fatalf("step %d: %d is given away again, %d were", i, first, highest[of])
			}
			highest[of] = uint64(first) + uint64(n)
		}
	}
}

func TestCountersAtOnce(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, t.TempDir())
	var mu sync.Mutex
	seen := map[string]bool{}
	var tasks sync.WaitGroup
	for range 4 {
		tasks.Go(func() {
			for i := range 50 {
				of := byte(i % 3)
				first, err := s.Reserve(titleOf(of), keyIDOf(of), 3)
				mu.Lock()
				name := fmt.Sprint(of, first)
				if err != nil || seen[name] {
					t.Errorf("%s again, %v", name, err)
				}
				seen[name] = true
				mu.Unlock()
			}
		})
	}
	tasks.Wait()
}
