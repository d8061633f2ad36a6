//go:build !faulty

package main

import "time"

// silent is how long gridgate may say nothing until it counts as stuck, and
// starting how long a start may take: as in gridgate.service.
const (
	silent   = 5 * time.Minute
	starting = 15 * time.Minute
	// trialLimit is when, after power on, a slot on trial that nobody has confirmed
	// is given up.
	trialLimit = 90 * time.Minute
)

// What tests build in: see faulty.go.
func atWatchdog() {}

func beforeFile(*slots, int) {}
