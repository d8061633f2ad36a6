package batch

import (
	"syscall"
	"testing"
	"time"

	"gridgate/internal/column/columntest"
)

// loads are what batches are benchmarked with: rounds in and out of delta mode,
// and days.
func loads() map[string]struct {
	keyEvery int
	rows     func(*columntest.Walk) []Row
	meters   int
} {
	round := (*columntest.Walk).Round
	return map[string]struct {
		keyEvery int
		rows     func(*columntest.Walk) []Row
		meters   int
	}{
		"round": {0, round, 1000},
		"delta": {1 << 30, round, 1000},
		"day":   {0, func(w *columntest.Walk) []Row { return w.Profiles(96) }, 15},
	}
}

// spans are some spans of a load, one after the other.
func spans(meters int, rows func(*columntest.Walk) []Row) (all []Span) {
	w, l := columntest.NewWalk(seed, meters, columntest.Int), lane{}
	for range 8 {
		s := l.span(rows(w))
		for i := range s.Rows {
			s.Rows[i].Lane = Instant
		}
		all = append(all, s)
	}
	return all
}

// processorTime is what the process has used: other work on the machine does
// not count.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func perSecond(b *testing.B, values int, before time.Duration) {
	b.Helper()
	b.ReportMetric(float64(values)/(processorTime(b)-before).Seconds()/1e6, "Mvalues/cpu-s")
}

func BenchmarkEncode(b *testing.B) {
	for name, load := range loads() {
		b.Run(name, func(b *testing.B) {
			all, c, e := spans(load.meters, load.rows), NewCatalogue(), NewEncoder(load.keyEvery)
			h, dst, values := instant(), []byte(nil), 0
			c.Add(all[0].Rows)
			b.ReportAllocs()
			before := processorTime(b)
			for b.Loop() {
				// Another epoch each time through: numbers never come again.
				s := all[values/len(all[0].Rows)%len(all)]
				if s.Runs[0].First == 1 {
					h.Epoch++
				}
				var err error
				if dst, err = e.Append(dst[:0], h, s, c); err != nil {
					b.Fatal(err)
				}
				e.Confirmed(h.Epoch, s.Last)
				values += len(s.Rows)
			}
			perSecond(b, values, before)
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, load := range loads() {
		b.Run(name, func(b *testing.B) {
			all, c, e := spans(load.meters, load.rows), NewCatalogue(), NewEncoder(load.keyEvery)
			c.Add(all[0].Rows)
			var batches [][]byte
			for _, s := range all {
				p, err := e.Append(nil, instant(), s, c)
				if err != nil {
					b.Fatal(err)
				}
				batches = append(batches, p)
				e.Confirmed(header().Epoch, s.Last)
			}
			var d Decoder
			values, find := 0, known(c)
			b.ReportAllocs()
			before := processorTime(b)
			for b.Loop() {
				k := values / len(all[0].Rows) % len(all)
				if k == 0 {
					d.forget()
				}
				_, s, err := d.Parse(batches[k], find)
				if err != nil {
					b.Fatal(err)
				}
				values += len(s.Rows)
			}
			perSecond(b, values, before)
		})
	}
}
