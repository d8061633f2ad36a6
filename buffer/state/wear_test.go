package state

import (
	"encoding/binary"
	"testing"

	"gridgate/dlms/security"
)

// TestCommitsOfADay: hundreds of ciphered meters, each read and each pushing every
// quarter of an hour, are a few commits a day, also on the day of a start: the
// readings and the confirmations of a meter reserve its counters apart.
func TestCommitsOfADay(t *testing.T) {
	t.Parallel()
	const meters, turns, step, most = 300, 96, 1024, 50
	dir := t.TempDir()
	ours := security.Title{1}
	title := func(i int) (title security.Title) {
		binary.BigEndian.PutUint32(title[4:], uint32(i)+9)
		return title
	}
	key := func(i int) (key security.KeyID) {
		binary.BigEndian.PutUint32(key[:], uint32(i)+7)
		return key
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range meters { // known from before: one commit for all
		s.put(kindCounter, counterKey(ours, key(i)), binary.AppendUvarint(nil, uint64(i)*1000))
	}
	if err := s.commit(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	began := s.generation
	var readings, confirmations, received [meters]uint32
	draw := func(left *uint32, i int) {
		if *left == 0 {
			if _, err := s.Reserve(ours, key(i), step); err != nil {
				t.Fatal(err)
			}
			*left = step
		}
		*left--
	}
	hear := func(i int) {
		received[i]++
		if err := s.NoteReceived(title(i), key(i), security.FromServer, received[i], 256); err != nil {
			t.Fatal(err)
		}
	}
	for range turns {
		for i := range meters {
			for range 6 + i%8 {
				draw(&readings[i], i)
				hear(i)
			}
			hear(i)
			draw(&confirmations[i], i)
		}
	}
	if n := s.generation - began; n > most {
		t.Errorf("%d commits a day, want at most %d", n, most)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSendersThatNobodyKnows: whoever only encrypts can be anybody. Titles that
// are made up fill no state, and what is known goes on.
func TestSendersThatNobodyKnows(t *testing.T) {
	t.Parallel()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	known, key := security.Title{0xFF}, security.KeyID{1}
	if err := s.NoteReceived(known, key, security.FromServer, 1, 256); err != nil {
		t.Fatal(err)
	}
	refused := 0
	for i := range 2 * maxReceivedOfKey {
		var title security.Title
		binary.BigEndian.PutUint32(title[:], uint32(i))
		if s.NoteReceived(title, key, security.FromServer, 1, 256) != nil {
			refused++
		}
	}
	if len(s.records) > maxReceivedOfKey || refused < maxReceivedOfKey {
		t.Errorf("%d records, %d refused", len(s.records), refused)
	}
	if err := s.NoteReceived(known, key, security.FromServer, 2, 0); err != nil {
		t.Errorf("of who is known: %v", err)
	}
	if _, err := s.Reserve(known, key, 1); err != nil {
		t.Errorf("counters: %v", err)
	}
}
