package main

import (
	"encoding/binary"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"gridgate/drivers/modbus"
	"gridgate/internal/meter"
)

// Exception codes.
const (
	illegalFunction = 1
	illegalAddress  = 2
	illegalValue    = 3
	deviceFailure   = 4
)

// modbusMeter is one simulated meter, of the kind that a register map
// describes. Values move with time by formula, so that energy is exactly the
// integral of power, and never run backwards.
type modbusMeter struct {
	unit   byte
	serial uint32
	model  *modbus.Model
	number int  // of the meter among its siblings, from 0
	shows  bool // it has an identification
	now    func() time.Time
	clock  *meterClock // the one that it shows, where its map has one; nil is now
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

const (
	installed = 1_735_689_600 // when the meters began to count: 2025-01-01, in seconds
	tangent   = 0.31          // reactive to active power
)

// measured is what a phase, or all together, has in V, A, W, kWh.
type measured struct {
	volt, ampere, watt      float64
	imported, exported      float64
	reactiveIn, reactiveOut float64 // kvarh
}

// measure gives the values of a phase from 1, or of all for 0.
func (m *modbusMeter) measure(phase int) measured {
	t, phases := m.now(), m.phases()
	var all measured
	for p := range phases {
		if phase > 0 && p != phase-1 {
			continue
		}
		power, energy := m.load(p, t)
		_, before := m.load(p, time.Unix(installed, 0))
		volt := 230 + 1.5*float64(p) + 2*math.Sin(float64(t.UnixMilli())/9000+float64(m.number+p))
		share := 1 / float64(phases)
		all.volt = volt
		all.ampere += power * math.Hypot(1, tangent) / volt
		all.watt += power
		all.imported += energy - before
		all.exported += (12.5 + float64(m.number)) * share
		all.reactiveIn += (energy - before) * tangent
		all.reactiveOut += 3.25 * share
	}
	return all
}

// phases is one for a map that has the first phase alone.
func (m *modbusMeter) phases() int {
	has := func(code string) bool {
		return slices.ContainsFunc(m.model.Registers, func(r modbus.Register) bool { return r.Channel.Short() == code })
	}
	if has("1-0:32.7.0") && !has("1-0:52.7.0") {
		return 1
	}
	return 3
}

// value gives what a channel has, in its unit without a prefix. Groups C, D and
// E of OBIS say what it is (IEC 62056-6-1).
func (m *modbusMeter) value(c meter.Channel) float64 {
	code, _, _, ok := c.Attribute()
	if !ok {
		switch all := m.measure(0); {
		case strings.HasPrefix(string(c), "energy.reactive"):
			return (all.reactiveIn + all.reactiveOut) * 1000
		case strings.HasPrefix(string(c), "power.reactive"):
			return all.watt * tangent
		}
		return 1
	}
	quantity, processing, tariff := int(code[2]), code[3], code[4]
	phase := (quantity - 1) / 20
	if quantity > 80 { // 131, 151, 171, 191: import minus export of reactive power
		phase = (quantity - 131) / 20
		quantity = 131
	} else {
		quantity = (quantity-1)%20 + 1
	}
	v := m.measure(phase)
	if processing == 8 {
		return v.energy(quantity) * 1000 * [...]float64{1, 0.75, 0.25, 0, 0}[min(tariff, 4)]
	}
	return v.now(quantity, float64(m.now().UnixMilli()))
}

// energy gives import, export and their sum, in kWh or kvarh.
func (v measured) energy(quantity int) float64 {
	switch quantity {
	case 1:
		return v.imported
	case 2:
		return v.exported
	case 3:
		return v.reactiveIn
	case 4:
		return v.reactiveOut
	case 15:
		return v.imported + v.exported
	case 16:
		return v.imported - v.exported
	}
	return 0
}

// now gives what is measured at a moment, in milliseconds.
func (v measured) now(quantity int, ms float64) float64 {
	switch quantity {
	case 1, 15, 16:
		return v.watt
	case 3, 131:
		return v.watt * tangent
	case 9:
		return v.watt * math.Hypot(1, tangent)
	case 11:
		return v.ampere
	case 12:
		return v.volt
	case 13:
		return 1 / math.Hypot(1, tangent)
	case 14:
		return 50 + 0.02*math.Sin(ms/31000)
	}
	return 0
}

// words gives what register r holds.
func (m *modbusMeter) words(r *modbus.Register) []uint16 {
	return toWords(r, m.value(r.Channel)/math.Pow10(int(r.Scale)))
}

func toWords(r *modbus.Register, v float64) []uint16 {
	bits := uint64(int64(math.Floor(v)))
	switch r.Type {
	case modbus.F32:
		bits = uint64(math.Float32bits(float32(v)))
	case modbus.F64:
		bits = math.Float64bits(v)
	case modbus.BCD16, modbus.BCD32, modbus.BCD64:
		bits, _ = strconv.ParseUint(strconv.FormatUint(bits, 10), 16, 64)
	case modbus.U16, modbus.S16, modbus.U32, modbus.S32, modbus.U64, modbus.S64, modbus.ASCII:
	}
	return bitWords(r, bits)
}

// bitWords puts bits into words in the register's order.
func bitWords(r *modbus.Register, bits uint64) []uint16 {
	words := make([]uint16, r.Len())
	for i := range words {
		words[i] = uint16(bits >> (16 * (len(words) - 1 - i)))
	}
	if r.LittleEndianWords {
		slices.Reverse(words)
	}
	return words
}

// textWords fills a register with text, and the rest of it with NULs.
func textWords(r *modbus.Register, s string) []uint16 {
	b := make([]byte, 2*r.Len())
	copy(b, s)
	words := make([]uint16, r.Len())
	for i := range words {
		words[i] = binary.BigEndian.Uint16(b[2*i:])
	}
	return words
}

// shown gives the words of an identity register: text, or a number in digits.
func shown(r *modbus.Register, s string) []uint16 {
	if r.Type == modbus.ASCII {
		return textWords(r, s)
	}
	number, _ := strconv.ParseUint(s, 10, 64)
	return bitWords(r, number)
}

// kind gives a value that the identity register of such a meter may show.
func kind(i *modbus.Identity) string {
	if len(i.Want) > 0 {
		return strings.TrimSuffix(i.Want[0], "*")
	}
	for n := 345; ; n++ {
		if s := strconv.Itoa(n); !slices.Contains(i.Not, s) {
			return s
		}
	}
}

// registers gives the words that a request reaches, and the first and the last
// register that the meter has of the function.
func (m *modbusMeter) registers(function byte, first, count int) (words map[int]uint16, lowest, highest int) {
	words, lowest = map[int]uint16{}, 1<<16
	add := func(r *modbus.Register, give func() []uint16) {
		from, end := int(r.Address), int(r.Address)+int(r.Len())
		if r.Function != function {
			return
		}
		lowest, highest = min(lowest, from), max(highest, end-1)
		if from >= first+count || end <= first {
			return
		}
		for i, w := range give() {
			words[from+i] = w
		}
	}
	for i := range m.model.Registers {
		r := &m.model.Registers[i]
		add(r, func() []uint16 { return m.words(r) })
	}
	if c := m.model.Clock; c != nil {
		at := modbus.Register{Function: c.Function, Address: c.Address, Type: modbus.ASCII, Words: c.Format.Len()}
		add(&at, func() (words []uint16) {
			b := c.Append(nil, m.shown().Truncate(time.Second), time.Local, nil)
			for i := 0; i < len(b); i += 2 {
				words = append(words, binary.BigEndian.Uint16(b[i:]))
			}
			return words
		})
	}
	for i := range m.model.Identity {
		r := &m.model.Identity[i]
		add(&r.Register, func() []uint16 { return shown(&r.Register, kind(r)) })
	}
	if r := m.model.Serial; r != nil {
		add(r, func() []uint16 { return shown(r, strconv.FormatUint(uint64(m.serial), 10)) })
	}
	return words, lowest, highest
}

// shown is what the meter's clock shows.
func (m *modbusMeter) shown() time.Time {
	if m.clock == nil {
		return m.now()
	}
	return m.clock.now()
}

const writeRegisters = 16

// set takes a write of the clock's registers, all at once. It gives the exception
// code of what it refuses, 0 for none.
func (m *modbusMeter) set(request []byte) (code byte) {
	c := m.model.Clock
	switch {
	case c == nil || !c.Writable || m.clock == nil:
		return illegalFunction
	case len(request) < 6 || len(request) != 6+int(request[5]) || int(request[5]) != 2*int(binary.BigEndian.Uint16(request[3:])):
		return illegalValue
	case binary.BigEndian.Uint16(request[1:]) != c.Address || binary.BigEndian.Uint16(request[3:]) != c.Format.Len():
		return illegalAddress
	}
	at, _, _, err := c.Parse(request[6:], time.Local)
	if err != nil {
		return illegalValue
	}
	m.clock.set(at)
	return 0
}

// answer gives the answer to a request, both from the function code on. A
// register that the map does not name reads as 0 where it allows holes and is
// refused where it does not.
func (m *modbusMeter) answer(request []byte) []byte {
	function := request[0]
	refuse := func(code byte) []byte { return []byte{function | 0x80, code} }
	if function == writeRegisters {
		if code := m.set(request); code != 0 {
			return refuse(code)
		}
		return request[:5]
	}
	if function == encapsulated && m.shows {
		return m.identity(request)
	}
	if function != 3 && function != 4 {
		return refuse(illegalFunction)
	}
	if len(request) != 5 {
		return refuse(illegalValue)
	}
	first, count := int(binary.BigEndian.Uint16(request[1:])), int(binary.BigEndian.Uint16(request[3:]))
	if count == 0 || count > m.model.MaxRegs {
		return refuse(illegalValue)
	}
	words, lowest, highest := m.registers(function, first, count)
	answer := []byte{function, byte(2 * count)}
	for at := first; at < first+count; at++ {
		w, ok := words[at]
		if !ok && (!m.model.Holes || at < lowest || at > highest) {
			return refuse(illegalAddress)
		}
		answer = binary.BigEndian.AppendUint16(answer, w)
	}
	return answer
}
