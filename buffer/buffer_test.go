package buffer_test

import (
	"errors"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gridgate/buffer"
	"gridgate/buffer/buffertest"
	"gridgate/internal/meter"
)

func TestAppendPeekAck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := buffertest.OpenDir(t, dir, buffer.Options{BootID: "boot-a"})
	if s.Epoch() == 0 || s.Boot() != 1 || s.Recovered() != nil {
		t.Fatalf("epoch %d, boot %d, recovered %v", s.Epoch(), s.Boot(), s.Recovered())
	}
	a := meter.Append{
		Rows:    append(rowsOf(meter.Interval, 1, 3), rowsOf(meter.Alarm, 1, 2)...),
		Cursors: []meter.Cursor{{Meter: "m1", Serial: "S", Profile: "1-0:99.1.0*255/7:2", Time: 77}},
		Losses:  []meter.Loss{{Lane: meter.Instant, Reason: meter.MemoryFull, Count: 12}},
	}
	if err := s.Append(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	want := map[meter.Lane]meter.Span{
		meter.Alarm:    {Lane: meter.Alarm, Rows: rowsOf(meter.Alarm, 1, 2), Runs: []meter.Run{{First: 1, Count: 2}}, Last: 2},
		meter.Billing:  {Lane: meter.Billing},
		meter.Interval: {Lane: meter.Interval, Rows: rowsOf(meter.Interval, 1, 3), Runs: []meter.Run{{First: 1, Count: 3}}, Last: 3},
		meter.Instant:  {Lane: meter.Instant, Holes: []meter.Hole{{First: 1, Last: 1, Reason: meter.MemoryFull, Count: 12}}, Last: 1},
	}
	check := func(s *buffer.Store) {
		t.Helper()
		for lane, want := range want {
			got, err := s.Peek(lane, 0, 100)
			if d := cmp.Diff(want, got); err != nil || d != "" {
				t.Errorf("%s: %v\n%s", lane, err, d)
			}
		}
		c, ok, err := s.Cursor("m1", "S", "1-0:99.1.0*255/7:2")
		if err != nil || !ok || c != a.Cursors[0] {
			t.Errorf("cursor %+v %v %v", c, ok, err)
		}
		if _, ok, err := s.Cursor("m1", "other", "1-0:99.1.0*255/7:2"); ok || err != nil {
			t.Errorf("cursor of another serial: %v %v", ok, err)
		}
	}
	check(s)
	for _, c := range []struct {
		through, acked uint64
		fails          bool
	}{{2, 2, false}, {1, 2, false}, {0, 2, false}, {4, 2, true}, {math.MaxUint64, 2, true}, {3, 3, false}} {
		err := s.Ack(meter.Interval, c.through)
		if (err != nil) != c.fails || c.fails && !errors.Is(err, buffer.ErrBeyond) || s.Acked(meter.Interval) != c.acked {
			t.Errorf("ack %d: %v, acked %d, want %d", c.through, err, s.Acked(meter.Interval), c.acked)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		s.Append(t.Context(), a), s.Ack(meter.Alarm, 1), s.Flush(t.Context()), s.SaveCatalogue(t.Context(), nil),
		func() error { _, err := s.Peek(meter.Alarm, 0, 1); return err }(),
		func() error { _, err := s.Stat(); return err }(),
	} {
		if !errors.Is(err, buffer.ErrClosed) {
			t.Errorf("after close: %v", err)
		}
	}

	again := buffertest.OpenDir(t, dir, buffer.Options{BootID: "boot-b"})
	if again.Epoch() != s.Epoch() || again.Boot() != 2 || again.Acked(meter.Interval) != 3 || again.Last(meter.Interval) != 3 {
		t.Errorf("reopened: epoch %x was %x, boot %d, acked %d", again.Epoch(), s.Epoch(), again.Boot(), again.Acked(meter.Interval))
	}
	check(again) // acknowledged rows are still there: the hot store
}

func TestUncleanStopIsDeclared(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	run(t, "die", dir) // appends three instant rows and ends without Close
	s := buffertest.OpenDir(t, dir, buffer.Options{})
	span, err := s.Peek(meter.Instant, 0, 10)
	want := meter.Span{
		Lane: meter.Instant, Rows: rowsOf(meter.Instant, 1, 3), Runs: []meter.Run{{First: 1, Count: 3}},
		Holes: []meter.Hole{{First: 4, Last: 4, Reason: meter.UncleanStop}}, Last: 4,
	}
	if d := cmp.Diff(want, span); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
	for _, lane := range []meter.Lane{meter.Alarm, meter.Billing, meter.Interval} {
		if s.Last(lane) != 0 {
			t.Errorf("%s: last %d", lane, s.Last(lane))
		}
	}
}

func TestPeekPortions(t *testing.T) {
	t.Parallel()
	s := buffertest.Open(t, buffer.Options{})
	const n = 5000 // several chunks in one append, then small ones
	appendN(t, s, meter.Interval, n)
	for i := range 20 {
		appendN(t, s, meter.Interval, 1+i)
	}
	if err := s.Append(t.Context(), meter.Append{Losses: []meter.Loss{{Lane: meter.Interval, Count: 3}}}); err != nil {
		t.Fatal(err)
	}
	appendN(t, s, meter.Interval, 7)
	total := s.Last(meter.Interval)
	for _, most := range []int{1, 7, 100, 2048, 100_000} {
		rows, holes, err := readLane(s, meter.Interval, 0, most)
		if err != nil || rows != total-1 || len(holes) != 1 || holes[0].First != total-7 {
			t.Errorf("portions of %d: %d rows of %d, holes %v, %v", most, rows, total, holes, err)
		}
	}
	for _, after := range []uint64{1, 2047, 2048, n - 1, n, n + 1, total - 8, total - 7, total - 1, total, total + 1, math.MaxUint64} {
		if _, _, err := readLane(s, meter.Interval, after, 50); err != nil {
			t.Errorf("after %d: %v", after, err)
		}
	}
	st, err := s.Stat()
	if err != nil || st.Lanes[meter.Interval].Chunks < 22 || st.Lanes[meter.Interval].Rows != total-1 {
		t.Errorf("%+v %v", st, err)
	}
}

// TestPeekedRowsAreTheCallers pins that changing what Peek gave changes
// nothing that is kept.
func TestPeekedRowsAreTheCallers(t *testing.T) {
	t.Parallel()
	s := buffertest.Open(t, buffer.Options{})
	appendN(t, s, meter.Interval, 10)
	for range 2 {
		span, err := s.Peek(meter.Interval, 0, 10)
		if err != nil || !slices.Equal(span.Rows, rowsOf(meter.Interval, 1, 10)) {
			t.Fatalf("%v %v", span.Rows, err)
		}
		clear(span.Rows)
	}
}

func TestHotStoreIsBounded(t *testing.T) {
	t.Parallel()
	const hot = 64 << 10
	s := buffertest.Open(t, buffer.Options{HotBytes: hot})
	size := func() (hotBytes, bytes uint64, file int64) {
		st, err := s.Stat()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range st.Lanes {
			hotBytes, bytes = hotBytes+l.HotBytes, bytes+l.Bytes
		}
		return hotBytes, bytes, st.FileBytes
	}
	for i := range 150 {
		lane := meter.Lanes()[i%4]
		appendN(t, s, lane, 400)
		if i > 100 { // by then the backlog is larger than what may stay
			if err := s.Ack(lane, s.Last(lane)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	hotBytes, bytes, file := size()
	if hotBytes > hot || hotBytes < hot/2 || bytes != hotBytes {
		t.Errorf("hot %d of %d, kept %d", hotBytes, hot, bytes)
	}
	// What is gone is declared, what stays reads, and nothing counts twice.
	for _, lane := range meter.Lanes() {
		_, holes, err := readLane(s, lane, 0, 1000)
		if err != nil || len(holes) != 1 || holes[0].Reason != meter.Quota || holes[0].First != 1 {
			t.Errorf("%s: holes %v, %v", lane, holes, err)
		}
	}
	// The room is used again: the file does not grow in steady state.
	for i := range 100 {
		lane := meter.Lanes()[i%4]
		appendN(t, s, lane, 400)
		if err := s.Ack(lane, s.Last(lane)); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, later := size(); later > file {
		t.Errorf("file grew from %d to %d", file, later)
	}
}

func TestFullAtMaxSize(t *testing.T) {
	t.Parallel()
	s := buffertest.Open(t, buffer.Options{MaxSize: 5 << 20, HotBytes: -1})
	fill := func() (n int) {
		for {
			err := s.Append(t.Context(), meter.Append{Rows: fatRows(meter.Interval, 20)})
			if errors.Is(err, buffer.ErrFull) {
				return n
			}
			if err != nil || n > 10_000 {
				t.Fatal(n, err)
			}
			n++
		}
	}
	first := fill()
	if first < 10 {
		t.Fatalf("full after %d appends", first)
	}
	last := s.Last(meter.Interval)
	if rows, err := countLane(s, meter.Interval); err != nil || rows != last {
		t.Fatalf("%d rows of %d: %v", rows, last, err)
	}
	// Acknowledgements always go through, and make room.
	for range 50 {
		if err := s.Ack(meter.Interval, s.Acked(meter.Interval)+1); err != nil {
			t.Fatal(err)
		}
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Ack(meter.Interval, last); err != nil {
		t.Fatal(err)
	}
	if again := fill(); again < first*3/4 {
		t.Errorf("after the drain %d appends went in, before %d", again, first)
	}
}

func TestRowsThatNoStoreHolds(t *testing.T) {
	t.Parallel()
	s := buffertest.Open(t, buffer.Options{})
	rows := rowsOf(meter.Interval, 1, 6)
	rows[0].Meter = meter.ID(strings.Repeat("x", 300))
	rows[1].Channel = "\xff"
	rows[2].Value = meter.Value{Kind: 200}
	rows[3].Value = meter.TextValue(strings.Repeat("x", 1<<20))
	if err := s.Append(t.Context(), meter.Append{Rows: rows}); err != nil {
		t.Fatal(err)
	}
	span, err := s.Peek(meter.Interval, 0, 10)
	if err != nil || len(span.Rows) != 2 || !slices.Equal(span.Holes, []meter.Hole{{First: 1, Last: 1, Count: 4}}) {
		t.Errorf("%+v %v", span, err)
	}
	if err := s.Append(t.Context(), meter.Append{Rows: []meter.Row{{Lane: 9}}}); err == nil {
		t.Error("a lane that does not exist was taken")
	}
	if err := s.Append(t.Context(), meter.Append{Losses: []meter.Loss{{Lane: 9}}}); err == nil {
		t.Error("a loss in a lane that does not exist was taken")
	}
	// One row of long text is larger than a chunk should be, and still goes in.
	long := rowOf(meter.Alarm, 1)
	text := make([]byte, 60<<10)
	for i := range text {
		text[i] = byte(i * i >> 3 * 37)
	}
	long.Value = meter.OctetsValue(text)
	if err := s.Append(t.Context(), meter.Append{Rows: []meter.Row{long, rowOf(meter.Alarm, 2)}}); err != nil {
		t.Fatal(err)
	}
	if span, err := s.Peek(meter.Alarm, 0, 9); err != nil || len(span.Rows) != 2 || span.Rows[0] != long {
		t.Errorf("%d rows, %v", len(span.Rows), err)
	}
}

func TestBoots(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i, c := range []struct {
		id   string
		want uint32
	}{{"a", 1}, {"a", 1}, {"b", 2}, {"b", 2}, {"", 3}, {"", 4}, {"c", 5}} {
		s, err := buffer.Open(dir, buffer.Options{BootID: c.id})
		if err != nil || s.Boot() != c.want {
			t.Fatalf("open %d as %q: boot %d, want %d, %v", i, c.id, s.Boot(), c.want, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("closed twice: %v", err)
		}
	}
	st, err := buffer.Inspect(dir)
	if err != nil || st.Boots != 5 || !st.Clean {
		t.Errorf("%+v %v", st, err)
	}
}

// TestFewCommits pins what costs flash: acknowledgements ride along, and
// nothing is written when there is nothing to write.
func TestFewCommits(t *testing.T) {
	t.Parallel()
	s := buffertest.Open(t, buffer.Options{})
	commits := func() uint64 {
		st, err := s.Stat()
		if err != nil {
			t.Fatal(err)
		}
		return st.Commits
	}
	start := commits()
	for range 10 {
		appendN(t, s, meter.Instant, 5)
		if err := s.Ack(meter.Instant, s.Last(meter.Instant)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Append(t.Context(), meter.Append{}); err != nil { // the tenth acknowledgement waits
		t.Fatal(err)
	}
	for range 5 {
		if err := errors.Join(s.Flush(t.Context()), s.Append(t.Context(), meter.Append{}), s.Ack(meter.Instant, 3)); err != nil {
			t.Fatal(err)
		}
	}
	if got := commits() - start; got != 11 {
		t.Errorf("%d commits, want 11", got)
	}
}

// TestReadersBesideAWriter is for the race detector.
func TestReadersBesideAWriter(t *testing.T) {
	t.Parallel()
	s := buffertest.Open(t, buffer.Options{HotBytes: 32 << 10})
	const n = 40_000
	var wg sync.WaitGroup
	for _, lane := range []meter.Lane{meter.Interval, meter.Instant} {
		wg.Go(func() {
			var taken uint64
			for taken < n {
				span, err := s.Peek(lane, taken, 500)
				if err != nil {
					t.Error(err)
					return
				}
				if span.Last == 0 {
					continue
				}
				for i, r := range span.Rows {
					if r != rowOf(lane, span.Runs[0].First+uint64(i)) {
						t.Errorf("%s: row %d is %+v", lane, span.Runs[0].First+uint64(i), r)
						return
					}
				}
				taken = span.Last
				if err := s.Ack(lane, taken); err != nil {
					t.Error(err)
					return
				}
				if _, err := s.Stat(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for first := uint64(1); first <= n; first += 1000 {
		rows := append(rowsOf(meter.Interval, first, 1000), rowsOf(meter.Instant, first, 1000)...)
		if err := s.Append(t.Context(), meter.Append{Rows: rows}); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
}

func TestDumpAndInspect(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := buffertest.OpenDir(t, dir, buffer.Options{})
	appendN(t, s, meter.Interval, 3000)
	appendN(t, s, meter.Alarm, 2)
	var inUse *buffer.InUseError
	if err := buffer.Dump(dir, nil, nil); !errors.As(err, &inUse) || inUse.PID != os.Getpid() {
		t.Errorf("dump of a store in use: %v", err)
	}
	if _, err := buffer.Open(dir, buffer.Options{}); !errors.As(err, &inUse) || !strings.Contains(err.Error(), "gridgate status") {
		t.Errorf("second open: %v", err)
	}
	live, err := s.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(fileOf(dir))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[meter.Lane]uint64{}
	err = buffer.Dump(dir, nil, func(n uint64, r meter.Row) error {
		if seen[r.Lane]++; n != seen[r.Lane] || r != rowOf(r.Lane, n) {
			t.Fatalf("row %d of %s: %+v", n, r.Lane, r)
		}
		return nil
	})
	if err != nil || seen[meter.Interval] != 3000 || seen[meter.Alarm] != 2 {
		t.Errorf("%v %v", seen, err)
	}
	stop := errors.New("stop")
	if err := buffer.Dump(dir, []meter.Lane{meter.Alarm}, func(_ uint64, r meter.Row) error {
		if r.Lane != meter.Alarm {
			t.Errorf("row of lane %s", r.Lane)
		}
		return stop
	}); !errors.Is(err, stop) {
		t.Errorf("dump stopped with %v", err)
	}
	st, err := buffer.Inspect(dir)
	live.Clean, live.Commits, live.FreeBytes = true, live.Commits+1, st.FreeBytes
	if d := cmp.Diff(live, st); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
	if after, err := os.ReadFile(fileOf(dir)); err != nil || !slices.Equal(before, after) {
		t.Errorf("looking at the store changed it: %v", err)
	}
	if _, err := buffer.Inspect(t.TempDir()); !errors.Is(err, buffer.ErrNoStore) {
		t.Errorf("no store: %v", err)
	}
}
