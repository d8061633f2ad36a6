package modbus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gridgate/internal/meter"
)

// The failures of a visit that are not the meter's.
var (
	// ErrNotInModel says that the register map has no such channel.
	ErrNotInModel = errors.New("the model has no register for it")
	// ErrNoProfile says that a load profile was asked for.
	ErrNoProfile = errors.New("a Modbus meter keeps no profile that could be read")
	errNoActs    = fmt.Errorf("%w: Modbus has nothing for it but registers that mean something else with each maker", meter.ErrCannotAct)
)

// maxRetries is how many failed requests a visit repeats, once the meter has
// answered at all.
const maxRetries = 2

// visit is one turn with the meter.
type visit struct {
	*Meter
	found    map[*Register]*reading
	billed   map[*Register]*reading // as found, and seen twice
	refusals []refused
	isKind   bool // the meter showed that it is of the model
	gave     bool // the meter has given a register
	answered bool // the meter has answered in this visit
	retries  int
}

// Visit reads the registers of the groups; a group without channels is all of
// the model. Registers of the billing lane are read twice, see confirm. A meter
// that does not answer at all costs one time-out. Profiles are failures: Modbus has
// none. Clocks are compared and set where the model has one.
//
// A meter that shows itself to be of another kind than the map gives nothing
// but ErrOtherModel. One that shows neither serial number nor kind gives rows
// with IdentityNotProven, and OutOfRange where not one of the model's checks
// holds.
func (m *Meter) Visit(ctx context.Context, ask meter.Ask) (meter.Got, error) {
	v := &visit{Meter: m, found: map[*Register]*reading{}}
	v.expire(time.Now())
	got := meter.Got{Identity: meter.Identity{Want: m.cfg.Serial}}
	if len(ask.Acts) > 0 {
		got.Done = meter.RefuseActs(ask.Acts, m.cfg.Now(), errNoActs)
	}
	for _, p := range ask.Profiles {
		got.Failures = append(got.Failures, meter.Failure{Channel: p.Channel, Err: ErrNoProfile})
	}
	if err := v.identify(ctx, &got.Identity); err != nil {
		return got, err
	}
	wanted := v.wanted(ask.Groups)
	if len(wanted) > 0 && got.Identity.Found == "" && !v.isKind {
		wanted = append(wanted, v.checked()...)
	}
	err := v.readAll(ctx, wanted)
	if err == nil {
		err = v.confirm(ctx, ask.Groups)
	}
	if err == nil {
		err = v.clock(ctx, ask, &got)
	}
	v.remember()
	v.judge()
	v.report(ask.Groups, &got)
	return got, err
}

// wanted lists the registers that the groups ask for, each once.
func (v *visit) wanted(groups []meter.Group) []*Register {
	var regs []*Register
	for _, g := range groups {
		for _, r := range v.registers(g) {
			regs = v.add(regs, r)
		}
	}
	return regs
}

// checked lists the registers that tell whether the map fits the meter.
func (v *visit) checked() []*Register {
	var regs []*Register
	for _, c := range v.cfg.Model.Checks {
		if r := v.cfg.Model.register(c.Channel); r != nil {
			regs = v.add(regs, r)
		}
	}
	return regs
}

func (v *visit) add(regs []*Register, r *Register) []*Register {
	if v.found[r] != nil {
		return regs
	}
	v.found[r] = &reading{}
	return append(regs, r)
}

// registers gives those of g that the model has.
func (v *visit) registers(g meter.Group) []*Register {
	var regs []*Register
	if len(g.Channels) == 0 {
		for i := range v.cfg.Model.Registers {
			regs = append(regs, &v.cfg.Model.Registers[i])
		}
	}
	for _, c := range g.Channels {
		if r := v.cfg.Model.register(c); r != nil {
			regs = append(regs, r)
		}
	}
	return regs
}

func (m *Model) register(c meter.Channel) *Register {
	for i := range m.Registers {
		if m.Registers[i].Channel == c {
			return &m.Registers[i]
		}
	}
	return nil
}

// readAll reads regs. What the meter refuses in one piece is asked for in
// smaller ones, now and in later visits; what it has refused by itself is not
// asked for again for a day.
func (v *visit) readAll(ctx context.Context, regs []*Register) error {
	regs = slices.DeleteFunc(slices.Clone(regs), func(r *Register) bool {
		v.found[r].err = v.refused[r]
		return v.refused[r] != nil
	})
	todo := plan(regs, v.cfg.Model, v.cuts)
	for len(todo) > 0 {
		b := todo[0]
		todo = todo[1:]
		answer, err := v.request(ctx, b)
		var no refusal
		switch {
		case err == nil:
			v.take(b, answer)
		case !errors.As(err, &no) || errors.Is(err, meter.ErrNoAnswer):
			return err
		default:
			todo = append(v.refusedBlock(b, no, err), todo...)
		}
	}
	return nil
}

// request reads a block. A request that fails is repeated, but silence at the
// first of a visit is not: nobody may be there.
func (v *visit) request(ctx context.Context, b block) ([]byte, error) {
	for {
		answer, err := v.read(ctx, b)
		silent := errors.Is(err, meter.ErrNoAnswer)
		var no refusal
		if err == nil || errors.As(err, &no) && !silent {
			v.answered = true
			return answer, err
		}
		worth := errors.Is(err, meter.ErrGarbled) || errors.As(err, new(*lostError)) || silent && v.answered
		if !worth || ctx.Err() != nil || v.retries == maxRetries {
			return nil, err
		}
		v.retries++
	}
}

func (v *visit) take(b block, answer []byte) {
	now, at := v.cfg.Now(), time.Now()
	v.gave = true
	for _, r := range b.regs {
		value, quality := r.value(b.bytes(r, answer))
		delete(v.suspect, r)
		*v.found[r] = reading{value: value, quality: quality, stamp: now, at: at, ok: true}
	}
}

// judge flags what is not plausible. Where every check fails, the map is of
// another meter or another word order, and nothing is plausible.
func (v *visit) judge() {
	checked, failed := 0, 0
	for _, c := range v.cfg.Model.Checks {
		for r, got := range v.found {
			if r.Channel != c.Channel || !got.value.IsNumber() {
				continue
			}
			checked++
			if got.bound(c.Min, c.Max) {
				failed++
			}
			if billed := v.billed[r]; billed != nil && billed != got {
				billed.bound(c.Min, c.Max)
			}
		}
	}
	all := checked >= 2 && failed == checked
	for _, found := range []map[*Register]*reading{v.found, v.billed} {
		for r, got := range found {
			if all {
				got.quality |= meter.OutOfRange
			} else if r.Limits != nil {
				got.bound(r.Limits.Min, r.Limits.Max)
			}
		}
	}
}

// bound flags a number outside of the bounds, and says so.
func (r *reading) bound(low, high float64) (outside bool) {
	f := r.value.Float64()
	if outside = r.value.IsNumber() && (f < low || f > high); outside {
		r.quality |= meter.OutOfRange
	}
	return outside
}

// report puts what was read into the groups' lanes, in their order.
func (v *visit) report(groups []meter.Group, got *meter.Got) {
	var quality meter.Quality
	if got.Identity.Found == "" && (got.Identity.Want != "" || !v.isKind) {
		quality = meter.IdentityNotProven
	}
	for _, g := range groups {
		for _, c := range g.Channels {
			if v.cfg.Model.register(c) == nil {
				err := fmt.Errorf("%w: %s", ErrNotInModel, v.cfg.Model.Name)
				got.Failures = append(got.Failures, meter.Failure{Channel: c, Err: err})
			}
		}
		found := v.found
		if g.Lane == meter.Billing {
			found = v.billed
		}
		for _, r := range v.registers(g) {
			switch f := found[r]; {
			case f == nil: // for a bill, and not read twice: the visit's error says why
			case f.err != nil:
				got.Failures = append(got.Failures, meter.Failure{Channel: r.Channel, Err: f.err})
			case f.ok:
				got.Rows = append(got.Rows, meter.Row{
					Meter: v.cfg.ID, Serial: got.Identity.Found, Channel: r.Channel, Stamp: f.stamp,
					Value: f.value, Unit: r.Unit, Quality: f.quality | quality, Lane: g.Lane,
				})
			}
		}
	}
}
