package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"gridgate/internal/meter"
)

const (
	usualMost = time.Hour // that an action takes at one meter
	// backMost is how long it is looked what is the case after a cut.
	backMost = 2 * time.Minute
	noteMost = 4 << 10
	// sayEvery is how often progress is told.
	sayEvery = 5 * time.Second
	// dataMost bounds what is read by one command, in octets of JSON.
	dataMost = 1 << 20
)

// work is a command that is carried out.
type work struct {
	e       *Engine
	en      *entry
	p       *plan
	journal *journal // nil: none is kept
	cut     bool     // it had begun before this start

	ended atomic.Int64
	size  atomic.Int64 // of data

	mu   sync.Mutex
	said time.Time
}

// execute carries out a command at its meters. whole is false when the agent
// stops amid it: the next start takes it up.
func (e *Engine) execute(ctx context.Context, en *entry, p *plan) (all []told, whole bool) {
	w := &work{e: e, en: en, p: p, cut: en.resumed}
	if p.changes() {
		var err error
		if w.journal, err = e.store.journal(en.id); err != nil {
			return []told{{State: Failed, Text: "nothing was sent: " + err.Error()}}, true
		}
		defer w.journal.close()
		p.targets = w.journal.with(p.targets)
	}
	if len(p.targets) == 0 {
		return []told{{State: Failed, Text: "its meters are not configured any more"}}, true
	}
	e.say(en, Running, "")
	all = make([]told, len(p.targets))
	turns := make(chan int)
	var workers sync.WaitGroup
	for range min(abreast, len(p.targets)) {
		workers.Go(func() {
			for i := range turns {
				all[i] = w.turn(ctx, p.targets[i])
				w.progress(int64(len(p.targets)), "")
			}
		})
	}
	for i := range p.targets {
		select {
		case turns <- i:
		case <-ctx.Done():
		}
	}
	close(turns)
	workers.Wait()
	return all, ctx.Err() == nil
}

// turn is that of one meter.
func (w *work) turn(ctx context.Context, m Meter) told {
	before := w.journal.of(m.ID)
	switch {
	case before.outcome != nil:
		return *before.outcome
	case (w.cut || before.begun) && w.p.action.AfterCut == Never: // the log outlives a state that is lost
		t := w.lost(ctx, m, before.begun)
		if ctx.Err() == nil {
			_ = w.journal.add(mark{Meter: m.ID, Outcome: &t})
		}
		return t
	}
	if err := w.journal.add(mark{Meter: m.ID, Begun: true}); err != nil {
		return tell(m, Outcome{State: Failed, Text: "nothing was sent: " + err.Error()})
	}
	w.e.cfg.At("marked")
	t := tell(m, w.do(ctx, m, before))
	if ctx.Err() != nil {
		return t // not used
	}
	w.e.cfg.At("acted")
	if w.size.Add(int64(len(t.Data))) > dataMost {
		t.Data, t.Text = nil, "what was read is too much for one command: order fewer meters at a time"
	}
	if err := w.journal.add(mark{Meter: m.ID, Outcome: &t}); err != nil {
		w.e.cfg.Log.Error("what was done at a meter cannot be noted", "command", w.en.id, "meter", string(m.ID), "error", err)
	}
	w.e.cfg.At("marked-end")
	return t
}

// do has the executor do it.
func (w *work) do(ctx context.Context, m Meter, before turn) Outcome {
	most := w.p.action.Most
	if most <= 0 {
		most = usualMost
	}
	ctx, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("it took more than %v", most))
	defer cancel()
	j := w.job(m)
	j.Noted, j.Resumed = before.note, before.begun
	return w.p.executor.Do(ctx, j)
}

func (w *work) job(m Meter) *Job {
	j := &Job{
		Command: w.en.id, Meter: m.ID, Serial: m.Serial, Expires: w.p.document.NotAfter, Gateway: w.e.cfg.Gateway,
		Progress: func(done, of int64, text string) { w.tellProgress(m, done, of, text) },
		Note:     func(v any) error { return w.note(m.ID, v) },
	}
	j.Visit = func(ctx context.Context, ask meter.Ask) (meter.Got, error) { return w.e.cfg.Visit(ctx, m.ID, ask) }
	return j
}

func (w *work) note(id meter.ID, v any) error {
	b, err := json.Marshal(v)
	if err == nil && len(b) > noteMost {
		err = fmt.Errorf("a note of %d octets, at most %d are kept", len(b), noteMost)
	}
	if err == nil && w.journal == nil {
		err = errors.New("an action that is repeated keeps no notes")
	}
	if err != nil {
		return err
	}
	return w.journal.add(mark{Meter: id, Note: b})
}

// lost tells what is known of a meter whose turn was cut off, or had not come.
func (w *work) lost(ctx context.Context, m Meter, begun bool) told {
	if !begun {
		return tell(m, Outcome{State: Failed, Text: "the gateway was cut off before its turn: nothing was sent"})
	}
	o := Outcome{State: Unknown, Text: "the gateway was cut off amid it, and does not repeat it"}
	if back, can := w.p.executor.(ReadBack); can {
		ctx, cancel := context.WithTimeoutCause(ctx, backMost, fmt.Errorf("it took more than %v", backMost))
		defer cancel()
		found := back.ReadBack(ctx, w.job(m))
		o.Data = found.Data
		if found.Text != "" {
			o.Text += "; now: " + found.Text
		}
	}
	return tell(m, o)
}

// progress tells how many meters have had their turn.
func (w *work) progress(of int64, text string) {
	if n := w.ended.Add(1); of > 1 && n < of {
		w.tells(n, of, text)
	}
}

// tellProgress tells how far a single meter is.
func (w *work) tellProgress(m Meter, done, of int64, text string) {
	if n := int64(len(w.p.targets)); n > 1 {
		done, of, text = w.ended.Load(), n, string(m.ID)+": "+text
	}
	w.tells(done, of, text)
}

func (w *work) tells(done, of int64, text string) {
	r := Result{ID: w.en.id, Hash: w.en.hash, Action: w.p.action.Name, State: Running, Time: now(), Text: cut(text, textMost), Done: done, Of: of}
	w.e.mu.Lock()
	w.en.last = r
	w.e.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.said) >= sayEvery {
		w.said = time.Now()
		w.e.publish(r)
	}
}
