package modbus

import (
	"context"
	"errors"
	"math"
	"time"

	"gridgate/internal/meter"
)

// ErrUnsteady says that a register for a bill did not show the same twice.
var ErrUnsteady = errors.New("read several times and never twice alike")

const (
	// maxReads is how often a register for a bill is read to see it twice alike.
	maxReads = 4
	// maxPower is what no meter's energy grows faster than, in W or var.
	maxPower = 10e6
)

// confirm reads what goes into bills again, in exchanges of their own: one
// damaged frame in 65,536 passes the checksum, and a bill is not made of it. A
// value is taken when it came twice in a row, or, of an energy that grows
// faster than it can be read, when three in a row grow as an energy can. What
// is not seen so is not given.
func (v *visit) confirm(ctx context.Context, groups []meter.Group) error {
	v.billed = map[*Register]*reading{}
	var regs []*Register
	for _, g := range groups {
		if g.Lane != meter.Billing {
			continue
		}
		for _, r := range v.registers(g) {
			if v.billed[r] == nil {
				v.billed[r] = v.found[r]
				if v.found[r].ok {
					regs = append(regs, r)
				}
			}
		}
	}
	instant := v.found // what other lanes have stays as it is
	defer func() { v.found = instant }()
	grown := map[*Register]bool{}
	for reads := 2; len(regs) > 0 && reads <= maxReads; reads++ {
		v.found = map[*Register]*reading{}
		for _, r := range regs {
			v.found[r] = &reading{}
		}
		err := v.readAll(ctx, regs)
		var rest []*Register
		for _, r := range regs {
			before, now := v.billed[r], v.found[r]
			v.billed[r] = now
			switch {
			case err != nil && !now.ok:
				now.err = err
			case !now.ok || now.value == before.value:
			case grown[r] && grows(r, before, now):
			default:
				grown[r] = grows(r, before, now)
				rest = append(rest, r)
			}
		}
		regs = rest
		if err != nil {
			v.unsteady(regs, err)
			return err
		}
	}
	v.unsteady(regs, ErrUnsteady)
	return nil
}

func (v *visit) unsteady(regs []*Register, err error) {
	for _, r := range regs {
		v.billed[r] = &reading{err: v.located(r, err)}
	}
}

// grows says that r is an energy and can have grown from one reading to the
// other.
func grows(r *Register, from, to *reading) bool {
	switch r.Unit {
	case meter.WattHour, meter.VarHour, meter.VAHour:
	default:
		return false
	}
	if !from.value.IsNumber() || !to.value.IsNumber() {
		return false
	}
	growth := to.value.Float64() - from.value.Float64()
	return growth >= 0 && growth <= maxPower*to.at.Sub(from.at).Hours()+step(to.value)
}

// step is the least by which a value can change.
func step(v meter.Value) float64 {
	unit := math.Pow10(int(v.Scale))
	switch v.Kind {
	case meter.Float32:
		f := math.Float32frombits(uint32(v.Bits))
		return unit * float64(math.Nextafter32(f, math.MaxFloat32)-f)
	case meter.Float64:
		f := math.Float64frombits(v.Bits)
		return unit * (math.Nextafter(f, math.MaxFloat64) - f)
	case meter.None, meter.Int, meter.Uint, meter.Bool, meter.Text, meter.Octets, meter.DateTime:
	}
	return unit
}

// reading is what was read of one register.
type reading struct {
	value   meter.Value
	quality meter.Quality
	stamp   meter.Stamp
	at      time.Time // by the monotonic clock
	ok      bool      // there is a value and a stamp
	err     error
}
