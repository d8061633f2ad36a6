package configs

import (
	"testing"
	"time"
)

func TestWhenFirmwareMayBeStarted(t *testing.T) {
	t.Parallel()
	night := Update{Windows: []Window{{23 * time.Hour, 4*time.Hour + 30*time.Minute}, {12 * time.Hour, 13 * time.Hour}}}
	zone := time.FixedZone("", 3600)
	for at, want := range map[string]bool{
		"22:59": false, "23:00": true, "00:00": true, "04:29": true, "04:30": false, "11:59": false, "12:00": true, "13:00": false,
	} {
		clock, err := time.ParseInLocation("2006-01-02 15:04", "2026-11-22 "+at, zone)
		if err != nil {
			t.Fatal(err)
		}
		if got := night.May(clock.UTC(), zone); got != want {
			t.Errorf("%s: %v", at, got)
		}
		if !(Update{}).May(clock, zone) {
			t.Errorf("%s: not without a window", at)
		}
	}
}

func TestDefaultsOfUpdate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		set, want Update
		prove     time.Duration
	}{
		"none":     {Update{}, Update{Path: "/x/firmware", Prove: 10 * time.Minute}, 10 * time.Minute},
		"too long": {Update{}, Update{Path: "/x/firmware", Prove: time.Hour}, 24 * time.Hour},
		"set":      {Update{Path: "/y", Prove: time.Minute}, Update{Path: "/y", Prove: time.Minute}, time.Hour},
	} {
		c.set.setDefaults("/x/buffer", c.prove)
		if c.set.Path != c.want.Path || c.set.Prove != c.want.Prove {
			t.Errorf("%s: %+v", name, c.set)
		}
	}
}
