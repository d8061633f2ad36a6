package poll

import (
	"hash/fnv"
	"time"

	"gridgate/internal/meter"
)

// class is how much a job matters; a lower one goes first.
type class int

const (
	onDemand class = iota
	alarms
	clock
	billing
	interval
	instant
)

// job is a group with its due time, or the comparison of the clock.
type job struct {
	Group
	class class
	due   time.Time
	phase time.Duration // from the first to the second time, so that meters spread
	ran   bool
	// resumed says that the visit before was cut short: what is left waits
	// behind all that is due.
	resumed bool

	// Of profiles: what is known of the gaps, and how the filling goes.
	gaps      meter.Gaps
	window    time.Duration // how much of a gap one visit reads
	fillAfter time.Time
	// Of billing registers: the reads before midnight.
	before []meter.Row
}

const (
	// clockEvery is how often a meter's clock is compared.
	clockEvery = 6 * time.Hour
	day        = 24 * time.Hour
	// retryMost is how long a job waits at most that a failed visit was for, so
	// that a time-out costs what is read once a day an hour's part and not a day.
	// It is not tried in each visit: it may be what breaks them.
	retryMost = 10 * time.Minute
)

func jobsOf(m Meter) []job {
	var jobs []job
	for _, g := range m.Groups {
		j := job{Group: g, class: classOf(g.Lane), window: fillFirst}
		if !g.Align && !g.brackets() {
			h := fnv.New32a()
			_, _ = h.Write([]byte(string(m.ID) + "/" + g.Name)) // a hash takes all
			j.phase = g.Every/2 + g.Every>>17*time.Duration(h.Sum32()>>16)
		}
		if j.Back <= 0 {
			j.Back = DefaultBack
		}
		jobs = append(jobs, j)
	}
	if len(jobs) > 0 {
		jobs = append(jobs, job{class: clock, Group: Group{Every: clockEvery}})
	}
	return jobs
}

func classOf(l meter.Lane) class {
	switch l {
	case meter.Alarm:
		return alarms
	case meter.Billing:
		return billing
	case meter.Interval:
		return interval
	default:
		return instant
	}
}

// rides says whether the job waits for a visit that another one makes.
func (m *meterState) rides(j *job) bool { return j.class == clock && !m.setting }

// follows says whether the job is due by the wall clock, through its steps.
// Others are due after a time has passed.
func (j *job) follows() bool { return j.Align || j.brackets() }

// brackets says whether the group is of registers that a bill is made from:
// they are read on both sides of midnight.
func (g *Group) brackets() bool { return g.Lane == meter.Billing && g.Profile == "" }

// urgency is the class of a job that is due, moved up by one for each of its
// periods that it is late.
func (j *job) urgency(now time.Time) class {
	if j.resumed {
		return instant
	}
	late := class(min(now.Sub(j.due)/j.Every, time.Duration(instant)))
	return max(alarms, j.class-late)
}

// next gives when a job is due again that was read now.
func (j *job) next(now time.Time, zone *time.Location) time.Time {
	switch {
	case j.brackets():
		return j.nextBracket(now, zone)
	case j.Align:
		return aligned(now, j.Every, zone)
	}
	next := j.due.Add(j.Every)
	if !j.ran {
		next = now.Add(j.phase)
	}
	if !next.After(now) { // the line is too slow for the timetable
		next = now.Add(j.Every)
	}
	return next
}

// retry gives when a job is due again whose visit failed now.
func (j *job) retry(now time.Time, zone *time.Location) time.Time {
	next, soon := j.next(now, zone), now.Add(retryMost)
	if j.brackets() {
		soon = j.retryBracket(now, next, zone)
	}
	if soon.Before(next) {
		return soon
	}
	return next
}

// aligned gives the next multiple of every after now, counted from local
// midnight and beginning anew at each; whole days are counted as days, which
// daylight saving makes 23 or 25 hours long.
func aligned(now time.Time, every time.Duration, zone *time.Location) time.Time {
	if zone == nil {
		zone = time.UTC
	}
	y, m, d := now.In(zone).Date()
	if every >= day {
		return meter.DayStart(y, m, d+int(every/day), zone)
	}
	midnight := meter.DayStart(y, m, d, zone)
	next := midnight.Add(now.Sub(midnight).Truncate(every) + every)
	if tomorrow := meter.DayStart(y, m, d+1, zone); tomorrow.Before(next) {
		return tomorrow
	}
	return next
}
