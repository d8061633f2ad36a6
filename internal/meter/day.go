package meter

import "time"

// DayStart gives the first moment of a day in a zone; days outside their month
// are taken as time.Date does. It is not 00:00 where daylight saving begins at
// midnight, which time.Date puts an hour early, into the day before.
func DayStart(year int, month time.Month, day int, zone *time.Location) time.Time {
	t := time.Date(year, month, day, 0, 0, 0, 0, zone)
	if t.Hour() > 12 {
		if _, end := t.ZoneBounds(); !end.IsZero() {
			return end
		}
	}
	return t
}
