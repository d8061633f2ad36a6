package sys

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The clocks of one reading belong together.
func TestNow(t *testing.T) {
	t.Parallel()
	first := Clock{}.Now()
	if off := time.Since(first.Wall).Abs(); off > time.Minute {
		t.Errorf("the wall clock is %v off time.Now", off)
	}
	if first.Mono <= 0 || first.Raw <= 0 || first.Suspended < 0 || first.Suspended > first.Mono {
		t.Errorf("%+v", first)
	}
	for range 100 {
		next := Clock{}.Now()
		mono, raw := next.Mono-first.Mono, next.Raw-first.Raw
		// At most 10 % of slewing, and what a busy machine puts between readings.
		if mono < 0 || raw < 0 || (mono-raw).Abs() > mono/10+50*time.Millisecond {
			t.Fatalf("from %+v to %+v", first, next)
		}
	}
}

func TestDisciplineIsToldToAnybody(t *testing.T) {
	t.Parallel()
	d, err := Clock{}.Discipline()
	if err != nil || d.MaxError < 0 || d.Frequency < -501e-6 || d.Frequency > 501e-6 || d.Leap < -1 || d.Leap > 1 {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestRTCWithoutOne(t *testing.T) {
	t.Parallel()
	none := RTC(filepath.Join(t.TempDir(), "rtc9"))
	file := RTC(filepath.Join(t.TempDir(), "file"))
	if err := os.WriteFile(string(file), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, r := range []RTC{none, file} {
		_, err := r.Read()
		if err == nil || !strings.HasPrefix(err.Error(), "hardware clock") || !strings.Contains(err.Error(), string(r)) {
			t.Errorf("%s: %v", r, err)
		}
		if err := r.Set(time.Now()); err == nil || !strings.Contains(err.Error(), string(r)) {
			t.Errorf("%s: %v", r, err)
		}
	}
}
