package cosem

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

func limiterObject() obis.Code { return obis.Code{0, 0, 17, 0, 0, 255} }

// limiter is what a limiter holds, and how its thresholds are scaled.
type limiter struct {
	dlms.Limiter
	scale dlms.ScalerUnit
}

func (v *visit) limiter(ctx context.Context, code obis.Code) (l limiter, err error) {
	l.Limiter, err = v.client.ReadLimiter(ctx, or(code, limiterObject()))
	if err = v.tried(ctx, err); err != nil {
		if isRefusal(err) {
			err = cannot("%w", err)
		}
		return l, err
	}
	if scaler, ok := dlms.ScalerOf(l.Monitored); ok {
		data, err := v.get(ctx, scaler)
		if err != nil {
			return l, fmt.Errorf("scaler of what the limiter watches, %v: %w", l.Monitored, err)
		}
		if l.scale, err = dlms.ParseScalerUnit(data); err != nil {
			return l, err
		}
	}
	return l, nil
}

func (l *limiter) threshold(data axdr.Value) string {
	value, _, err := toValue(data, l.Monitored, l.scale.Scaler)
	if err != nil {
		return data.Tag.String()
	}
	if unit := meter.Unit(l.scale.Unit).String(); unit != "" {
		return value.String() + " " + unit
	}
	return value.String()
}

func (l *limiter) facts() []meter.Fact {
	p := l.Profile
	var start [dlms.DateTimeLen]byte
	octets, _ := p.Start.AppendBinary(start[:0])
	emergency := "no"
	if l.InEmergency {
		emergency = "yes"
	}
	return []meter.Fact{
		{Name: "threshold", Value: l.threshold(l.Active)},
		{Name: "normal", Value: l.threshold(l.Normal)},
		{Name: "emergency", Value: l.threshold(l.Emergency)},
		{Name: "in emergency", Value: emergency},
		{Name: "profile", Value: fmt.Sprintf("%d from %s for %v", p.ID, momentText(string(octets)), time.Duration(p.Duration)*time.Second)},
	}
}

func (v *visit) limit(ctx context.Context, act meter.Limit, o *meter.Outcome) error {
	code := or(act.Object, limiterObject())
	before, err := v.limiter(ctx, code)
	if err != nil {
		return err
	}
	o.Before = before.facts()
	set := func(id int8, value axdr.Value) error {
		return v.send(o, func() error {
			return v.client.Set(ctx, dlms.Attribute{Class: dlms.ClassLimiter, Code: code, ID: id}, value)
		})
	}
	attribute, now := int8(5), before.Emergency
	if act.Emergency == nil {
		attribute, now = 4, before.Normal
	}
	if now.Tag == axdr.TagNull {
		now = before.Active
	}
	threshold, err := v.thresholdOf(act, &before, now)
	if err != nil {
		return err
	}
	var profile dlms.EmergencyProfile
	if act.Emergency != nil {
		if profile, err = v.emergencyProfile(ctx, *act.Emergency, before.Groups); err != nil {
			return err
		}
		if len(before.Groups) == 0 {
			if err := set(9, axdr.Array(axdr.LongUnsigned(profile.ID))); err != nil {
				return err
			}
		}
	}
	if act.Threshold != (meter.Value{}) {
		if err := set(attribute, threshold); err != nil {
			return err
		}
	}
	if act.Emergency != nil {
		if err := v.send(o, func() error { return v.client.SetEmergencyProfile(ctx, code, profile) }); err != nil {
			return err
		}
	}
	ok, err := v.settle(ctx, func() (bool, error) {
		l, err := v.limiter(ctx, code)
		if err == nil {
			o.After = l.facts()
		}
		switch {
		case act.Emergency == nil:
			return l.Normal.Equal(threshold), err
		case act.Emergency.Length == 0:
			return !l.InEmergency, err
		case !act.Emergency.Start.IsZero():
			return l.Profile.ID == profile.ID && l.Profile.Duration == profile.Duration, err
		}
		return l.InEmergency && (act.Threshold == meter.Value{} || l.Active.Equal(threshold)), err
	})
	return v.concluded(o, ok, err)
}

// emergencyProfile gives the profile in the terms of the meter's own clock.
func (v *visit) emergencyProfile(ctx context.Context, e meter.Emergency, groups []uint16) (p dlms.EmergencyProfile, err error) {
	p.ID = e.Profile
	switch {
	case p.ID == 0 && len(groups) > 0:
		p.ID = groups[0]
	case p.ID == 0:
		p.ID = 1
	case len(groups) > 0 && !slices.Contains(groups, p.ID):
		return p, mustNot("the limiter belongs to the emergency profiles %v, not to %d", groups, p.ID)
	}
	if e.Length < 0 || e.Length/time.Second > math.MaxUint32 {
		return p, mustNot("an emergency of %v", e.Length)
	}
	p.Duration = uint32(e.Length / time.Second)
	p.Start, err = v.byItsClock(ctx, e.Start)
	return p, err
}

// byItsClock gives a moment, or now for the zero value, in the way that the
// meter tells times, by its own clock: what that is off is in it, so that it
// comes when the gateway's clock says so.
func (v *visit) byItsClock(ctx context.Context, at time.Time) (dlms.DateTime, error) {
	shows, found, err := v.readOffset(ctx)
	if err != nil {
		return dlms.DateTime{}, fmt.Errorf("clock: %w", err)
	}
	if !found.Valid {
		return dlms.DateTime{}, mustNot("the meter says that its clock is wrong: it would not keep the time that was ordered")
	}
	by := time.Duration(0)
	if !at.IsZero() {
		by = at.Sub(time.UnixMilli(found.At.Time))
	}
	d := moved(shows, by)
	d.Hundredths = 0
	return d, nil
}

// thresholdOf gives the threshold as the limiter scales it, of the type of like.
// What cannot be told to the meter exactly is not told at all.
func (v *visit) thresholdOf(act meter.Limit, l *limiter, like axdr.Value) (axdr.Value, error) {
	if act.Threshold == (meter.Value{}) {
		return axdr.Value{}, nil
	}
	unit := meter.Unit(l.scale.Unit)
	if act.Unit != unit && !(act.Unit == meter.NoUnit && unit == meter.Count) {
		return axdr.Value{}, mustNot("the threshold is in %q, and the meter's limiter watches %v in %q", act.Unit, l.Monitored, unit)
	}
	if act.Threshold.Kind != meter.Uint && act.Threshold.Kind != meter.Int || act.Threshold.Kind == meter.Int && act.Threshold.Int64() < 0 {
		return axdr.Value{}, mustNot("a threshold of %v", act.Threshold)
	}
	if err := v.model.cannot(l.scale.Unit); err != nil {
		return axdr.Value{}, err
	}
	ratio := uint64(1)
	if v.model.quirks.Ratios && transformed(l.scale.Unit) {
		ratio = uint64(v.model.ratios.Of(l.scale.Unit))
	}
	n, scale := act.Threshold.Bits, int(act.Threshold.Scale)-int(l.scale.Scaler)
	for ; scale > 0 && n <= math.MaxUint64/10; scale-- {
		n *= 10
	}
	for ; scale < 0 && n%10 == 0 && n != 0; scale++ {
		n /= 10
	}
	if n == 0 {
		scale = 0
	}
	if scale != 0 || n%ratio != 0 {
		return axdr.Value{}, mustNot("%v %v cannot be told to the meter, which counts in steps of %d × 10^%d", act.Threshold, act.Unit, ratio, l.scale.Scaler)
	}
	n /= ratio
	most := map[axdr.Tag]uint64{
		axdr.TagUnsigned: math.MaxUint8, axdr.TagLongUnsigned: math.MaxUint16, axdr.TagDoubleLongUnsigned: math.MaxUint32, axdr.TagLong64Unsigned: math.MaxUint64,
		axdr.TagInteger: math.MaxInt8, axdr.TagLong: math.MaxInt16, axdr.TagDoubleLong: math.MaxInt32, axdr.TagLong64: math.MaxInt64,
	}[like.Tag]
	switch {
	case like.Tag == axdr.TagFloat32:
		return axdr.Float32(float32(n)), nil
	case like.Tag == axdr.TagFloat64:
		return axdr.Float64(float64(n)), nil
	case most == 0:
		return axdr.Value{}, cannot("its thresholds are %v", like.Tag)
	case n > most:
		return axdr.Value{}, mustNot("%v %v is more than the meter's %v holds", act.Threshold, act.Unit, like.Tag)
	}
	return axdr.Value{Tag: like.Tag, Num: n}, nil
}
