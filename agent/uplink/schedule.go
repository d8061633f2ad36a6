package uplink

import (
	"time"

	"gridgate/internal/meter"
	"gridgate/internal/sortby"
)

// Schedule says when a lane is sent. The zero value is at once and always.
// That of the alarm lane is not looked at.
type Schedule struct {
	Latency time.Duration // how long rows wait for company
	Windows []Window      // times of day; none is always
}

// Window is a time of day. When To is not after From it ends the next day.
type Window struct{ From, To time.Duration } // since midnight in Config.TimeZone

// maxSpread bounds how long after its beginning a window opens: each gateway
// has a moment of its own, so that not all send at once.
const maxSpread = 10 * time.Minute

// open says whether one of the windows is open, and when that ends or begins.
// spread, 0 to 1, is the gateway's place in the time over which they open.
func (s Schedule) open(now time.Time, zone *time.Location, spread float64) (open bool, until time.Time) {
	if len(s.Windows) == 0 {
		return true, now.Add(24 * time.Hour)
	}
	now = now.Round(0).In(zone)
	for _, w := range s.around(now) {
		first := w[0].Add(time.Duration(spread * float64(min(w[1].Sub(w[0])/4, maxSpread))))
		switch {
		case now.Before(first):
			return false, first
		case now.Before(w[1]):
			return true, w[1]
		}
	}
	return false, now.Add(time.Hour)
}

// around gives the windows from yesterday to the day after tomorrow, joined
// where they touch, in order.
func (s Schedule) around(now time.Time) (all [][2]time.Time) {
	y, m, d := now.Date()
	at := func(day int, t time.Duration) time.Time {
		return time.Date(y, m, d+day, int(t/time.Hour), int(t%time.Hour/time.Minute), 0, 0, now.Location())
	}
	for day := -1; day <= 2; day++ {
		for _, w := range s.Windows {
			end := day
			if w.To <= w.From {
				end++
			}
			all = append(all, [2]time.Time{at(day, w.From), at(end, w.To)})
		}
	}
	sortby.Stable(all, func(a, b [2]time.Time) int { return a[0].Compare(b[0]) })
	joined := all[:1]
	for _, w := range all[1:] {
		if last := &joined[len(joined)-1]; !w[0].After(last[1]) {
			if w[1].After(last[1]) {
				last[1] = w[1]
			}
			continue
		}
		joined = append(joined, w)
	}
	return joined
}

// company is how a lane's rows wait for others.
type company struct {
	due      time.Time // when they no longer wait; zero while none do
	draining bool      // until the lane is empty nothing waits
}

// held says whether a lane waits for its window or for company, and until
// when. rows is how many make a full message.
func (u *Uplink) held(l *lane, now time.Time, rows uint64) (bool, time.Time) {
	if l.id == meter.Alarm {
		return false, now
	}
	s := u.cfg.Schedules[l.id]
	if open, until := s.open(now, u.cfg.TimeZone, u.spread); !open {
		return true, until
	}
	last := u.cfg.Store.Last(l.id)
	switch {
	case s.Latency == 0, l.company.draining:
		return false, now
	case last <= l.taken:
		return true, time.Time{}
	case l.company.due.IsZero():
		l.company.due = now.Add(s.Latency - time.Duration(u.spread*float64(s.Latency)/4))
	}
	switch {
	case !now.Before(l.company.due):
		l.company.draining = true
		return false, now
	case last-l.taken >= rows:
		return false, now
	}
	return true, l.company.due
}

// emptied notes that a lane has nothing to send.
func (l *lane) emptied() {
	l.empty = true
	l.company = company{}
}

// fullMessage is how many rows of a lane make a message of the given size.
func (l *lane) fullMessage(size int) uint64 {
	perRow := l.perRow
	if perRow == 0 {
		perRow = 1 // rather too many
	}
	return uint64(min(float64(size)/perRow, maxRows)) //nolint:gosec // never negative
}
