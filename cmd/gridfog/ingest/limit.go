package ingest

import (
	"fmt"
	"time"
)

// What one gateway may make the database learn within a day (UTC). Who is let in
// by the broker may name what it likes: epochs, meters, channels, catalogues. A
// day's worth is far above what the largest site says on its first day, and
// small beside a day's readings.
type limits struct {
	streams    int // an epoch has four
	names      int // meters, channels and which meter has which channel
	catalogues int // in bytes
}

// dayLimits are those in force.
func dayLimits() limits { return limits{streams: 200, names: 200_000, catalogues: 64 << 20} }

// learnt is what a gateway made the database learn on a day.
type learnt struct {
	day int64
	limits
}

// reasonLimit is of what is above limits.
const reasonLimit = "limit"

// learnt gives the account of a gateway.
func (w *writer) learnt(site, gateway string, now time.Time) *learnt {
	if w.allLearnt == nil || len(w.allLearnt) > maxNames {
		w.allLearnt = map[[2]string]*learnt{}
	}
	at := [2]string{site, gateway}
	l := w.allLearnt[at]
	if today := now.Unix() / 86_400; l == nil || l.day != today {
		l = &learnt{day: today}
		w.allLearnt[at] = l
	}
	return l
}

// tooMany is the refusal of one more.
func tooMany(what string, limit int) error {
	return refused(reasonLimit, "the gateway named more than %s today", fmt.Sprintf(what, limit))
}
