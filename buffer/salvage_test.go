package buffer_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gridgate/buffer"
	"gridgate/buffer/buffertest"
	"gridgate/internal/meter"
)

// wreckRoot makes the tree's root unreadable, in all copies of it.
func wreckRoot(file []byte) []byte {
	file = bytes.Clone(file)
	for id := range 2 {
		root := binary.NativeEndian.Uint64(file[id*4096+16+16:])
		if at := root * 4096; at < uint64(len(file)) {
			copy(file[at+16:], bytes.Repeat([]byte{0xff}, 64))
		}
	}
	return file
}

// original gives the number that a row of rowOf was made for.
func original(r *meter.Row) uint64 { return uint64(r.Stamp.Mono) / 11 }

// salvaged reads a lane and gives the numbers that its rows were made for, and
// the holes. Every row must be as it was.
func salvaged(t *testing.T, s *buffer.Store, lane meter.Lane, after uint64) (numbers []uint64, holes []meter.Hole) {
	t.Helper()
	for {
		span, err := s.Peek(lane, after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if span.Last == 0 {
			return numbers, holes
		}
		for i := range span.Rows {
			r := &span.Rows[i]
			n := original(r)
			if strings.HasPrefix(string(r.Channel), "event.") {
				continue
			}
			if *r != rowOf(lane, n) {
				t.Fatalf("lane %s: row %+v is not what was stored", lane, r)
			}
			numbers = append(numbers, n)
		}
		after = span.Last
		holes = append(holes, span.Holes...)
	}
}

func numbers(from, to uint64) (all []uint64) {
	for n := from; n <= to; n++ {
		all = append(all, n)
	}
	return all
}

// waiting fills a store: in each lane three chunks of 100 rows, of which the
// first 150 are acknowledged, and a cursor.
func waiting(t *testing.T, dir string) []byte {
	t.Helper()
	s, err := buffer.Open(dir, buffer.Options{BootID: "one"})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		for _, lane := range meter.Lanes() {
			appendN(t, s, lane, 100)
		}
	}
	for _, lane := range meter.Lanes() {
		c := meter.Cursor{Meter: meter.ID(lane.String()), Serial: "SN", Profile: "1-0:99.1.0*255/7:2", Time: rowOf(lane, 300).Stamp.Time}
		c.Gaps = c.Gaps.With(meter.Gap{From: 1000, To: 2000})
		if err := errors.Join(s.Ack(lane, 150), s.Append(t.Context(), meter.Append{Cursors: []meter.Cursor{c}})); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(fileOf(dir))
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func writeFile(t *testing.T, dir string, file []byte) {
	t.Helper()
	if err := os.WriteFile(fileOf(dir), file, 0o600); err != nil {
		t.Fatal(err)
	}
}

// report is what an agent would tell the fog.
func report(r buffer.Recovery) []meter.Row {
	return []meter.Row{{
		Meter: "gateway", Channel: "event.buffer-damaged", Lane: meter.Alarm,
		Value: meter.TextValue(fmt.Sprintf("%d chunks, %d lost", r.Chunks, r.Lost)),
	}}
}

// TestSalvage breaks the root of the tree, and nothing else: all rows are there
// again, those that were acknowledged are not handed out, the cursors stand.
func TestSalvage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := waiting(t, dir)
	writeFile(t, dir, wreckRoot(file))
	s := buffertest.OpenDir(t, dir, buffer.Options{BootID: "one", Report: report})
	r := s.Recovered()
	if r == nil || r.Rows != 1200 || r.Waiting != 600 || r.Lost != 0 || r.Unsure || r.NoRoom != 0 || r.Err != nil || r.Cursors != 4 {
		t.Fatalf("recovered: %+v", r)
	}
	for _, lane := range meter.Lanes() {
		got, holes := salvaged(t, s, lane, s.Acked(lane))
		if !slices.Equal(got, numbers(151, 300)) || s.Acked(lane) != 150 {
			t.Errorf("lane %s: after %d: rows %v", lane, s.Acked(lane), got)
		}
		for _, h := range holes {
			if lane != meter.Instant || h.Reason != meter.UncleanStop {
				t.Errorf("lane %s: hole %+v", lane, h)
			}
		}
		if got, _ := salvaged(t, s, lane, 0); !slices.Equal(got, numbers(1, 300)) {
			t.Errorf("lane %s: hot rows %v", lane, got)
		}
		c, ok, err := s.Cursor(meter.ID(lane.String()), "SN", "1-0:99.1.0*255/7:2")
		if err != nil || !ok || c.Time != rowOf(lane, 300).Stamp.Time || len(c.Gaps.List()) != 1 || c.Gaps[0] != (meter.Gap{From: 1000, To: 2000}) {
			t.Errorf("lane %s: cursor %+v %v %v", lane, c, ok, err)
		}
	}
	span, err := s.Peek(meter.Alarm, 300, 10)
	if err != nil || len(span.Rows) != 1 || span.Rows[0].Channel != "event.buffer-damaged" || span.Rows[0].Stamp.Boot != s.Boot() {
		t.Errorf("the fog is told %+v %v", span, err)
	}
	if s.Boot() != 1 && s.Boot() != 2 { // 2 when the table of boots hung in what was broken
		t.Errorf("boot %d", s.Boot())
	}
	appendN(t, s, meter.Billing, 3)
}

// TestSalvageInPart loses a chunk with the root: it is declared, and the cursors
// are told to read again what was in it.
func TestSalvageInPart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := wreckRoot(waiting(t, dir))
	at := bytes.Index(file, []byte("GGCK\x02\x02\x00\x01\xc9\x00\x00\x00")) // interval, from 201 on
	if at < 0 {
		t.Fatal("no such chunk")
	}
	for at := at; at >= 0; {
		file[at+70] ^= 1
		next := bytes.Index(file[at+8:], []byte("GGCK\x02\x02\x00\x01\xc9\x00\x00\x00"))
		if next < 0 {
			break
		}
		at += 8 + next
	}
	writeFile(t, dir, file)
	s := buffertest.OpenDir(t, dir, buffer.Options{})
	if r := s.Recovered(); r == nil || r.Rows != 1100 || r.Lost != 100 || r.Unsure {
		t.Fatalf("recovered: %+v", r)
	}
	got, holes := salvaged(t, s, meter.Interval, s.Acked(meter.Interval))
	want := meter.Hole{First: 201, Last: 201, Reason: meter.Damaged, Count: 100}
	if !slices.Equal(got, numbers(151, 200)) || len(holes) != 1 || holes[0] != want {
		t.Errorf("rows %v, holes %+v", got, holes)
	}
	oldest := rowOf(meter.Interval, 201).Stamp.Time
	for n := uint64(202); n <= 300; n++ {
		oldest = min(oldest, rowOf(meter.Interval, n).Stamp.Time)
	}
	c, ok, err := s.Cursor("interval", "SN", "1-0:99.1.0*255/7:2")
	if err != nil || !ok || c.Gaps[0].From >= oldest || c.Gaps[0].To != c.Time {
		t.Errorf("cursor %+v %v %v: nothing asks for rows from %d on", c, ok, err, oldest)
	}
}

// TestSalvageWithoutCounters finds no counters: everything goes out again, and
// the fog is told that something may be missing.
func TestSalvageWithoutCounters(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := bytes.ReplaceAll(wreckRoot(waiting(t, dir)), []byte("lane/"), []byte("xxxxx"))
	writeFile(t, dir, file)
	s := buffertest.OpenDir(t, dir, buffer.Options{})
	if r := s.Recovered(); r == nil || r.Rows < 1200 || r.Waiting != r.Rows || !r.Unsure {
		t.Fatalf("recovered: %+v", r)
	}
	for _, lane := range meter.Lanes() {
		got, holes := salvaged(t, s, lane, 0)
		if slices.Sort(got); !slices.Equal(slices.Compact(got), numbers(1, 300)) {
			t.Errorf("lane %s: rows %v", lane, got)
		}
		if !slices.ContainsFunc(holes, func(h meter.Hole) bool { return h.Reason == meter.Damaged && h.Count == 0 }) {
			t.Errorf("lane %s: holes %+v", lane, holes)
		}
	}
}

// TestSalvageWithoutRoom salvages into a store that is smaller than what reads:
// what matters most is there, the rest is declared, and the file is kept.
func TestSalvageWithoutRoom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := buffer.Open(dir, buffer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err := s.Append(t.Context(), meter.Append{Rows: fatRows(meter.Interval, 10)}); err != nil {
			t.Fatal(err)
		}
	}
	appendN(t, s, meter.Alarm, 50)
	appendN(t, s, meter.Billing, 50)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(fileOf(dir))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, wreckRoot(file))
	s = buffertest.OpenDir(t, dir, buffer.Options{MaxSize: 4 << 20})
	r := s.Recovered()
	if r == nil || r.NoRoom == 0 || r.NoRoom+r.Rows != 1100 || r.Err != nil {
		t.Fatalf("recovered: %+v", r)
	}
	for _, lane := range []meter.Lane{meter.Alarm, meter.Billing} {
		if got, _ := salvaged(t, s, lane, 0); !slices.Equal(got, numbers(1, 50)) {
			t.Errorf("lane %s: %v", lane, got)
		}
	}
	var declared uint64
	for after := uint64(0); after < s.Last(meter.Interval); {
		span, err := s.Peek(meter.Interval, after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range span.Holes {
			declared += h.Count
		}
		after = span.Last
	}
	if declared != r.NoRoom {
		t.Errorf("%d rows declared of %d", declared, r.NoRoom)
	}
}

// TestSalvageInterrupted leaves what a power cut leaves at each step.
func TestSalvageInterrupted(t *testing.T) {
	t.Parallel()
	whole := t.TempDir()
	waiting(t, whole)
	good, err := os.ReadFile(fileOf(whole))
	if err != nil {
		t.Fatal(err)
	}
	for name, lay := range map[string]func(dir string) error{
		"half made": func(dir string) error {
			return errors.Join(os.WriteFile(fileOf(dir), wreckRoot(good), 0o600), os.WriteFile(fileOf(dir)+".salvage", good[:9000], 0o600))
		},
		"not yet named": func(dir string) error {
			return errors.Join(os.WriteFile(fileOf(dir)+".damaged-20200101T000000Z", wreckRoot(good), 0o600), os.WriteFile(fileOf(dir)+".salvage", good, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := lay(dir); err != nil {
				t.Fatal(err)
			}
			s := buffertest.OpenDir(t, dir, buffer.Options{})
			for _, lane := range meter.Lanes() {
				if got, _ := salvaged(t, s, lane, 0); !slices.Equal(got, numbers(1, 300)) {
					t.Errorf("lane %s: rows %v", lane, got)
				}
			}
			if left, _ := filepath.Glob(fileOf(dir) + ".salvage"); left != nil {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestChild lets the checking child end in every way.
func TestChild(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		child []string
		aside string
	}{
		"sound":            {[]string{self, buffer.ChildVerb}, ""},
		"not there":        {[]string{"/nonexistent"}, ""},
		"cannot look":      {[]string{"/bin/sh", "-c", "exit 1"}, ""},
		"killed by others": {[]string{"/bin/sh", "-c", "kill -KILL $$"}, ""},
		"finds damage":     {[]string{"/bin/sh", "-c", "echo page 7 is upside down >&2; exit 3"}, "page 7 is upside down"},
		"dies of it":       {[]string{"/bin/sh", "-c", "echo gone >&2; kill -SEGV $$"}, "died"},
		"panics":           {[]string{"/bin/sh", "-c", "exit 2"}, "died"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			run(t, "die", dir) // an unclean stop
			s := buffertest.OpenDir(t, dir, buffer.Options{Child: test.child})
			r := s.Recovered()
			if (r != nil) != (test.aside != "") || r != nil && !strings.Contains(r.Reason.Error(), test.aside) {
				t.Fatalf("recovered: %+v", r)
			}
			if got, _ := salvaged(t, s, meter.Instant, 0); !slices.Equal(got, numbers(1, 3)) {
				t.Errorf("rows %v", got)
			}
		})
	}
	t.Run("not after a clean stop", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		waiting(t, dir)
		s := buffertest.OpenDir(t, dir, buffer.Options{Child: []string{"/bin/sh", "-c", "exit 3"}})
		if s.Recovered() != nil {
			t.Errorf("recovered: %+v", s.Recovered())
		}
	})
}

// TestDeaths opens a store over which processes died.
func TestDeaths(t *testing.T) {
	t.Parallel()
	for deaths, want := range map[int]string{1: "", 2: "", 3: "salvaged", 7: "forsaken"} {
		dir := t.TempDir()
		waiting(t, dir)
		lock := fmt.Sprintf("1\nopening %d\n", deaths-1)
		if err := os.WriteFile(fileOf(dir)+".lock", []byte(lock), 0o600); err != nil {
			t.Fatal(err)
		}
		s := buffertest.OpenDir(t, dir, buffer.Options{Now: func() time.Time { return time.Unix(0, 0) }})
		r, got := s.Recovered(), ""
		switch {
		case r != nil && r.Rows == 1200:
			got = "salvaged"
		case r != nil && r.Rows == 0 && strings.Contains(r.Reason.Error(), "died over it"):
			got = "forsaken"
		}
		if got != want {
			t.Errorf("%d deaths: %q: %+v", deaths, got, r)
		}
		b, err := os.ReadFile(fileOf(dir) + ".lock")
		if err != nil || string(b) != fmt.Sprintf("%d\n", os.Getpid()) {
			t.Errorf("lock file: %q %v", b, err)
		}
	}
}

// TestMigration brings a store to a format that only this test knows.
func TestMigration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := waiting(t, dir)
	o := buffer.WithMigration(buffer.Options{BootID: "one"}, func() error { return errors.New("not today") })
	if _, err := buffer.Open(dir, o); err == nil || !strings.Contains(err.Error(), "format 2 to 3: not today") {
		t.Fatalf("a migration that fails: %v", err)
	}
	if report, err := buffer.Check(dir); err != nil || !report.Sound() {
		t.Fatalf("after it: %v %v", report.Problems, err)
	}
	writeFile(t, dir, file)
	runs := 0
	o = buffer.WithMigration(o, func() error { runs++; return nil })
	for range 2 {
		s, err := buffer.Open(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		if st, err := s.Stat(); err != nil || st.Format != 3 || s.Last(meter.Alarm) != 300 {
			t.Errorf("format %d, last %d, %v", st.Format, s.Last(meter.Alarm), err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if runs != 1 {
		t.Errorf("migrated %d times", runs)
	}
	var format *buffer.FormatError
	if _, err := buffer.Open(dir, buffer.Options{}); !errors.As(err, &format) {
		t.Errorf("an older program: %v", err)
	}
}
