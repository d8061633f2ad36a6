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

// passed is a memory of a time that has passed.
type passed time.Time

func (p passed) LastTime() time.Time       { return time.Time(p) }
func (passed) SetLastTime(time.Time) error { return nil }

// TestCertificatesOfALostClock: those of today are good where the clock begins
// years ago.
func TestCertificatesOfALostClock(t *testing.T) {
	t.Parallel()
	w, later := timetest.New(timetest.Config{Seed: 2}), time.Now().AddDate(5, 0, 0)
	a := &Agent{}
	a.clock.Store(&runningClock{Clock: timesync.New(timesync.Config{
		System: w, Exchange: w.Exchange, Boot: w.Boot, Log: slog.New(slog.DiscardHandler), Memory: passed(later),
	})})
	if got := a.certificateTime(); got.Before(later) {
		t.Errorf("%v, while %v has passed", got, later)
	}
	w.Discipliner(time.Millisecond)
	if got := a.certificateTime(); !got.Before(later) {
		t.Errorf("%v by a clock that is right", got)
	}
}
