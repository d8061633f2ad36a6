package buffer_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gridgate/buffer"
	"gridgate/internal/meter"
)

// written gives the octets that this process has handed to write calls.
func written(b testing.TB) int64 {
	b.Helper()
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if n, ok := strings.CutPrefix(line, "wchar: "); ok {
			v, err := strconv.ParseInt(strings.TrimSpace(n), 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			return v
		}
	}
	b.Fatal("no wchar in /proc/self/io")
	return 0
}

// BenchmarkAppend commits 1,000 rows at a time, acknowledged as it goes, beside
// a bare write and sync of one page on the same disk:
//
//	fsync-ns/op  the bare sync
//	x-fsync      how many of these an append takes
//	written/payload  octets written to the file for an octet of chunk
func BenchmarkAppend(b *testing.B) {
	for _, rows := range []int{10, 100, 1000} {
		b.Run(strconv.Itoa(rows), func(b *testing.B) { benchmarkAppend(b, rows) })
	}
}

func benchmarkAppend(b *testing.B, n int) {
	dir := b.TempDir()
	s, err := buffer.Open(dir, buffer.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	bare, err := os.Create(filepath.Join(dir, "bare"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = bare.Close() }()
	page := make([]byte, 4096)
	rows := rowsOf(meter.Interval, 1, n)
	var sync time.Duration
	var octets int64
	for b.Loop() {
		b.StopTimer()
		start := time.Now()
		if _, err := bare.WriteAt(page, 0); err != nil {
			b.Fatal(err)
		}
		if err := bare.Sync(); err != nil {
			b.Fatal(err)
		}
		sync += time.Since(start)
		before := written(b)
		b.StartTimer()
		if err := s.Append(b.Context(), meter.Append{Rows: rows}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		octets += written(b) - before
		if err := s.Ack(meter.Interval, s.Last(meter.Interval)); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	st, err := s.Stat()
	if err != nil {
		b.Fatal(err)
	}
	l := st.Lanes[meter.Interval]
	payload := float64(buffer.PayloadOf(rows)) * float64(b.N)
	b.ReportMetric(float64(sync.Nanoseconds())/float64(b.N), "fsync-ns/op")
	b.ReportMetric(b.Elapsed().Seconds()/sync.Seconds(), "x-fsync")
	b.ReportMetric(float64(octets)/payload, "written/payload")
	b.ReportMetric(float64(octets)/float64(b.N), "written-B/op")
	b.ReportMetric(float64(l.Chunks), "chunks")
}

// BenchmarkDrain peeks and acknowledges a backlog of 100,000 rows.
func BenchmarkDrain(b *testing.B) {
	const total, portion = 100_000, 500
	s, err := buffer.Open(b.TempDir(), buffer.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for first := uint64(1); first <= total; first += 1000 {
		if err := s.Append(b.Context(), meter.Append{Rows: rowsOf(meter.Interval, first, 1000)}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		for after := uint64(0); after < total; {
			span, err := s.Peek(meter.Interval, after, portion)
			if err != nil {
				b.Fatal(err)
			}
			after = span.Last
			if err := s.Ack(meter.Interval, after); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(total*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkOpen opens a store of some thousand chunks: the walk of its tree is
// most of it.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	open := func() *buffer.Store {
		s, err := buffer.Open(dir, buffer.Options{BootID: "b"})
		if err != nil {
			b.Fatal(err)
		}
		return s
	}
	s := open()
	for range 200 {
		if err := s.Append(b.Context(), meter.Append{Rows: rowsOf(meter.Interval, s.Last(meter.Interval)+1, 20_000)}); err != nil {
			b.Fatal(err)
		}
	}
	st, err := s.Stat()
	if err := errors.Join(err, s.Close()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := open().Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(st.Lanes[meter.Interval].Chunks), "chunks")
	b.ReportMetric(float64(st.FileBytes)/(1<<20), "MiB")
}
