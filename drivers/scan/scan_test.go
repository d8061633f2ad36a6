package scan_test

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/drivers/drivertest"
	"gridgate/drivers/line"
	"gridgate/drivers/modbus"
	"gridgate/drivers/scan"
	"gridgate/internal/meter"
)

func stamp() meter.Stamp { return meter.Stamp{Time: time.Now().UnixMilli()} }

// model is a register map: voltage and frequency as floats from an address, an
// identity register that has a number of its own, a serial number.
func model(name string, at uint16, kind string) *modbus.Model {
	channel := func(s string) meter.Channel {
		c, err := meter.ParseChannel(s)
		if err != nil {
			panic(err)
		}
		return c
	}
	m := &modbus.Model{Name: name, Holes: true, Serial: &modbus.Register{Function: 3, Address: 0x500, Type: modbus.U32}}
	m.Registers = []modbus.Register{
		{Channel: channel("1-0:32.7.0"), Function: 3, Address: at, Type: modbus.F32, Unit: meter.Volt},
		{Channel: channel("1-0:14.7.0"), Function: 3, Address: at + 8, Type: modbus.F32, Unit: meter.Hertz},
		{Channel: channel("1-0:1.8.0"), Function: 3, Address: at + 20, Type: modbus.F32, Unit: meter.WattHour},
	}
	m.Checks = []modbus.Check{{Channel: channel("1-0:32.7.0"), Min: 80, Max: 480}, {Channel: channel("1-0:14.7.0"), Min: 45, Max: 65}}
	if kind != "" {
		m.Identity = []modbus.Identity{{Register: modbus.Register{Function: 3, Address: 0x600, Type: modbus.U16}, Want: []string{kind}}}
	}
	return m
}

func models() []*modbus.Model {
	return []*modbus.Model{
		model("acme-one", 0x100, ""), model("acme-two", 0x200, ""), model("acme-three", 0x300, "77"), model("acme-four", 0x300, "78"),
		model("acme-five", 0x400, ""),
	}
}

// unit is a simulated Modbus meter.
type unit struct {
	number byte
	serial uint32
	model  *modbus.Model
	slow   time.Duration // before it answers
	volt   float32       // 0 is 231.5
}

func (u *unit) word(function byte, address uint16) (w uint16, ok bool) {
	float := func(f float32, r uint16) uint16 { return uint16(math.Float32bits(f) >> (16 * (1 - (address - r)))) }
	for _, r := range u.model.Registers {
		if r.Function == function && address >= r.Address && address < r.Address+2 {
			return float(map[string]float32{"1-0:32.7.0": cmp.Or(u.volt, 231.5), "1-0:14.7.0": 50.01, "1-0:1.8.0": 4711}[r.Channel.Short()], r.Address), true
		}
	}
	switch {
	case function == 3 && (address == 0x500 || address == 0x501):
		return uint16(u.serial >> (16 * (0x501 - address))), true
	case function == 3 && address == 0x600 && len(u.model.Identity) > 0:
		return map[string]uint16{"77": 77, "78": 78}[u.model.Identity[0].Want[0]], true
	}
	return 0, false
}

func (u *unit) answer(pdu []byte) []byte {
	if pdu[0] != 3 && pdu[0] != 4 {
		return []byte{pdu[0] | 0x80, 1}
	}
	first, count := binary.BigEndian.Uint16(pdu[1:]), binary.BigEndian.Uint16(pdu[3:])
	out := []byte{pdu[0], byte(2 * count)}
	for i := range count {
		w, ok := u.word(pdu[0], first+i)
		if !ok {
			return []byte{pdu[0] | 0x80, 2}
		}
		out = binary.BigEndian.AppendUint16(out, w)
	}
	return out
}

func withCRC(b []byte) []byte {
	sum := uint16(0xFFFF)
	for _, c := range b {
		sum ^= uint16(c)
		for range 8 {
			if low := sum & 1; low != 0 {
				sum = sum>>1 ^ 0xA001
			} else {
				sum >>= 1
			}
		}
	}
	return binary.LittleEndian.AppendUint16(b, sum)
}

// serveUnits answers as a line of units does: a frame ends where the line pauses.
func serveUnits(rw io.ReadWriter, units []*unit, echo bool) {
	buf := make([]byte, 512)
	for {
		n, err := rw.Read(buf)
		if err != nil {
			return
		}
		in := slices.Clone(buf[:n])
		if echo {
			_, _ = rw.Write(in)
		}
		if len(in) < 7 || !slices.Equal(withCRC(slices.Clone(in[:len(in)-2])), in) {
			continue
		}
		var said [][]byte
		for _, u := range units {
			if u.number == in[0] {
				time.Sleep(u.slow)
				said = append(said, withCRC(append([]byte{u.number}, u.answer(in[1:len(in)-2])...)))
			}
		}
		if answer := drivertest.Collide(said...); len(answer) > 0 {
			_, _ = rw.Write(answer)
		}
	}
}

func set(baud int, parity byte) line.Settings {
	return line.Settings{Baud: baud, DataBits: 8, Parity: parity, StopBits: 1}
}

// onWire runs a scan on a simulated line, in simulated time.
func onWire(t *testing.T, own line.Settings, serve func(context.Context, io.ReadWriter), cfg scan.Config) (s *scan.Scan, took time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		wire := drivertest.NewWire(own)
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() { serve(ctx, wire.Meter(ctx)) })
		cfg.Line, cfg.Now = wire.Line(), stamp
		s = scan.New(cfg)
		began := time.Now()
		if err := s.Run(t.Context()); err != nil {
			t.Errorf("scan: %v", err)
		}
		took = time.Since(began)
		cancel()
		if err := cfg.Line.Close(); err != nil {
			t.Error(err)
		}
		_ = wire.Close()
		wg.Wait()
	})
	return s, took
}

func numbers[N uint8 | uint16](from, to N) (all []N) {
	for n := from; n <= to; n++ {
		all = append(all, n)
	}
	return all
}

func serial(units []uint8, physical []uint16) scan.Config {
	return scan.Config{
		Protocols: []scan.Protocol{scan.ModbusRTU, scan.HDLC, scan.IEC21}, Settings: scan.LikelySettings(),
		Units: units, Physical: physical, Models: models(),
	}
}

// eight units of four models, at any of the likely settings: all are found and
// named, nothing else is, and within a minute.
func TestUnitsAreFoundAndNamed(t *testing.T) {
	t.Parallel()
	for _, own := range scan.LikelySettings() {
		t.Run(own.String(), func(t *testing.T) {
			t.Parallel()
			kinds := models()[:4]
			var units []*unit
			var want []string
			for i, n := range []byte{1, 3, 7, 12, 17, 21, 30, 32} {
				u := &unit{number: n, serial: 1000 + uint32(n), model: kinds[i%4], slow: time.Duration(5*i) * time.Millisecond}
				units = append(units, u)
				want = append(want, fmt.Sprintf("%d %s %d at %v", n, u.model.Name, u.serial, own))
			}
			s, took := onWire(t, own, func(_ context.Context, rw io.ReadWriter) { serveUnits(rw, units, false) }, serial(numbers[uint8](1, 32), numbers[uint16](1, 32)))
			var got []string
			for _, f := range s.Found() {
				got = append(got, fmt.Sprintf("%d %s %s at %v", f.Unit, f.Model, f.Serial, f.Settings))
				if len(f.Or) > 0 || f.Note != "" {
					t.Errorf("unit %d: or %v, %s", f.Unit, f.Or, f.Note)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("found\n%s\nwant\n%s\nnotes %q", strings.Join(got, "\n"), strings.Join(want, "\n"), s.Notes())
			}
			if took > time.Minute {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// The whole sweep keeps its estimate, with and without meters.
func TestTheEstimateOfTheWholeSweepHolds(t *testing.T) {
	t.Parallel()
	for _, many := range []int{0, 8} {
		var units []*unit
		for i := range many {
			units = append(units, &unit{number: byte(10 + 25*i), serial: uint32(i + 1), model: models()[i%4]})
		}
		cfg := serial(numbers[uint8](1, 247), nil)
		cfg.Protocols, cfg.Settings, cfg.All = []scan.Protocol{scan.ModbusRTU}, scan.AllSettings(), true
		s, took := onWire(t, set(19200, 'E'), func(_ context.Context, rw io.ReadWriter) { serveUnits(rw, units, false) }, cfg)
		if len(s.Found()) != many || len(s.Steps()) != 12 {
			t.Errorf("%d found of %d in %d steps", len(s.Found()), many, len(s.Steps()))
		}
		estimate := s.Estimate()
		if off := (took - estimate).Abs(); off > estimate/5 {
			t.Errorf("%d units: estimated %v, took %v", many, estimate, took)
		}
		t.Logf("%d units: estimated %v, took %v", many, estimate, took)
	}
}

// A unit that answers after its time is heard in the time of the next, one that
// knows input registers only when it is asked for them.
func TestSlowUnitsAreFound(t *testing.T) {
	t.Parallel()
	units := []*unit{
		{number: 4, serial: 4, model: models()[0]},
		{number: 9, serial: 9, model: models()[1], slow: 190 * time.Millisecond},
		{number: 32, serial: 32, model: models()[4], slow: 250 * time.Millisecond},
	}
	s, _ := onWire(t, set(9600, 'N'), func(_ context.Context, rw io.ReadWriter) { serveUnits(rw, units, false) }, serial(numbers[uint8](1, 32), nil))
	if len(s.Found()) != 3 {
		t.Errorf("found %+v, notes %q", s.Found(), s.Notes())
	}
}

// Two meters with one number are told as that and are no meter; the others are
// found all the same.
func TestACollisionIsTold(t *testing.T) {
	t.Parallel()
	units := []*unit{
		{number: 4, serial: 4, model: models()[0]}, {number: 5, serial: 0x5AA55AA5, model: models()[0]}, {number: 5, serial: 6, model: models()[1]},
	}
	// Both say the same to what they refuse; what one has and the other has not destroys itself.
	for _, u := range units[1:] {
		u.model.Registers = append(u.model.Registers, modbus.Register{Function: 3, Address: uint16(0), Type: modbus.F32})
	}
	units[2].model = model("acme-two", 0, "")
	s, _ := onWire(t, set(9600, 'N'), func(_ context.Context, rw io.ReadWriter) { serveUnits(rw, units, false) }, serial(numbers[uint8](1, 32), nil))
	if found := s.Found(); len(found) != 1 || found[0].Unit != 4 {
		t.Errorf("found %+v", found)
	}
	if notes := strings.Join(s.Notes(), "\n"); !strings.Contains(notes, "collision: two meters answer as unit 5") {
		t.Errorf("notes %q", notes)
	}
}

// Two meters of one kind refuse alike: it shows in what they measure.
func TestACollisionOfTwins(t *testing.T) {
	t.Parallel()
	units := []*unit{{number: 5, serial: 0x5AA55AA5, model: models()[0]}, {number: 5, serial: 0x11223344, model: models()[0], volt: 219.25}, {number: 7, serial: 7, model: models()[0]}}
	s, _ := onWire(t, set(9600, 'N'), func(_ context.Context, rw io.ReadWriter) { serveUnits(rw, units, false) }, serial(numbers[uint8](1, 32), nil))
	if found := s.Found(); len(found) != 1 || found[0].Unit != 7 || found[0].Serial != "7" {
		t.Errorf("found %+v", found)
	}
	if notes := strings.Join(s.Notes(), "\n"); !strings.Contains(notes, "collision: two meters answer as unit 5") {
		t.Errorf("notes %q", notes)
	}
}

// What answers once and then no more is no meter, but is told.
func TestOneAnswerIsNoMeter(t *testing.T) {
	t.Parallel()
	once := func(_ context.Context, rw io.ReadWriter) {
		buf, answered := make([]byte, 64), false
		for {
			n, err := rw.Read(buf)
			if err != nil {
				return
			}
			if n == 8 && buf[0] == 6 && !answered {
				answered = true
				_, _ = rw.Write(withCRC([]byte{6, 0x83, 2}))
			}
		}
	}
	s, _ := onWire(t, set(9600, 'N'), once, serial(numbers[uint8](1, 32), nil))
	if len(s.Found()) != 0 {
		t.Errorf("found %+v", s.Found())
	}
	if notes := strings.Join(s.Notes(), "\n"); !strings.Contains(notes, "unit 6 at 9600 8N1 answered once") {
		t.Errorf("notes %q", notes)
	}
}

// An echo is told, and is nobody's answer.
func TestEchoIsNoMeter(t *testing.T) {
	t.Parallel()
	for _, units := range [][]*unit{nil, {{number: 8, serial: 8, model: models()[2]}}} {
		cfg := serial(numbers[uint8](1, 32), numbers[uint16](1, 8))
		s, _ := onWire(t, set(9600, 'N'), func(_ context.Context, rw io.ReadWriter) { serveUnits(rw, units, true) }, cfg)
		if len(s.Found()) != len(units) || !strings.Contains(strings.Join(s.Notes(), "\n"), "echo: ") {
			t.Errorf("%d units: found %+v, notes %q", len(units), s.Found(), s.Notes())
		}
	}
}

// Noise is told, and is nobody's answer.
func TestNoiseIsNoMeter(t *testing.T) {
	t.Parallel()
	noise := func(_ context.Context, rw io.ReadWriter) {
		var at uint32 = 12345
		buf := make([]byte, 256)
		for {
			if _, err := rw.Read(buf); err != nil {
				return
			}
			out := make([]byte, 3+at%29)
			for i := range out {
				at = at*1664525 + 1013904223
				out[i] = byte(at >> 24)
			}
			if _, err := rw.Write(out); err != nil {
				return
			}
		}
	}
	s, _ := onWire(t, set(9600, 'N'), noise, serial(numbers[uint8](1, 32), numbers[uint16](1, 32)))
	if len(s.Found()) != 0 || !strings.Contains(strings.Join(s.Notes(), "\n"), "noise: ") {
		t.Errorf("found %+v, notes %q", s.Found(), s.Notes())
	}
}

// A scan that is cut off has what it found.
func TestACancelledScanHasWhatItFound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		wire := drivertest.NewWire(set(9600, 'N'))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		units := []*unit{{number: 2, serial: 2, model: models()[0]}, {number: 30, serial: 3, model: models()[1]}}
		wg.Go(func() { serveUnits(wire.Meter(t.Context()), units, false) })
		cfg := serial(numbers[uint8](1, 32), nil)
		cfg.Line, cfg.Now = wire.Line(), stamp
		cfg.Tell = func(p scan.Progress) {
			if p.Found != nil {
				cancel()
			}
		}
		s := scan.New(cfg)
		if err := s.Run(ctx); err == nil {
			t.Error("no error")
		}
		if found := s.Found(); len(found) != 1 || found[0].Unit != 2 {
			t.Errorf("found %+v", found)
		}
		if notes := strings.Join(s.Notes(), "\n"); !strings.Contains(notes, "units 30 answered once, and were not asked") {
			t.Errorf("notes %q", notes)
		}
		if err := cfg.Line.Close(); err != nil {
			t.Error(err)
		}
		_ = wire.Close()
		wg.Wait()
	})
}
