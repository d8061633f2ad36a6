package cosem

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

const (
	// maxRows is about how many rows of readings a visit takes from a profile;
	// the rest is for the next.
	maxRows = 4096
	// captures is how many captures one request asks for, to keep answers small.
	captures = 384
	// leastCaptures is that where the time of a visit is short.
	leastCaptures = 16
	// maxWhole is how many rows are taken from a meter that gives all of them or
	// none.
	maxWhole = 4096
	// ahead is how far behind the gateway's time is asked, in milliseconds:
	// the meter's clock may be ahead.
	ahead = 24 * 60 * 60 * 1000
)

// errFuture says that rows are dated where no cursor may go: it would never
// come back.
var errFuture = errors.New("captured in the future: is the meter's clock wrong, or the gateway's?")

// profile reads the rows of a profile that are newer than p.Since, up to p.Until.
func (v *visit) profile(ctx context.Context, p meter.Profile) error {
	code, class, id, ok := p.Channel.Attribute()
	if !ok || class != meter.ClassProfile || id != 2 {
		err := fmt.Errorf("%w: want a profile's buffer, /%d:2", ErrNotCOSEM, meter.ClassProfile)
		v.got.Failures = append(v.got.Failures, meter.Failure{Channel: p.Channel, Err: err})
		return nil
	}
	err := v.follow(ctx, p, code)
	if errors.Is(err, dlms.ErrLayout) {
		if k, ok := v.cache.layouts[code]; ok {
			k.value.checked = 0 // the meter was set up anew
		}
		err = v.follow(ctx, p, code)
	}
	if err != nil {
		return v.failed(p.Channel, err)
	}
	return nil
}

// follow asks for the rows page by page and takes them, until it has all or
// enough for one visit. When the time for the visit ends it keeps the pages
// that came, and the next visit reads shorter ones.
func (v *visit) follow(ctx context.Context, p meter.Profile, profile obis.Code) error {
	l, err := v.layout(ctx, profile)
	if err != nil {
		return err
	}
	t := table{layout: l, model: v.model, since: p.Since, base: meter.Row{
		Meter: v.cfg.ID, Serial: v.serial, Lane: p.Lane, Period: uint32(l.Period / time.Second), Quality: v.quality(),
	}}
	now := v.cfg.Now().Time
	t.until = max(now, p.Since) + ahead
	if p.Until != 0 && p.Until < t.until {
		t.until, t.ends = p.Until, true
	}
	// The meter is asked for whole seconds.
	begin, end := time.UnixMilli(p.Since).Truncate(time.Second), time.UnixMilli(t.until+999).Truncate(time.Second)
	pages := v.client.Pages(l.Layout, dlms.Rows{
		Since: begin, Until: end,
		Zone: v.cfg.TimeZone, Local: v.cache.localTime, Page: l.page, Most: maxWhole, Now: time.UnixMilli(now),
	})
	pages.Selector = l.selector
	for p.Since < t.until && pages.More() && len(t.rows) < maxRows {
		rows, err := pages.Next(ctx)
		if err = v.tried(ctx, err); err != nil {
			if ctx.Err() != nil {
				l.page = max(l.page/2, leastCaptures)
			}
			if !errors.Is(err, dlms.ErrLayout) {
				v.take(p, &t)
			}
			return err
		}
		l.selector = pages.Selector
		t.base.Stamp = v.cfg.Now()
		t.add(rows)
	}
	if all := !pages.More() || p.Since >= t.until; all && t.ends && p.Until <= now {
		t.since = max(t.since, p.Until) // of the future the meter may still have rows
	}
	v.take(p, &t)
	return nil
}

// take puts what was read into Got.
func (v *visit) take(p meter.Profile, t *table) {
	if v.done != nil {
		v.done.since[p] = t.since
	}
	v.got.Rows = append(v.got.Rows, v.cfg.Events.beside(t.rows)...)
	begun := slices.IndexFunc(v.got.Cursors, func(c meter.Cursor) bool { return c.Profile == p.Channel && c.Time == p.Since })
	switch {
	case t.since <= p.Since && !(t.ends && t.since == p.Until):
	case v.done != nil && v.done.again && begun >= 0: // before the association was lost
		v.got.Cursors[begun].Time = t.since
	default:
		v.got.Cursors = append(v.got.Cursors, meter.Cursor{Meter: v.cfg.ID, Serial: v.serial, Profile: p.Channel, Time: t.since})
	}
	for i, c := range t.layout.columns {
		err := cmp.Or(c.err, t.wrong[i])
		if err != nil && !errors.Is(err, errTwice) {
			v.got.Failures = append(v.got.Failures, meter.Failure{Channel: c.channel, Err: err})
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
