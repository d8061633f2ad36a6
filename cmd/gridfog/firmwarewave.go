package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"gridgate/agent/update"
	"gridgate/internal/mqtt"
)

// heard is what a gateway said.
type heard struct {
	update.Report
	has   bool // there was a report
	fault error
	state string                    // online or offline, where it is known
	word  time.Time                 // of its last word to us, not of one that was retained
	ended map[string]update.Outcome // what came of documents, by their hashes
}

// take takes what a gateway says.
func (r *rollout) take(m mqtt.Message) {
	topic, err := mqtt.ParseTopic(m.Topic)
	if err != nil || topic.Kind != mqtt.FirmwareReport && topic.Kind != mqtt.State {
		return
	}
	name := string(topic.Site) + "/" + string(topic.Gateway)
	r.mu.Lock()
	defer r.tell()
	defer r.mu.Unlock()
	g := r.gateways[name]
	if g == nil {
		g = &heard{}
		r.gateways[name] = g
	}
	if topic.Kind == mqtt.State {
		var s struct {
			State string `json:"state"`
		}
		if json.Unmarshal(m.Payload, &s) == nil {
			g.state = s.State
		}
		return
	}
	if len(m.Payload) == 0 { // taken off the list
		g.has, g.Report = false, update.Report{}
		return
	}
	if !m.Retained {
		g.word = time.Now()
		r.steps++
	}
	var report update.Report
	g.fault = json.Unmarshal(m.Payload, &report)
	if g.has = true; g.fault != nil {
		return
	}
	g.Report = report
	if l := report.Last; l != nil && l.Outcome != waitingOutcome {
		if g.ended == nil {
			g.ended = map[string]update.Outcome{}
		}
		g.ended[l.Hash] = *l
	}
}

// waitingOutcome is told of a document that a gateway does not take yet: it does
// not know the time, or its disk takes no writes. That is no end.
const waitingOutcome = "waiting"

// wave is a part of a roll-out.
type wave struct {
	number    int
	releases  []*release
	begun     time.Time
	published bool
	passed    bool
}

// standing is how a member of a wave stands with a document.
type standing struct {
	Wave     int    `json:"wave"`
	Gateway  string `json:"gateway"`
	Document string `json:"document"`
	SHA256   string `json:"sha256"`
	State    string `json:"state"` // kept, reverted, refused, broken, or pending
	Reason   string `json:"reason,omitempty"`

	word time.Time
}

const pending = "pending"

// members gives who a release is for, as far as it is known. mu is held.
func (r *rollout) membersOf(one *release) []string {
	t := one.d.Target
	if t.Gateway != "" {
		return []string{t.String()}
	}
	set := map[string]bool{}
	for name, g := range r.gateways {
		if strings.HasPrefix(name, t.Site+"/") && slices.Contains(g.Groups, t.Group) {
			set[name] = true
		}
	}
	if r.members != nil {
		for name, groups := range r.members.gateways {
			if strings.HasPrefix(name, t.Site+"/") && slices.Contains(groups, t.Group) {
				set[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// standings gives how all members of a wave stand. mu is held.
func (r *rollout) standings(w *wave) (all []standing) {
	for _, one := range w.releases {
		for _, name := range r.membersOf(one) {
			s := standing{Wave: w.number, Gateway: name, Document: one.String(), SHA256: one.hash, State: pending}
			g := r.gateways[name]
			if g == nil {
				g = &heard{}
			}
			s.word = g.word
			if o, ended := g.ended[one.hash]; ended {
				s.State, s.Reason = o.Outcome, o.Reason
			} else {
				s.Reason = g.stage(one.hash)
			}
			all = append(all, s)
		}
	}
	return all
}

// stage says how far a gateway is with a document that it has not ended with.
func (g *heard) stage(hash string) string {
	var text string
	switch d := g.Document; {
	case !g.has:
		text = "it has not said a word of firmware"
	case g.fault != nil:
		text = "it says what cannot be read: " + g.fault.Error()
	case g.Last != nil && g.Last.Hash == hash && g.Last.Outcome == waitingOutcome:
		text = "waiting: " + g.Last.Reason
	case d == nil || d.Hash != hash:
		text = "it has not said that it has the document"
	default:
		text = string(d.Step) + " " + share(d)
		if d.Waits != "" {
			text += "; waits: " + d.Waits
		}
	}
	if g.state == "offline" {
		text = "offline; " + text
	}
	return text
}

func (w *wave) failed(all []standing) int {
	return count(all, func(s standing) bool { return s.State != pending && s.State != "kept" })
}

func (w *wave) open(all []standing) int {
	return count(all, func(s standing) bool { return s.State == pending })
}

func count(all []standing, is func(standing) bool) (n int) {
	for _, s := range all {
		if is(s) {
			n++
		}
	}
	return n
}

// verdict says whether a wave is over, and why the next must not begin.
func (r *rollout) verdict(w *wave, now time.Time) (over bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.standings(w)
	failed, open := w.failed(all), w.open(all)
	silent := count(all, func(s standing) bool { return s.State == pending && now.Sub(later(s.word, w.begun)) >= r.wait })
	nobody := ""
	for _, one := range w.releases {
		if len(r.membersOf(one)) == 0 {
			nobody = one.d.Target.String()
		}
	}
	switch {
	case failed > r.maxFailures:
		return true, r.stopped(w, all, fmt.Sprintf("%d of %d gateways failed, %d may", failed, len(all), r.maxFailures))
	case nobody != "" && now.Sub(w.begun) >= r.wait:
		return true, r.stopped(w, all, fmt.Sprintf("no gateway has said that it is a member of %s; -members names them", nobody))
	case nobody != "" || silent < open:
		return false, nil
	case open > r.maxPending.of(len(all)):
		return true, r.stopped(w, all, fmt.Sprintf("%d of %d gateways have not ended, and said nothing for %v; %v may", open, len(all), r.wait, r.maxPending))
	}
	return true, nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// stopped says why a roll-out stops, and what can be done.
func (r *rollout) stopped(w *wave, all []standing, why string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "stopped at wave %d of %d: %s", w.number, len(r.waves), why)
	for _, s := range all {
		if s.State != "kept" {
			fmt.Fprintf(&b, "\n%s: %s: %s: %s", s.Gateway, s.Document, clip(s.State, maxTold), clip(s.Reason, maxTold))
		}
	}
	var paths []string
	for _, one := range w.releases {
		paths = append(paths, one.path)
	}
	fmt.Fprintf(&b, "\nthe documents of the wave stay at the broker, and gateways go on with them; to take them back:"+
		"\n  gridfog firmware withdraw -broker %s … %s\nthe same command again goes on where it was", r.broker, strings.Join(paths, " "))
	return &errStopped{b.String()}
}

// await waits until a wave is over.
func (r *rollout) await(ctx context.Context, conn *mqtt.Conn, w *wave) error {
	if err := r.settle(ctx, conn, func() bool { return false }); err != nil { // what is retained comes now
		return err
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	said := ""
	for {
		over, err := r.verdict(w, time.Now())
		if text := r.summary(w); text != said || over {
			fmt.Fprintln(r.env.Stderr, text)
			said = text
		}
		if over || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-conn.Done():
			return conn.Err()
		case <-tick.C:
		}
	}
}

// summary is a line of how a wave stands.
func (r *rollout) summary(w *wave) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.standings(w)
	failed, open := w.failed(all), w.open(all)
	return fmt.Sprintf("wave %d of %d: %d gateways: %d kept it, %d failed, %d pending", w.number, len(r.waves), len(all), len(all)-failed-open, failed, open)
}

// show prints how the members of a wave stand.
func (r *rollout) show(w *wave) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !w.published {
		return nil
	}
	if r.json {
		e := json.NewEncoder(r.env.Stdout)
		for _, s := range r.standings(w) {
			if err := e.Encode(s); err != nil {
				return err
			}
		}
		return nil
	}
	t := tabwriter.NewWriter(r.env.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "WAVE\tGATEWAY\tDOCUMENT\tSTATE\tREASON")
	for _, s := range r.standings(w) {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\n", s.Wave, s.Gateway, s.Document, clip(s.State, 40), clip(s.Reason, maxTold))
	}
	return t.Flush()
}
