package state

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"gridgate/dlms/security"
)

var _ security.Received = (*State)(nil)

// crash ends a state as a cut of the power does: nothing that waits is written.
func crash(t *testing.T, s *State) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if err := unlock(s.lock); err != nil {
		t.Fatal(err)
	}
}

func last(t *testing.T, s *State, of byte) int64 {
	t.Helper()
	n, ok, err := s.LastReceived(titleOf(of), keyIDOf(of), security.FromServer)
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		return -1
	}
	return int64(n)
}

func note(t *testing.T, s *State, of byte, counter, loss uint32) {
	t.Helper()
	if err := s.NoteReceived(titleOf(of), keyIDOf(of), security.FromServer, counter, loss); err != nil {
		t.Fatal(err)
	}
}

func TestReceivedOverRestartsAndCrashes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := mustOpen(t, dir)
	if last(t, s, 1) != -1 {
		t.Error("something was received before the first")
	}
	note(t, s, 1, 0, 0) // the first counter there is, and on the disk
	note(t, s, 2, 70, 100)
	crash(t, s)
	s = mustOpen(t, dir)
	if a, b := last(t, s, 1), last(t, s, 2); a != 0 || b != -1 {
		t.Errorf("after a crash %d and %d, want 0 and none", a, b)
	}
	note(t, s, 2, 70, 100)
	note(t, s, 2, 60, 100) // never lowers
	if n := last(t, s, 2); n != 70 {
		t.Errorf("%d, want 70", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.LastReceived(titleOf(1), keyIDOf(1), security.FromServer); !errors.Is(err, ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	if err := s.NoteReceived(titleOf(1), keyIDOf(1), security.FromServer, 9, 0); !errors.Is(err, ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	s = mustOpen(t, dir)
	if n := last(t, s, 2); n != 70 {
		t.Errorf("after a stop %d, want 70", n)
	}
	if _, ok, _ := s.LastReceived(titleOf(2), keyIDOf(2), security.FromClient); ok {
		t.Error("the other direction has it too")
	}
	if _, ok, _ := s.LastReceived(titleOf(2), keyIDOf(3), security.FromServer); ok {
		t.Error("another key has it too")
	}
	note(t, s, 2, 200, 100) // the step
	crash(t, s)
	if s = mustOpen(t, dir); last(t, s, 2) != 200 {
		t.Errorf("%d, want 200", last(t, s, 2))
	}
	if err := s.ForgetReceived(titleOf(2), keyIDOf(2), security.FromServer); err != nil || last(t, s, 2) != -1 {
		t.Errorf("not forgotten, %v", err)
	}
	note(t, s, 2, 5, 0)
	crash(t, s)
	if s = mustOpen(t, dir); last(t, s, 2) != 5 {
		t.Errorf("%d, want 5", last(t, s, 2))
	}
}

// TestACrashLosesNoMoreThanSaid notes, stops and crashes at random.
func TestACrashLosesNoMoreThanSaid(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := mustOpen(t, dir)
	random := rand.New(rand.NewPCG(3, 4))
	loss := [3]uint32{0, 10, 300}
	have := [3]int64{-1, -1, -1}
	for i := range 3000 {
		of := random.IntN(3)
		if random.IntN(30) == 0 {
			stop := random.IntN(2) == 0
			if stop {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			} else {
				crash(t, s)
			}
			s = mustOpen(t, dir)
			for of, n := range have {
				got := last(t, s, byte(of))
				if first := int64(loss[of]) + 1; got > n || stop && got != n || n-got > int64(loss[of]) && (got >= 0 || n > first+100) {
					t.Fatalf("step %d, stop %v: %d of %d is left, and %d may be lost", i, stop, got, n, loss[of])
				}
				have[of] = got
			}
			continue
		}
		have[of] += int64(1 + random.IntN(5))
		note(t, s, byte(of), uint32(have[of]), loss[of])
	}
}

// TestReceivedSparesFlash: many meters that are read alike are one write.
func TestReceivedSparesFlash(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, t.TempDir())
	before := s.generation
	for n := range uint32(1000) {
		for of := range byte(50) {
			note(t, s, of, n, 255)
		}
	}
	if writes := s.generation - before; writes > 4 {
		t.Errorf("%d writes, want at most 4", writes)
	}
}

// protectedFrom gives a message of a meter, and what opens such.
func protectedFrom(t *testing.T, counter uint32) ([]byte, security.Receiver) {
	t.Helper()
	ek, err := security.NewKey(make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	keys := security.Keys{Encryption: ek, Authentication: ek}
	store := &security.Memory{}
	if err := store.Raise(titleOf(1), ek.ID(), counter); err != nil {
		t.Fatal(err)
	}
	sender := security.Sender{
		Policy: security.AuthenticatedEncrypted, Title: titleOf(1), Keys: keys, Counter: security.NewCounter(store, titleOf(1), ek, 1),
	}
	apdu, err := sender.Protect(nil, []byte{0x0F, 0, 0, 0, 1, 0, 0x11, 7}, security.Unicast, true)
	if err != nil {
		t.Fatal(err)
	}
	return apdu, security.Receiver{Policy: security.AuthenticatedEncrypted, Title: titleOf(1), Keys: keys, Direction: security.FromServer}
}

// TestReplayAfterACrash: what was received is not taken again after the power
// was cut; without a store it is, which shows that the test can tell.
func TestReplayAfterACrash(t *testing.T) {
	t.Parallel()
	for _, kept := range []bool{true, false} {
		dir := t.TempDir()
		apdu, r := protectedFrom(t, 500)
		open := func() error {
			s := mustOpen(t, dir)
			r.Window = &security.Window{}
			if kept {
				r.Window.Keep(s, 0, r.Keys.Encryption.ID())
			}
			_, err := r.Unprotect(nil, apdu)
			crash(t, s)
			return err
		}
		if err := open(); err != nil {
			t.Fatal(err)
		}
		if err := open(); errors.Is(err, security.ErrReplay) != kept || (err == nil) == kept {
			t.Errorf("kept %v: sent again after a crash: %v", kept, err)
		}
	}
}

func TestAJumpOfWhatIsReceivedIsAnAlarm(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, t.TempDir())
	window := &security.Window{}
	take := func(counter uint32) error {
		apdu, r := protectedFrom(t, counter)
		window.Keep(s, 100, r.Keys.Encryption.ID())
		r.Window = window
		_, err := r.Unprotect(nil, apdu)
		return err
	}
	if err := errors.Join(take(7), take(7+security.MaxJump)); err != nil {
		t.Fatal(err)
	}
	var jump *security.ReceivedJumpError
	if err := take(8 + 2*security.MaxJump); !errors.As(err, &jump) || jump.Got-jump.Last != security.MaxJump+1 {
		t.Errorf("a jump: %v", err)
	}
	_, r := protectedFrom(t, 0)
	key := r.Keys.Encryption.ID()
	want := security.Heard{Title: titleOf(1), Direction: security.FromServer, Counter: 7 + security.MaxJump}
	if all, err := s.Heard(key); err != nil || len(all) != 1 || all[0] != want {
		t.Fatalf("%+v, %v, want %+v", all, err, want)
	}
	if all, err := s.Heard(keyIDOf(9)); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v of another key", all, err)
	}
	if err := errors.Join(s.ForgetReceived(want.Title, key, want.Direction), take(3)); err != nil {
		t.Errorf("after a person accepted it: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := take(4); !errors.Is(err, security.ErrReceivedStore) {
		t.Errorf("without the store: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := mustOpen(t, dir)
	salt, err := s.Salt()
	if err != nil || len(salt) != 16 {
		t.Fatal(salt, err)
	}
	a, b := Credentials(salt, "here", []byte("1234")), Credentials(salt, "here", []byte("12345"))
	if a == b || a == Credentials(salt, "there", []byte("1234")) || Credentials(salt, "here", nil, []byte{}) != "" ||
		Credentials(salt, "x", []byte("1"), []byte("2")) == Credentials(salt, "x", []byte("12"), nil) || len(a) > 28 {
		t.Errorf("%q, %q", a, b)
	}
	at := time.Unix(1_800_000_000, 0)
	for want := 1; want <= 2; want++ {
		if n, err := s.Refused(a, at); n != want || err != nil {
			t.Errorf("%d, %v, want %d", n, err, want)
		}
	}
	crash(t, s)
	s = mustOpen(t, dir)
	if again, err := s.Salt(); string(again) != string(salt) || err != nil {
		t.Errorf("another salt after a restart, %v", err)
	}
	if n, last := s.Refusals(a); n != 2 || !last.Equal(at) || s.WasAccepted(a) {
		t.Errorf("%d at %v after a crash", n, last)
	}
	if n, _ := s.Refusals(b); n != 0 {
		t.Errorf("%d for another password", n)
	}
	if err := errors.Join(s.Accepted(a), s.Accepted(b), s.Accepted("")); err != nil {
		t.Fatal(err)
	}
	if n, _ := s.Refusals(a); n != 0 || !s.WasAccepted(a) || !s.WasAccepted(b) || s.WasAccepted("") {
		t.Errorf("%d after the meter took them", n)
	}
	if n, err := s.Refused("", at); n != 0 || err != nil {
		t.Errorf("no secret was refused %d times, %v", n, err)
	}
}

// TestTheOldestRefusalsMakeRoom: a tool that is given ever new passwords does
// not fill the flash.
func TestTheOldestRefusalsMakeRoom(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, t.TempDir())
	s.mu.Lock()
	for i := range maxRefusals {
		s.put(kindRefusals, fmt.Sprintf("%04d", i), []byte{1, byte(1 + i%100)})
	}
	s.mu.Unlock()
	if n, err := s.Refused("new", time.Unix(1000, 0)); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if n, _ := s.Refusals("0000"); n != 0 {
		t.Error("the oldest is still there")
	}
	if n, _ := s.Refusals("0001"); n != 1 {
		t.Error("another made room")
	}
}
