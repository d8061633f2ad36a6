package buffer

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"gridgate/internal/meter"
)

func someRows(n int) []meter.Row {
	rows := make([]meter.Row, n)
	for i := range rows {
		rows[i] = meter.Row{
			Meter: meter.ID(fmt.Sprint("m", i%3)), Serial: "S", Channel: "1-0:1.8.0*255/3:2",
			Stamp: meter.Stamp{Time: 1000 + int64(i)*60_000, Boot: 2, Mono: 5 + int64(i)*60_000, Bound: 3},
			Value: meter.UintValue(uint64(i*i), -1), Unit: meter.WattHour, Lane: meter.Billing,
		}
	}
	return rows
}

// TestChunkHeader pins the octets of the header; those of the dictionary and
// the body are internal/column's.
func TestChunkHeader(t *testing.T) {
	t.Parallel()
	b, err := appendChunk([]byte("before"), meter.Billing, 0x0102, 7, someRows(2))
	if err != nil {
		t.Fatal(err)
	}
	b = b[len("before"):]
	want := "GGCK\x02\x01\x00\x01" + "\x02\x01\x00\x00\x00\x00\x00\x00" + "\x07\x00\x00\x00\x00\x00\x00\x00" +
		"\xe8\x03\x00\x00\x00\x00\x00\x00" + "\x48\xee\x00\x00\x00\x00\x00\x00" + "\x02\x00\x00\x00"
	if string(b[:44]) != want {
		t.Errorf("header % x\nwant   % x", b[:44], want)
	}
	info, rows, err := parseChunk(b)
	if err != nil || !slices.Equal(rows, someRows(2)) || info.last() != 0x0103 || info.commit != 7 || info.oldest != 1000 || info.newest != 61_000 {
		t.Errorf("%+v %v %v", info, rows, err)
	}
	clear(b)
	if !slices.Equal(rows, someRows(2)) {
		t.Error("rows alias the chunk")
	}
}

func TestChunkTruncatedAndFlipped(t *testing.T) {
	t.Parallel()
	b, err := appendChunk(nil, meter.Billing, 1, 1, someRows(50))
	if err != nil {
		t.Fatal(err)
	}
	for n := range b {
		if _, _, err := parseChunk(b[:n:n]); !errors.Is(err, errChunk) {
			t.Fatalf("cut to %d octets: %v", n, err)
		}
	}
	for i := range len(b) * 8 {
		b[i/8] ^= 1 << (i % 8)
		if _, _, err := parseChunk(b); !errors.Is(err, errChunk) {
			t.Fatalf("bit %d flipped: %v", i, err)
		}
		b[i/8] ^= 1 << (i % 8)
	}
}

func TestCutChunk(t *testing.T) {
	t.Parallel()
	rows := someRows(3 * maxChunkRows)
	for i := range rows { // octets that do not deflate
		rows[i].Value = meter.UintValue(uint64(i)*0x9E3779B97F4A7C15, 0)
	}
	var got []meter.Row
	for rest, first := rows, uint64(1); len(rest) > 0; {
		b, n, err := cutChunk(nil, meter.Billing, first, 1, rest)
		if err != nil || len(b) > maxChunkBytes || n < 500 {
			t.Fatalf("%d rows in %d octets: %v", n, len(b), err)
		}
		_, part, err := parseChunk(b)
		if err != nil {
			t.Fatal(err)
		}
		got, rest, first = append(got, part...), rest[n:], first+uint64(n)
	}
	if !slices.Equal(got, rows) {
		t.Error("the chunks do not add up to the rows")
	}
}

func FuzzParseChunk(f *testing.F) {
	for _, n := range []int{1, 30} {
		b, err := appendChunk(nil, meter.Billing, 9, 1, someRows(n))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= chunkHeader { // past the checksum
			sum := chunkSum(b)
			b[52], b[53], b[54], b[55] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
		}
		info, rows, err := parseChunk(b)
		if err != nil {
			return
		}
		again, err := appendChunk(nil, info.lane, info.first, info.commit, rows)
		if err != nil {
			t.Fatalf("rows that were read cannot be written: %v", err)
		}
		info2, rows2, err := parseChunk(again)
		if err != nil || !slices.Equal(rows, rows2) || info2.last() != info.last() {
			t.Errorf("%v\n%v\n%v", err, rows, rows2)
		}
	})
}

func TestRecords(t *testing.T) {
	t.Parallel()
	l := laneState{9, 8, 7, 6, 5, 4, 3, 2, 1, 7, 8}
	b := l.append(nil)
	if got, err := parseLaneState(b); err != nil || got != l || len(b) != laneStateLen+8 {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := parseLaneState(append(b, 1, 2, 3)); err != nil || got != l {
		t.Errorf("counters with more behind: %v", err)
	}
	for n := range laneStateLen {
		if _, err := parseLaneState(b[:n]); !errors.Is(err, ErrDamaged) {
			t.Errorf("counters cut to %d: %v", n, err)
		}
	}
	h := meter.Hole{First: 5, Last: 9, Reason: meter.Quota, Count: 77}
	sealed := sealHole(h)
	want := "\x01\x03\x09\x00\x00\x00\x00\x00\x00\x00\x4d\x00\x00\x00\x00\x00\x00\x00"
	if got, err := parseHole(5, sealed); err != nil || got != h || string(sealed[:len(sealed)-sealLen]) != want {
		t.Errorf("% x %+v %v", sealed, got, err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := parseHole(5, bad); err == nil {
			t.Errorf("octet %d flipped", i)
		}
		if _, err := parseHole(5, sealed[:i]); err == nil {
			t.Errorf("cut to %d", i)
		}
	}
	if _, err := parseHole(6, sealed); err == nil {
		t.Error("a hole under another key was taken")
	}
}

func TestDiskError(t *testing.T) {
	t.Parallel()
	text := fmt.Errorf("file resize error: %s", syscall.ENOSPC) //nolint:errorlint // as bbolt does
	for _, err := range []error{text, &os.PathError{Op: "write", Err: syscall.ENOSPC}} {
		if got := diskError(err); !errors.Is(got, syscall.ENOSPC) || !errors.Is(got, ErrFull) {
			t.Errorf("%v became %v", err, got)
		}
	}
	if got := diskError(os.ErrClosed); errors.Is(got, ErrFull) {
		t.Errorf("%v became %v", os.ErrClosed, got)
	}
}

// TestTreeAgreesWithBbolt compares the walk with bbolt's own check on a store
// that has grown, drained and grown again.
func TestTreeAgreesWithBbolt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open(dir, Options{HotBytes: 32 << 10})
	if err != nil {
		t.Fatal(err)
	}
	var boltFree int
	for round := range 40 {
		for i := range 5 {
			n := []int{3, 200, 3000}[(round+i)%3]
			cursors := []meter.Cursor{{Meter: meter.ID(fmt.Sprint("meter-", round*5+i)), Profile: "p", Time: 1}}
			if err := s.Append(t.Context(), meter.Append{Rows: someRows(n), Cursors: cursors}); err != nil {
				t.Fatal(err)
			}
		}
		if round%4 == 3 {
			if err := errors.Join(s.Ack(meter.Billing, s.Last(meter.Billing)), s.Flush(t.Context())); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.db.View(func(tx *bolt.Tx) error {
			for err := range tx.Check() {
				return err
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(s.path)
		if err != nil {
			t.Fatal(err)
		}
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		info, err := checkTree(f, st.Size())
		stats := s.db.Stats()
		boltFree = stats.FreePageN + stats.PendingPageN
		if err != nil || info.leaks != 0 || info.free != uint64(boltFree) {
			t.Fatalf("round %d: %+v, bbolt counts %d free: %v", round, info, boltFree, err)
		}
		_ = f.Close()
	}
	if boltFree == 0 {
		t.Error("nothing was ever free")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFaultInTheMap cuts the file short under an open store: an error, not a
// dead process, and the store can be opened anew.
func TestFaultInTheMap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := s.Append(t.Context(), meter.Append{Rows: someRows(3000)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(filepath.Join(dir, fileName), 2*pageSize); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Peek(meter.Billing, 0, 10); !errors.Is(err, ErrDamaged) {
		t.Errorf("peek: %v", err)
	}
	for range 2 {
		if err := s.Append(t.Context(), meter.Append{Rows: someRows(3)}); !errors.Is(err, ErrDamaged) {
			t.Errorf("append: %v", err)
		}
	}
	_ = s.Close()
	again, err := Open(dir, Options{Timeout: 100 * time.Millisecond})
	if err != nil || again.Recovered() == nil || again.Epoch() == s.Epoch() {
		t.Fatalf("open after: %v", err)
	}
	if err := again.Append(t.Context(), meter.Append{Rows: someRows(3)}); err != nil {
		t.Error(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// TestHandedOutIsRemembered pins that what may be on its way to the fog is known
// after a stop that was none, as far as a commit came after, and that counters
// without it, of the first version, read.
func TestHandedOutIsRemembered(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open(dir, Options{BootID: "b"})
	if err != nil {
		t.Fatal(err)
	}
	add := func() {
		t.Helper()
		rows := make([]meter.Row, 10)
		for i := range rows {
			rows[i] = meter.Row{Meter: "m", Channel: "x", Lane: meter.Interval, Value: meter.UintValue(uint64(i), 0)}
		}
		if err := s.Append(t.Context(), meter.Append{Rows: rows}); err != nil {
			t.Fatal(err)
		}
	}
	add()
	if _, err := s.Peek(meter.Interval, 0, 7); err != nil {
		t.Fatal(err)
	}
	add()
	if err := s.shut(); err != nil { // as a kill leaves it
		t.Fatal(err)
	}
	if s, err = Open(dir, Options{BootID: "b"}); err != nil {
		t.Fatal(err)
	}
	if got := s.lanes[meter.Interval].handed; got != 7 {
		t.Errorf("handed out through %d, want 7", got)
	}
	err = s.commit(commitAlways, func(w *writeTx) error {
		entries, err := w.thinnable(meter.Interval)
		for i := range entries {
			if entries[i].first <= 7 {
				t.Errorf("rows from %d on would be thinned", entries[i].first)
			}
		}
		return err
	})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	if l, err := parseLaneState(laneState{last: 3, handed: 2}.append(nil)[:laneStateLen]); err != nil || l != (laneState{last: 3}) {
		t.Errorf("%+v %v", l, err)
	}
}
