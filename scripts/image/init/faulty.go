//go:build faulty

package main

import (
	"log"
	"os"
	"time"
)

// First processes for tests, which no image is made with: with short limits.
const (
	silent     = 15 * time.Second
	starting   = 15 * time.Minute
	trialLimit = 90 * time.Second
)

// fault is a fault on purpose: blocked hangs as soon as it has the watchdog, panic
// has the kernel panic there, and early lets a slot be tried before it is written,
// and waits for the cut there.
var fault string //nolint:gochecknoglobals // set by the linker

func atWatchdog() {
	if fault == "panic" {
		log.Print(os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0))
	}
	if fault == "blocked" {
		log.Print("blocked, for a test")
		select {}
	}
}

func beforeFile(s *slots, n int) {
	switch {
	case fault != "early":
	case n == 0:
		other := otherOf(s.running)
		if err := s.change(func(t *tries) error {
			t.first, t.trial, t.left[other] = other, other, trialTries
			return nil
		}); err != nil {
			log.Print(err)
		}
	default:
		log.Print("the slot may be tried, and is half written, for a test")
		select {}
	}
}
