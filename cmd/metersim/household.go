package main

import (
	"math"
	"time"

	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

// household is what hangs on a simulated DLMS meter: loads with a daily swing,
// and for every third one a roof that feeds in by day. All of it is a function
// of time, so that registers and load profile agree and a restart changes nothing.
type household struct {
	number  int
	serial  string
	capture time.Duration
	now     func() time.Time
	clock   *meterClock // that now is of; nil where it cannot be wrong
	acts    *actOptions
}

const (
	day          = 24 * time.Hour
	profileDepth = 40 * day
)

// zeroed is when the meters' registers were zero.
func zeroed() time.Time { return time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC) }

// swing gives the household's mean load and how far it swings with the hour,
// both in watt.
func (h household) swing() (mean, by float64) {
	return 350 + float64(h.number*97%400), 150
}

// roof gives the feed at noon in watt.
func (h household) roof() float64 {
	if h.number%3 == 2 {
		return 2400
	}
	return 0
}

// turn is the part of a day that has passed, as an angle.
func turn(t time.Time) float64 {
	return 2 * math.Pi * float64(t.Sub(zeroed())%day) / float64(day)
}

// power gives what is drawn and fed at t, in watt.
func (h household) power(t time.Time) (drawn, fed float64) {
	mean, by := h.swing()
	x := turn(t)
	// From 6 h to 18 h the roof feeds half a sine.
	return mean - by*math.Sin(x) - by/2*math.Cos(2*x), h.roof() * max(0, -math.Cos(x))
}

// energy gives what was drawn and fed until t, in watt-hours: the integral of
// power.
func (h household) energy(t time.Time) (drawn, fed float64) {
	mean, by := h.swing()
	hours := t.Sub(zeroed()).Hours()
	x, unit := turn(t), 24/(2*math.Pi)
	drawn = mean*hours + unit*by*(math.Cos(x)-1) - unit*by/4*math.Sin(2*x)
	days := math.Floor(hours / 24)
	today := 0.0
	switch {
	case x > 3*math.Pi/2:
		today = 2
	case x > math.Pi/2:
		today = 1 - math.Sin(x)
	}
	return drawn, h.roof() * unit * (2*days + today)
}

func (h household) voltage(phase int, t time.Time) float64 {
	return 230 + 4*math.Sin(float64(t.Unix())/37+float64(2*phase+h.number))
}

func code(c, d, e byte) obis.Code { return obis.Code{1, 0, c, d, e, 255} }

// objects gives the meter's objects.
func (h household) objects() []dlmstest.Object {
	uint32of := func(v float64) axdr.Value { return axdr.DoubleLongUnsigned(uint32(v)) }
	uint16of := func(v float64) axdr.Value { return axdr.LongUnsigned(uint16(v)) }
	at := func(f func(time.Time) axdr.Value) func() axdr.Value {
		return func() axdr.Value { return f(h.now()) }
	}
	drawn := func(t time.Time) axdr.Value { e, _ := h.energy(t); return uint32of(10 * e) }
	fed := func(t time.Time) axdr.Value { _, e := h.energy(t); return uint32of(10 * e) }
	register := func(c obis.Code, scaler int8, unit meter.Unit, f func(time.Time) axdr.Value) dlmstest.Object {
		return dlmstest.Register(c, scaler, uint8(unit), at(f))
	}
	free, wrong := h.now, new(dlmstest.Wrong)
	if h.clock != nil {
		free, wrong = h.clock.free, h.clock.wrong
	}
	objects := []dlmstest.Object{
		dlmstest.Data(obis.Code{0, 0, 96, 1, 0, 255}, dlmstest.Fixed(axdr.OctetString(h.serial))),
		dlmstest.SettableClock(obis.Code{0, 0, 1, 0, 0, 255}, free, wrong),
		register(code(1, 8, 0), -1, meter.WattHour, drawn),
		register(code(2, 8, 0), -1, meter.WattHour, fed),
		register(code(3, 8, 0), -1, meter.VarHour, func(t time.Time) axdr.Value { e, _ := h.energy(t); return uint32of(2 * e) }),
		register(code(4, 8, 0), -1, meter.VarHour, func(t time.Time) axdr.Value { _, e := h.energy(t); return uint32of(e) }),
		register(code(1, 7, 0), 0, meter.Watt, func(t time.Time) axdr.Value { p, f := h.power(t); return uint32of(max(0, p-f)) }),
		register(code(2, 7, 0), 0, meter.Watt, func(t time.Time) axdr.Value { p, f := h.power(t); return uint32of(max(0, f-p)) }),
		register(code(16, 7, 0), 0, meter.Watt, func(t time.Time) axdr.Value { p, f := h.power(t); return axdr.DoubleLong(int32(p - f)) }),
		register(code(14, 7, 0), -2, meter.Hertz, func(t time.Time) axdr.Value {
			return uint16of(5000 + 3*math.Sin(float64(t.Unix())/11))
		}),
		dlmstest.ExtendedRegister(code(1, 6, 0), 0, uint8(meter.Watt), dlmstest.Fixed(uint32of(h.peak())), func() time.Time {
			return h.now().Truncate(day).Add(-6 * time.Hour)
		}),
	}
	objects = append(objects, h.profiles(drawn, fed)...)
	objects = append(objects, h.control()...)
	objects = append(objects, h.tariffRegisters()...)
	for phase := range 3 {
		group := byte(20 * phase)
		objects = append(objects,
			register(code(32+group, 7, 0), -1, meter.Volt, func(t time.Time) axdr.Value { return uint16of(10 * h.voltage(phase, t)) }),
			register(code(31+group, 7, 0), -2, meter.Ampere, func(t time.Time) axdr.Value {
				p, f := h.power(t)
				return uint16of(100 * math.Abs(p-f) / 3 / h.voltage(phase, t))
			}))
	}
	return objects
}

// peak is the highest load of a day, at 18 h.
func (h household) peak() float64 {
	mean, by := h.swing()
	return mean + by + by/2
}

// deviceName is the logical device name.
func (h household) deviceName() string { return "GRG" + h.serial }
