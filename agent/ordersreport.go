package agent

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"gridgate/agent/order"
	"gridgate/agent/status"
	"gridgate/agent/trial"
	"gridgate/configs"
	"gridgate/internal/mqtt"
)

// ordersReport is what up/config says, retained (docs/formats.md).
type ordersReport struct {
	Time    time.Time       `json:"time"`
	Version string          `json:"agent"`
	Trust   uint64          `json:"trust"` // version of the trust document; 0: none, no order is taken
	Running runningReport   `json:"running"`
	Trial   *documentReport `json:"trial,omitempty"`
	Last    *outcomeReport  `json:"last,omitempty"`
	// Recipient is the public key that secrets for this gateway are sealed to.
	Recipient string         `json:"recipient,omitempty"`
	Command   *outcomeReport `json:"command,omitempty"` // that was refused last
}

// runningReport is the configuration in effect.
type runningReport struct {
	Hash   string           `json:"sha256"` // of the whole
	Layers []documentReport `json:"layers"` // that lie on the gateway's own file
}

// documentReport is a document, and how far it is.
type documentReport struct {
	Kind    string `json:"kind,omitempty"`
	Target  string `json:"target,omitempty"`
	Version uint64 `json:"version,omitempty"`
	ID      string `json:"id,omitempty"`
	Hash    string `json:"sha256,omitempty"` // of what is signed; of layers: of all
	Step    string `json:"step,omitempty"`
}

// outcomeReport is what came of the document that was dealt with last.
type outcomeReport struct {
	documentReport
	Outcome  string   `json:"outcome"` // kept, reverted, refused, broken, waiting
	Reason   string   `json:"reason,omitempty"`
	Problems []string `json:"problems,omitempty"` // of a configuration that is wrong: all of them
	Changes  []string `json:"changes,omitempty"`
}

func shelfDir(cfg *configs.Config) string { return filepath.Join(cfg.Buffer.Path, "config") }

func reportDocument(d *order.Document) documentReport {
	if d == nil {
		return documentReport{}
	}
	return documentReport{Kind: string(d.Kind), Target: d.Target.String(), Version: d.Version, ID: d.ID, Hash: hexHash(d.Hash)}
}

// running notes what is in effect.
func (o *orders) running(cfg *configs.Config, kept []trial.Entry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.report.Running = runningReport{Hash: cfg.Hash(), Layers: []documentReport{}}
	for _, e := range kept {
		o.report.Running.Layers = append(o.report.Running.Layers, documentReport{Target: e.Target, Version: e.Version, Hash: e.Sum})
	}
}

// step tells how far a trial is.
func (o *orders) step(d *order.Document, s trial.Step) {
	r := reportDocument(d)
	r.Step = string(s)
	o.mu.Lock()
	o.report.Trial = &r
	o.mu.Unlock()
	o.publish()
}

// ended tells what came of a document.
func (o *orders) ended(d *order.Document, outcome, reason string, changes []string) {
	o.outcome(reportDocument(d), outcome, reason, changes)
}

// outcomeOf says what came of a document.
func outcomeOf(d documentReport, outcome, reason string, changes []string) *outcomeReport {
	last := &outcomeReport{documentReport: d, Outcome: outcome, Reason: reason, Changes: changes}
	if lines := strings.Split(reason, "\n"); len(lines) > 1 {
		last.Reason, last.Problems = fmt.Sprintf("%d problems", len(lines)), lines
	}
	return last
}

// lastReport takes up what came of the trial before: a cut may have kept it from
// being told.
func (o *orders) lastReport() {
	if e, _, ok, err := o.shelf.OnTrial(); ok && err == nil { // it goes on soon
		o.mu.Lock()
		o.report.Trial = &documentReport{Kind: string(order.KindConfig), Target: e.Target, Version: e.Version, Step: string(trial.Suspended)}
		o.mu.Unlock()
	}
	var last outcomeReport
	if data := o.shelf.Last(); data != nil && json.Unmarshal(data, &last) == nil {
		o.mu.Lock()
		o.report.Last = &last
		o.mu.Unlock()
	}
}

func (o *orders) outcome(d documentReport, outcome, reason string, changes []string) {
	last := outcomeOf(d, outcome, reason, changes)
	o.mu.Lock()
	if o.report.Last = last; o.busy == "" || d.Kind != string(order.KindTrust) { // other keys come amid a trial
		o.report.Trial, o.busy = nil, "" // who hears of it may send the next
	}
	o.mu.Unlock()
	o.publish()
}

// publish sends the report.
func (o *orders) publish() {
	b, err := json.Marshal(o.current())
	if err != nil {
		o.a.log.Error("the report on the configuration cannot be written", "error", err)
		return
	}
	cfg := o.a.config()
	o.box.Say(mqtt.ConfigTopic(cfg.Site, cfg.Gateway), true, b)
}

// current gives the report of this moment.
func (o *orders) current() ordersReport {
	hash, recipient := o.a.config().Hash(), o.a.recipient()
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.report
	r.Recipient = recipient
	r.Time, r.Version = time.Now().UTC().Truncate(time.Second), o.a.opts.Version
	if r.Running.Hash = hash; r.Running.Layers == nil {
		r.Running.Layers = []documentReport{}
	}
	if o.trust != nil {
		r.Trust = o.trust.Version
	}
	return r
}

// status gives the report for people. The agent's mu is held.
func (o *orders) status() (s status.Orders) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.trust != nil {
		s.Trust = o.trust.Version
	}
	for _, l := range o.report.Running.Layers {
		s.Layers = append(s.Layers, l.name())
	}
	if t := o.report.Trial; t != nil {
		s.Trial = fmt.Sprintf("%s: %s", t.name(), t.Step)
	}
	if l := o.report.Last; l != nil {
		s.Last = l.Outcome
		if l.Target != "" {
			s.Last = l.name() + ": " + l.Outcome
		}
		if l.Reason != "" {
			s.Last += ": " + l.Reason
		}
	}
	return s
}

func (d documentReport) name() string {
	if d.ID != "" {
		return fmt.Sprintf("%s %s", d.Target, d.ID)
	}
	return fmt.Sprintf("%s version %d", d.Target, d.Version)
}
