package cosem

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strings"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/internal/meter"
)

// ErrNotCOSEM says that a channel is not an attribute of a COSEM object.
var ErrNotCOSEM = errors.New("not an attribute of a COSEM object")

// visit is one turn with the meter.
type visit struct {
	*Meter
	got *meter.Got
	// untried says that the association is of an earlier visit, and that the
	// meter has not answered on it in this one.
	untried bool
	fresh   bool // the association was opened for this visit
	proved  bool // the serial number was asked for on it in this visit
	// unscaled has the scalers that were asked for in this visit, nil where the
	// meter gave them.
	unscaled map[dlms.Attribute]error
	model    model
	// done is what a visit can go on from where its association is lost, nil
	// where it cannot, and probed that it was asked once whether it is.
	done   *progress
	probed bool
	fold   bool        // the clock is wanted beside registers
	sent   meter.Stamp // when the last request was
}

func (v *visit) run(ctx context.Context, ask meter.Ask) error {
	v.done.began = v.done.began || len(ask.Clears) == 0
	if err := v.identify(ctx); err != nil {
		return err
	}
	if err := v.readModel(ctx); err != nil {
		return err
	}
	if err := v.clears(ctx, ask.Clears); err != nil {
		return err
	}
	v.done.began = true
	if err := v.acts(ctx); err != nil {
		return err
	}
	for _, lane := range meter.Lanes() {
		if err := v.lane(ctx, ask, lane); err != nil {
			return err
		}
	}
	if ask.SetClock != nil {
		if err := v.setClock(ctx, ask.SetClock); err != nil {
			return err
		}
	}
	v.keepListMax()
	v.remember()
	return nil
}

// lane reads what is asked for of a lane: what a visit that is cut short has
// not read is what matters least. Behind the alarms comes the clock.
func (v *visit) lane(ctx context.Context, ask meter.Ask, lane meter.Lane) error {
	var groups []meter.Group
	for _, g := range ask.Groups {
		if g.Lane == lane {
			groups = append(groups, g)
		}
	}
	v.fold = (ask.Clock || ask.ClockToo) && !v.done.clock
	if err := v.registers(ctx, groups); err != nil {
		return err
	}
	for _, p := range ask.Profiles {
		if p.Lane != lane {
			continue
		}
		if err := v.profile(ctx, p); err != nil {
			return err
		}
		v.done.profiles[p] = true
	}
	if ask.Clock && !v.done.clock && (lane == meter.Instant || lane == meter.Alarm && !v.folds(ask)) {
		err := v.clock(ctx)
		v.done.clock = err == nil
		return err
	}
	return nil
}

// get reads an attribute.
func (v *visit) get(ctx context.Context, a dlms.Attribute) (axdr.Value, error) {
	value, err := v.client.Get(ctx, a)
	if err == nil {
		v.good = a
	}
	return value, v.tried(ctx, err)
}

// tried makes the first failure on an association that was kept errStale, when
// it looks as if the meter had forgotten the association, and one later on
// errBroken.
func (v *visit) tried(ctx context.Context, err error) error {
	switch {
	case err == nil:
	case v.untried && isForgotten(err) && !v.withholds(ctx, err):
		return fmt.Errorf("%w: %w", errStale, err)
	default:
		if v.fresh && isNotAllowed(err) {
			v.withheld = v.cfg.Now()
		}
		if gone := v.lost(ctx, err); gone != nil {
			return gone
		}
	}
	v.untried = false
	return err
}

// isRefusal says whether err is about one attribute: the meter answered, and
// the next question makes sense.
func isRefusal(err error) bool {
	var access dlms.AccessError
	var exception *dlms.ExceptionError
	var service *dlms.ServiceError
	return !isGone(err) && (errors.As(err, &access) || errors.As(err, &exception) && !isCipherException(exception) ||
		errors.As(err, &service) || errors.Is(err, dlms.ErrNotGranted))
}

// isOfOne says whether err is about what was asked for, and the next question
// makes sense.
func isOfOne(err error) bool {
	return isRefusal(err) || !isGone(err) && (errors.Is(err, dlms.ErrMalformed) || errors.Is(err, dlms.ErrTooLarge))
}

// refused says which attribute it was.
func refused(a dlms.Attribute, err error) error { return fmt.Errorf("get %v: %w", a, err) }

// failed notes what went wrong with a channel, and gives what stops the visit.
func (v *visit) failed(c meter.Channel, err error) error {
	switch {
	case errors.Is(err, errNotScalar), errors.Is(err, dlms.ErrNoMoment), errors.Is(err, ErrUnsteady), isRefusal(err):
	case isOfOne(err):
		err = fmt.Errorf("%w: %w", meter.ErrGarbled, err)
	default:
		return err
	}
	v.got.Failures = append(v.got.Failures, meter.Failure{Channel: c, Err: err})
	return nil
}

// serialText gives a serial number as people read it: text where it is text,
// else hexadecimal digits; "" for what is none.
func serialText(v axdr.Value) string {
	switch v.Tag { //nolint:exhaustive // what serial numbers come as
	case axdr.TagOctetString, axdr.TagVisibleString, axdr.TagUTF8String:
		if s := strings.Trim(v.Str, " \x00"); isPrintable(s) {
			return s
		}
		return hex.EncodeToString([]byte(v.Str))
	}
	if n, ok := v.Uint64(); ok {
		return fmt.Sprint(n)
	}
	return ""
}

// reading is a channel that is read into a lane.
type reading struct {
	lane      meter.Lane
	channel   meter.Channel
	attribute dlms.Attribute
	read      bool // or failed
	stamp     meter.Stamp
	data      axdr.Value
	err       error
}

// registers reads channels. One that fails does not stop the visit; what was
// read before an error is kept.
func (v *visit) registers(ctx context.Context, groups []meter.Group) error {
	var readings []*reading
	var questions []question
	for _, g := range groups {
		for _, c := range g.Channels {
			r := &reading{lane: g.Lane, channel: c}
			readings = append(readings, r)
			code, class, id, ok := c.Attribute()
			if !ok {
				continue
			}
			r.attribute = dlms.Attribute{Class: class, Code: code, ID: id}
			questions = append(questions, v.value(r))
			questions = append(questions, v.scales(r.attribute, func() bool { return r.err != nil })...)
		}
	}
	if v.fold {
		questions = v.withClock(questions)
	}
	stopped := v.readAll(ctx, questions)
	defer maps.DeleteFunc(v.unscaled, func(_ dlms.Attribute, err error) bool { return errors.Is(err, errUnread) })
	if v.checksOnly() {
		stopped = errors.Join(stopped, v.confirm(ctx, readings, stopped != nil))
	}
	for _, r := range readings {
		switch {
		case r.attribute == (dlms.Attribute{}):
			v.got.Failures = append(v.got.Failures, meter.Failure{Channel: r.channel, Err: ErrNotCOSEM})
			v.done.read[reached{r.lane, r.channel}] = true
		case r.read:
			done, err := v.register(r)
			if err != nil {
				return errors.Join(stopped, err)
			}
			v.done.read[reached{r.lane, r.channel}] = done
		}
	}
	return stopped
}

// value is the question for what r reads.
func (v *visit) value(r *reading) question {
	return question{attribute: r.attribute, take: func(data axdr.Value, err error) {
		r.read, r.data, r.stamp = true, data, v.cfg.Now()
		if r.err == nil {
			r.err = err
		}
	}}
}

// register makes a row of a channel that was read, or a failure. It is not done
// where the visit stopped before the scaler was read.
func (v *visit) register(r *reading) (done bool, err error) {
	if r.err != nil {
		return true, v.failed(r.channel, r.err)
	}
	scale, err := v.scale(r.attribute)
	if errors.Is(err, errUnread) {
		return false, nil
	}
	if err != nil {
		return true, v.failed(r.channel, err)
	}
	value, quality, err := v.model.value(r.data, r.attribute, scale)
	if err != nil {
		return true, v.failed(r.channel, err)
	}
	v.got.Rows = append(v.got.Rows, meter.Row{
		Meter: v.cfg.ID, Serial: v.serial, Channel: r.channel, Stamp: r.stamp, Lane: r.lane,
		Value: value, Unit: meter.Unit(scale.Unit), Quality: quality | v.quality(),
	})
	return true, nil
}

// quality is what is held against every row of the visit.
func (v *visit) quality() meter.Quality {
	if v.serial == "" {
		return meter.IdentityNotProven
	}
	return 0
}
