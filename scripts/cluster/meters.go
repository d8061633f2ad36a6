package main

import (
	"encoding/binary"
	"fmt"
	"time"

	"gridgate/internal/meter"
)

// channels are what every meter shows: eleven values a reading.
//
//nolint:gochecknoglobals // a constant table
var channels = []struct {
	name  meter.Channel
	unit  meter.Unit
	scale int8
	lane  meter.Lane
	base  int64 // about what the value is, in units of 10^scale
	step  int64 // energies: about the rise in a quarter hour; others: how far they stray
}{
	{"1-0:1.8.0*255/3:2", 30, 0, meter.Interval, 12_000_000, 250},
	{"1-0:2.8.0*255/3:2", 30, 0, meter.Interval, 400_000, 20},
	{"1-0:3.8.0*255/3:2", 32, 0, meter.Interval, 900_000, 40},
	{"1-0:16.7.0*255/3:2", 27, 0, meter.Instant, 900, 400},
	{"1-0:32.7.0*255/3:2", 35, -1, meter.Instant, 2300, 60},
	{"1-0:52.7.0*255/3:2", 35, -1, meter.Instant, 2300, 60},
	{"1-0:72.7.0*255/3:2", 35, -1, meter.Instant, 2300, 60},
	{"1-0:31.7.0*255/3:2", 33, -2, meter.Instant, 150, 120},
	{"1-0:51.7.0*255/3:2", 33, -2, meter.Instant, 150, 120},
	{"1-0:71.7.0*255/3:2", 33, -2, meter.Instant, 150, 120},
	{"1-0:14.7.0*255/3:2", 44, -2, meter.Instant, 5000, 3},
}

// fleet is the meters that are not there. What one of them shows is a function
// of who, what and when: whoever checks can compute it again.
type fleet struct {
	Gateways int
	Meters   int // of each gateway
	Quarters int
	Start    time.Time // the first quarter hour begins
	Sites    int       // gateways are dealt out to them in turn
}

func (f fleet) site(gateway int) meter.ID {
	return meter.ID(fmt.Sprintf("site-%d", gateway%f.Sites))
}

func (f fleet) gateway(gateway int) meter.ID { return meter.ID(fmt.Sprintf("gw-%d", gateway)) }

func (f fleet) serial(gateway, n int) string { return fmt.Sprintf("%04d%05d", gateway, n) }

// readings are of one meter and one quarter hour.
func (f fleet) readings() int { return f.Gateways * f.Meters * f.Quarters }

// rows are values.
func (f fleet) rows() int { return f.readings() * len(channels) }

func meterName(n int) string { return fmt.Sprintf("meter-%d", n) }

// late is how long after the quarter hour a meter's turn comes, in ms.
func late(n int) int64 { return int64(20 + 130*n) }

// stamp gives when a meter shows the value of a channel, in ms since 1970: rows
// of its load profile are of the end of the quarter hour.
func (f fleet) stamp(n, channel, quarter int) int64 {
	at := f.Start.Add(time.Duration(quarter+1) * 15 * time.Minute).UnixMilli()
	if channels[channel].lane != meter.Interval {
		at += late(n)
	}
	return at
}

// mantissa gives a meter's value at the end of a quarter hour: registers rise,
// the rest strays.
func (f fleet) mantissa(gateway, n, channel, quarter int) int64 {
	c := &channels[channel]
	v := c.base + int64(noise(gateway, n, channel, -1)%uint64(c.base))/10
	for q := range quarter + 1 {
		r := int64(noise(gateway, n, channel, q) % uint64(2*c.step+1))
		if c.lane != meter.Interval {
			r -= c.step
			r /= 2
		}
		v += r
	}
	return v
}

// noise is FNV-1a over the arguments.
func noise(all ...int) uint64 {
	h := uint64(14695981039346656037)
	for _, v := range all {
		for _, b := range binary.LittleEndian.AppendUint32(nil, uint32(v)) {
			h = (h ^ uint64(b)) * 1099511628211
		}
	}
	return h ^ h>>29
}

// round gives what a gateway reads in a quarter hour.
func (f fleet) round(gateway, quarter int, boot uint32) []meter.Row {
	rows := make([]meter.Row, 0, f.Meters*len(channels))
	for n := range f.Meters {
		for i, c := range channels {
			r := meter.Row{
				Meter: meter.ID(meterName(n)), Serial: f.serial(gateway, n), Channel: c.name, Unit: c.unit, Lane: c.lane,
				Value: meter.IntValue(f.mantissa(gateway, n, i, quarter), c.scale),
				Stamp: meter.Stamp{Time: f.stamp(n, i, quarter), Boot: boot, Mono: int64(quarter+1)*900_000 + late(n), Bound: 50},
			}
			if c.lane == meter.Interval {
				r.Stamp.Source = meter.FromMeter
			}
			rows = append(rows, r)
		}
	}
	return rows
}
