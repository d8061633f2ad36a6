package batch

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"gridgate/internal/column/columntest"
	"gridgate/internal/wire"
)

// seed is that of all sizes in docs/bench.md.
const seed = 1

// telegraf is a reading as Telegraf's JSON serializer has it, with names as
// short as are in use.
func telegraf(b []byte, reading []Row) []byte {
	b = append(b, `{"fields":{`...)
	for i := range reading {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, "%q:", obis(&reading[i]))
		b = reading[i].Value.AppendJSON(b)
	}
	r := &reading[0]
	return fmt.Appendf(b, `},"name":"meter","tags":{"id":%q,"serial":%q},"timestamp":%d}`+"\n", r.Meter, r.Serial, r.Stamp.Time/1000)
}

// obis is a channel's code without class and attribute.
func obis(r *Row) string {
	code, _, _ := bytes.Cut([]byte(r.Channel), []byte("*"))
	return string(code)
}

// senml is a reading in SenML JSON (RFC 8428): base name and base time once.
func senml(b []byte, reading []Row) []byte {
	for i := range reading {
		r := &reading[i]
		b = append(b, ",{"...)
		if i == 0 {
			b = fmt.Appendf(b, `"bn":"urn:dev:ser:%s:","bt":%d.%03d,`, r.Serial, r.Stamp.Time/1000, r.Stamp.Time%1000)
		}
		b = fmt.Appendf(b, `"n":%q,"u":%q,"v":`, obis(r), r.Unit)
		b = r.Value.AppendJSON(b)
		b = append(b, '}')
	}
	return b
}

// sparkplug is a reading as a DDATA payload of Sparkplug B 3.0: metrics by alias,
// each with its timestamp and data type, integers as Int64 and the rest as
// Double; a sequence number.
func sparkplug(b []byte, reading []Row) []byte {
	stamp := uint64(reading[0].Stamp.Time)
	b = wire.AppendUint(b, 1, stamp)
	for i := range reading {
		r := &reading[i]
		m := wire.AppendUint(nil, 2, uint64(i+1))
		m = wire.AppendUint(m, 3, stamp)
		if r.Value.Scale == 0 {
			m = wire.AppendUint(m, 4, 4)
			m = wire.AppendUint(m, 11, r.Value.Bits)
		} else {
			m = wire.AppendUint(m, 4, 10)
			m = append(m, 13<<3|wire.Fixed)
			m = binary.LittleEndian.AppendUint64(m, math.Float64bits(r.Value.Float64()))
		}
		b = wire.AppendMessage(b, 2, m)
	}
	return wire.AppendUint(b, 3, 7)
}

func deflated(t testing.TB, b []byte) int {
	t.Helper()
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, 6)
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Len()
}

// tally is bytes by encoding over some values.
type tally struct {
	values, compared               int
	ours, json, senml, spark       int
	jsonSmall, senmlSmall, spSmall int
}

// others adds what some of the rows take in other encodings: whole, and deflated as one.
func (s *tally) others(t testing.TB, rows []Row) {
	t.Helper()
	var a, b, c []byte
	for at := 0; at < len(rows); at += columntest.Values {
		reading := rows[at : at+columntest.Values]
		a, b, c = telegraf(a, reading), senml(b, reading), sparkplug(c, reading)
	}
	s.json, s.senml, s.spark = s.json+len(a), s.senml+len(b)+1, s.spark+len(c)
	s.jsonSmall += deflated(t, a)
	s.senmlSmall += deflated(t, b)
	s.spSmall += deflated(t, c)
}

func (s *tally) String() string {
	if s.compared == 0 {
		return fmt.Sprintf("%.3f | | |", float64(s.ours)/float64(s.values))
	}
	v := func(n int) float64 { return float64(n) / float64(s.compared) }
	return fmt.Sprintf("%.3f | %.1f, %.2f | %.1f, %.2f | %.1f, %.2f", float64(s.ours)/float64(s.values),
		v(s.json), v(s.jsonSmall), v(s.senml), v(s.senmlSmall), v(s.spark), v(s.spSmall))
}

// TestBytesAValue is the table of docs/bench.md: 1,000 meters, 96 intervals, 11
// values, as whole batches without the catalogue, each read back.
func TestBytesAValue(t *testing.T) {
	t.Parallel()
	const meters = 1000
	intervals, dayMeters := 96, meters
	if testing.Short() || raceDetector {
		intervals, dayMeters = 8, 60 // all take some 15 s, and much more there
	}
	rounds := func(meters int, e *Encoder, perBatch int, compare bool) *tally {
		w, c, l, d, s := columntest.NewWalk(seed, meters, columntest.Int), NewCatalogue(), lane{}, Decoder{}, &tally{}
		for k := range intervals {
			round := w.Round()
			for len(round) > 0 {
				n := min(perBatch, len(round))
				span := l.span(round[:n])
				s.add(t, mustEncode(t, e, span, c), span, c, &d, compare && k%12 == 0)
				round = round[n:]
			}
			e.Confirmed(header().Epoch, l.next-1)
		}
		return s
	}
	days := func(meters, together int, compare bool) *tally {
		e, c, l, d, s := NewEncoder(0), NewCatalogue(), lane{}, Decoder{}, &tally{}
		w := columntest.NewWalk(seed, meters, columntest.Int)
		rows := w.Profiles(96)
		for i := range rows {
			rows[i].Lane = Instant
		}
		for k := 0; len(rows) > 0; k++ {
			n := min(together*96*columntest.Values, len(rows))
			span := l.span(rows[:n])
			s.add(t, mustEncode(t, e, span, c), span, c, &d, compare && k%12 == 0)
			rows = rows[n:]
		}
		return s
	}
	for _, c := range []struct {
		name string
		got  *tally
		want float64
	}{
		{"a round of all meters", rounds(meters, NewEncoder(0), MaxRows, true), 1.35},
		{"a round of all meters, in batches of 1980 rows", rounds(meters, NewEncoder(0), 1980, false), 1.40},
		{"the same in delta mode", rounds(meters, NewEncoder(DefaultKeyEvery), MaxRows, false), 0.85},
		{"the same in delta mode, in batches of 1980 rows", rounds(meters, NewEncoder(DefaultKeyEvery), 1980, false), 0.90},
		{"a day of 15 meters", days(dayMeters-dayMeters%15, 15, true), 0.80},
		{"a day of one meter", days(dayMeters/10, 1, true), 0.85},
	} {
		t.Logf("| %s | %s |", c.name, c.got)
		if got := float64(c.got.ours) / float64(c.got.values); got > c.want {
			t.Errorf("%s: %.3f bytes a value, at most %.2f", c.name, got, c.want)
		}
	}
}

func (s *tally) add(t testing.TB, b []byte, span Span, c *Catalogue, d *Decoder, compare bool) {
	t.Helper()
	_, got, err := d.Parse(b, known(c))
	if err != nil || len(got.Rows) != len(span.Rows) {
		t.Fatal(err)
	}
	for i := range got.Rows {
		if got.Rows[i] != span.Rows[i] {
			t.Fatalf("row %d: %+v, want %+v", i, got.Rows[i], span.Rows[i])
		}
	}
	s.values += len(span.Rows)
	s.ours += len(b)
	if compare {
		s.compared += len(span.Rows)
		s.others(t, span.Rows)
	}
}
