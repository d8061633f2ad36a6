package cosem

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

func clockTime() dlms.Attribute {
	return dlms.Attribute{Class: meter.ClassClock, Code: obis.Code{0, 0, 1, 0, 0, 255}, ID: 2}
}

func clockChannel() meter.Channel {
	a := clockTime()
	return meter.ChannelOf(a.Code, a.Class, a.ID)
}

// folds says whether the clock will be read beside registers that matter less
// than alarms.
func (v *visit) folds(ask meter.Ask) bool {
	if v.isClockless() || !v.lists() {
		return false
	}
	for _, g := range ask.Groups {
		if g.Lane != meter.Alarm && len(g.Channels) > 0 {
			return true
		}
	}
	return false
}

// lists says whether several attributes go in one request.
func (v *visit) lists() bool {
	return v.client.ListMax() != 1 && v.client.Granted().Conformance.Has(dlms.MultipleReferences)
}

func (v *visit) isClockless() bool {
	c := v.cache.clockless
	return c.value && c.fresh(v.cfg.Now())
}

// withClock puts the clock before other questions, where that costs no turn. It
// is the first, so that a request that the meter does not like is blamed on it.
func (v *visit) withClock(questions []question) []question {
	n := v.client.ListMax()
	if len(questions) == 0 || !v.lists() || v.isClockless() || n > 0 && len(questions)%n == 0 {
		return questions
	}
	v.fold = false
	return append([]question{{attribute: clockTime(), take: func(data axdr.Value, err error) {
		if err == nil {
			var found meter.ClockOffset
			if _, found, err = v.compare(data, v.sent, v.cfg.Now()); err == nil {
				v.got.Clock, v.done.clock = &found, true
				return
			}
		}
		v.cache.clockless = kept[bool]{true, v.cfg.Now()} // or its clock says nothing: asked by itself it may tell why
	}}}, questions...)
}

// clock compares the meter's clock with the gateway's.
func (v *visit) clock(ctx context.Context) error {
	_, found, err := v.readOffset(ctx)
	if err != nil {
		return v.failed(clockChannel(), err)
	}
	v.got.Clock = &found
	return nil
}

// readOffset reads the clock in a request of its own.
func (v *visit) readOffset(ctx context.Context) (dlms.DateTime, meter.ClockOffset, error) {
	before := v.cfg.Now()
	data, err := v.get(ctx, clockTime())
	if err != nil {
		return dlms.DateTime{}, meter.ClockOffset{}, err
	}
	return v.compare(data, before, v.cfg.Now())
}

// compare compares a clock that was asked for and answered at these moments.
func (v *visit) compare(data axdr.Value, before, after meter.Stamp) (dlms.DateTime, meter.ClockOffset, error) {
	d, err := v.takeClock(data)
	if err != nil {
		return d, meter.ClockOffset{}, err
	}
	at, err := v.cfg.Quirks.Time(d, v.cfg.TimeZone)
	if err != nil {
		return d, meter.ClockOffset{}, err
	}
	turn := time.Duration(after.Mono-before.Mono) * time.Millisecond
	// By how much the gateway's own clock was stepped meanwhile.
	stepped := time.Duration(after.Time-before.Time)*time.Millisecond - turn
	middle := time.UnixMilli(after.Time).Add(-turn / 2)
	if d.Deviation == dlms.NoDeviation {
		// Which pass of an hour that comes twice: the status does not always say so
		// rightly, as meters that give no deviation often give none of that either.
		at = dlms.Near(at, middle, v.cfg.TimeZone)
	}
	return d, meter.ClockOffset{
		Offset: at.Sub(middle), Uncertainty: turn/2 + resolutionOf(d) + stepped.Abs(), Valid: !d.Has(dlms.StatusInvalid), At: after,
	}, nil
}

func hasHundredths(d dlms.DateTime) bool { return d.Hundredths != 0 && d.Hundredths != 0xFF }

// takeClock learns from the meter's clock how it tells the time.
func (v *visit) takeClock(data axdr.Value) (dlms.DateTime, error) {
	d, err := dlms.ParseDateTime(data.Str)
	if err != nil {
		return dlms.DateTime{}, err
	}
	v.cache.localTime, v.cache.clockRead = d.Deviation == dlms.NoDeviation, true
	return d, nil
}

// mostShift is what method 6 of a clock moves it by at most, in seconds
// (IEC 62056-6-2, 4.5.1).
const mostShift = 900

// errNoSetting says that what a meter is to be told is none of what it takes.
var errNoSetting = fmt.Errorf("%w: it is more than %d s off, and shifting moves it by no more", meter.ErrClockMethod, mostShift)

// setClock puts the meter's clock right, if order lets it, and reads it back.
// Never by adjust_to_measuring_period or its like: what they do to captures
// differs from meter to meter.
func (v *visit) setClock(ctx context.Context, order *meter.SetClock) error {
	shown, found, err := v.readOffset(ctx)
	if err != nil {
		return v.failed(clockChannel(), err)
	}
	set := &meter.ClockSet{At: v.cfg.Now(), Before: found}
	v.got.ClockSet = set
	if v.cfg.Serial != "" && !v.got.Identity.Proven {
		set.Err = errExchange // nothing is done to a meter that is not the one
		return nil
	}
	if set.Err = order.May(set.At, found); set.Err != nil {
		return nil //nolint:nilerr // it is told in Got
	}
	v.done.set = true
	err = v.tried(ctx, v.tellClock(ctx, order.Method, shown, set))
	if set.Err = err; err != nil {
		set.Sent = set.Sent && !errors.Is(err, dlms.ErrNotGranted)
		if errors.Is(err, dlms.ErrNotGranted) {
			set.Err = fmt.Errorf("%w: %w", meter.ErrClockMethod, err)
		}
		if isOfOne(err) || errors.Is(err, meter.ErrClockMethod) {
			return nil
		}
		return err
	}
	shown, after, err := v.readOffset(ctx)
	if err != nil {
		return v.failed(clockChannel(), err)
	}
	set.After = &after
	if order.Method != meter.WriteTime || !v.cameLate(set) {
		return nil
	}
	again := meter.ClockSet{At: v.cfg.Now(), Before: after}
	if err = v.tried(ctx, v.tellClock(ctx, order.Method, shown, &again)); err != nil {
		return v.failed(clockChannel(), err)
	}
	_, last, err := v.readOffset(ctx)
	if err != nil {
		return v.failed(clockChannel(), err)
	}
	set.After = &last
	return nil
}

// cameLate says that the time was old when the meter got it, and the meter's
// clock is behind by that: a frame was lost on the way, and repeated. It is told
// once more, or else it would stay so for a day.
func (v *visit) cameLate(set *meter.ClockSet) bool {
	const soon = 30 * time.Second // both times are far enough from the ends of capture periods
	took := time.Duration(set.After.At.Mono-set.At.Mono) * time.Millisecond
	behind, open := -set.After.Offset, set.After.Uncertainty
	return took >= v.cfg.Timeout && took <= soon && behind > open && behind <= took+open+set.Before.Uncertainty
}

// tellClock sends the right time, or by how much the clock is wrong.
func (v *visit) tellClock(ctx context.Context, method meter.ClockMethod, shown dlms.DateTime, set *meter.ClockSet) error {
	code := clockTime().Code
	if method == meter.ShiftTime {
		by := -math.Round(set.Before.Offset.Seconds())
		if math.Abs(by) > mostShift {
			return errNoSetting
		}
		set.Sent = true
		return v.client.ShiftClock(ctx, code, int16(by))
	}
	// It arrives about as long after it is sent as the question before did.
	way := set.Before.Uncertainty - resolutionOf(shown)
	gone := time.Duration(set.At.Mono-set.Before.At.Mono)*time.Millisecond + 2*way
	set.Sent = true
	return v.client.SetClock(ctx, code, moved(shown, gone-set.Before.Offset))
}

// resolutionOf is how far a clock may be from what it shows. Most give no
// hundredths, and 0 for them.
func resolutionOf(d dlms.DateTime) time.Duration {
	switch {
	case d.Second == 0xFF:
		return time.Minute
	case hasHundredths(d):
		return 10 * time.Millisecond
	}
	return time.Second
}

// moved gives what a clock is told that showed d and is to show a time later by
// that much: in the way that it tells times itself. Its deviation from UTC and
// its daylight saving stay as they are, whatever sign it gives deviations; what
// it leaves open is left open; and of its status it is told nothing but that.
func moved(d dlms.DateTime, by time.Duration) dlms.DateTime {
	hundredths, second := int(d.Hundredths), int(d.Second)
	if hundredths == 0xFF {
		hundredths = 0
	}
	if second == 0xFF {
		second = 0
	}
	at := time.Date(int(d.Year), time.Month(d.Month), int(d.Day), int(d.Hour), int(d.Minute), second, hundredths*10_000_000, time.UTC).Add(by)
	step := time.Second
	if hasHundredths(d) {
		step = 10 * time.Millisecond
	}
	next := dlms.DateTimeOf(at.Round(step))
	next.Deviation = d.Deviation
	if next.Status = d.Status; d.Status != 0xFF {
		next.Status = d.Status & dlms.StatusDaylightSaving
	}
	if d.Weekday == 0xFF {
		next.Weekday = 0xFF
	}
	if d.Hundredths == 0xFF {
		next.Hundredths = 0xFF
	}
	return next
}
