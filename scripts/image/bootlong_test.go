//go:build soak

package main

import (
	"testing"
	"time"
)

func TestSoakBootsArm64(t *testing.T) {
	s := newSite(t, arm64())
	began := time.Now()
	s.boot()
	within(t, 5*time.Minute, "a reading at the broker", s.reads)
	t.Logf("power on to the first reading at the broker: %.1f s", time.Since(began).Seconds())
}

// TestSoakEveryBoard: what the table of boards names is in Debian's packages.
func TestSoakEveryBoard(t *testing.T) {
	for _, b := range boards() {
		m := armv7()
		if b.bin == "arm64" {
			m = arm64()
		}
		m.board = b.name
		image(t, m)
	}
}
