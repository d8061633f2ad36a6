package dlms

import (
	"errors"
	"fmt"
	"time"
)

// DateTimeLen is the length of a date-time in octets.
const DateTimeLen = 12

// NoDeviation is the deviation of a date-time that does not say how far its
// local time is from UTC.
const NoDeviation = -0x8000

// The bits of a clock status (IEC 62056-6-2, 4.1.6.1). The whole octet 0xFF is
// no status given.
const (
	StatusInvalid              = 0x01 // the time is not valid: power failed longer than the clock's reserve
	StatusDoubtful             = 0x02 // the clock could be started again, its time is not sure
	StatusOtherBase            = 0x04 // the clock runs on another time base than usual
	StatusInvalidClock         = 0x08 // the status itself is not valid
	StatusDaylightSaving       = 0x80 // daylight saving is in the time
	statusNotGiven       uint8 = 0xFF
)

// DateTime is a COSEM date-time (IEC 62056-6-2, 4.1.6.1) as a meter gives it:
//
//	year        2 octets   FFFF not specified
//	month       1          FF not specified, FD and FE daylight saving ends and begins
//	day         1          FF not specified, FD and FE second last and last of the month
//	weekday     1          1 Monday to 7 Sunday, FF not specified
//	hour        1          FF not specified, as the following
//	minute      1
//	second      1
//	hundredths  1
//	deviation   2          minutes to ADD to local time to get UTC, 8000 not specified
//	status      1          see StatusInvalid and following
//
// DateTimes compare with ==.
type DateTime struct {
	Year                                                  uint16
	Month, Day, Weekday, Hour, Minute, Second, Hundredths uint8
	Deviation                                             int16
	Status                                                uint8
}

// ErrNoMoment says that a date-time is well formed but leaves open which
// moment it means.
var ErrNoMoment = errors.New("date-time names no moment")

// ParseDateTime decodes the 12 octets of a date-time. It checks the length
// only; Time checks what they say.
func ParseDateTime(s string) (DateTime, error) {
	if len(s) != DateTimeLen {
		return DateTime{}, malformed("date-time of %d octets, want %d", len(s), DateTimeLen)
	}
	return DateTime{
		Year: uint16(s[0])<<8 | uint16(s[1]), Month: s[2], Day: s[3], Weekday: s[4],
		Hour: s[5], Minute: s[6], Second: s[7], Hundredths: s[8],
		Deviation: int16(uint16(s[9])<<8 | uint16(s[10])), Status: s[11],
	}, nil
}

// AppendBinary appends the 12 octets of d.
func (d DateTime) AppendBinary(b []byte) ([]byte, error) { return d.append(b), nil }

func (d DateTime) append(b []byte) []byte {
	return append(b, byte(d.Year>>8), byte(d.Year), d.Month, d.Day, d.Weekday,
		d.Hour, d.Minute, d.Second, d.Hundredths, byte(uint16(d.Deviation)>>8), byte(d.Deviation), d.Status)
}

// Has says whether the status is given and has all bits of bits.
func (d DateTime) Has(bits uint8) bool { return d.Status != statusNotGiven && d.Status&bits == bits }

// Time gives the moment that d names, in UTC. A d without deviation is local
// time in loc; in the hour that daylight saving repeats, its status says which
// of the two is meant. Seconds and hundredths that are not specified count as
// 0. A d with fields open or out of range is ErrNoMoment.
func (d DateTime) Time(loc *time.Location) (time.Time, error) {
	second, hundredths := d.Second, d.Hundredths
	if second == 0xFF {
		second, hundredths = 0, 0
	}
	if hundredths == 0xFF {
		hundredths = 0
	}
	if d.Year == 0xFFFF || d.Month > 12 || d.Day > 31 || d.Hour > 23 || d.Minute > 59 || second > 59 || hundredths > 99 {
		return time.Time{}, fmt.Errorf("%w: %x", ErrNoMoment, d.append(nil))
	}
	in := func(loc *time.Location) time.Time {
		return time.Date(int(d.Year), time.Month(d.Month), int(d.Day), int(d.Hour), int(d.Minute), int(second), int(hundredths)*10_000_000, loc)
	}
	if t := in(time.UTC); t.Day() != int(d.Day) || t.Month() != time.Month(d.Month) {
		return time.Time{}, fmt.Errorf("%w: no such day: %x", ErrNoMoment, d.append(nil))
	}
	switch {
	case d.Deviation == NoDeviation:
		return foldedTime(in(loc), d).UTC(), nil
	case d.Deviation < -840 || d.Deviation > 840:
		return time.Time{}, fmt.Errorf("%w: deviation of %d minutes: %x", ErrNoMoment, d.Deviation, d.append(nil))
	}
	return in(time.UTC).Add(time.Duration(d.Deviation) * time.Minute), nil
}

// foldedTime gives, of the two moments that one local time may mean, the one
// that is in daylight saving time or not as the status of d says.
func foldedTime(t time.Time, d DateTime) time.Time {
	if d.Status == statusNotGiven || t.IsDST() == d.Has(StatusDaylightSaving) {
		return t
	}
	for _, by := range []time.Duration{-time.Hour, time.Hour, -30 * time.Minute, 30 * time.Minute} {
		other := t.Add(by)
		if other.IsDST() != t.IsDST() && other.Hour() == t.Hour() && other.Minute() == t.Minute() && other.Day() == t.Day() {
			return other
		}
	}
	return t
}

// Repeated gives the stretch around t in which every local time of the zone comes
// twice, because its clocks are put back: from when the first pass begins to when
// the second ends. ok says whether t is in one.
func Repeated(t time.Time, zone *time.Location) (begin, end time.Time, ok bool) {
	const most = 3 * time.Hour // that clocks are put back by
	for _, side := range []time.Duration{0, -most} {
		from, to := t.Add(side), t.Add(side+most)
		_, before := from.In(zone).Zone()
		_, after := to.In(zone).Zone()
		if after >= before {
			continue
		}
		for to.Sub(from) > time.Second { // between them the clocks are put back
			middle := from.Add(to.Sub(from) / 2)
			if _, offset := middle.In(zone).Zone(); offset == before {
				from = middle
			} else {
				to = middle
			}
		}
		back, by := to.Truncate(time.Second), time.Duration(before-after)*time.Second
		begin, end = back.Add(-by), back.Add(by)
		if !t.Before(begin) && t.Before(end) {
			return begin, end, true
		}
	}
	return begin, end, false
}

// Behind gives the first moment with the local time of t that comes after last.
// There are two where clocks are put back; where neither comes after last it is
// the first.
func Behind(t, last time.Time, zone *time.Location) time.Time {
	first, second := passes(t, zone)
	if !first.After(last) && second.After(last) {
		return second
	}
	return first
}

// Near gives the moment with the local time of t that is nearest to at.
func Near(t, at time.Time, zone *time.Location) time.Time {
	first, second := passes(t, zone)
	if at.Sub(first).Abs() <= at.Sub(second).Abs() {
		return first
	}
	return second
}

// passes gives the two moments with the local time of t, where clocks are put
// back, and t twice where they are not.
func passes(t time.Time, zone *time.Location) (first, second time.Time) {
	begin, end, ok := Repeated(t, zone)
	if !ok {
		return t, t
	}
	by := end.Sub(begin) / 2
	if t.Before(begin.Add(by)) {
		return t, t.Add(by)
	}
	return t.Add(-by), t
}

// DateTimeOf gives t in its own time zone, to hundredths of a second, with
// weekday, deviation and daylight saving bit.
func DateTimeOf(t time.Time) DateTime {
	_, offset := t.Zone()
	weekday := uint8(t.Weekday())
	if weekday == 0 {
		weekday = 7
	}
	d := DateTime{
		Year: uint16(t.Year()), Month: uint8(t.Month()), Day: uint8(t.Day()), Weekday: weekday,
		Hour: uint8(t.Hour()), Minute: uint8(t.Minute()), Second: uint8(t.Second()),
		Hundredths: uint8(t.Nanosecond() / 10_000_000), Deviation: int16(-offset / 60),
	}
	if t.IsDST() {
		d.Status = StatusDaylightSaving
	}
	return d
}
