package uplink

import (
	"encoding/json"
	"fmt"
	"time"

	"gridgate/internal/meter"
)

// Budget bounds what an uplink costs, in bytes of IP packets of both
// directions; 0 is without a bound. Alarm and billing go over it.
type Budget struct {
	Day   int64 // of Config.TimeZone
	Month int64 // of the calendar there
}

// Ledger keeps what was spent over restarts. Save need not be durable at once.
type Ledger interface {
	Load() ([]byte, error)
	Save([]byte) error
}

const (
	// saveEvery is how often the ledger is saved at most, unless much was spent.
	saveEvery = time.Hour
	// saveShare is the part of the day's budget that may be forgotten in a power
	// cut.
	saveShare = 50
)

// spending is what was spent. Its JSON is what the Ledger keeps.
type spending struct {
	Day        string `json:"day"`   // 2006-01-02
	Month      string `json:"month"` // 2006-01
	DayBytes   int64  `json:"day_bytes"`
	MonthBytes int64  `json:"month_bytes"`
	// FirmwareBytes are those of DayBytes that went for parts of firmware.
	FirmwareBytes int64 `json:"firmware_bytes,omitempty"`

	counted  int64     // of the traffic
	from, to time.Time // the day
	saved    int64     // counted, when it was last saved
	savedAt  time.Time
}

// lost is what a clock is set back by that lost its time.
const lost = 365 * 24 * time.Hour

// add counts what was spent since the last call. A clock that goes back begins
// no new day: what was spent stays spent. One that nobody vouches for, and that
// begins long ago after a power cut, has no say: when it is right again that
// would be a new month.
func (s *spending) add(now time.Time, zone *time.Location, counted int64, sure bool) {
	now = now.Round(0).In(zone)
	if now.Before(s.from) || !now.Before(s.to) {
		y, m, d := now.Date()
		s.from, s.to = time.Date(y, m, d, 0, 0, 0, 0, zone), time.Date(y, m, d+1, 0, 0, 0, 0, zone)
		day := now.Format(time.DateOnly)
		if day > s.Day {
			s.DayBytes, s.FirmwareBytes = 0, 0
		}
		if day[:7] > s.Month {
			s.MonthBytes = 0
		}
		if sure || s.Day <= now.Add(lost).Format(time.DateOnly) {
			s.Day, s.Month = day, day[:7]
		}
	}
	s.DayBytes += counted - s.counted
	s.MonthBytes += counted - s.counted
	s.counted = counted
}

// spent says that nothing is left.
func (s *spending) spent(b Budget) bool {
	return b.Day > 0 && s.DayBytes >= b.Day || b.Month > 0 && s.MonthBytes >= b.Month
}

// settle counts what was spent, and notes whether lanes have to wait for it.
func (u *Uplink) settle(now time.Time) {
	if u.cfg.Budget == (Budget{}) {
		return
	}
	s := &u.spending
	s.add(now, u.cfg.TimeZone, u.traffic.Bytes(), u.cfg.Sure == nil || u.cfg.Sure())
	other := u.cfg.Parts.owes()
	s.DayBytes, s.MonthBytes, s.FirmwareBytes = s.DayBytes+other, s.MonthBytes+other, s.FirmwareBytes+other
	if spent := s.spent(u.cfg.Budget); spent != u.withheld {
		u.withheld = spent
		if spent {
			u.cfg.Log.Warn("the data budget is spent: only alarm and billing are sent", "day", s.DayBytes, "month", s.MonthBytes)
		} else {
			u.cfg.Log.Info("the data budget has room again")
		}
	}
	u.count(func(st *Stats) { st.Withheld, st.DayBytes, st.MonthBytes = u.withheld, s.DayBytes, s.MonthBytes })
	due := now.Sub(s.savedAt) >= saveEvery
	if u.cfg.Budget.Day > 0 && s.counted-s.saved >= u.cfg.Budget.Day/saveShare ||
		u.cfg.Budget.Month > 0 && s.counted-s.saved >= u.cfg.Budget.Month/(30*saveShare) {
		due = true
	}
	if due && s.counted > s.saved {
		u.saveSpending(now)
	}
}

func (u *Uplink) saveSpending(now time.Time) {
	s := &u.spending
	if u.cfg.Ledger == nil || u.cfg.Budget == (Budget{}) {
		return
	}
	s.saved, s.savedAt = s.counted, now
	b, err := json.Marshal(s)
	if err == nil {
		err = u.cfg.Ledger.Save(b)
	}
	if err != nil {
		u.cfg.Log.Warn("what was spent of the data budget cannot be kept", "error", err)
	}
}

// loadSpending takes up what was spent before a restart.
func (u *Uplink) loadSpending(now time.Time) {
	if u.cfg.Ledger == nil || u.cfg.Budget == (Budget{}) {
		return
	}
	b, err := u.cfg.Ledger.Load()
	if err == nil && len(b) > 0 {
		if err = json.Unmarshal(b, &u.spending); err == nil && min(u.spending.DayBytes, u.spending.MonthBytes, u.spending.FirmwareBytes) < 0 {
			err = fmt.Errorf("%d bytes", min(u.spending.DayBytes, u.spending.MonthBytes, u.spending.FirmwareBytes))
		}
	}
	if err != nil {
		u.cfg.Log.Warn("what was spent of the data budget is not known", "error", err)
		u.spending = spending{}
	}
	u.spending.savedAt = now
}

// waits says that a lane waits for the budget.
func (u *Uplink) waits(lane meter.Lane) bool { return u.withheld && lane > meter.Billing }
