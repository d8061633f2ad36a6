package fleet

import (
	"time"

	"gridgate/agent/batch"
	"gridgate/internal/meter"
)

// The hours of the morning after by which utilities count a day's intervals.
const (
	FirstHour  = 8
	SecondHour = 12
)

// knownDays is for how long a series that has gone silent is still expected.
const knownDays = 31

// longestInterval is the longest period, in seconds, of a row that counts as an
// interval of a day.
const longestInterval = 3600

// Share is how much of a local day of a site was at the fog by an hour of the
// next morning.
type Share struct {
	Day      string `json:"day"`      // 2006-01-02
	Hour     int    `json:"hour"`     // FirstHour or SecondHour
	Expected int64  `json:"expected"` // intervals of all series of all meters
	Complete int64  `json:"complete"` // of these, that had come
}

// Ratio gives the share, from 0 to 1; ok is false where nothing was expected.
func (s Share) Ratio() (ratio float64, ok bool) {
	if s.Expected == 0 {
		return 0, false
	}
	return float64(s.Complete) / float64(s.Expected), true
}

// Day is a local day of a site.
type Day struct{ Begin, End time.Time }

// lastDay gives the last day whose deadline at an hour of its next morning has
// passed: yesterday, or before that hour the day before.
func lastDay(now time.Time, hour int, zone *time.Location) Day {
	y, m, d := now.In(zone).Date()
	for back := 1; ; back++ {
		day := Day{meter.DayStart(y, m, d-back, zone), meter.DayStart(y, m, d-back+1, zone)}
		if !now.Before(day.deadline(hour, zone)) {
			return day
		}
	}
}

// deadline is the hour, by the clock on the wall, of the morning after.
func (d Day) deadline(hour int, zone *time.Location) time.Time {
	y, m, day := d.End.In(zone).Date()
	return time.Date(y, m, day, hour, 0, 0, 0, zone)
}

// name gives the date.
func (d Day) name(zone *time.Location) string { return d.Begin.In(zone).Format(time.DateOnly) }

// place is a gateway.
type place struct{ Site, Gateway string }

// seriesName is one interval channel of one meter.
type seriesName struct {
	serial  string
	meter   meter.ID
	channel meter.Channel
}

// series is what came of one interval channel of one meter.
type series struct {
	period uint32 // in seconds, of the newest row
	newest int64  // stamps of its rows, ms since 1970 UTC
	oldest int64
	days   map[int64]*came // by the day's end, ms since 1970 UTC
}

// came is what came of a day.
type came struct {
	seen          map[int64]struct{} // the ends of intervals
	first, second int64              // of them before the deadlines
	at8, at12     time.Time          // the deadlines
}

func (c *came) by(hour int) int64 {
	if hour == FirstHour {
		return c.first
	}
	return c.second
}

// Intervals counts, as rows arrive, what was there of each day by 8 and by 12
// o'clock of the morning after. The zero value counts nothing yet; it is not
// safe for concurrent use.
//
// What is expected are all intervals of the day of each series (a channel of a
// meter) that had a row of that day or of the 31 days before: so a meter that
// falls silent is missed for a month, and one that was never heard is not
// known.
type Intervals struct {
	since  time.Time // whether a day was watched from its beginning
	series map[place]map[seriesName]*series
}

// maxSeries bounds what a hostile sender makes us remember of one gateway.
const maxSeries = 100_000

// Watch notes since when all that arrives is counted: days that began before
// are not judged.
func (v *Intervals) Watch(since time.Time) { v.since = since }

// Watches says whether Watch was called.
func (v *Intervals) Watches() bool { return !v.since.IsZero() }

// Count notes a row of a gateway that arrived at a moment. zone is the site's.
func (v *Intervals) Count(site, gateway string, row *batch.Row, at time.Time, zone *time.Location) {
	if row.Lane != batch.Interval || row.Period == 0 || row.Period > longestInterval ||
		row.Quality&meter.IntervalMissing != 0 || row.Value.Kind == batch.None {
		return
	}
	// What a wrong clock says is no interval of these days.
	end := time.UnixMilli(row.Stamp.Time)
	if end.After(at.Add(24*time.Hour)) || end.Before(at.AddDate(0, 0, -knownDays)) {
		return
	}
	s := v.of(place{site, gateway}, seriesName{row.Serial, row.Meter, row.Channel})
	if s == nil {
		return
	}
	if s.oldest == 0 || row.Stamp.Time < s.oldest {
		s.oldest = row.Stamp.Time
	}
	if row.Stamp.Time >= s.newest {
		s.newest, s.period = row.Stamp.Time, row.Period
	}
	y, m, d := end.Add(-time.Millisecond).In(zone).Date()
	day := Day{meter.DayStart(y, m, d, zone), meter.DayStart(y, m, d+1, zone)}
	c := s.days[day.End.UnixMilli()]
	if c == nil {
		s.forget(at)
		c = &came{seen: map[int64]struct{}{}, at8: day.deadline(FirstHour, zone), at12: day.deadline(SecondHour, zone)}
		s.days[day.End.UnixMilli()] = c
	}
	if _, twice := c.seen[row.Stamp.Time]; twice {
		return
	}
	c.seen[row.Stamp.Time] = struct{}{}
	if at.Before(c.at8) {
		c.first++
	}
	if at.Before(c.at12) {
		c.second++
	}
}

func (v *Intervals) of(p place, name seriesName) *series {
	if v.series == nil {
		v.series = map[place]map[seriesName]*series{}
	}
	all := v.series[p]
	if all == nil {
		all = map[seriesName]*series{}
		v.series[p] = all
	}
	s := all[name]
	if s == nil && len(all) < maxSeries {
		s = &series{days: map[int64]*came{}}
		all[name] = s
	}
	return s
}

// forget drops days that are judged no more.
func (s *series) forget(now time.Time) {
	for end := range s.days {
		if now.Sub(time.UnixMilli(end)) > 3*24*time.Hour {
			delete(s.days, end)
		}
	}
}

// Share gives the figure of a gateway for an hour: of yesterday, or before that
// hour of the day before. ok is false while no day was watched from its
// beginning to that hour, and where no interval is known.
func (v *Intervals) Share(site, gateway string, hour int, now time.Time, zone *time.Location) (share Share, ok bool) {
	day := lastDay(now, hour, zone)
	share = Share{Day: day.name(zone), Hour: hour}
	if v.since.IsZero() || v.since.After(day.Begin) {
		return share, false
	}
	for _, s := range v.series[place{site, gateway}] {
		if s.oldest > day.End.UnixMilli() || s.newest < day.Begin.AddDate(0, 0, -knownDays).UnixMilli() {
			continue
		}
		want := int64(day.End.Sub(day.Begin)/time.Second) / int64(s.period)
		share.Expected += want
		if c := s.days[day.End.UnixMilli()]; c != nil {
			share.Complete += min(want, c.by(hour))
		}
	}
	return share, share.Expected > 0
}
