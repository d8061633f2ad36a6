package cosem

import (
	"context"
	"errors"
	"math"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/security"
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

// checksOnly says whether nothing but the checks of HDLC, which one in 65,536
// frames of noise passes, stands between a bad line and a bill.
func (m *Meter) checksOnly() bool {
	return m.cfg.HDLC != nil && m.cfg.Security.Policy == security.Unprotected
}

// confirm reads registers for bills again, and their scalers, in exchanges of
// their own. A value is taken when it came twice in a row, or, of an energy that
// grows faster than it can be read, when three in a row grow as an energy can.
// What is not seen so is not given, and nothing where stopped says that the visit
// is over.
func (v *visit) confirm(ctx context.Context, readings []*reading, stopped bool) error {
	var open []*reading
	for _, r := range readings {
		if r.lane == meter.Billing && r.read && r.err == nil {
			r.read = !stopped
			open = append(open, r)
		}
	}
	if stopped {
		return nil
	}
	grown := map[*reading]bool{}
	for reads := 2; len(open) > 0 && reads <= maxReads; reads++ {
		again := make([]*reading, len(open))
		var questions []question
		for i, r := range open {
			again[i] = &reading{lane: r.lane, channel: r.channel, attribute: r.attribute}
			questions = append(questions, v.value(again[i]))
			if reads == 2 {
				questions = append(questions, v.sameScale(again[i])...)
			}
		}
		err := v.readAll(ctx, questions)
		rest := open[:0]
		for i, r := range open {
			before := *r
			*r = *again[i]
			switch {
			case !r.read || r.err != nil || r.data.Equal(before.data):
			case grown[r] && v.grows(&before, r):
			default:
				grown[r] = v.grows(&before, r)
				rest = append(rest, r)
			}
		}
		if open = rest; err != nil {
			for _, r := range open {
				r.read = false
			}
			return err
		}
	}
	for _, r := range open {
		r.err = ErrUnsteady
	}
	return nil
}

// sameScale asks again for the scaler of what r reads. When it is another, both
// are forgotten: one of them was never said.
func (v *visit) sameScale(r *reading) []question {
	scaler, ok := dlms.ScalerOf(r.attribute)
	if !ok {
		return nil
	}
	k, ok := v.cache.scales[scaler]
	if !ok {
		return nil
	}
	return []question{{attribute: scaler, take: func(data axdr.Value, err error) {
		var scale dlms.ScalerUnit
		if err == nil {
			scale, err = dlms.ParseScalerUnit(data)
		}
		if err == nil && scale != k.value {
			err = ErrUnsteady
		}
		if err != nil {
			delete(v.cache.scales, scaler)
			r.err = err
		}
	}}}
}

// grows says that an energy can have grown from one reading to the other.
func (v *visit) grows(from, to *reading) bool {
	scale, err := v.scale(to.attribute)
	if err != nil {
		return false
	}
	switch meter.Unit(scale.Unit) {
	case meter.WattHour, meter.VarHour, meter.VAHour:
	default:
		return false
	}
	low, _, err1 := v.model.value(from.data, from.attribute, scale)
	high, _, err2 := v.model.value(to.data, to.attribute, scale)
	if err1 != nil || err2 != nil || !low.IsNumber() || !high.IsNumber() {
		return false
	}
	growth := high.Float64() - low.Float64()
	hours := float64(to.stamp.Mono-from.stamp.Mono) / (3600 * 1000)
	step := math.Pow10(int(high.Scale))
	if high.Kind == meter.Float32 || high.Kind == meter.Float64 {
		step = math.Abs(high.Float64()) / (1 << 23)
	}
	return growth >= 0 && growth <= maxPower*hours+step
}
