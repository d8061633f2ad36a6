package iec21

import (
	"time"

	"gridgate/dlms"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

// The codes of the clock: date and time in one, time, date, and both again.
func clockCode() obis.Code { return obis.Code{0, 0, 1, 0, 0, 255} }
func timeCode() obis.Code  { return obis.Code{1, 0, 0, 9, 1, 255} }
func dateCode() obis.Code  { return obis.Code{1, 0, 0, 9, 2, 255} }
func stampCode() obis.Code { return obis.Code{1, 0, 0, 9, 4, 255} }

// clock gives the meter's clock as the readout shows it, nil when it does not.
func (r *readout) clock(zone *time.Location) *meter.ClockOffset {
	for _, c := range []obis.Code{clockCode(), stampCode()} {
		if e, ok := r.find(c); ok {
			if m, ok := parseTime(e.values[0]); ok {
				return offset(m, zone, r.asked, e.stamp)
			}
		}
	}
	at, okTime := r.find(timeCode())
	on, okDate := r.find(dateCode())
	if !okTime || !okDate {
		return nil
	}
	m, ok := joined(on.values[0], at.values[0])
	if !ok || nearMidnight(m, at.stamp, r.asked) {
		return nil
	}
	return offset(m, zone, r.asked, at.stamp)
}

// nearMidnight says that date and time may be of different days.
func nearMidnight(m moment, after, before meter.Stamp) bool {
	const day = 24 * 60 * 60
	second := (m.hour*60+m.minute)*60 + m.second
	margin := int(after.Mono-before.Mono)/1000 + 2
	return second < margin || second > day-margin
}

// joined makes one of a date and a time.
func joined(date, clock string) (moment, bool) {
	d, okDate := parseDate(date)
	t, okTime := parseClock(clock)
	d.hour, d.minute, d.second, d.hasSeconds = t.hour, t.minute, t.second, t.hasSeconds
	if d.season == noSeason {
		d.season = t.season
	}
	return d, okDate && okTime
}

// offset compares a meter's clock, read at some time from before to after.
func offset(m moment, zone *time.Location, before, after meter.Stamp) *meter.ClockOffset {
	turn := time.Duration(after.Mono-before.Mono) * time.Millisecond
	resolution := time.Second
	if !m.hasSeconds {
		resolution = time.Minute
	}
	middle := time.UnixMilli(after.Time).Add(-turn / 2)
	at := m.in(zone)
	if m.season == noSeason {
		at = dlms.Near(at, middle, zone)
	}
	stepped := time.Duration(after.Time-before.Time)*time.Millisecond - turn // the gateway's own clock
	return &meter.ClockOffset{Offset: at.Sub(middle), Uncertainty: turn/2 + resolution + stepped.Abs(), Valid: true, At: after}
}
