package cosem

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/internal/meter"
)

const (
	// maxRows is about how many rows of readings a visit takes from a profile;
	// the rest is for the next.
	maxRows = 4096
	// captures is how many captures one request asks for, to keep answers small.
	captures = 384
	// ahead is how far behind the gateway's time is asked, in milliseconds:
	// the meter's clock may be ahead.
	ahead = 24 * 60 * 60 * 1000
)

// errLayout says that rows do not fit the columns that were read before.
var errLayout = errors.New("rows do not fit the columns")

// errFuture says that rows are dated where no cursor may go: it would never
// come back.
var errFuture = errors.New("captured in the future: is the meter's clock wrong, or the gateway's?")

// profile reads the rows of a profile that are newer than p.Since.
func (v *visit) profile(ctx context.Context, p meter.Profile) error {
	code, class, id, ok := p.Channel.Attribute()
	if !ok || class != meter.ClassProfile || id != 2 {
		err := fmt.Errorf("%w: want a profile's buffer, /%d:2", ErrNotCOSEM, meter.ClassProfile)
		v.got.Failures = append(v.got.Failures, meter.Failure{Channel: p.Channel, Err: err})
		return nil
	}
	a := dlms.Attribute{Class: class, Code: code, ID: id}
	l, err := v.layout(ctx, a)
	if err == nil {
		err = v.follow(ctx, a, p, l)
	}
	if errors.Is(err, errLayout) {
		delete(v.cache.layouts, code) // the meter was set up anew
		if l, err = v.layout(ctx, a); err == nil {
			err = v.follow(ctx, a, p, l)
		}
	}
	if err != nil {
		return v.failed(p.Channel, err)
	}
	return nil
}

// follow asks for the rows window by window and takes them, until it has all
// or enough for one visit. A window without rows makes the next twice as long:
// the meter was off, or keeps nothing that old.
func (v *visit) follow(ctx context.Context, buffer dlms.Attribute, p meter.Profile, l layout) error {
	local, err := v.isLocalTime(ctx)
	if err != nil {
		return err
	}
	t := table{layout: l, zone: v.cfg.TimeZone, since: p.Since, base: meter.Row{
		Meter: v.cfg.ID, Serial: v.serial, Lane: p.Lane, Period: l.period, Quality: v.quality(),
	}}
	end := max(v.cfg.Now().Time, p.Since) + ahead
	t.until = end
	if v.until > 0 {
		end = min(end, v.until)
	}
	span := end - p.Since
	if l.period > 0 {
		span = captures * int64(l.period) * 1000
	}
	for from := p.Since; from < end && len(t.rows) < maxRows; {
		to := min(from+span, end)
		rows, all, err := v.window(ctx, buffer, l, dlms.Range{
			Clock: l.clockAttribute(), From: v.dateTime(from, local), To: v.dateTime(to, local),
		})
		before := len(t.rows)
		if err == nil {
			t.base.Stamp = v.cfg.Now()
			err = t.add(rows)
		}
		if err != nil && !errors.Is(err, errLayout) {
			v.take(p, &t)
		}
		if err != nil {
			return err
		}
		if all {
			break
		}
		if len(t.rows) == before {
			span *= 2
		}
		from = max(to, t.since)
	}
	v.take(p, &t)
	return nil
}

// take puts what was read into Got.
func (v *visit) take(p meter.Profile, t *table) {
	v.got.Rows = append(v.got.Rows, t.rows...)
	if t.since > p.Since {
		v.got.Cursors = append(v.got.Cursors, meter.Cursor{Meter: v.cfg.ID, Serial: v.serial, Profile: p.Channel, Time: t.since})
	}
	for _, c := range t.layout.columns {
		if c.err != nil {
			v.got.Failures = append(v.got.Failures, meter.Failure{Channel: c.channel, Err: c.err})
		}
	}
	if t.timeless > 0 {
		err := fmt.Errorf("%d rows without a time: %w", t.timeless, dlms.ErrNoMoment)
		v.got.Failures = append(v.got.Failures, meter.Failure{Channel: p.Channel, Err: err})
	}
	if t.early > 0 {
		err := fmt.Errorf("%d rows left out: %w", t.early, errFuture)
		v.got.Failures = append(v.got.Failures, meter.Failure{Channel: p.Channel, Err: err})
	}
}

// window gives the rows in a range; all says that the meter has no more. From
// a meter that neither grants nor serves selective access it takes all rows.
func (v *visit) window(ctx context.Context, buffer dlms.Attribute, l layout, r dlms.Range) (rows axdr.Value, all bool, err error) {
	if !v.cache.noRanges {
		rows, err = v.getRange(ctx, buffer, r)
		if err == nil || !isRefusal(err) || v.client.Granted().Conformance.Has(dlms.SelectiveAccess) {
			return rows, false, err
		}
	}
	rows, err = v.get(ctx, buffer)
	v.cache.noRanges = err == nil
	return rows, true, err
}

// isLocalTime says whether the meter's times come without their deviation
// from UTC; then it is asked without, too.
func (v *visit) isLocalTime(ctx context.Context) (bool, error) {
	if !v.cache.clockRead {
		_, err := v.readClock(ctx)
		switch {
		case err == nil:
		case isRefusal(err), errors.Is(err, dlms.ErrMalformed):
			v.cache.clockRead = true // nobody knows: with the deviation
		default:
			return false, err
		}
	}
	return v.cache.localTime, nil
}

// dateTime gives a time in milliseconds since 1970 as the meter is asked for it.
func (v *visit) dateTime(ms int64, local bool) dlms.DateTime {
	d := dlms.DateTimeOf(time.UnixMilli(ms).In(v.cfg.TimeZone).Truncate(time.Second))
	d.Weekday = 0xFF
	if local {
		d.Deviation = dlms.NoDeviation
	}
	return d
}
