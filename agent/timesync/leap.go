package timesync

import "time"

// leap is a leap second that was announced, or none. UTC is followed as POSIX
// has it: an inserted second is counted twice, so that true − Raw is a second
// less after it.
type leap struct {
	at time.Time     // the first moment after it; zero for none
	by time.Duration // a second, or minus one
}

// announcedBy is how long before a leap second every server tells of it.
const announcedBy = 12 * time.Hour

// announce gives the leap second that servers tell of at a time: at the end of
// the month (RFC 5905, 7.3).
func announce(by int, now time.Time) leap {
	if by == 0 {
		return leap{}
	}
	return leap{time.Date(now.Year(), now.Month()+1, 1, 0, 0, 0, 0, time.UTC), time.Duration(by) * time.Second}
}

// apply gives true − Raw and its error with the leap second that may have
// been since. Around the leap, and until servers are heard after it, it may
// or may not have been.
func (l leap) apply(raw, offset, err time.Duration, heard time.Time) (time.Duration, time.Duration) {
	now := time.Unix(0, int64(raw+offset))
	if !l.at.IsZero() {
		if !now.Add(err + time.Second).Before(l.at) {
			err += time.Second
		}
		if !now.Before(l.at) {
			offset -= l.by
		}
		return offset, err
	}
	if l.unheard(heard, now.Add(err+time.Second)) {
		err += time.Second
	}
	return offset, err
}

// unheard says whether there may have been a leap second of which nobody told
// because nobody was heard. There were none but at the end of June and of
// December.
func (l leap) unheard(heard, now time.Time) bool {
	end := halfYear(heard)
	return l.at.IsZero() && end.Sub(heard) > announcedBy && !now.Before(end)
}

// passed says whether the leap second is over at a raw time.
func (l leap) passed(raw time.Duration, e *estimate) bool {
	since := float64(raw - e.raw)
	return !l.at.IsZero() && !time.Unix(0, int64(raw+e.offset+time.Duration(e.drift*since))).Before(l.at)
}

// halfYear gives the end of the half year of t.
func halfYear(t time.Time) time.Time {
	if t.Month() <= time.June {
		return time.Date(t.Year(), time.July, 1, 0, 0, 0, 0, time.UTC)
	}
	return time.Date(t.Year()+1, time.January, 1, 0, 0, 0, 0, time.UTC)
}

// today gives the leap second at the end of the day of now, when it is still to
// come at a raw time.
func (l leap) today(now time.Time, raw time.Duration, e *estimate) int {
	if l.at.IsZero() || l.at.Sub(now) > day || l.passed(raw, e) {
		return 0
	}
	return int(l.by / time.Second)
}
