// Package columntest makes readings to measure with.
package columntest

import (
	"fmt"
	"math"
	"math/rand/v2"

	"gridgate/internal/meter"
)

// Quarter is the time from one reading to the next, in milliseconds.
const Quarter = 900_000

// Epoch is the time of the first reading.
const Epoch = int64(1_700_000_100_000)

// Values are how many values a reading has.
const Values = 11

// Walk is a site of meters whose readings drift as a household's do: a load
// that wanders and jumps, registers that add it up, voltages and a frequency
// that wander a little. The same seed makes the same site.
type Walk struct {
	rand   *rand.Rand
	meters []walker
	at     int64
	value  func(float64, int8) meter.Value
}

type walker struct {
	id                 meter.ID
	serial             string
	load, reactive     float64    // W, var
	volts              [3]float64 // V
	imported, exported float64    // Wh
}

// NewWalk makes a site. value makes a meter's value of a number and a scale: Int,
// DecimalFloat or RawFloat.
func NewWalk(seed uint64, meters int, value func(float64, int8) meter.Value) *Walk {
	w := &Walk{rand: rand.New(rand.NewPCG(seed, 2)), at: Epoch, value: value}
	for i := range meters {
		m := walker{
			id: meter.ID(fmt.Sprintf("house-%04d", i)), serial: fmt.Sprint(40210000 + i),
			load:     50 + 1500*w.rand.Float64()*w.rand.Float64(),
			imported: math.Floor(3e7 * w.rand.Float64()), exported: math.Floor(1e6 * w.rand.Float64()),
		}
		for p := range m.volts {
			m.volts[p] = 230 + 3*w.rand.NormFloat64()
		}
		w.meters = append(w.meters, m)
	}
	return w
}

// Round reads every meter once, one after the other, by the gateway's clock.
// The next round is a quarter of an hour later.
func (w *Walk) Round() []meter.Row {
	rows, at := make([]meter.Row, 0, Values*len(w.meters)), w.at
	for i := range w.meters {
		at += 200 + w.rand.Int64N(700)
		rows = w.reading(rows, i, meter.Stamp{Time: at, Mono: at - Epoch, Boot: 3, Bound: 40}, meter.Instant, 0)
	}
	w.at += Quarter
	return rows
}

// Profiles reads so many rows of each meter's load profile, meter by meter, by
// the meters' clocks.
func (w *Walk) Profiles(times int) []meter.Row {
	rows := make([]meter.Row, 0, Values*len(w.meters)*times)
	for i := range w.meters {
		for k := range times {
			stamp := meter.Stamp{Time: w.at + int64(k)*Quarter, Mono: int64(8e8 + i*2100), Boot: 3, Bound: 2000, Source: meter.FromMeter}
			rows = w.reading(rows, i, stamp, meter.Interval, 900)
		}
	}
	w.at += int64(times) * Quarter
	return rows
}

// reading is one reading of meter i, a quarter of an hour after the last: the
// eleven values of a polyphase meter.
func (w *Walk) reading(rows []meter.Row, i int, stamp meter.Stamp, lane meter.Lane, period uint32) []meter.Row {
	m := &w.meters[i]
	if w.rand.IntN(8) == 0 {
		m.load = 50 + 2500*w.rand.Float64()*w.rand.Float64() // something switched
	}
	m.load = max(5, m.load*(1+0.05*w.rand.NormFloat64()))
	m.reactive = 0.2*m.load + 5*w.rand.NormFloat64()
	m.imported += m.load / 4
	add := func(channel meter.Channel, v float64, scale int8, unit meter.Unit) {
		rows = append(rows, meter.Row{
			Meter: m.id, Serial: m.serial, Channel: channel,
			Stamp: stamp, Value: w.value(v, scale), Unit: unit, Lane: lane, Period: period,
		})
	}
	add("1-0:1.8.0*255/3:2", m.imported, 0, meter.WattHour)
	add("1-0:2.8.0*255/3:2", m.exported, 0, meter.WattHour)
	add("1-0:1.7.0*255/3:2", m.load, 0, meter.Watt)
	add("1-0:3.7.0*255/3:2", m.reactive, 0, meter.Var)
	for p, channel := range []meter.Channel{"1-0:32.7.0*255/3:2", "1-0:52.7.0*255/3:2", "1-0:72.7.0*255/3:2"} {
		m.volts[p] += 0.1*(230-m.volts[p]) + 0.8*w.rand.NormFloat64()
		add(channel, m.volts[p], -1, meter.Volt)
	}
	for p, channel := range []meter.Channel{"1-0:31.7.0*255/3:2", "1-0:51.7.0*255/3:2", "1-0:71.7.0*255/3:2"} {
		add(channel, m.load/3/m.volts[p]+0.02*w.rand.Float64(), -2, meter.Ampere)
	}
	add("1-0:14.7.0*255/3:2", 50+0.02*w.rand.NormFloat64(), -2, meter.Hertz)
	return rows
}

// Int is a register of a meter that sends integers.
func Int(v float64, scale int8) meter.Value {
	return meter.IntValue(int64(math.Round(v*math.Pow10(-int(scale)))), scale)
}

// DecimalFloat is a register of a Modbus meter that computes in decimals.
func DecimalFloat(v float64, _ int8) meter.Value {
	return meter.Float32Value(math.Float32bits(float32(math.Round(v*100)/100)), 0)
}

// RawFloat is one of a meter that computes in binary.
func RawFloat(v float64, _ int8) meter.Value {
	return meter.Float32Value(math.Float32bits(float32(v)), 0)
}
