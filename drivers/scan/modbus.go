package scan

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"gridgate/drivers/line"
	"gridgate/drivers/modbus"
	"gridgate/internal/sortby"
)

const (
	sweepWait    = 100 * time.Millisecond // in which nearly all meters begin to answer
	networkWait  = 400 * time.Millisecond
	secondWait   = 150 * time.Millisecond // on a line where somebody answers
	lateWait     = 400 * time.Millisecond // on one where somebody answers late
	verifyWait   = time.Second
	lingerTime   = 60 * time.Millisecond
	overhead     = 3 * time.Millisecond // of one request on a small machine
	requestBytes = 8
)

// sweeping is a step of Modbus.
type sweeping struct {
	*Scan
	probe    *modbus.Probe
	settings line.Settings
	protocol Protocol
	answered []uint8 // units that did, once
	garbled  []uint8 // units whose answer belongs to no frame
	echo     bool
	late     bool // somebody answered after its time
	noise    []byte
}

func (s *Scan) modbusStep(p Protocol, set line.Settings) step {
	w := &sweeping{Scan: s, settings: set, protocol: p}
	w.probe = &modbus.Probe{Line: s.cfg.Line, Settings: set, Transport: modbus.RTU}
	what := fmt.Sprintf("Modbus units %s", ranges(s.cfg.Units))
	switch p {
	case ModbusTCP:
		w.probe.Transport = modbus.TCP
		what += " over TCP"
	case ModbusRTUOverTCP:
		w.probe.Transport = modbus.RTUOverTCP
		what += " through a serial server"
	case ModbusRTU, HDLC, Wrapper, IEC21:
		what += " at " + set.String()
	}
	return step{what: what, estimate: w.each() * time.Duration(len(s.cfg.Units)), run: w.run}
}

// each is how long a unit takes that does not answer.
func (w *sweeping) each() time.Duration {
	d := w.wait(sweepWait, networkWait)
	if !w.isNetwork() {
		char := w.settings.CharTime()
		d += requestBytes*char + 7*char/2 + overhead
	}
	return d
}

// run sweeps, looks again where somebody is, verifies and names.
func (w *sweeping) run(ctx context.Context) error {
	defer func() {
		if ctx.Err() != nil {
			w.unasked()
		}
	}()
	if err := w.listen(ctx); err != nil {
		return err
	}
	if err := w.sweep(ctx, w.cfg.Units, w.wait(sweepWait, networkWait), modbus.ReadPDU(3, 0, 1), true); err != nil {
		return err
	}
	if len(w.answered) > 0 && w.cfg.Wait == 0 && !w.everywhere() {
		// Where one is there are others, and some are slow, or know input registers only.
		rest := slices.DeleteFunc(slices.Clone(w.cfg.Units), func(u uint8) bool {
			return u > 32 || slices.Contains(w.answered, u)
		})
		second := secondWait
		if w.late {
			second = lateWait
		}
		if err := w.sweep(ctx, rest, w.wait(second, networkWait), modbus.ReadPDU(4, 0, 2), false); err != nil {
			return err
		}
	}
	w.hint()
	sortby.Stable(w.answered, cmp.Compare)
	for _, u := range slices.Compact(w.answered) {
		if err := w.meet(ctx, u); err != nil {
			return err
		}
	}
	for _, u := range w.garbled {
		if !slices.Contains(w.answered, u) {
			if err := w.doubt(ctx, u); err != nil {
				return err
			}
		}
	}
	return nil
}

// everywhere says whether a device answers to every unit number, as some do over
// TCP.
func (w *sweeping) everywhere() bool {
	return w.protocol == ModbusTCP && len(w.answered) > 3 && len(w.answered) == len(w.cfg.Units)
}

// listen hears whether somebody talks that was not asked.
func (w *sweeping) listen(ctx context.Context) error {
	if w.protocol == ModbusTCP {
		return nil
	}
	h, err := w.probe.Listen(ctx, 50*time.Millisecond, 300*time.Millisecond)
	if w.brokeOff(err) {
		return nil
	}
	w.noise = append(w.noise, h.Strange...)
	return err
}

// sweep asks each unit once. Who answers late answers into the time of another.
func (w *sweeping) sweep(ctx context.Context, units []uint8, wait time.Duration, pdu []byte, told bool) error {
	for i, u := range units {
		if told {
			w.tell(time.Duration(i) * w.each())
		}
		if slices.Contains(w.answered, u) {
			continue
		}
		h, err := w.probe.Ask(ctx, u, pdu, modbus.Timing{First: wait})
		if err != nil && !w.brokeOff(err) {
			return err
		}
		w.hear(u, &h)
	}
	// The last may be late, too.
	h, err := w.probe.Listen(ctx, 2*sweepWait, time.Second)
	if err != nil && !w.brokeOff(err) {
		return err
	}
	w.hear(0, &h)
	return nil
}

func (w *sweeping) hear(unit uint8, h *modbus.Heard) {
	w.echo = w.echo || h.Echo
	for _, other := range h.Others {
		if slices.Contains(w.cfg.Units, other) && !slices.Contains(w.answered, other) {
			w.answered = append(w.answered, other)
			w.late = true
		}
	}
	switch {
	case h.PDU != nil && h.Unreachable():
	case h.PDU != nil:
		w.answered = append(w.answered, unit)
	case len(h.Strange) > 0 && unit > 0:
		w.garbled = append(w.garbled, unit)
	}
}

// unasked tells of units that answered, and that an interrupted scan did not get
// to ask who they are.
func (w *sweeping) unasked() {
	var units []uint8
	sortby.Stable(w.answered, cmp.Compare)
	for _, u := range slices.Compact(w.answered) {
		if !slices.ContainsFunc(w.found, func(f Found) bool { return f.Unit == u && f.Settings == w.settings }) {
			units = append(units, u)
		}
	}
	if len(units) > 0 {
		w.note(fmt.Sprintf("at %s units %s answered once, and were not asked who they are", w.where(), ranges(units)))
	}
}

// hint tells what the line itself does.
func (w *sweeping) hint() {
	if w.echo {
		w.note(fmt.Sprintf("echo: what is sent comes back at %v; the adapter hears itself, or A and B of two ports are joined. Answers are told apart from it", w.settings))
	}
	if len(w.noise) > 0 {
		w.note(fmt.Sprintf("noise: %d octets came unasked at %v (% X…); another master, a missing termination, or other settings", len(w.noise), w.settings, w.noise[:min(len(w.noise), 8)]))
	}
	if n := len(w.garbled); n > len(w.cfg.Units)/2 && n > 3 {
		w.note(fmt.Sprintf("noise: what came at %v to %d of %d requests belongs to no frame", w.settings, n, len(w.cfg.Units)))
		w.garbled = nil
	}
}

// Of so many questions to a unit so many must be answered.
const (
	questions = 5
	answers   = 2
)

// verify asks a unit again.
func (w *sweeping) verify(ctx context.Context, unit uint8) (good, bad, twice int, err error) {
	for n := range questions {
		pdu := modbus.ReadPDU(3, 0, 1)
		if n%2 == 1 {
			pdu = modbus.ReadPDU(4, 0, 2)
		}
		h, err := w.probe.Ask(ctx, unit, pdu, modbus.Timing{First: max(verifyWait, w.cfg.Wait), Linger: lingerTime})
		switch {
		case err != nil && !w.brokeOff(err):
			return good, bad, twice, err
		case h.Again:
			twice++
		case h.PDU != nil && len(h.Strange) == 0:
			good++
		case h.PDU != nil || len(h.Strange) > 0:
			bad++
		}
		if good >= answers && bad == 0 && twice == 0 {
			break
		}
	}
	return good, bad, twice, nil
}

// meet verifies a unit that answered, and names it.
func (w *sweeping) meet(ctx context.Context, unit uint8) error {
	w.asks(fmt.Sprintf("unit %d", unit))
	good, bad, twice, err := w.verify(ctx, unit)
	if err != nil {
		return err
	}
	switch {
	case twice > 0, good > 0 && bad >= 2:
		w.collision(unit)
		return nil
	case good < answers:
		w.note(fmt.Sprintf("unit %d at %s answered once, and then %d of %d times: it is not counted", unit, w.where(), good, questions))
		return nil
	}
	if at := slices.IndexFunc(w.found, func(o Found) bool {
		return o.Protocol == w.protocol && o.Unit == unit && o.Settings.Baud == w.settings.Baud && o.Settings != w.settings
	}); at >= 0 {
		w.note(fmt.Sprintf("what answers at %v answers at %v too and is listed once: this port or its meters do not look at parity", w.found[at].Settings, w.settings))
		return nil
	}
	f := Found{Protocol: w.protocol, Settings: w.settings, Unit: unit}
	alone, err := w.name(ctx, &f)
	if err != nil {
		return err
	}
	if !alone {
		w.collision(unit)
		return nil
	}
	if w.everywhere() && len(w.found) > 0 {
		if first := w.found[len(w.found)-1]; first.Protocol == f.Protocol && first.Serial == f.Serial && first.Model == f.Model {
			w.found[len(w.found)-1].Note = "answers to every unit number"
			return nil
		}
	}
	w.add(f)
	return nil
}

// doubt asks a unit again whose answer was none.
func (w *sweeping) doubt(ctx context.Context, unit uint8) error {
	good, bad, twice, err := w.verify(ctx, unit)
	if err == nil && (twice > 0 || bad >= 3) {
		w.collision(unit)
	}
	if err == nil && good >= answers && bad == 0 && twice == 0 {
		return w.meet(ctx, unit)
	}
	return err
}

func (w *sweeping) collision(unit uint8) {
	w.note(fmt.Sprintf("collision: two meters answer as unit %d at %s; give one of them another number. Is there one only, the line garbles it: look at its ends and termination", unit, w.where()))
}

func (w *sweeping) where() string {
	if w.isNetwork() {
		return w.cfg.Line.String()
	}
	return w.settings.String()
}

// ranges writes sorted numbers as people do: 1-32,247.
func ranges[N uint8 | uint16](all []N) string {
	var parts []string
	for i := 0; i < len(all); {
		j := i
		for j+1 < len(all) && all[j+1] == all[j]+1 {
			j++
		}
		if part := fmt.Sprint(all[i]); j > i {
			parts = append(parts, fmt.Sprintf("%s-%d", part, all[j]))
		} else {
			parts = append(parts, part)
		}
		i = j + 1
	}
	return strings.Join(parts, ",")
}
