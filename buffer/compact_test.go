package buffer_test

import (
	"errors"
	"os"
	"sync"
	"testing"

	"gridgate/buffer"
	"gridgate/buffer/buffertest"
	"gridgate/internal/meter"
)

// drained gives a store whose file is much larger than what is in it: the last
// kept rows wait, with a cursor and a catalogue.
func drained(t *testing.T, s *buffer.Store, kept int) {
	t.Helper()
	for s.Last(meter.Interval) < 2_000 {
		if err := s.Append(t.Context(), meter.Append{Rows: fatRows(meter.Interval, 100)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Append(t.Context(), meter.Append{
		Rows: rowsOf(meter.Billing, 1, kept), Cursors: []meter.Cursor{{Meter: "m1", Profile: "p", Time: 7}},
		Losses: []meter.Loss{{Lane: meter.Alarm, Count: 3}},
	}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		s.SaveCatalogue(t.Context(), []byte("catalogue")),
		s.Ack(meter.Interval, s.Last(meter.Interval)), s.Flush(t.Context()),
	); err != nil {
		t.Fatal(err)
	}
}

func size(t *testing.T, dir string) int64 {
	t.Helper()
	st, err := os.Stat(fileOf(dir))
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

func sameAsDrained(t *testing.T, s *buffer.Store, kept int) {
	t.Helper()
	if n, _, err := readLane(s, meter.Billing, 0, 100); err != nil || n < uint64(kept) {
		t.Errorf("%d rows, %v", n, err)
	}
	if s.Acked(meter.Interval) != 2_000 || s.Last(meter.Alarm) != 1 {
		t.Errorf("acknowledged %d, last %d", s.Acked(meter.Interval), s.Last(meter.Alarm))
	}
	if c, ok, err := s.Cursor("m1", "", "p"); err != nil || !ok || c.Time != 7 {
		t.Errorf("cursor %+v %v %v", c, ok, err)
	}
	if c, err := s.Catalogue(); err != nil || string(c) != "catalogue" {
		t.Errorf("catalogue %q %v", c, err)
	}
}

// TestCompact makes a file smaller while others append and read.
func TestCompact(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := buffertest.OpenDir(t, dir, buffer.Options{BootID: "b", HotBytes: -1})
	if s.Wasteful() {
		t.Error("a new store is wasteful")
	}
	drained(t, s, 5000)
	before := size(t, dir)
	if !s.Wasteful() {
		t.Fatalf("%d octets, not wasteful", before)
	}
	var others sync.WaitGroup
	stop := make(chan struct{})
	others.Go(func() {
		for s.Last(meter.Billing) < 5100 {
			if err := s.Append(t.Context(), meter.Append{Rows: rowsOf(meter.Billing, s.Last(meter.Billing)+1, 1)}); err != nil {
				t.Error(err)
				return
			}
		}
		close(stop)
	})
	others.Go(func() {
		for done := false; !done; {
			select {
			case <-stop:
				done = true
			default:
			}
			if _, err := s.Stat(); err != nil {
				t.Error(err)
			}
			if _, err := s.Peek(meter.Billing, 100, 10); err != nil {
				t.Error(err)
			}
		}
	})
	for range 3 {
		if err := s.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	others.Wait()
	if after := size(t, dir); after > before/4 || s.Wasteful() {
		t.Errorf("from %d octets to %d", before, after)
	}
	sameAsDrained(t, s, 5100)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Compact(t.Context()); !errors.Is(err, buffer.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	again := buffertest.OpenDir(t, dir, buffer.Options{BootID: "b", HotBytes: -1})
	if again.Epoch() != s.Epoch() || again.Recovered() != nil {
		t.Errorf("epoch %x was %x, %v", again.Epoch(), s.Epoch(), again.Recovered())
	}
	sameAsDrained(t, again, 5100)
}

func TestCompactAtStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := buffertest.OpenDir(t, dir, buffer.Options{BootID: "b", HotBytes: -1})
	drained(t, s, 100)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before := size(t, dir)
	// What a power cut left of an earlier one.
	if err := os.WriteFile(fileOf(dir)+".compact", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := buffertest.OpenDir(t, dir, buffer.Options{BootID: "b", HotBytes: -1})
	if after := size(t, dir); after > before/4 {
		t.Errorf("from %d octets to %d", before, after)
	}
	if _, err := os.Stat(fileOf(dir) + ".compact"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the second file is still there: %v", err)
	}
	sameAsDrained(t, again, 100)
}

func TestCompactCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, _, err := buffer.Compact(dir); !errors.Is(err, buffer.ErrNoStore) {
		t.Errorf("no store: %v", err)
	}
	s := buffertest.OpenDir(t, dir, buffer.Options{BootID: "b", HotBytes: -1})
	drained(t, s, 100)
	var inUse *buffer.InUseError
	if _, _, err := buffer.Compact(dir); !errors.As(err, &inUse) {
		t.Errorf("in use: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	was := size(t, dir)
	before, after, err := buffer.Compact(dir)
	if err != nil || before != was || after != size(t, dir) || after > before/4 {
		t.Errorf("from %d to %d, %v", before, after, err)
	}
	newer := t.TempDir()
	buffer.MakeNewer(t, newer)
	var format *buffer.FormatError
	if _, _, err := buffer.Compact(newer); !errors.As(err, &format) {
		t.Errorf("newer format: %v", err)
	}
}
