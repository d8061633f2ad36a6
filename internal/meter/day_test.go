package meter

import (
	"testing"
	"time"
)

// TestDayStart: each day begins where the one before ends, also where daylight
// saving begins or ends at midnight.
func TestDayStart(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"UTC", "Europe/Berlin", "Atlantic/Azores", "America/Santiago", "America/Havana", "Africa/Cairo", "Asia/Beirut", "Australia/Lord_Howe",
	} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		for day := range 366 {
			begin := DayStart(2026, 1, 1+day, zone)
			noon := time.Date(2026, 1, 1+day, 12, 0, 0, 0, zone)
			if begin.YearDay() != noon.YearDay() || begin.Add(-time.Second).YearDay() == noon.YearDay() {
				t.Errorf("%v begins at %v", noon.Format(time.DateOnly), begin)
			}
			if long := DayStart(2026, 1, 2+day, zone).Sub(begin); long < 23*time.Hour || long > 25*time.Hour {
				t.Errorf("%v is %v long", begin, long)
			}
		}
	}
}
