package column

import (
	"fmt"
	"testing"

	"gridgate/internal/column/columntest"
	"gridgate/internal/meter"
)

// shapes are the bodies that batches and chunks are made of.
func shapes() []shape {
	walk := func(meters int, value func(float64, int8) meter.Value) *columntest.Walk {
		return columntest.NewWalk(1, meters, value)
	}
	rounds := func(meters, times int) (rows []meter.Row) {
		w := walk(meters, columntest.Int)
		for range times {
			rows = append(rows, w.Round()...)
		}
		return rows
	}
	return []shape{
		{"one meter", rounds(1, 1)},
		{"snapshot of 20", rounds(20, 1)},
		{"snapshot of 1000", rounds(1000, 1)},
		{"rounds of a day, 10 meters", rounds(10, 96)},
		{"profiles of a day, 10 meters", walk(10, columntest.Int).Profiles(96)},
		{"profile of a day, 1 meter", walk(1, columntest.Int).Profiles(96)},
		{"profiles of a day, 10 meters, decimal floats", walk(10, columntest.DecimalFloat).Profiles(96)},
		{"profiles of a day, 10 meters, binary floats", walk(10, columntest.RawFloat).Profiles(96)},
	}
}

type shape struct {
	name string
	rows []meter.Row
}

// appendJSON appends r as a line of JSON, for the ratio.
func appendJSON(b []byte, r *meter.Row) []byte {
	b = fmt.Appendf(b, `{"meter":%q,"serial":%q,"channel":%q,"time":%q,"value":`, r.Meter, r.Serial, r.Channel, r.Stamp.UTC().Format("2006-01-02T15:04:05.000Z"))
	b = r.Value.AppendJSON(b)
	return fmt.Appendf(b, `,"unit":%q,"quality":%q}`+"\n", r.Unit, r.Quality)
}

// BenchmarkBytesPerValue gives the bytes a value of each shape, the dictionary
// apart: of the columns as they are, of the body, and how many times smaller
// than JSON the body is, both plain and deflated.
func BenchmarkBytesPerValue(b *testing.B) {
	for _, s := range shapes() {
		b.Run(s.name, func(b *testing.B) {
			rows := s.rows
			for len(rows) > MaxRows {
				b.Fatal("too many rows")
			}
			var json []byte
			for i := range rows {
				json = appendJSON(json, &rows[i])
			}
			d, e := NewDict(), &encoder{}
			var body []byte
			for b.Loop() {
				var err error
				if body, err = AppendRows(body[:0], rows, d); err != nil {
					b.Fatal(err)
				}
			}
			if err := e.number(rows, d, false); err != nil {
				b.Fatal(err)
			}
			e.columns(rows, d, true, nil)
			n := float64(len(rows))
			small, ok := (&encoder{}).deflate(json)
			if !ok {
				small = json
			}
			b.ReportMetric(float64(len(e.out)+len(e.writer.noise.bytes())+len(e.writer.coded.bytes()))/n, "plainB/value")
			b.ReportMetric(float64(len(body))/n, "B/value")
			b.ReportMetric(float64(len(json))/float64(len(body)), "xJSON")
			b.ReportMetric(float64(len(small))/float64(len(body)), "xdeflatedJSON")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/value")
		})
	}
}

func BenchmarkParse(b *testing.B) {
	for _, s := range shapes() {
		b.Run(s.name, func(b *testing.B) {
			body, d := pack(b, s.rows)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseRows(body, d); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(s.rows)), "ns/value")
		})
	}
}
