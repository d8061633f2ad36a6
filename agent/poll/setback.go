package poll

import (
	"slices"
	"time"

	"gridgate/internal/meter"
)

// A meter whose clock was ahead and is set back captures rows under times that
// were read already. No cursor ever asks for them. So the stretch in which they
// lie becomes a gap of the cursor, and all of it is read again: rows of equal
// times are counted (Row.Occurrence), and those that came before are known by
// their key. A gap that ends in the future waits until the meter's clock is past
// its end, so that it is read once.

const (
	// setBackLeast is what a clock must be set back by, beyond what the
	// comparison leaves open: less is the clock's drift being corrected.
	setBackLeast = time.Minute
	// mostDrift: a clock loses no more than this part of the time by itself, 43 s a
	// day.
	mostDrift = 2000
	// mostAhead is how far ahead rows are taken from a clock.
	mostAhead = day
	// mostOff is how far off a clock may be whose times say when a row was
	// captured. Beyond, it was lost and not set back.
	mostOff = 2 * day
)

// comparison is what a meter's clock showed, and when.
type comparison struct {
	meter.ClockOffset
	at moment
}

// shows is what the meter's clock showed then.
func (c comparison) shows() time.Time { return c.at.wall.Add(c.Offset) }

// comparisonOf takes an offset as of the moment at which it was found: the
// gateway's clock may have been stepped since.
func (p *Poller) comparisonOf(o meter.ClockOffset) comparison {
	at := p.now()
	if now := p.cfg.Now(); o.At.Boot == now.Boot && o.At.Mono != 0 {
		at.gone = at.gone.Add(-time.Duration(now.Mono-o.At.Mono) * time.Millisecond)
		at.wall = o.At.UTC()
	}
	return comparison{o, at}
}

// The gateway's clock may be stepped between two comparisons. So what the meter's
// should show is told by the time that passed.

// clockSetBack puts into the cursors of got what a clock that was set back makes
// unread. Before a start nothing is known of the clock: then a cursor ahead of
// it tells.
func (p *Poller) clockSetBack(m *meterState, got *meter.Got) {
	if got.Clock == nil {
		return
	}
	before := m.compared
	now := p.comparisonOf(*got.Clock)
	m.compared = &now
	if set := got.ClockSet; set != nil && set.Sent && set.After != nil {
		// It was us, between two captures: no time came twice.
		*m.compared = p.comparisonOf(*set.After)
		return
	}
	if now.Offset.Abs() > mostOff {
		return
	}
	shown, least := now.shows(), now.Uncertainty+setBackLeast
	var from time.Time
	if before != nil {
		gone := now.at.gone.Sub(before.at.gone)
		back := before.shows().Add(gone).Sub(shown)
		if back <= least+before.Uncertainty+gone/mostDrift {
			return
		}
		from = before.shows().Add(-back) // what it would have shown then
	}
	for i := range m.jobs {
		j := &m.jobs[i]
		if j.Profile == "" {
			continue
		}
		cursor, at, ok := p.cursorOf(m, j, got)
		end := time.UnixMilli(cursor.Time)
		if !ok || before == nil && !end.After(shown.Add(time.Since(now.at.gone)+least)) { // the profile was read behind the clock
			continue
		}
		if before == nil {
			from = shown.Add(-mostAhead)
		}
		if oldest := now.at.wall.Add(-j.Back); p.sure() && from.Before(oldest) {
			from = oldest
		}
		unread := meter.Gap{From: from.UnixMilli(), To: cursor.Time}
		if unread.From >= unread.To {
			continue
		}
		p.cfg.Log.Warn("meter clock was set back: rows of that time are read again",
			"line", p.cfg.Line, "meter", string(m.ID), "profile", j.Profile.Short(), "from", from.UTC(), "to", end.UTC())
		cursor.Gaps = cursor.Gaps.With(unread)
		j.gaps = cursor.Gaps
		if at < 0 {
			got.Cursors = append(got.Cursors, cursor)
		} else {
			got.Cursors[at] = cursor
		}
	}
}

// cursorOf gives the cursor of a profile, that in got where it has one, at that
// place, else as it is stored.
func (p *Poller) cursorOf(m *meterState, j *job, got *meter.Got) (cursor meter.Cursor, at int, ok bool) {
	at = slices.IndexFunc(got.Cursors, func(c meter.Cursor) bool { return c.Profile == j.Profile })
	if at >= 0 {
		return got.Cursors[at], at, true
	}
	if !m.proven {
		return cursor, at, false
	}
	cursor, ok, err := p.cfg.Sink.Cursor(m.ID, m.serial, j.Profile)
	return cursor, at, ok && err == nil
}

// readable gives the newest gap of a profile whose end the meter's clock is past.
func (m *meterState) readable(j *job, now time.Time) (meter.Gap, bool) {
	if m.compared != nil {
		now = now.Add(min(0, m.compared.Offset))
	}
	end := now.Add(-setBackLeast).UnixMilli()
	for _, g := range j.gaps.List() {
		if g.To <= end {
			return g, true
		}
	}
	return meter.Gap{}, false
}
