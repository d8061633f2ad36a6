package agent

import (
	"log/slog"
	"testing"
	"time"

	"gridgate/agent/timesync"
	"gridgate/agent/timesync/timetest"
)

// TestReadingsWaitUntilTheyArePutRight: a clock that is right by now does not let
// go readings whose correction is about to come.
func TestReadingsWaitUntilTheyArePutRight(t *testing.T) {
	t.Parallel()
	w := timetest.New(timetest.Config{Seed: 1})
	w.Discipliner(time.Millisecond)
	c := &runningClock{servers: true, Clock: timesync.New(timesync.Config{
		System: w, Exchange: w.Exchange, Boot: w.Boot, Log: slog.New(slog.DiscardHandler),
	})}
	a := &Agent{started: time.Now()}
	a.clock.Store(c)
	if !c.Trusted() || !a.waitsForTime() {
		t.Errorf("trusted %v, waits %v, before the correction", c.Trusted(), a.waitsForTime())
	}
	c.corrected.Store(true)
	if a.waitsForTime() {
		t.Error("waits for what has come")
	}
	c.corrected.Store(false)
	if a.started = time.Now().Add(-waitMost); a.waitsForTime() {
		t.Error("waits for ever")
	}
}
