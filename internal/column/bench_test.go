package column

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gridgate/internal/meter"
)

// walk is a site of meters whose readings drift as a household's do: a load
// that wanders and jumps, registers that add it up, voltages and a frequency
// that wander a little.
type walk struct {
	rand   *rand.Rand
	meters []walker
}

type walker struct {
	serial             string
	load, reactive     float64    // W, var
	volts              [3]float64 // V
	imported, exported float64    // Wh
}

func newWalk(meters int) *walk {
	w := &walk{rand: rand.New(rand.NewPCG(1, 2))}
	for i := range meters {
		m := walker{
			serial: fmt.Sprint(40210000 + i), load: 50 + 1500*w.rand.Float64()*w.rand.Float64(),
			imported: math.Floor(3e7 * w.rand.Float64()), exported: math.Floor(1e6 * w.rand.Float64()),
		}
		for p := range m.volts {
			m.volts[p] = 230 + 3*w.rand.NormFloat64()
		}
		w.meters = append(w.meters, m)
	}
	return w
}

// reading is one reading of meter i, a quarter of an hour after the last: the
// eleven values of a polyphase meter.
func (w *walk) reading(i int, stamp meter.Stamp, lane meter.Lane, value func(meter.Channel, float64, int8) meter.Value) []meter.Row {
	m := &w.meters[i]
	if w.rand.IntN(8) == 0 {
		m.load = 50 + 2500*w.rand.Float64()*w.rand.Float64() // something switched
	}
	m.load = max(5, m.load*(1+0.05*w.rand.NormFloat64()))
	m.reactive = 0.2*m.load + 5*w.rand.NormFloat64()
	m.imported += m.load / 4
	var rows []meter.Row
	add := func(channel meter.Channel, v float64, scale int8, unit meter.Unit) {
		rows = append(rows, meter.Row{
			Meter: meter.ID(fmt.Sprintf("house-%04d", i)), Serial: m.serial, Channel: channel,
			Stamp: stamp, Value: value(channel, v, scale), Unit: unit, Lane: lane,
		})
	}
	add("1-0:1.8.0*255/3:2", m.imported, 0, meter.WattHour)
	add("1-0:2.8.0*255/3:2", m.exported, 0, meter.WattHour)
	add("1-0:1.7.0*255/3:2", m.load, 0, meter.Watt)
	add("1-0:3.7.0*255/3:2", m.reactive, 0, meter.Var)
	for p := range m.volts {
		m.volts[p] += 0.1*(230-m.volts[p]) + 0.8*w.rand.NormFloat64()
		add(meter.Channel(fmt.Sprintf("1-0:%d2.7.0*255/3:2", 3+2*p)), m.volts[p], -1, meter.Volt)
	}
	for p := range m.volts {
		add(meter.Channel(fmt.Sprintf("1-0:%d1.7.0*255/3:2", 3+2*p)), m.load/3/m.volts[p]+0.02*w.rand.Float64(), -2, meter.Ampere)
	}
	add("1-0:14.7.0*255/3:2", 50+0.02*w.rand.NormFloat64(), -2, meter.Hertz)
	return rows
}

func asInt(_ meter.Channel, v float64, scale int8) meter.Value {
	return meter.IntValue(int64(math.Round(v*math.Pow10(-int(scale)))), scale)
}

// asDecimalFloat is a register of a Modbus meter that computes in decimals.
func asDecimalFloat(_ meter.Channel, v float64, _ int8) meter.Value {
	return meter.Float32Value(math.Float32bits(float32(math.Round(v*100)/100)), 0)
}

// asRawFloat is one of a meter that computes in binary.
func asRawFloat(_ meter.Channel, v float64, _ int8) meter.Value {
	return meter.Float32Value(math.Float32bits(float32(v)), 0)
}

const quarter = 900_000

// shapes are the bodies that batches and chunks are made of.
func shapes() []shape {
	const epoch = int64(1_700_000_100_000)
	snapshot := func(meters int, value func(meter.Channel, float64, int8) meter.Value) []meter.Row {
		w, at := newWalk(meters), epoch
		var rows []meter.Row
		for i := range meters {
			at += 200 + w.rand.Int64N(700)
			rows = append(rows, w.reading(i, meter.Stamp{Time: at, Mono: at - epoch, Boot: 3, Bound: 40}, meter.Instant, value)...)
		}
		return rows
	}
	history := func(meters, times int, value func(meter.Channel, float64, int8) meter.Value) []meter.Row {
		w := newWalk(meters)
		var rows []meter.Row
		for i := range meters {
			for k := range times {
				stamp := meter.Stamp{Time: epoch + int64(k)*quarter, Mono: int64(8e8 + i*2100), Boot: 3, Bound: 2000, Source: meter.FromMeter}
				rows = append(rows, w.reading(i, stamp, meter.Interval, value)...)
			}
		}
		return rows
	}
	rounds := func(meters, times int) []meter.Row {
		w := newWalk(meters)
		var rows []meter.Row
		for k := range times {
			at := epoch + int64(k)*quarter
			for i := range meters {
				at += 200 + w.rand.Int64N(700)
				rows = append(rows, w.reading(i, meter.Stamp{Time: at, Mono: at - epoch, Boot: 3, Bound: 40}, meter.Instant, asInt)...)
			}
		}
		return rows
	}
	return []shape{
		{"one meter", snapshot(1, asInt)},
		{"snapshot of 20", snapshot(20, asInt)},
		{"snapshot of 1000", snapshot(1000, asInt)},
		{"rounds of a day, 10 meters", rounds(10, 96)},
		{"profiles of a day, 10 meters", history(10, 96, asInt)},
		{"profile of a day, 1 meter", history(1, 96, asInt)},
		{"profiles of a day, 10 meters, decimal floats", history(10, 96, asDecimalFloat)},
		{"profiles of a day, 10 meters, binary floats", history(10, 96, asRawFloat)},
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
