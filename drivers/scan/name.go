package scan

import (
	"context"
	"slices"
	"strings"
	"time"

	"gridgate/drivers/modbus"
	"gridgate/internal/meter"
)

// kind is what a unit of the line turned out to be: the map that fits it best, and
// all that had to be compared.
type kind struct {
	best *modbus.Model
	fit  []*modbus.Model
	dumb bool // it has no identification by function 43/14
}

// words is where registers are.
type words struct {
	function       uint8
	address, count uint16
}

// naming asks one unit for registers, each once.
type naming struct {
	*sweeping
	unit uint8
	had  map[words][]byte // nil: refused, or silent
	dumb int              // time-outs in a row
	twin bool             // two meters answer
}

// collided is after how many garbled answers to one question two meters answer: their
// refusals are alike, what they measure is not.
const collided = 3

// maxShort is how many registers a short answer has.
const maxShort = 4

// name finds the register map that fits a unit, and its serial number. alone is
// false where two meters have the unit.
func (w *sweeping) name(ctx context.Context, f *Found) (alone bool, err error) {
	n := &naming{sweeping: w, unit: f.Unit, had: map[words][]byte{}}
	err = n.name(ctx, f)
	return !n.twin, err
}

func (n *naming) name(ctx context.Context, f *Found) error {
	k, err := n.known(ctx)
	if err != nil {
		return err
	}
	if k == nil {
		k = &kind{}
		for _, m := range n.cfg.Models {
			fits, err := n.fits(ctx, m)
			if err != nil {
				return err
			}
			if fits {
				k.fit = append(k.fit, m)
			}
		}
	}
	// A map without checks is for meters that nothing with checks is for.
	if slices.ContainsFunc(k.fit, isChecked) {
		k.fit = slices.DeleteFunc(k.fit, func(m *modbus.Model) bool { return !isChecked(m) })
	}
	best, or, err := n.best(ctx, k.fit)
	if err != nil {
		return err
	}
	if !k.dumb {
		id, err := n.deviceID(ctx)
		if err != nil {
			return err
		}
		f.Says = strings.Join(strings.Fields(id.Vendor+" "+id.Product+" "+id.Revision), " ")
	}
	if best == nil {
		f.Note = "no register map fits: see docs/modbus.md, how to write one"
		return nil
	}
	f.Model, f.Or = best.Name, or
	if len(or) > 0 {
		f.Note = "the registers of several models fit; look at the plate"
	} else {
		if !slices.ContainsFunc(n.kinds, func(k kind) bool { return k.best == best }) {
			n.kinds = append(n.kinds, kind{best, k.fit, f.Says == ""})
		}
	}
	f.Serial, err = n.serial(ctx, best)
	return err
}

// known says whether the unit is like one that was named before on this line:
// then only what was compared then is compared.
func (n *naming) known(ctx context.Context) (*kind, error) {
	for i := range n.kinds {
		k := &n.kinds[i]
		fits, err := n.fits(ctx, k.best)
		if err != nil {
			return nil, err
		}
		// Without checks nothing speaks for the map by itself.
		if fits && isChecked(k.best) {
			return k, nil
		}
	}
	return nil, nil
}

// read gives the bytes of registers, nil where the unit refuses or is silent.
func (n *naming) read(ctx context.Context, at words) ([]byte, error) {
	if b, ok := n.had[at]; ok {
		return b, nil
	}
	const most = 2 // tries, where nothing is garbled
	n.had[at] = nil
	bad := 0
	for try := 0; try < most+bad && bad < collided && !n.twin; try++ {
		h, err := n.probe.Ask(ctx, n.unit, modbus.ReadPDU(at.function, at.address, at.count), modbus.Timing{First: n.patience()})
		switch {
		case err != nil && !n.brokeOff(err):
			return nil, err
		case h.Again || len(h.Strange) > 0:
			bad++
			continue
		case h.PDU == nil:
			n.dumb++
			continue
		}
		n.dumb = 0
		if len(h.PDU) == 2+2*int(at.count) && h.PDU[0] == at.function {
			n.had[at] = h.PDU[2:]
		}
		return n.had[at], nil
	}
	// A long answer may be garbled by the line, too.
	n.twin = n.twin || bad >= collided && at.count <= maxShort
	return nil, nil
}

// readAhead reads registers together where the map allows it. What is refused in one
// piece is left to be read by itself.
func (n *naming) readAhead(ctx context.Context, m *modbus.Model, regs []*modbus.Register) error {
	var missing []*modbus.Register
	for _, r := range regs {
		if _, ok := n.had[words{r.Function, r.Address, r.Len()}]; !ok {
			missing = append(missing, r)
		}
	}
	for _, b := range m.Plan(missing) {
		if len(b.Registers) < 2 {
			continue
		}
		all, err := n.read(ctx, words{b.Function, b.Address, b.Count})
		if err != nil {
			return err
		}
		for _, r := range b.Registers {
			if at := 2 * int(r.Address-b.Address); at+2*int(r.Len()) <= len(all) {
				n.had[words{r.Function, r.Address, r.Len()}] = all[at : at+2*int(r.Len())]
			}
		}
	}
	return nil
}

// value reads one register.
func (n *naming) value(ctx context.Context, r *modbus.Register) (v meter.Value, ok bool, err error) {
	b, err := n.read(ctx, words{r.Function, r.Address, r.Len()})
	if err != nil || b == nil {
		return v, false, err
	}
	v, q := r.Decode(b)
	return v, q == 0, nil
}

// fits says whether nothing speaks against a map: its identity registers and its
// checks hold. A map that has neither must at least have its registers.
func (n *naming) fits(ctx context.Context, m *modbus.Model) (bool, error) {
	for i := range m.Identity {
		b, err := n.read(ctx, words{m.Identity[i].Function, m.Identity[i].Address, m.Identity[i].Len()})
		if err != nil {
			return false, err
		}
		if b == nil {
			if len(m.Identity[i].Want) > 0 {
				return false, nil
			}
			continue
		}
		if v, q := m.Identity[i].Decode(b); q != 0 || !m.Identity[i].Fits(v.String()) {
			return false, nil
		}
	}
	for _, c := range m.Checks {
		for i := range m.Registers {
			r := &m.Registers[i]
			if r.Channel != c.Channel {
				continue
			}
			v, ok, err := n.value(ctx, r)
			if err != nil {
				return false, err
			}
			if f := v.Float64(); !ok || !v.IsNumber() || f < c.Min || f > c.Max {
				return false, nil
			}
		}
	}
	if len(m.Checks) > 0 {
		return true, nil
	}
	for i := range m.Registers {
		if _, ok, err := n.value(ctx, &m.Registers[i]); err != nil || !ok {
			return false, err
		}
	}
	if m.Serial == nil {
		return len(m.Identity) > 0, nil
	}
	_, ok, err := n.value(ctx, m.Serial)
	return ok, err
}

// best gives the map whose registers the unit has most of, and others that do as
// well.
func (n *naming) best(ctx context.Context, fit []*modbus.Model) (best *modbus.Model, or []string, err error) {
	if len(fit) < 2 {
		if len(fit) == 1 {
			best = fit[0]
		}
		return best, nil, nil
	}
	scores := make([]int, len(fit))
	for i, m := range fit {
		if scores[i], err = n.score(ctx, m, fit); err != nil {
			return nil, nil, err
		}
	}
	most := slices.Max(scores)
	for i, m := range fit {
		switch {
		case scores[i] < most:
		case best == nil:
			best = m
		default:
			or = append(or, m.Name)
		}
	}
	return best, or, nil
}

// isChecked says whether a map says how it is told that it fits.
func isChecked(m *modbus.Model) bool { return len(m.Checks) > 0 }

// inAll says whether all maps have the register, so that it speaks for none.
func inAll(r *modbus.Register, all []*modbus.Model) bool {
	for _, m := range all {
		if !slices.ContainsFunc(m.Registers, func(o modbus.Register) bool {
			return o.Function == r.Function && o.Address == r.Address && o.Type == r.Type && o.Scale == r.Scale &&
				o.Unit == r.Unit && o.LittleEndianWords == r.LittleEndianWords
		}) {
			return false
		}
	}
	return true
}

// score says how well a map fits, of several: what the unit has speaks for it,
// what it refuses or has at an impossible value against it.
func (n *naming) score(ctx context.Context, m *modbus.Model, among []*modbus.Model) (score int, err error) {
	const (
		shown, zero, missing, impossible = 4, -1, -6, -8
		identified                       = 1000
	)
	for i := range m.Identity {
		if len(m.Identity[i].Want) > 0 {
			score += identified
		}
	}
	var regs []*modbus.Register
	for i := range m.Registers {
		if r := &m.Registers[i]; !inAll(r, among) {
			regs = append(regs, r)
		}
	}
	if err := n.readAhead(ctx, m, regs); err != nil {
		return 0, err
	}
	for _, r := range regs {
		v, ok, err := n.value(ctx, r)
		if err != nil {
			return 0, err
		}
		switch f := v.Float64(); {
		case !ok:
			score += missing
		case isImpossible(r, f):
			score += impossible
		case f == 0 && strings.Contains(string(r.Channel), ".8."): // nothing was fed in yet
		case f == 0:
			score += zero
		default:
			score += shown
		}
	}
	return score, nil
}

// isImpossible says whether no meter in use shows f.
func isImpossible(r *modbus.Register, f float64) bool {
	if r.Limits != nil && (f < r.Limits.Min || f > r.Limits.Max) {
		return true
	}
	for _, u := range [...]struct {
		unit      meter.Unit
		low, high float64
		tiny      bool // what is next to 0, and not 0, is no measured value
	}{
		{meter.Volt, 80, 1000, false},
		{meter.Hertz, 45, 65, false},
		{meter.Ampere, -1e4, 1e4, true},
		{meter.Watt, -1e9, 1e9, true},
		{meter.Var, -1e9, 1e9, true},
		{meter.VoltAmpere, -1e9, 1e9, true},
		{meter.WattHour, -1e13, 1e13, true},
		{meter.VarHour, -1e13, 1e13, true},
		{meter.VAHour, -1e13, 1e13, true},
	} {
		if u.unit == r.Unit {
			return f < u.low || f > u.high || u.tiny && f != 0 && f > -1e-6 && f < 1e-6
		}
	}
	return false
}

// serial reads the serial number that the map has.
func (n *naming) serial(ctx context.Context, m *modbus.Model) (string, error) {
	if m.Serial == nil {
		return "", nil
	}
	v, ok, err := n.value(ctx, m.Serial)
	if err != nil || !ok || v.String() == "0" {
		return "", err
	}
	return v.String(), nil
}

// deviceID asks for the identification that devices of class "basic" have.
func (n *naming) deviceID(ctx context.Context) (modbus.DeviceID, error) {
	h, err := n.probe.Ask(ctx, n.unit, modbus.DeviceIDPDU(), modbus.Timing{First: max(lateWait, n.cfg.Wait)})
	if err != nil && !n.brokeOff(err) {
		return modbus.DeviceID{}, err
	}
	id, _ := modbus.ParseDeviceID(h.PDU)
	return id, nil
}

// patience is how long an answer is waited for: less of a unit that kept silent.
func (n *naming) patience() time.Duration {
	if n.dumb > 2 {
		return max(lateWait, n.cfg.Wait)
	}
	return max(verifyWait, n.cfg.Wait)
}
