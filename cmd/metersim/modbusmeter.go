package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// An Eastron meter's registers hold floats, the high word first. Values move
// with time by formula, so that energy is exactly the integral of power, and
// never run backwards.
const (
	serialRegister = 0xFC00 // holding, two registers
	lastRegister   = 0x0180 // of the input registers; unused ones read as 0
	maxQuantity    = 80     // of one request
)

// Exception codes.
const (
	illegalFunction = 1
	illegalAddress  = 2
	illegalValue    = 3
	deviceFailure   = 4
)

// modbusMeter is one simulated meter.
type modbusMeter struct {
	unit   byte
	serial uint32
	phases int
	number int // of the meter among its siblings, from 0
	now    func() time.Time
}

// modbusModels lists the kinds of meter that there are.
func modbusModels() []string { return []string{"eastron-sdm120", "eastron-sdm630"} }

func phasesOf(model string) (int, error) {
	if !slices.Contains(modbusModels(), model) {
		return 0, fmt.Errorf("no model %q; want one of %s", model, strings.Join(modbusModels(), ", "))
	}
	if model == "eastron-sdm120" {
		return 1, nil
	}
	return 3, nil
}

// load is the active power of a phase in W and the energy in kWh since 1970:
// a base with a daily and a quick swing, each the derivative of the other.
func (m *modbusMeter) load(phase int, t time.Time) (power, energy float64) {
	seconds := float64(t.UnixMilli()) / 1000
	base := 180 + 35*float64(m.number%17) + 60*float64(phase)
	power, energy = base, base*seconds
	for _, swing := range [...]struct{ part, period float64 }{{0.4, 86400}, {0.25, 47}} {
		angle := 2*math.Pi*seconds/swing.period + float64(phase+m.number)
		power += base * swing.part * math.Cos(angle)
		energy += base * swing.part * math.Sin(angle) * swing.period / (2 * math.Pi)
	}
	return power, energy / 3.6e6
}

// installed is when the meters began to count.
const installed = 1_735_689_600 // 2025-01-01, in seconds

// registers gives the values by input register.
func (m *modbusMeter) registers() map[int]float64 {
	t := m.now()
	const tangent = 0.31 // reactive to active power
	values := map[int]float64{}
	var sumP, sumE float64
	for phase := range m.phases {
		power, energy := m.load(phase, t)
		_, before := m.load(phase, time.Unix(installed, 0))
		volt := 230 + 1.5*float64(phase) + 2*math.Sin(float64(t.UnixMilli())/9000+float64(m.number+phase))
		values[0x00+2*phase] = volt
		values[0x06+2*phase] = power * math.Hypot(1, tangent) / volt
		values[0x0C+2*phase] = power
		values[0x12+2*phase] = power * math.Hypot(1, tangent)
		values[0x18+2*phase] = power * tangent
		values[0x1E+2*phase] = 1 / math.Hypot(1, tangent)
		sumP, sumE = sumP+power, sumE+energy-before
	}
	if m.phases > 1 {
		values[0x34], values[0x38] = sumP, sumP*math.Hypot(1, tangent)
		values[0x3C], values[0x3E] = sumP*tangent, 1/math.Hypot(1, tangent)
	}
	values[0x46] = 50 + 0.02*math.Sin(float64(t.UnixMilli())/31000)
	values[0x48], values[0x4A] = sumE, 12.5+float64(m.number)
	values[0x4C], values[0x4E] = sumE*tangent, 3.25
	values[0x0156] = values[0x48] + values[0x4A]
	return values
}

// answer gives the answer to a request, both from the function code on.
func (m *modbusMeter) answer(request []byte) []byte {
	function := request[0]
	refuse := func(code byte) []byte { return []byte{function | 0x80, code} }
	if function != 3 && function != 4 {
		return refuse(illegalFunction)
	}
	if len(request) != 5 {
		return refuse(illegalValue)
	}
	first, count := int(request[1])<<8|int(request[2]), int(request[3])<<8|int(request[4])
	switch {
	case count == 0 || count > maxQuantity:
		return refuse(illegalValue)
	case function == 4 && first+count > lastRegister,
		function == 3 && (first < serialRegister || first+count > serialRegister+2):
		return refuse(illegalAddress)
	}
	answer := []byte{function, byte(2 * count)}
	values := m.registers()
	for at := first; at < first+count; at++ {
		bits := m.serial
		if function == 4 {
			bits = math.Float32bits(float32(values[at&^1]))
		}
		if at%2 == 0 {
			bits >>= 16
		}
		answer = append(answer, byte(bits>>8), byte(bits))
	}
	return answer
}
