package iec21

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

// shownClock is a meter's clock as it was read: the data set that its time of
// day stands in, and how.
type shownClock struct {
	address string
	text    string
	// whole says that the date stands before the time in the text.
	whole bool
	m     moment
}

// readClock reads time and date, or both from one data set, and compares them.
// The date counts only where it cannot be of another day.
func (v *visit) readClock(ctx context.Context, s *session) (shown shownClock, found *meter.ClockOffset, err error) {
	read := func(c obis.Code) (entry, error) { return v.register(ctx, s, addressOf(c)) }
	before := v.cfg.Now()
	at, err := read(timeCode())
	if err == nil {
		var on entry
		if on, err = read(dateCode()); err == nil {
			m, ok := joined(on.values[0], at.values[0])
			if ok && !nearMidnight(m, on.stamp, before) {
				return shownClock{addressOf(timeCode()), at.values[0], false, m}, offset(m, v.cfg.TimeZone, before, at.stamp), nil
			}
			err = errNoValue
		}
	}
	if isRefused(err) {
		before = v.cfg.Now()
		var e entry
		if e, err = read(clockCode()); err == nil {
			if m, ok := parseTime(e.values[0]); ok {
				return shownClock{addressOf(clockCode()), e.values[0], true, m}, offset(m, v.cfg.TimeZone, before, e.stamp), nil
			}
			err = errNoValue
		}
	}
	return shown, nil, err
}

// setClock puts the meter's clock right, if the order lets it, and reads it back.
// Where date and time stand apart only the time is written: what an order lets
// lies within one capture period, and so within one day.
func (v *visit) setClock(ctx context.Context, s *session) error {
	shown, found, err := v.readClock(ctx, s)
	if err != nil {
		return v.clockFailed(err)
	}
	set := &meter.ClockSet{At: v.cfg.Now(), Before: *found}
	v.got.ClockSet = set
	order := v.setting
	v.setting = nil // once, also where the session has to begin anew
	switch {
	case v.cfg.Serial != "" && !v.got.Identity.Proven:
		set.Err = fmt.Errorf("%w: it is not proven that the meter is the configured one", errOther)
	case order.Method != meter.WriteTime, !shown.m.hasSeconds:
		set.Err = meter.ErrClockMethod
	default:
		set.Err = order.May(set.At, *found)
	}
	if set.Err != nil {
		return nil //nolint:nilerr // it is told in Got
	}
	way := found.Uncertainty - time.Second // on the way, there or back
	gone := time.Duration(set.At.Mono-found.At.Mono)*time.Millisecond + way
	set.Sent = true
	set.Err = s.assign(ctx, "W"+string(rune(s.command)), shown.address+"("+shown.moved(gone-found.Offset)+")")
	if isRefused(set.Err) {
		return nil
	}
	if set.Err != nil {
		return fmt.Errorf("clock: %w", set.Err)
	}
	if _, set.After, err = v.readClock(ctx, s); err != nil {
		return v.clockFailed(err)
	}
	return nil
}

// moved gives the text of a clock that is to show a time later by that much,
// with the season and the separators that it has.
func (c shownClock) moved(by time.Duration) string {
	m := c.m
	at := time.Date(m.year, time.Month(m.month), m.day, m.hour, m.minute, m.second, 0, time.UTC).Add(by).Round(time.Second)
	layout := "150405"
	if c.whole {
		layout = "060102150405"
	}
	digits := at.Format(layout)
	count := 0
	for _, r := range c.text {
		if r >= '0' && r <= '9' {
			count++
		}
	}
	var b strings.Builder
	for _, r := range c.text {
		switch {
		case r < '0' || r > '9', count > len(layout): // a separator, or the season before
			b.WriteRune(r)
			if r >= '0' && r <= '9' {
				count--
			}
		default:
			b.WriteByte(digits[0])
			digits = digits[1:]
		}
	}
	return b.String()
}

// assign writes a data set. It is not repeated: what was not answered may have
// been done. A refusal is a *refusalError.
func (s *session) assign(ctx context.Context, command, data string) error {
	if err := pause(ctx, s.pause); err != nil {
		return err
	}
	if err := s.write(ctx, appendCommand(nil, command, data)); err != nil {
		return err
	}
	for range maxNoise {
		f, err := s.frame(ctx, false)
		switch {
		case err != nil && !isTimeout(err) && errors.Is(err, errGarbled):
			// Not errGarbled: a new sign-on would write it a second time.
			return fmt.Errorf("the answer to %s is damaged: %v", command, err) //nolint:errorlint // see above
		case err != nil:
			return silenceAs(err, errSilent)
		case f.kind == ack:
			return nil
		case f.kind == nak:
			return &refusalError{"NAK"}
		case f.kind == soh && f.command == "B0":
			return errBreak
		case f.kind == stx:
			return &refusalError{strings.TrimSpace(string(f.body[:min(len(f.body), maxAddress)]))}
		}
	}
	return fmt.Errorf("the answer to %s: noise", command)
}
