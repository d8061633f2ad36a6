package buffer_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gridgate/buffer"
	"gridgate/internal/meter"
)

// olderRows are the rows of the instant lane in testdata/format1.db.gz, which a
// program wrote that knew chunks of version 1 only: floats of decimal digits and
// of none, and texts.
func olderRows() []meter.Row {
	rows := make([]meter.Row, 400)
	for i := range rows {
		r := rowOf(meter.Instant, uint64(i+1))
		r.Stamp.Mono, r.Unit = r.Stamp.Time-1_600_000_000_000, meter.Volt
		r.Channel = meter.Channel(fmt.Sprintf("1-0:%d.7.0*255/3:2", 32+20*(i%3)))
		switch i % 4 {
		case 0, 1:
			r.Value = meter.Float32Value(math.Float32bits(230+float32(i%17)/10), 0)
		case 2:
			r.Value = meter.Float64Value(math.Float64bits(1/float64(i+1)), 0)
		default:
			r.Value = meter.TextValue(fmt.Sprintf("text %d", i*i))
		}
		rows[i] = r
	}
	return rows
}

// olderStore makes the store that the file was made of: of interval rows 1 to
// 2500, acknowledged through 700, 5 lost and 100 more; 30 alarms; olderRows.
func olderStore(t *testing.T, dir string) {
	t.Helper()
	s, err := buffer.Open(dir, buffer.Options{BootID: "one"})
	if err != nil {
		t.Fatal(err)
	}
	appendN(t, s, meter.Interval, 2500)
	appendN(t, s, meter.Alarm, 30)
	if err := s.Append(t.Context(), meter.Append{Losses: []meter.Loss{{Lane: meter.Interval, Reason: meter.MemoryFull, Count: 5}}}); err != nil {
		t.Fatal(err)
	}
	appendN(t, s, meter.Interval, 100)
	if err := s.Append(t.Context(), meter.Append{Rows: olderRows()}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Peek(meter.Interval, 0, 2000); err != nil {
		t.Fatal(err)
	}
	if err := s.Ack(meter.Interval, 700); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// putOlder unpacks the file into dir.
func putOlder(t *testing.T, dir string) {
	t.Helper()
	packed, err := os.ReadFile(filepath.Join("testdata", "format1.db.gz"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, b)
}

// TestOlderStoreDrains opens a store of chunks of version 1: it reads whole,
// takes rows of today beside the old ones, drains, and survives compaction. A
// store of today made the same way holds the same.
func TestOlderStoreDrains(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func(*testing.T, string){"older": putOlder, "today's": olderStore} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			make(t, dir)
			olderIsWhole(t, dir)
			s, err := buffer.Open(dir, buffer.Options{BootID: "two"})
			if err != nil {
				t.Fatal(err)
			}
			if r := s.Recovered(); r != nil {
				t.Fatalf("it counts as damaged: %v", r.Reason)
			}
			if st, err := s.Stat(); err != nil || st.Format != 2 {
				t.Errorf("format %d, %v", st.Format, err)
			}
			appendN(t, s, meter.Interval, 700)
			drainOlder(t, s)
			if err := s.Compact(t.Context()); err != nil {
				t.Error(err)
			}
			if err := s.Append(t.Context(), meter.Append{}); err != nil {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if report, err := buffer.Check(dir); err != nil || !report.Sound() {
				t.Errorf("at the end: %v %v", report.Problems, err)
			}
		})
	}
}

// olderIsWhole reads the store as the tools do, which change nothing of it.
func olderIsWhole(t *testing.T, dir string) {
	t.Helper()
	if report, err := buffer.Check(dir); err != nil || !report.Sound() {
		t.Fatalf("as it is: %v %v", report.Problems, err)
	}
	var file bytes.Buffer
	info, err := buffer.Export(dir, &file, buffer.ExportOptions{})
	if err != nil || info.Rows != 2500+100+30+400 {
		t.Errorf("exported %d rows, %v", info.Rows, err)
	}
}

// drainOlder reads the lanes from where they are acknowledged to their end, and
// acknowledges all.
func drainOlder(t *testing.T, s *buffer.Store) {
	t.Helper()
	if acked := s.Acked(meter.Interval); acked != 700 {
		t.Errorf("acknowledged through %d", acked)
	}
	rows, holes, err := readLane(s, meter.Interval, 700, 300)
	want := meter.Hole{First: 2501, Last: 2501, Reason: meter.MemoryFull, Count: 5}
	if err != nil || rows != 1800+100+700 || len(holes) != 1 || holes[0] != want {
		t.Errorf("interval: %d rows, %+v, %v", rows, holes, err)
	}
	if rows, _, err = readLane(s, meter.Alarm, 0, 300); err != nil || rows != 30 {
		t.Errorf("alarm: %d rows, %v", rows, err)
	}
	span, err := s.Peek(meter.Instant, 0, 1000)
	if diff := cmp.Diff(olderRows(), span.Rows); err != nil || diff != "" {
		t.Errorf("instant: %v\n%s", err, diff)
	}
	for _, lane := range []meter.Lane{meter.Alarm, meter.Interval, meter.Instant} {
		if err := s.Ack(lane, s.Last(lane)); err != nil {
			t.Error(err)
		}
	}
}
