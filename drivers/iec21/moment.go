package iec21

import (
	"strings"
	"time"

	"gridgate/internal/meter"
)

// season says which time a meter's clock shows.
type season byte

const (
	noSeason season = iota // the meter does not say
	winter
	summer
	universal
)

// moment is a time as meters write it, or a part of one.
type moment struct {
	year, month, day     int
	hour, minute, second int
	hasSeconds           bool
	season               season
}

// parseTime reads a date and time:
//
//	YYMMDDhhmm  YYMMDDhhmmss        as most write it
//	s before it: 0 winter, 1 summer, 2 UTC (VDEW)
//	S or W behind it                 summer, winter
//	YY-MM-DD,hh:mm  YY-MM-DD hh:mm:ss
func parseTime(s string) (moment, bool) {
	if date, clock, ok := strings.Cut(strings.Replace(s, ",", " ", 1), " "); ok {
		d, ok := parseDate(date)
		t, okTime := parseClock(clock)
		if !ok || !okTime || !strings.Contains(date, "-") || !strings.Contains(clock, ":") {
			return moment{}, false
		}
		d.hour, d.minute, d.second, d.hasSeconds = t.hour, t.minute, t.second, t.hasSeconds
		return d, true
	}
	var at season
	if n := len(s); n == 13 && (s[n-1] == 'S' || s[n-1] == 'W') {
		if at = winter; s[n-1] == 'S' {
			at = summer
		}
		s = s[:n-1]
	} else if s, at = cutSeason(s, 10, 12); s == "" {
		return moment{}, false
	}
	d, ok := parseDate(s[:6])
	t, okTime := parseClock(s[6:])
	if !ok || !okTime {
		return moment{}, false
	}
	d.hour, d.minute, d.second, d.hasSeconds, d.season = t.hour, t.minute, t.second, t.hasSeconds, at
	return d, true
}

// cutSeason takes the first digit off digits that are one more than there
// should be. "" is neither.
func cutSeason(s string, lengths ...int) (string, season) {
	if strings.Trim(s, "0123456789") != "" {
		return "", noSeason
	}
	for _, n := range lengths {
		switch {
		case len(s) == n:
			return s, noSeason
		case len(s) == n+1 && s[0] <= '2':
			return s[1:], season(s[0]-'0') + winter
		}
	}
	return "", noSeason
}

// parseDate reads YYMMDD or YY-MM-DD, with a season before it or without.
func parseDate(s string) (moment, bool) {
	if len(s) == 8 && s[2] == '-' && s[5] == '-' {
		s = s[:2] + s[3:5] + s[6:]
	}
	s, at := cutSeason(s, 6)
	if s == "" {
		return moment{}, false
	}
	m := moment{year: 2000 + two(s), month: two(s[2:]), day: two(s[4:]), season: at}
	d := time.Date(m.year, time.Month(m.month), m.day, 0, 0, 0, 0, time.UTC)
	return m, m.month >= 1 && m.month <= 12 && m.day >= 1 && d.Day() == m.day
}

// parseClock reads hhmm, hhmmss, hh:mm or hh:mm:ss, with a season before it or
// without. 24:00 is the end of the day.
func parseClock(s string) (moment, bool) {
	if (len(s) == 5 || len(s) == 8) && s[2] == ':' {
		if len(s) == 8 && s[5] != ':' {
			return moment{}, false
		}
		s = strings.ReplaceAll(s, ":", "")
	}
	s, at := cutSeason(s, 4, 6)
	if s == "" {
		return moment{}, false
	}
	m := moment{hour: two(s), minute: two(s[2:]), season: at}
	if len(s) == 6 {
		m.second, m.hasSeconds = two(s[4:]), true
	}
	midnight := m.hour == 24 && m.minute == 0 && m.second == 0
	return m, (m.hour < 24 || midnight) && m.minute < 60 && m.second < 60
}

// two gives the number of two digits.
func two(s string) int { return int(s[0]-'0')*10 + int(s[1]-'0') }

// in gives the moment in a zone. Where a clock shows an hour twice, the season
// tells which; without one it is one of the two.
func (m moment) in(zone *time.Location) time.Time {
	if m.season == universal {
		zone = time.UTC
	}
	t := time.Date(m.year, time.Month(m.month), m.day, m.hour, m.minute, m.second, 0, zone)
	if m.season != summer && m.season != winter || t.IsDST() == (m.season == summer) {
		return t
	}
	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		other := t.Add(by)
		if other.Hour() == t.Hour() && other.Minute() == t.Minute() && other.IsDST() == (m.season == summer) {
			return other
		}
	}
	return t
}

// value gives the moment as the 12 octets of a COSEM date-time (IEC 62056-6-2,
// 4.1.6.1), what is not known left open.
func (m moment) value() meter.Value {
	const open, noDeviation, daylight = 0xFF, 0x80, 0x80
	t := time.Date(m.year, time.Month(m.month), m.day, m.hour, m.minute, m.second, 0, time.UTC)
	b := []byte{
		byte(t.Year() >> 8), byte(t.Year()), byte(t.Month()), byte(t.Day()), open,
		byte(t.Hour()), byte(t.Minute()), open, 0, noDeviation, 0, 0,
	}
	if m.hasSeconds {
		b[7] = byte(t.Second())
	}
	switch m.season {
	case summer:
		b[11] = daylight
	case universal:
		b[9] = 0 // UTC is no minute off
	case noSeason, winter:
	}
	return meter.Value{Kind: meter.DateTime, Data: string(b)}
}
