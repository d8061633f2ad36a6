package timesync

import (
	"math"
	"time"
)

// What is taken for granted of oscillators.
const (
	// mostDrift is the worst oscillator that there is: ±100 ppm by its data
	// sheet, and room for age and cold.
	mostDrift = 150e-6
	// wanderAtFirst is how far the drift may go from what was measured, until
	// a whole day was measured; wanderLater is for after that.
	wanderAtFirst = 50e-6
	wanderLater   = 15e-6
)

const (
	day         = 24 * time.Hour
	driftWindow = 26 * time.Hour // drift is taken over about a day, so that day and night are in it
	fullDay     = 20 * time.Hour
	recordEvery = time.Hour
	recordMost  = 170           // a week of them
	rateWindow  = 2 * time.Hour // the shortest that a rate is looked at
)

// interval bounds a value of true − Raw: with the time since 1970 as an
// offset from the raw clock.
type interval struct{ lo, hi time.Duration }

func (i interval) overlaps(j interval) bool { return i.lo <= j.hi && j.lo <= i.hi }

func (i interval) around(by time.Duration) interval { return interval{i.lo - by, i.hi + by} }

func (i interval) clamp(v time.Duration) time.Duration { return min(max(v, i.lo), i.hi) }

// record is a majority's word.
type record struct {
	raw time.Duration
	is  interval
}

// estimate is what is known of true − Raw. The zero value knows nothing.
type estimate struct {
	known  bool
	raw    time.Duration // when it was made
	offset time.Duration // true − Raw then
	err    time.Duration // of offset, then
	drift  float64       // by which offset grows, seconds a second
	// driftErr is what is not known of drift, now and from here on.
	driftErr float64
	records  []record // of the last week, rising; the newest is the last
	leap     leap
	// heard is the true time of the last majority, by which leap seconds are
	// announced.
	heard time.Time
}

// at gives true − Raw at a raw time, and the bound of its error.
func (e *estimate) at(raw time.Duration) (offset, err time.Duration) {
	since := float64(raw - e.raw)
	offset = e.offset + time.Duration(e.drift*since)
	err = e.err + time.Duration(math.Ceil(e.driftErr*math.Abs(since)))
	return e.leap.apply(raw, offset, err, e.heard)
}

// add takes a majority's word: that true − Raw is within is, and probably best,
// at the raw time of now. It says whether that contradicts what was known.
func (e *estimate) add(now time.Duration, is interval, best time.Duration, announced int) (jump time.Duration, jumped bool) {
	best = is.clamp(best)
	if e.known {
		before, err := e.at(now)
		switch at := time.Unix(0, int64(now+before)); {
		case e.leap.passed(now, e):
			e.shift(e.leap.by)
		case e.leap.unheard(e.heard, at):
			e.records = e.records[:0] // a second may be between them and now
		}
		if is.overlaps(interval{before, before}.around(err)) {
			best = is.clamp(weigh(before, err, best, max(is.hi-best, best-is.lo)))
		} else {
			jump, jumped = best-before, true
			if span := now - e.raw; jump.Abs() > time.Duration(mostDrift*float64(span))+err+is.hi-is.lo {
				e.records = e.records[:0] // no oscillator does that: one of the majorities was wrong
			}
		}
	}
	e.known, e.raw, e.offset = true, now, best
	e.err = max(is.hi-best, best-is.lo)
	e.heard = time.Unix(0, int64(now+best)).UTC()
	e.leap = announce(announced, e.heard)
	e.keep(record{now, is})
	e.learn()
	return jump, jumped
}

// weigh gives the mean of two values, each weighed by its error.
func weigh(a, errA, b, errB time.Duration) time.Duration {
	wa, wb := 1/math.Pow(max(errA.Seconds(), 1e-6), 2), 1/math.Pow(max(errB.Seconds(), 1e-6), 2)
	return b + time.Duration(float64(a-b)*wa/(wa+wb))
}

// shift moves what was measured before a leap second to the time after it.
func (e *estimate) shift(by time.Duration) {
	for i := range e.records {
		e.records[i].is.lo -= by
		e.records[i].is.hi -= by
	}
}

// keep adds a record. Of those that follow one another within an hour the
// first is kept, and the newest of all.
func (e *estimate) keep(r record) {
	if n := len(e.records); n >= 2 && e.records[n-1].raw-e.records[n-2].raw < recordEvery {
		e.records = e.records[:n-1]
	}
	if len(e.records) == recordMost {
		e.records = append(e.records[:0], e.records[1:]...)
	}
	e.records = append(e.records, r)
}

// rate gives the bounds of the drift between two records.
func rate(a, b record) (lo, hi float64) {
	span := float64(b.raw - a.raw)
	return float64(b.is.lo-a.is.hi) / span, float64(b.is.hi-a.is.lo) / span
}

// learn makes drift and its error of the records.
func (e *estimate) learn() {
	last := e.records[len(e.records)-1]
	e.drift, e.driftErr = 0, mostDrift+wanderAtFirst
	first := last
	for i := len(e.records) - 1; i >= 0 && last.raw-e.records[i].raw <= driftWindow; i-- {
		first = e.records[i]
	}
	span := last.raw - first.raw
	if span < time.Minute {
		return
	}
	lo, hi := rate(first, last)
	lo, hi = max(lo, -mostDrift), min(hi, mostDrift)
	if lo > hi { // beyond what oscillators do: believe nothing
		return
	}
	wander := wanderAtFirst
	if span >= fullDay {
		wander = wanderLater
	}
	drift := (lo + hi) / 2
	e.drift, e.driftErr = drift, (hi-lo)/2+max(wander, 1.5*e.spread(drift))
}

// spread is by how much the drift was certainly off its mean for hours, in the
// last week.
func (e *estimate) spread(mean float64) (most float64) {
	from := 0
	for i := range e.records {
		if e.records[i].raw-e.records[from].raw < rateWindow {
			continue
		}
		lo, hi := rate(e.records[from], e.records[i])
		most = max(most, lo-mean, mean-hi)
		from = i
	}
	return most
}

// mostGrowth is what a bound may grow by from one poll to the next.
const mostGrowth = 250 * time.Millisecond

// patience is how long a poll may wait so that the bound stays useful.
func (e *estimate) patience() time.Duration {
	if !e.known {
		return 0
	}
	return time.Duration(float64(mostGrowth) / e.driftErr)
}
