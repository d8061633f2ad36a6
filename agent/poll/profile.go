package poll

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"gridgate/internal/meter"
)

const (
	// fillFirst is how much of a gap one visit reads. It grows while the meter
	// has nothing there.
	fillFirst = day
	fillMost  = 64 * day
	// fillPause is how long a gap waits that could not be read.
	fillPause = time.Hour
	// cursorRetry is how long a profile waits whose cursor cannot be read.
	cursorRetry = time.Minute
)

// read is a profile in a visit: what was asked, and what is known when it comes.
type read struct {
	job    *job
	since  int64
	cursor meter.Cursor // as it stands, with the gap that the question leaves
	jumped bool         // the question leaves one
}

// prepareProfile asks for what is new in a profile. It gives false when that
// cannot be.
//
// While the gateway does not know what time it is, what it reads is told by the
// cursor alone: nothing is taken for too old, and nothing is jumped over but what
// lies before a profile's first reading, which is a gap until the time is known.
func (p *Poller) prepareProfile(m *meterState, j *job, at moment, r *round) bool {
	sure, now := p.sure(), at.wall
	cursor, ok, err := p.cfg.Sink.Cursor(m.ID, m.serial, j.Profile)
	if err != nil {
		j.due = at.by(j).Add(cursorRetry)
		r.blocked = append(r.blocked, meter.Failure{Channel: j.Profile, Err: fmt.Errorf("cursor: %w", err)})
		return false
	}
	oldest := now.Add(-j.Back).UnixMilli()
	if !ok {
		cursor = meter.Cursor{Meter: m.ID, Serial: m.serial, Profile: j.Profile, Time: oldest}
		if !sure {
			cursor.Gaps = cursor.Gaps.With(meter.Gap{From: 0, To: oldest})
		}
	}
	if sure {
		cursor.Gaps = cursor.Gaps.Without(meter.Gap{From: math.MinInt64, To: oldest})
	}
	q := read{job: j, since: cursor.Time, cursor: cursor}
	if near := now.Add(-p.cfg.Recent).UnixMilli(); sure && cursor.Time < near {
		q.since, q.jumped = near, true
		q.cursor.Gaps = cursor.Gaps.With(meter.Gap{From: max(cursor.Time, oldest), To: near})
	}
	j.gaps = cursor.Gaps
	r.reads = append(r.reads, q)
	r.ask.Profiles = append(r.ask.Profiles, meter.Profile{Channel: j.Profile, Lane: j.Lane, Since: q.since})
	return true
}

// follow gives the cursors in got the gaps that their questions left. A profile
// that has nothing new gets a cursor all the same where the question jumped:
// what lies before would never be read else.
func (p *Poller) follow(m *meterState, r *round, got *meter.Got, whole bool) {
	for _, q := range r.reads {
		at := slices.IndexFunc(got.Cursors, func(c meter.Cursor) bool { return c.Profile == q.job.Profile })
		failed := slices.ContainsFunc(got.Failures, func(f meter.Failure) bool { return f.Channel == q.job.Profile })
		switch {
		case at >= 0:
			got.Cursors[at].Gaps = q.cursor.Gaps
		case whole && q.jumped && !failed:
			q.cursor.Serial, q.cursor.Time = m.serial, q.since
			got.Cursors = append(got.Cursors, q.cursor)
		default:
			continue
		}
		q.job.gaps = q.cursor.Gaps
	}
}

// fillable gives a meter that has nothing due and a gap, and the profile with
// the newest one.
func (p *Poller) fillable(now moment) (who *meterState, what *job) {
	var newest int64 = math.MinInt64
	if !p.sure() {
		return nil, nil // nobody knows how far back is far enough
	}
	for _, m := range p.meters {
		if m.busy || m.locked || !m.proven || !m.failed.IsZero() || p.noLine.After(now.gone) {
			continue
		}
		for i := range m.jobs {
			j := &m.jobs[i]
			if gap, ok := m.readable(j, now.wall); ok && gap.To > newest && !j.fillAfter.After(now.gone) {
				newest, who, what = gap.To, m, j
			}
		}
	}
	return who, what
}

// fill reads the newest stretch of the newest gap of a profile.
func (p *Poller) fill(ctx context.Context, m *meterState, j *job) {
	now := p.cfg.Wall()
	j.fillAfter = time.Now().Add(fillPause) // unless it goes well
	cursor, ok, err := p.cfg.Sink.Cursor(m.ID, m.serial, j.Profile)
	if err != nil || !ok {
		return // the next visit finds it out
	}
	cursor.Gaps = cursor.Gaps.Without(meter.Gap{From: math.MinInt64, To: now.Add(-j.Back).UnixMilli()})
	j.gaps = cursor.Gaps
	gap, ok := m.readable(j, now)
	if !ok {
		return
	}
	window := j.window
	gap.From = max(gap.From, gap.To-window.Milliseconds())
	limited, cancel := context.WithTimeoutCause(ctx, p.cfg.VisitLimit, errLong)
	defer cancel()
	got, err := m.Visitor.Visit(limited, meter.Ask{
		Profiles: []meter.Profile{{Channel: j.Profile, Lane: j.Lane, Since: gap.From, Until: gap.To}},
	})
	if p.identify(m, &got, true, err == nil) {
		p.submit(m, got, nil)
		return
	}
	at := slices.IndexFunc(got.Cursors, func(c meter.Cursor) bool { return c.Profile == j.Profile })
	if at >= 0 {
		read := meter.Gap{From: gap.From, To: min(got.Cursors[at].Time, gap.To)}
		cursor.Gaps = cursor.Gaps.Without(read)
		got.Cursors, j.gaps = []meter.Cursor{cursor}, cursor.Gaps
		if read.To == gap.To || err != nil && limited.Err() != nil && read.To > read.From {
			j.fillAfter = time.Time{}
		}
		j.window = fillFirst
		if len(got.Rows) == 0 && read.To == gap.To {
			j.window = min(2*window, fillMost)
		}
	}
	p.submit(m, got, nil)
	if err != nil && (limited.Err() == nil || errors.Is(err, meter.ErrAuthentication)) {
		p.failed(m, err)
	}
}

// missing gives how much of the profiles of m is still to be filled in.
func (m *meterState) missing() (d time.Duration) {
	for i := range m.jobs {
		for _, g := range m.jobs[i].gaps.List() {
			d += time.Duration(g.To-g.From) * time.Millisecond
		}
	}
	return d
}
