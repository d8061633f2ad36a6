package command

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"gridgate/agent/order"
)

// Run carries out commands until ctx ends. What is under way then is taken up by
// the next start.
func (e *Engine) Run(ctx context.Context) error {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	ended := make(chan struct{})
	running := 0
	for {
		for en := e.next(); en != nil && ctx.Err() == nil; en = e.next() {
			running++
			go func() { // joined below
				e.carry(ctx, en)
				ended <- struct{}{}
			}()
		}
		select {
		case <-ctx.Done():
			for ; running > 0; running-- {
				<-ended
			}
			return nil
		case <-ended:
			running--
		case <-e.kick:
		case <-tick.C:
		}
	}
}

// next gives the command whose turn it is, and notes that it has it: those of the
// role control first, and of those that change one meter one at a time.
func (e *Engine) next() *entry {
	trusted := e.cfg.Trusted()
	e.mu.Lock()
	defer e.mu.Unlock()
	running, others := 0, 0
	for _, en := range e.queue {
		if en.running {
			if running++; !en.controls() {
				others++
			}
		}
	}
	if running >= maxRunning {
		return nil
	}
	for _, control := range []bool{true, false} {
		if !control && others >= maxRunning-1 {
			return nil
		}
		for i, en := range e.queue {
			if en.running || en.controls() != control || en.waits && !trusted {
				continue
			}
			if !slices.ContainsFunc(e.queue[:i], en.waitsFor) {
				en.running = true
				return en
			}
		}
	}
	return nil
}

func (en *entry) controls() bool { return en.action != nil && en.action.Role == order.Control }

// waitsFor says whether one that came before has to end first: it changes a meter
// that this one changes too.
func (en *entry) waitsFor(o *entry) bool {
	if en.action == nil || o.action == nil || en.action.AfterCut == Repeat || o.action.AfterCut == Repeat || en.controls() != o.controls() {
		return false
	}
	return slices.ContainsFunc(en.targets, func(m Meter) bool {
		return slices.ContainsFunc(o.targets, func(other Meter) bool { return other.ID == m.ID })
	})
}

// takeUp takes up what a start before left.
func (e *Engine) takeUp() {
	results, err := e.store.list(resultFile)
	if err != nil {
		e.cfg.Log.Error("what commands have left cannot be read", "error", err)
	}
	for _, id := range results {
		e.takeUpResult(id)
	}
	documents, _ := e.store.list(docFile) // the same directory
	for _, id := range documents {
		if !slices.Contains(results, id) {
			e.takeUpDocument(id)
		}
	}
	logs, _ := e.store.list(logFile)
	for _, id := range logs {
		if !e.store.has(id, docFile) {
			e.store.drop(id, logFile)
		}
	}
	for _, id := range e.cfg.Memory.Open() {
		if !e.isQueued(id) {
			e.finish(&entry{id: id}, []told{{State: Unknown, Text: "it was begun, and what was kept of it is gone"}}, false)
		}
	}
}

func (e *Engine) isQueued(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.ContainsFunc(e.queue, func(en *entry) bool { return en.id == id })
}

// takeUpResult delivers a result that was kept. Its end may not be noted yet.
func (e *Engine) takeUpResult(id string) {
	text, err := e.store.get(id, resultFile)
	var r Result
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		e.cfg.Log.Error("the result of a command cannot be read", "command", id, "error", err)
		e.store.drop(id, resultFile, dataFile)
		return
	}
	data, err := e.store.get(id, dataFile)
	if err != nil {
		data = nil
	}
	if past, ok := e.cfg.Memory.Known(id); ok && !past.State.Final() {
		e.end(id, r)
	}
	e.store.drop(id, docFile, logFile)
	e.remember(r)
	e.mail.deliver(id, text, data, func() { e.store.drop(id, resultFile, dataFile) })
}

// tellAgain tells what is remembered of a command that has ended and has no result
// any more: that has arrived, or a cut came before it was kept.
func (e *Engine) tellAgain(id string, past Past) {
	r := Result{ID: id, Hash: past.Hash, State: past.State, Time: now(), Text: past.Text}
	text, _, err := r.pack(nil)
	if err != nil {
		return
	}
	e.store.drop(id, logFile)
	e.remember(r)
	e.mail.deliver(id, text, nil, func() { e.store.drop(id, docFile) })
}

// takeUpDocument takes up a command that has no result.
func (e *Engine) takeUpDocument(id string) {
	past, begun := e.cfg.Memory.Known(id)
	data, err := e.store.get(id, docFile)
	if begun && past.State.Final() {
		e.tellAgain(id, past)
		return
	}
	if err != nil {
		e.store.drop(id, docFile, logFile)
		return
	}
	d, err := order.Read(data) // it was verified before; it is once more before it is begun
	if err != nil {
		e.cfg.Log.Error("a command that was kept cannot be read", "command", id, "error", err)
		e.store.drop(id, docFile)
		return
	}
	en := &entry{id: id, hash: hash(d), begun: begun, resumed: begun}
	if p, err := e.read(d); err == nil {
		en.action, en.targets = p.action, p.targets
	}
	en.last = Result{ID: id, Hash: en.hash, State: Accepted, Time: now()}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.ContainsFunc(e.queue, func(o *entry) bool { return o.id == id }) {
		e.queue = append(e.queue, en)
	}
}

// carry carries out a command whose turn it is.
func (e *Engine) carry(ctx context.Context, en *entry) {
	p, again, err := e.begin(en)
	switch {
	case again:
		e.mu.Lock()
		en.running, en.waits = false, true
		e.mu.Unlock()
		return
	case err != nil:
		e.cfg.Log.Warn("a command is refused at its turn", "command", en.id, "error", err)
		e.finish(en, []told{{State: Refused, Text: err.Error()}}, true)
		return
	case p == nil:
		e.finish(en, []told{{State: Unknown, Text: "it was begun and cut off, and cannot be read any more"}}, true)
		return
	}
	all, whole := e.execute(ctx, en, p)
	if whole {
		e.finish(en, all, p.written())
	}
}

// begin judges a command once more and notes, durably, that it is begun. again
// says that its time has not come; a nil plan that it was begun, and is not known
// any more.
func (e *Engine) begin(en *entry) (p *plan, again bool, err error) {
	data, err := e.store.get(en.id, docFile)
	if en.begun {
		return e.beganBefore(data), false, nil
	}
	if err != nil {
		return nil, false, err
	}
	j, err := e.cfg.Judge(data)
	if err != nil {
		return nil, false, e.refuse(j, err)
	}
	if j.Verdict == order.Wait {
		if last, _ := e.Look(en.id); last.State != Waiting {
			e.say(en, Waiting, "this gateway does not know the time yet")
		}
		return nil, true, nil
	}
	if p, err = e.read(j.Document); err == nil {
		err = p.mayBe(j.Trust)
	}
	if err != nil {
		return nil, false, e.refuse(j, err)
	}
	e.mu.Lock()
	en.action, en.targets = p.action, p.targets
	e.mu.Unlock()
	d := j.Document
	why := e.mayNow(p, j.Trust)
	if why == nil && p.action.Disconnects {
		why = e.cap.take(len(p.targets), j.Trust.DisconnectsPerHour, time.Now())
	}
	if why == nil && p.written() {
		why = e.cfg.Note("command.begun", p.by, p.describe())
	}
	if why != nil {
		return nil, false, e.refuse(j, why)
	}
	if err := e.cfg.Memory.Begin(d.ID, d.NotAfter, time.Now()); err != nil {
		return nil, false, err
	}
	en.begun = true
	e.cfg.At("begun")
	return p, false, nil
}

// refuse has a command that is refused at its turn never carried out, neither
// after a cut nor when somebody publishes it once more.
func (e *Engine) refuse(j Judged, why error) error {
	if j.Document != nil {
		e.burn(j, why)
		e.cfg.At("refused")
	}
	return why
}

// beganBefore reads a command that a start before has begun; nil where it cannot be
// read any more.
func (e *Engine) beganBefore(data []byte) *plan {
	d, err := order.Read(data)
	if err != nil {
		return nil
	}
	p, err := e.read(d)
	if err != nil && p != nil { // meters that are gone since
		p.targets = e.left(p)
	}
	return p
}

// left gives the meters that a command names which are still there.
func (e *Engine) left(p *plan) (all []Meter) {
	for _, name := range p.named {
		if m, err := e.find([]string{name}); err == nil {
			all = append(all, m...)
		}
	}
	return all
}

func (p *plan) describe() string {
	text := p.document.ID + " " + p.action.Name
	if d, can := p.executor.(fmt.Stringer); can {
		text += " " + cut(d.String(), textMost)
	}
	for i, m := range p.targets {
		if m.ID == "" {
			continue
		}
		if i == freely {
			return text + fmt.Sprintf(" and %d meters more", len(p.targets)-i)
		}
		text += " " + string(m.ID)
	}
	return text
}

// finish makes the result durable, then the end of the command, and sends it.
func (e *Engine) finish(en *entry, all []told, write bool) {
	r := Result{ID: en.id, Hash: en.hash, State: overall(all), Time: now(), Text: all[0].Text, Meters: all}
	if en.action != nil {
		r.Action = en.action.Name
	}
	switch {
	case len(all) > 1:
		r.Text, r.Done, r.Of = summary(all), int64(len(all)), int64(len(all))
	case all[0].Meter == "": // of the gateway
		r.Data, r.Meters = all[0].Data, nil
	}
	text, data, err := r.pack(all[0].file)
	if err == nil && data != nil {
		err = e.store.put(en.id, dataFile, data)
	}
	if err == nil {
		err = e.store.put(en.id, resultFile, text)
	}
	if err != nil { // the state keeps that it was done; the rest is sent as long as the agent lives
		e.cfg.Log.Error("the result of a command cannot be kept", "command", en.id, "error", err)
	}
	e.cfg.At("result")
	e.end(en.id, r)
	e.cfg.At("ended")
	if write {
		by := ""
		if d, err := e.document(en.id); err == nil {
			by = e.signersOf(d)
		}
		if err := e.cfg.Note("command."+string(r.State), by, fmt.Sprintf("%s %s: %s", en.id, r.Action, r.Text)); err != nil {
			e.cfg.Log.Error("the end of a command cannot be written down", "command", en.id, "error", err)
		}
	}
	e.cfg.At("noted")
	e.store.drop(en.id, docFile, logFile)
	e.cfg.At("dropped")
	e.mu.Lock()
	en.last = r // for who asks before it is out of the queue
	e.mu.Unlock()
	e.remember(r)
	e.cfg.Log.Info("a command has ended", "command", en.id, "action", r.Action, "state", string(r.State), "text", r.Text)
	e.cfg.Report(nil, [32]byte{}, r)
	e.mail.deliver(en.id, text, data, func() {
		e.store.drop(en.id, resultFile, dataFile)
		e.cfg.At("delivered")
	})
	e.forget(en)
}

func (e *Engine) document(id string) (Judged, error) {
	data, err := e.store.get(id, docFile)
	if err != nil {
		return Judged{}, err
	}
	return e.cfg.Judge(data)
}

func (e *Engine) signersOf(j Judged) string {
	if j.Document == nil {
		return ""
	}
	return signers(j.Document)
}

// end notes what became of a command, where it was begun.
func (e *Engine) end(id string, r Result) {
	if _, begun := e.cfg.Memory.Known(id); !begun {
		return
	}
	if err := e.cfg.Memory.End(id, Past{State: r.State, Hash: r.Hash, Text: cut(r.Text, 200)}); err != nil {
		e.cfg.Log.Error("what became of a command cannot be noted", "command", id, "error", err)
	}
}

// summary tells how many meters it went how at.
func summary(all []told) string {
	text := ""
	for _, s := range []State{Done, Refused, Failed, Unknown} {
		n := 0
		for _, t := range all {
			if t.State == s {
				n++
			}
		}
		if n > 0 {
			if text != "" {
				text += ", "
			}
			text += fmt.Sprintf("%d %s", n, s)
		}
	}
	return fmt.Sprintf("of %d meters: %s", len(all), text)
}
