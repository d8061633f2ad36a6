package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"gridgate/agent/trial"
	"gridgate/agent/update"
	"gridgate/internal/sys"
)

const (
	// restartMost is how long a restart may take to begin.
	restartMost = 5 * time.Minute
	// sayMost is how long a restart waits for the fog to be told.
	sayMost = 3 * time.Second
)

// try puts a candidate on trial, or goes on with its trial after a restart. It runs
// in the task of orders, whose turn is held.
func (w *updates) try(ctx context.Context, c *candidate) {
	if e, _, ok, err := w.shelf.OnTrial(); err != nil || !ok || e.Sum != c.sum { // another one has taken its place
		w.wake()
		return
	}
	c.turn = true
	w.look()
	s := &firmwareTrial{w: w, c: c, before: w.running()}
	same := c.job.Same()
	s.runs = same && s.before.OnTrial == s.before.Running
	switch {
	case same && !s.runs: // confirmed before a cut, or there is nothing to change
		w.ends(c, trial.Outcome{Step: trial.Kept})
		return
	case !same && c.attempts > 0 && s.before.OnTrial != "" && s.before.OnTrial != s.before.Running && s.before.Tries == 0:
		w.ends(c, trial.Outcome{Step: trial.Reverted, Reason: fmt.Sprintf("slot %s did not prove itself in as many starts as it had, and slot %s was started again", s.before.OnTrial, s.before.Running)})
		return
	}
	cfg := w.a.config()
	if c.attempts == 0 {
		w.o.note("firmware.trial", signers(c.d), c.name())
		w.o.settle(ctx, cfg)
	}
	prove := cfg.Update.Prove
	end := trial.Run(ctx, trial.Config{
		Measure: w.a.health, Deadline: prove, Settle: min(settleMost, prove/4), MaxMemory: sys.MemoryLimit() / 4 * 3,
		Step: func(step trial.Step) {
			if step == trial.Proving {
				w.step(update.Proving)
			}
		},
		GiveUp: w.o.giveUp,
	}, s, s)
	s.probes.stop()
	if end.Step == trial.Suspended {
		return
	}
	w.a.log.Info("firmware tried", "target", c.Target, "version", c.Version, "firmware", c.m.Firmware, "outcome", string(end.Step), "reason", end.Reason)
}

// resume goes on with what a restart, which may have been a cut, left. turn is held.
func (w *updates) resume(ctx context.Context) {
	c, err := w.candidate()
	switch {
	case c == nil: // nothing, or the task that fetches gives it up
		if s := w.running(); err == nil && w.wasReverted() && s.OnTrial == "" && s.First != s.Running {
			w.finishRestart(s) // this program ended between going back and the restart
		}
		return
	case errors.Is(err, errSilent):
		w.a.log.Error("what is on trial is not proved", "error", err)
		return
	case w.hasEnded(c): // a cut came amid the end
		w.finish(c)
		return
	case c.attempts == 0: // it is fetched
		return
	}
	c.turn = true
	w.o.trying(c.name())
	defer w.o.trying("")
	if err == nil {
		w.begins(c.d, c.m, update.Proving)
		c.job, err = w.compare(ctx, c)
	}
	if err != nil {
		if ctx.Err() == nil {
			w.ends(c, trial.Outcome{Step: trial.Refused, Reason: err.Error()})
		}
		return
	}
	w.o.during(ctx, c.Data, func(ctx context.Context) { w.try(ctx, c) })
}

// compare finds out whether a candidate is what runs.
func (w *updates) compare(ctx context.Context, c *candidate) (*update.Job, error) {
	store, err := update.OpenStore(filepath.Join(w.dir, "fetched"))
	if err != nil {
		return nil, err
	}
	return store.Begin(ctx, c.files, w.slots.Open)
}

// hasEnded says that it is written down what came of a candidate.
func (w *updates) hasEnded(c *candidate) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last.Sum == c.sum
}

// firmwareTrial is firmware on trial: the subject, and its journal.
type firmwareTrial struct {
	w      *updates
	c      *candidate
	before update.SlotState // when this attempt began
	runs   bool             // this program is of the candidate
	probes *task
}

// Begin counts an attempt. The one before the restart is none of those that the
// candidate has.
func (s *firmwareTrial) Begin(before trial.Health) (attempt int, first trial.Health, err error) {
	attempt, first, err = s.w.shelf.Begin(before)
	s.w.o.at("firmware-begun")
	if s.runs && attempt > 1 {
		attempt--
	}
	return attempt, first, err
}

// Apply starts the candidate, which ends this program; where it runs already,
// Apply visits all meters.
func (s *firmwareTrial) Apply(ctx context.Context) error {
	w := s.w
	if s.runs {
		s.probes = w.a.start(ctx, "trial", func(ctx context.Context) error {
			w.o.settle(ctx, w.a.config())
			return nil
		})
		return nil
	}
	if s.c.attempts == 0 || s.before.OnTrial == "" || s.before.Tries == 0 { // else a cut came before the restart
		if err := s.install(ctx); err != nil {
			return err
		}
	}
	w.step(update.Restarting)
	w.o.note("firmware.restart", "", s.c.name())
	w.said(ctx)
	if err := s.givenUp(); err != nil {
		return err
	}
	if err := w.slots.Restart(); err != nil {
		return err
	}
	if err := pause(ctx, restartMost); err != nil {
		return err
	}
	return fmt.Errorf("the restart did not begin within %v", restartMost)
}

func (s *firmwareTrial) install(ctx context.Context) (err error) {
	w := s.w
	if s.before.OnTrial != "" {
		if err := w.slots.Back(); err != nil {
			return err
		}
	}
	if s.c.staged == nil {
		w.step(update.Verifying)
		if s.c.staged, err = s.c.job.Stage(ctx); err != nil {
			return err
		}
	}
	w.step(update.Installing)
	if err := w.slots.Install(ctx, s.c.staged); err != nil {
		return err
	}
	w.o.at("firmware-installed")
	if err := s.givenUp(); err != nil {
		return err
	}
	if err := w.slots.Switch(); err != nil {
		return err
	}
	w.o.at("firmware-switched")
	return nil
}

// Keep confirms the slot.
func (s *firmwareTrial) Keep() error {
	if !s.runs {
		return errors.New("the slot that runs is not the one on trial")
	}
	err := s.w.slots.Confirm()
	for n := 0; err != nil && n < confirmTries; n++ { // it may have been done all the same: a card that is slow
		err = s.w.slots.Confirm()
	}
	if state, serr := s.w.slots.State(); err != nil && serr == nil && state.OnTrial == "" && state.First == state.Running {
		err = nil
	}
	s.w.o.at("firmware-confirmed")
	return err
}

// confirmTries is how often confirming is tried again.
const confirmTries = 3

// givenUp says whether somebody gave the firmware up while it was installed.
func (s *firmwareTrial) givenUp() error {
	select {
	case why := <-s.w.o.giveUp:
		return errors.New(why)
	default:
		return nil
	}
}

// Revert does nothing: it is in End, after it is written down how the trial ended.
func (s *firmwareTrial) Revert(context.Context) error { return nil }

// End writes down how the trial ended, and then ends it.
func (s *firmwareTrial) End(end trial.Outcome) error {
	s.w.ends(s.c, end)
	return nil
}

// ends writes down what came of a candidate, and takes it from the shelf.
func (w *updates) ends(c *candidate, end trial.Outcome) {
	doc := update.Document{Kind: "firmware", Target: c.Target, Version: c.Version}
	if c.d != nil {
		doc.Hash = hexHash(c.d.Hash)
	}
	if c.m != nil {
		doc.Firmware = c.m.Firmware
	}
	w.mu.Lock()
	if end.Step == trial.Refused && w.state.OnTrial != "" && w.state.OnTrial == w.state.Running {
		end.Step = trial.Reverted // it ran
	}
	w.last.Outcome, w.last.Sum = &update.Outcome{Document: doc, Outcome: string(end.Step), Reason: end.Reason}, c.sum
	if end.Step == trial.Kept {
		w.last.Kept, w.last.Slot = doc.Firmware, w.state.Running
	}
	w.mu.Unlock()
	by := ""
	if c.d != nil {
		by = signers(c.d)
	}
	w.o.note("firmware."+string(end.Step), by, c.name()+": "+end.Reason)
	w.o.at("firmware-noted")
	w.keepLast()
	w.o.at("firmware-told")
	w.finish(c)
}

// keepLast keeps what came of the last update over restarts.
func (w *updates) keepLast() {
	w.mu.Lock()
	data, err := json.Marshal(w.last)
	w.mu.Unlock()
	if err == nil {
		err = w.shelf.SetLast(data)
	}
	if err != nil {
		w.a.log.Error("what came of an update cannot be kept", "error", err)
	}
}

// finish ends the trial of a candidate of which it is written down what came of it:
// also after a cut amid that.
func (w *updates) finish(c *candidate) {
	w.mu.Lock()
	kept := w.last.Outcome != nil && w.last.Outcome.Outcome == string(trial.Kept)
	w.mu.Unlock()
	w.look()
	state := w.running()
	var back error
	if !kept && state.OnTrial != "" {
		if back = w.slots.Back(); back != nil {
			w.isBroken(back)
		}
		w.o.at("firmware-back")
	}
	if err := w.shelf.End(trial.Outcome{}); err != nil {
		w.a.log.Error("the end of an update cannot be noted", "error", err)
	}
	w.o.at("firmware-ended")
	if store, err := update.OpenStore(filepath.Join(w.dir, "fetched")); err == nil {
		err = store.Clear()
		if err != nil {
			w.a.log.Warn("what was fetched cannot be removed", "error", err)
		}
	}
	w.look()
	if c.turn { // who hears of the end may submit the next
		w.o.trying("")
	}
	w.mu.Lock()
	w.doc = nil
	w.mu.Unlock()
	w.publish()
	if now := w.running(); back == nil && !kept && now.First != now.Running {
		w.finishRestart(now)
	}
}

// finishRestart starts the firmware before again.
func (w *updates) finishRestart(state update.SlotState) {
	w.a.log.Info("the firmware before is started again", "slot", state.First)
	if err := w.slots.Restart(); err != nil {
		w.isBroken(err)
		w.publish()
	}
}

func (w *updates) wasReverted() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last.Outcome != nil && w.last.Outcome.Outcome == string(trial.Reverted)
}

// isBroken notes that what was before cannot be started again.
func (w *updates) isBroken(err error) {
	w.a.log.Error("the firmware before cannot be started again", "error", err)
	w.mu.Lock()
	defer w.mu.Unlock()
	if l := w.last.Outcome; l != nil {
		w.last.Outcome = &update.Outcome{Document: l.Document, Outcome: string(trial.Broken), Reason: fmt.Sprintf("%s; and what was before: %v", l.Reason, err)}
	}
}

// said waits a moment for what is to be said to be with the broker.
func (w *updates) said(ctx context.Context) {
	for end := time.Now().Add(sayMost); w.o.box.Waiting() > 0 && time.Now().Before(end); {
		if pause(ctx, busyPause) != nil {
			return
		}
	}
}
