package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"gridgate/agent/order"
	"gridgate/agent/status"
	"gridgate/agent/update"
	"gridgate/internal/mqtt"
)

// begins tells that a document is dealt with.
func (w *updates) begins(d *order.Document, m *update.Manifest, step update.Step) {
	w.mu.Lock()
	w.doc = &update.Progress{
		Document: update.Document{Kind: string(d.Kind), Target: d.Target.String(), Version: d.Version, Hash: hexHash(d.Hash), Firmware: m.Firmware}, Step: step,
	}
	w.told, w.toldAt = 0, time.Now()
	w.mu.Unlock()
	w.publish()
}

// step tells how far an update is.
func (w *updates) step(s update.Step) { w.waitsAt(s, "") }

// waits tells why it does not get on; empty: it does.
func (w *updates) waits(why string) {
	w.mu.Lock()
	var s update.Step
	if w.doc != nil {
		s = w.doc.Step
	}
	w.mu.Unlock()
	w.waitsAt(s, why)
}

func (w *updates) waitsAt(s update.Step, why string) {
	w.mu.Lock()
	if w.doc == nil || w.doc.Step == s && w.doc.Waits == why {
		w.mu.Unlock()
		return
	}
	w.doc.Step, w.doc.Waits = s, why
	w.mu.Unlock()
	w.publish()
}

// has tells how much was fetched: at each tenth, and each hour.
func (w *updates) has(have, need int64) {
	w.mu.Lock()
	if w.doc == nil {
		w.mu.Unlock()
		return
	}
	w.doc.Have, w.doc.Need = have, need
	news := w.told == 0 || have-w.told >= max(need/10, 1) || time.Since(w.toldAt) >= retold
	if news {
		w.told, w.toldAt = have, time.Now()
	}
	w.mu.Unlock()
	if news {
		w.publish()
	}
}

// refusedOrder tells what keeps a document that came as firmware from being taken.
func (w *updates) refusedOrder(data []byte, d *order.Document, outcome string, why error) {
	last := &update.Outcome{Document: update.Document{Hash: hexHash(order.Sum(data))}, Outcome: outcome, Reason: why.Error()}
	if d != nil {
		last.Document = update.Document{Kind: string(d.Kind), Target: d.Target.String(), Version: d.Version, Hash: hexHash(d.Hash)}
		if m, err := update.ParseManifest(d); err == nil {
			last.Firmware = m.Firmware
		}
	}
	w.mu.Lock()
	w.last.Outcome = last
	w.mu.Unlock()
	w.publish()
}

// current gives the report of this moment.
func (w *updates) current() update.Report {
	cfg := w.a.config()
	kept := w.keptVersion()
	waits := w.parts.Waits()
	w.mu.Lock()
	defer w.mu.Unlock()
	r := update.Report{
		Time: time.Now().UTC().Truncate(time.Second), Agent: w.a.opts.Version, Board: w.state.Board, Slot: w.state.Running,
		Firmware: kept, Last: w.last.Outcome,
	}
	for _, g := range cfg.Trust.Groups {
		r.Groups = append(r.Groups, string(g))
	}
	if w.doc != nil {
		doc := *w.doc
		if doc.Step == update.Fetching && doc.Waits == "" && doc.Have < doc.Need {
			doc.Waits = waits
		}
		r.Document = &doc
	}
	return r
}

// publish sends the report.
func (w *updates) publish() {
	b, err := json.Marshal(w.current())
	if err != nil {
		w.a.log.Error("the report on the firmware cannot be written", "error", err)
		return
	}
	cfg := w.a.config()
	w.o.box.Say(mqtt.FirmwareTopic(cfg.Site, cfg.Gateway), true, b)
}

// status gives the report for people. The agent's mu is held.
func (w *updates) status() *status.Firmware {
	kept := w.keptVersion()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.slots == nil && w.last.Outcome == nil {
		return nil
	}
	s := &status.Firmware{Board: w.state.Board, Slot: w.state.Running, Version: kept, OnTrial: w.state.OnTrial, Error: text(w.broken)}
	if d := w.doc; d != nil {
		s.Update = fmt.Sprintf("%s version %d: firmware %s: %s", d.Target, d.Version, d.Firmware, d.Step)
		if d.Need > 0 && d.Step == update.Fetching {
			s.Update += fmt.Sprintf(" %d of %d octets", d.Have, d.Need)
		}
		if d.Waits != "" {
			s.Update += ", waits: " + d.Waits
		}
	}
	if l := w.last.Outcome; l != nil {
		var parts []string
		if l.Target != "" {
			parts = append(parts, fmt.Sprintf("%s version %d", l.Target, l.Version))
		}
		if l.Firmware != "" {
			parts = append(parts, "firmware "+l.Firmware)
		}
		parts = append(parts, l.Outcome)
		if l.Reason != "" {
			parts = append(parts, l.Reason)
		}
		s.Last = strings.Join(parts, ": ")
	}
	return s
}

// Status is status.Updates's.
func (w *updates) Status() (json.RawMessage, error) {
	w.look()
	return json.Marshal(w.current())
}

// Apply is status.Updates's.
func (w *updates) Apply(ctx context.Context, document []byte, objects string) error {
	d, err := order.Read(document)
	if err == nil && d.Kind != order.KindFirmware {
		return fmt.Errorf("this is a document of the kind %s; want firmware", d.Kind)
	}
	sum := sha256.Sum256(document) // of all of it, as the shelf calls it
	w.mu.Lock()
	w.local, w.objects = hex.EncodeToString(sum[:]), objects
	w.mu.Unlock()
	if err := w.a.Submit(ctx, document); err != nil {
		return err
	}
	if doc := w.current().Document; doc == nil {
		return nil
	}
	w.withdraw() // what comes from the broker already comes from here from now on
	w.wake()
	return nil
}

// Back is status.Updates's.
func (w *updates) Back() error {
	if w.slots == nil {
		return errNoSlots
	}
	w.look()
	if s := w.running(); s.OnTrial == "" {
		return fmt.Errorf("nothing is on trial: slot %s runs and is confirmed; a firmware before it comes with a signed document that says downgrade: allow, or see factory", s.Running)
	}
	select {
	case w.o.giveUp <- "somebody at the gateway gave it up":
	default:
	}
	return nil
}

// Factory is status.Updates's.
func (w *updates) Factory() error {
	if w.slots == nil {
		return errNoSlots
	}
	if what := w.o.tries(); what != "" {
		return fmt.Errorf("%s: %w", what, errBusy)
	}
	w.look()
	if w.running().Running == "f" {
		return errors.New("the factory's firmware runs already")
	}
	w.o.note("firmware.factory", "local", "")
	if err := w.slots.Factory(); err != nil {
		return err
	}
	return w.slots.Restart()
}
