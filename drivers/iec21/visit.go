package iec21

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gridgate/dlms/obis"
	"gridgate/internal/meter"
	"gridgate/internal/sortby"
)

// What keeps a channel from being read.
var (
	// ErrNotOBIS says that a channel is not the value of an OBIS code, or the
	// time beside it.
	ErrNotOBIS = errors.New("not a value of an OBIS code")
	// ErrNotShown says that the readout does not have it.
	ErrNotShown = errors.New("the readout does not have it")
	// ErrNoProfile says that a channel is not a profile that is read as P.NN.
	ErrNoProfile = errors.New("not a load profile: want one such as 1-0:99.1.0")
)

// errOther says that the second session of a visit was with another meter.
var errOther = errors.New("another meter answers than before")

// visit is one turn with the meter.
type visit struct {
	*Meter
	got      meter.Got
	known    bool // who it is was asked for
	unproven bool // what is read now is not sure to be of whom it says

	// What is left to the programming mode.
	rest     []wanted
	clock    bool
	profiles []meter.Profile
	setting  *meter.SetClock
}

// wanted is a channel that the readout did not have.
type wanted struct {
	lane    meter.Lane
	channel meter.Channel
}

func (v *visit) run(ctx context.Context, ask meter.Ask) error {
	v.clock, v.profiles, v.setting = ask.Clock, slices.Clone(ask.Profiles), ask.SetClock
	ask.Groups = slices.Clone(ask.Groups)
	// What a visit that is cut short has not read is what matters least.
	sortby.Stable(ask.Groups, func(a, b meter.Group) int { return cmp.Compare(a.Lane, b.Lane) })
	sortby.Stable(v.profiles, func(a, b meter.Profile) int { return cmp.Compare(a.Lane, b.Lane) })
	if v.cfg.Mode == Programming {
		for _, g := range ask.Groups {
			for _, c := range g.Channels {
				v.rest = append(v.rest, wanted{g.Lane, c})
			}
		}
	} else if len(ask.Groups) > 0 || ask.Clock || len(ask.Profiles) == 0 {
		var r readout
		err := v.converse(ctx, dataReadout, func(ctx context.Context, s *session) (err error) {
			r, err = s.readout(ctx)
			return err
		})
		if err != nil {
			return err
		}
		v.shown(&r, ask)
		v.forget()
	}
	if len(v.rest) == 0 && len(v.profiles) == 0 && !v.clock && v.setting == nil && v.known {
		return nil
	}
	err := v.converse(ctx, programmingMode, v.program)
	if errors.Is(err, errMode) || errors.Is(err, errNoMode) {
		for _, w := range v.rest {
			v.failed(w.channel, err)
		}
		for _, p := range v.profiles {
			v.failed(p.Channel, err)
		}
		if v.setting != nil {
			v.failed(valueChannel(clockCode()), fmt.Errorf("%w: %w", meter.ErrClockMethod, err))
		}
		return nil
	}
	return err
}

// shown takes from a readout what was asked for; the rest is left.
func (v *visit) shown(r *readout, ask meter.Ask) {
	v.unproven = r.unchecked
	v.identify(r.serials())
	for _, g := range ask.Groups {
		if len(g.Channels) == 0 {
			v.all(r, g.Lane)
		}
		for _, c := range g.Channels {
			if !v.show(r, g.Lane, c) {
				v.rest = append(v.rest, wanted{g.Lane, c})
			}
		}
	}
	if ask.Clock || ask.ClockToo {
		v.got.Clock = r.clock(v.cfg.TimeZone)
		v.clock = ask.Clock && v.got.Clock == nil
	}
}

// forget takes off what the programming mode will not serve, and notes it as
// failed.
func (v *visit) forget() {
	mayAsk := len(v.cfg.Password) > 0
	kept := v.rest[:0]
	for _, w := range v.rest {
		if mayAsk && !v.absent[w.channel] {
			kept = append(kept, w)
		} else {
			v.failed(w.channel, ErrNotShown)
		}
	}
	v.rest = kept
	if v.clock && (!mayAsk || v.absent[valueChannel(clockCode())]) {
		v.failed(valueChannel(clockCode()), ErrNotShown)
		v.clock = false
	}
}

func (v *visit) failed(c meter.Channel, err error) {
	v.got.Failures = append(v.got.Failures, meter.Failure{Channel: c, Err: err})
}

// serialCodes are where the serial number may be, the maker's first.
func serialCodes() []obis.Code {
	return []obis.Code{
		{0, 0, groupGeneral, 1, 0, 255},
		{1, 0, 0, 0, 0, 255},
		{0, 0, groupGeneral, 1, 1, 255},
		{1, 0, 0, 0, 2, 255},
		{1, 0, 0, 0, 1, 255},
	}
}

// serials gives the numbers that may be the serial number, the likeliest first.
func (r *readout) serials() (all []string) {
	for _, c := range serialCodes() {
		if e, ok := r.find(c); ok {
			if s, _ := cutUnit(e.values[0]); s != "" && !isRefusal(s) {
				all = append(all, s)
			}
		}
	}
	return all
}

// identify compares the serial numbers that the meter shows with the
// configured one. The maker's or the utility's may be that.
func (v *visit) identify(shown []string) {
	v.known = true
	id := &v.got.Identity
	if len(shown) > 0 {
		id.Found = shown[0]
	}
	same := func(s string) bool { return sameSerial(s, id.Want) }
	if id.Want != "" && slices.ContainsFunc(shown, same) {
		id.Found = id.Want
	}
	id.Proven = id.Found != "" && (id.Want == "" || id.Want == id.Found) && !v.unproven
}

// sameSerial compares without the case of letters, and without leading zeros:
// meters fill up with them, plates do not.
func sameSerial(a, b string) bool {
	return strings.EqualFold(strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0"))
}

// all takes every value that the readout has.
func (v *visit) all(r *readout, lane meter.Lane) {
	for _, e := range r.entries {
		if value, err := e.read(false); err == nil {
			v.row(lane, valueChannel(e.code), e.stamp, value)
		}
		if beside, err := e.read(true); err == nil {
			v.row(lane, timeChannel(e.code), e.stamp, beside)
		}
	}
}

// show takes one channel from the readout, if it is there or cannot be
// anywhere.
func (v *visit) show(r *readout, lane meter.Lane, c meter.Channel) bool {
	code, isTime, err := codeOf(c)
	if err != nil {
		v.failed(c, err)
		return true
	}
	e, ok := r.find(code)
	if ok {
		v.take(lane, c, e, isTime)
	}
	return ok
}

// codeOf takes a channel apart.
func codeOf(c meter.Channel) (code obis.Code, isTime bool, err error) {
	code, class, attribute, ok := c.Attribute()
	isTime = isTimeChannel(class, attribute)
	if !ok || attribute != 2 && !isTime {
		return code, false, ErrNotOBIS
	}
	return code, isTime, nil
}

// take makes a row of an entry, or a failure.
func (v *visit) take(lane meter.Lane, c meter.Channel, e entry, isTime bool) {
	value, err := e.read(isTime)
	if err != nil {
		v.failed(c, fmt.Errorf("%s: %w", e.address, err))
		return
	}
	v.row(lane, c, e.stamp, value)
}

func (v *visit) row(lane meter.Lane, c meter.Channel, at meter.Stamp, r reading) {
	v.got.Rows = append(v.got.Rows, meter.Row{
		Meter: v.cfg.ID, Serial: v.got.Identity.Found, Channel: c, Stamp: at, Lane: lane,
		Value: r.value, Unit: r.unit, Quality: r.quality | v.quality(),
	})
}

// quality is what is held against every row of the visit.
func (v *visit) quality() meter.Quality {
	if v.got.Identity.Found == "" || v.unproven {
		return meter.IdentityNotProven
	}
	return 0
}
