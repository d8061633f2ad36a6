package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gridgate/internal/meter"
)

func mustOpen(t *testing.T, dir string) *State {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func read(t *testing.T, dir string) (a, b []byte) {
	t.Helper()
	a, aerr := os.ReadFile(filepath.Join(dir, "state.db"))
	b, berr := os.ReadFile(filepath.Join(dir, "state.db.2"))
	if aerr != nil || berr != nil {
		t.Fatal(aerr, berr)
	}
	return a, b
}

// setText stores a number that text gives again; 0 removes it.
func setText(s *State, id string, n int) error {
	found := ""
	if n > 0 {
		found = strconv.Itoa(n)
	}
	return s.SetExchanged(meter.ID(id), found)
}

func text(s *State, id string) int {
	n, _ := strconv.Atoi(s.Exchanged(meter.ID(id)))
	return n
}

func TestSurvivesRestart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made")
	s := mustOpen(t, dir)
	if _, ok := s.ConfigHash(); ok || !s.Fresh() || s.Repaired() || s.Lost() || text(s, "m") != 0 {
		t.Error("a fresh state is not empty")
	}
	hash := Hash{1, 2, 3, 31: 9}
	err := errors.Join(setText(s, "m1", 2), setText(s, "m2", 300), setText(s, "m3", 1),
		s.SetConfigHash(hash), setText(s, "m3", 0))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		h, ok := s.ConfigHash()
		if text(s, "m1") != 2 || text(s, "m2") != 300 || text(s, "m3") != 0 ||
			!ok || h != hash {
			t.Errorf("%+v", s.records)
		}
		if _, err := Open(dir); !errors.Is(err, ErrInUse) {
			t.Errorf("second open: %v", err)
		}
		a, b := read(t, dir)
		if !bytes.Equal(a, b) {
			t.Error("the copies differ after a write that returned")
		}
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Fatal(err)
		}
		if err := s.SetConfigHash(Hash{}); !errors.Is(err, ErrClosed) {
			t.Errorf("set after close: %v", err)
		}
		if s = mustOpen(t, dir); s.Fresh() || s.Repaired() {
			t.Error("reopened as fresh or repaired")
		}
	}
}

func TestGolden(t *testing.T) {
	t.Parallel()
	b, err := appendCopy(nil, 7, []record{{2, "m1", []byte{2, 'f'}}, {3, "", bytes.Repeat([]byte{0xAB}, 3)}})
	want := "GGST\x01\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\x0d\x00\x00\x00\xe7\xcb\x38\xb6" +
		"\x02\x02m1\x02\x02f\x03\x00\x03\xab\xab\xab"
	if err != nil || string(b) != want {
		t.Errorf("%q %v", b, err)
	}
}

// TestWritesNothingTwice pins that flash is spared.
func TestWritesNothingTwice(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, t.TempDir())
	err := errors.Join(setText(s, "m", 1), setText(s, "m", 1), setText(s, "other", 0))
	if err != nil || s.generation != 2 {
		t.Errorf("generation %d, want 2: %v", s.generation, err)
	}
}

// TestCutAtEveryOctet cuts a write after every octet of each copy: what was
// promised before is there, and the copies are alike afterwards.
func TestCutAtEveryOctet(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := mustOpen(t, dir)
	if err := setText(s, "m", 1); err != nil {
		t.Fatal(err)
	}
	before, _ := read(t, dir)
	if err := errors.Join(setText(s, "m", 2), s.SetConfigHash(Hash{5}), s.Close()); err != nil {
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
		s, err := Open(dir)
		if err != nil {
			t.Fatalf("cut after %d octets: %v", cut, err)
		}
		if n := text(s, "m"); n != 1 && n != 2 || first == len(after) && n != 2 {
			t.Errorf("cut after %d octets: %d", cut, n)
		}
		if a, b := read(t, dir); !bytes.Equal(a[:header], b[:header]) {
			t.Errorf("cut after %d octets: the copies differ", cut)
		}
		_ = s.Close()
	}
}

func TestDamage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := mustOpen(t, dir)
	for i := range 20 {
		if err := setText(s, fmt.Sprint("m", i), i+1); err != nil {
			t.Fatal(err)
		}
	}
	_ = s.Close()
	good, _ := read(t, dir)
	for i := range 400 {
		bad := bytes.Clone(good)
		switch i % 3 {
		case 0:
			bad[rand.IntN(len(bad))] ^= byte(1 + rand.IntN(255))
		case 1:
			bad = bad[:rand.IntN(len(bad))]
		case 2:
			bad = nil
		}
		name := copies()[i%2]
		if err := os.WriteFile(filepath.Join(dir, name), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir)
		if err != nil {
			t.Fatalf("one copy damaged: %v", err)
		}
		if text(s, "m19") != 20 || !s.Repaired() || s.Lost() {
			t.Fatal("one copy damaged: not repaired")
		}
		if a, b := read(t, dir); !bytes.Equal(a, good) || !bytes.Equal(b, good) {
			t.Fatal("one copy damaged: not replaced")
		}
		_ = s.Close()
	}
}

func TestLost(t *testing.T) {
	t.Parallel()
	for _, second := range [][]byte{nil, []byte("GGST"), bytes.Repeat([]byte{0}, 100)} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "state.db"), []byte("nothing"), 0o600); err != nil {
			t.Fatal(err)
		}
		if second != nil {
			if err := os.WriteFile(filepath.Join(dir, "state.db.2"), second, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Open(dir); !errors.Is(err, ErrLost) {
			t.Errorf("second copy %q: %v", second, err)
		}
		s, err := Renew(dir, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
		if err != nil || !s.Lost() {
			t.Fatalf("renew: %v", err)
		}
		_ = s.Close()
		if b, err := os.ReadFile(filepath.Join(dir, "state.db.lost-20260102T030405Z")); string(b) != "nothing" {
			t.Errorf("kept %q %v", b, err)
		}
		if s := mustOpen(t, dir); !s.Lost() || s.Fresh() {
			t.Error("the mark is gone after a restart")
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := mustOpen(t, dir)
	_ = s.Close()
	newer, _ := read(t, dir)
	newer[4] = 2
	binary.LittleEndian.PutUint32(newer[20:], sum(newer))
	if err := os.WriteFile(filepath.Join(dir, "state.db"), newer, 0o600); err != nil {
		t.Fatal(err)
	}
	var format *FormatError
	if _, err := Open(dir); !errors.As(err, &format) || format.Found != 2 || !strings.Contains(err.Error(), "install") {
		t.Errorf("newer format: %v", err)
	}
	if a, _ := read(t, dir); !bytes.Equal(a, newer) {
		t.Error("the newer copy was touched")
	}
	dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "state.db"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || errors.Is(err, ErrLost) {
		t.Errorf("a directory: %v", err)
	}
}

// TestUnknownKinds pins that records of later versions are kept.
func TestUnknownKinds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := mustOpen(t, dir)
	if err := errors.Join(s.set(200, "key", []byte("later")), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir)
	if err := errors.Join(s.SetConfigHash(Hash{1}), s.Close()); err != nil {
		t.Fatal(err)
	}
	if s = mustOpen(t, dir); string(s.get(200, "key")) != "later" {
		t.Errorf("%+v", s.records)
	}
}

// TestFailedWriteIsMadeGood pins that a setter that failed writes when called
// again with the same value.
func TestFailedWriteIsMadeGood(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := mustOpen(t, dir)
	second := filepath.Join(dir, "state.db.2")
	if err := errors.Join(os.Remove(second), os.Mkdir(second, 0o700), os.WriteFile(filepath.Join(second, "x"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := s.SetConfigHash(Hash{7}); err == nil {
		t.Fatal("wrote over a directory")
	}
	if err := os.RemoveAll(second); err != nil {
		t.Fatal(err)
	}
	if err := s.SetConfigHash(Hash{7}); err != nil {
		t.Fatal(err)
	}
	if a, b := read(t, dir); !bytes.Equal(a, b) {
		t.Error("the copies differ")
	}
}

func FuzzParseRecords(f *testing.F) {
	b, err := appendCopy(nil, 1, []record{{1, "", []byte{1}}, {2, "m1", []byte{2, 'f'}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[header:])
	f.Fuzz(func(t *testing.T, b []byte) {
		records, ok := parseRecords(b)
		if !ok {
			return
		}
		c, err := appendCopy(nil, 1, records)
		if err != nil {
			return
		}
		again, ok := parseRecords(c[header:])
		if !ok || fmt.Sprint(again) != fmt.Sprint(records) {
			t.Errorf("%v came back as %v", records, again)
		}
	})
}

func TestALengthBeyondAnInt32IsDamage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(setText(s, "m", 1), s.Close()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "state.db")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[19] = 0x99 // the length's highest octet: negative where an int has 32 bits
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err = Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if !s.Repaired() || text(s, "m") != 1 {
		t.Errorf("repaired %v, %d failures", s.Repaired(), text(s, "m"))
	}
}
