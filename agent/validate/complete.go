package validate

import (
	"cmp"
	"time"

	"gridgate/internal/meter"
	"gridgate/internal/sortby"
)

// Completeness is the channel of the row that says how much of the intervals of
// a day has come of a meter, in percent with two digits. Its stamp is the end
// of the day and its period the day's length.
const Completeness meter.Channel = "completeness.interval"

// dayOf is a day of a meter.
type dayOf struct {
	meter  meter.ID
	serial string
	end    int64 // the local midnight behind it, in milliseconds since 1970 UTC
}

// intervals is what has come of a day.
type intervals struct {
	length int64  // of the day, in seconds
	period uint32 // of the shortest interval, in seconds
	seen   []uint64
	count  int
	due    time.Time // when its figure is given next, if it is another than told
	told   int       // count of the row that was given last, -1 for none
	done   bool      // complete, and said so: the one that stands for all such days
}

const (
	longestCounted = 3600 // seconds; a day's own rows say nothing of its hours
	// keepDays is for how long a day is counted that is not complete.
	keepDays = 41 * 24 * time.Hour
	// When the figure of a day that is not complete is given: utilities are
	// judged by it at 8 and at 12 o'clock.
	firstHour, secondHour = 8 * time.Hour, 12 * time.Hour
)

// count notes that the interval of a row has come.
func (v *Validator) count(row *meter.Row) {
	if row.Lane != meter.Interval || row.Stamp.Source != meter.FromMeter ||
		row.Period == 0 || row.Period > longestCounted || row.Quality&meter.IntervalMissing != 0 {
		return
	}
	at := time.UnixMilli(row.Stamp.Time)
	begin, end := v.day(at.Add(-time.Millisecond)) // the stamp is the end of the interval
	key := dayOf{row.Meter, row.Serial, end.UnixMilli()}
	d := v.days[key]
	if d == nil || !d.done && row.Period < d.period {
		d = &intervals{length: int64(end.Sub(begin) / time.Second), period: row.Period, due: end.Add(firstHour), told: -1}
		d.seen = make([]uint64, d.want()/64+1)
		v.days[key] = d
	}
	if row.Period != d.period || d.done {
		return
	}
	n := int(at.Add(-time.Millisecond).Sub(begin) / time.Second / time.Duration(d.period))
	if mask := uint64(1) << (n % 64); n >= 0 && n < d.want() && d.seen[n/64]&mask == 0 {
		d.seen[n/64] |= mask
		d.count++
	}
}

func (d *intervals) want() int { return int(d.length / int64(d.period)) }

// nextFigure gives when the figure of a day is due after it was at due.
func nextFigure(due, end time.Time) time.Time {
	if second := end.Add(secondHour); due.Before(second) {
		return second
	}
	return due.Add(24 * time.Hour)
}

// day gives the ends of the local day of a moment.
func (v *Validator) day(at time.Time) (begin, end time.Time) {
	zone := v.cfg.TimeZone
	if zone == nil {
		zone = time.UTC
	}
	y, m, d := at.In(zone).Date()
	return meter.DayStart(y, m, d, zone), meter.DayStart(y, m, d+1, zone)
}

// Complete gives a row for each day of each meter that is complete since the
// last call, or whose figure is due: at 8 and at 12 of the day behind it, and
// then when it changed, once a day. Days that began before since are left out:
// what came of them before is not known.
func (v *Validator) Complete(since time.Time, now meter.Stamp) (rows []meter.Row) {
	at := time.UnixMilli(now.Time)
	for key, d := range v.days {
		end := time.UnixMilli(key.end)
		complete := d.count == d.want()
		switch {
		case at.Sub(end) > keepDays:
			delete(v.days, key)
			continue
		case d.done:
			continue
		case end.Add(-time.Duration(d.length) * time.Second).Before(since):
			delete(v.days, key)
			continue
		case !complete && at.Before(d.due):
			continue
		}
		for !d.due.After(at) {
			d.due = nextFigure(d.due, end)
		}
		if d.told == d.count {
			continue
		}
		d.told = d.count
		if complete {
			v.days[key] = v.whole
		}
		stamp := now
		stamp.Time = key.end
		rows = append(rows, meter.Row{
			Meter: key.meter, Serial: key.serial, Channel: Completeness, Lane: meter.Interval, Stamp: stamp,
			Value: meter.UintValue(uint64(d.count)*10000/uint64(d.want()), -2), Unit: meter.Percent, Period: uint32(d.length),
		})
	}
	sortby.Stable(rows, func(a, b meter.Row) int {
		return cmp.Or(cmp.Compare(a.Stamp.Time, b.Stamp.Time), cmp.Compare(a.Meter, b.Meter))
	})
	return rows
}
