package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"gridgate/agent/order"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

func pushVerb() cli.Verb {
	return cli.Verb{
		Name:    "push",
		Summary: "publish signed orders to the gateways that they are for, and show what came of them",
		Args:    "[DOCUMENT…]",
		Example: []string{
			"gridfog push -broker mqtts://fog.example -ca ca.pem -cert me.pem -key me.key -wait 20m queue/*.doc",
			"gridfog push -broker mqtt://127.0.0.1:1883   # who has what",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			p := &pushing{client: client{verb: "push"}, reports: map[string]pushReport{}, ended: map[string]pushDocument{}}
			p.flags(fs, "mqtt://127.0.0.1:1883")
			fs.StringVar(&p.site, "site", "", "show this `SITE` only")
			fs.StringVar(&p.gateways, "to", "", "publish a trust document to these `GATEWAYS`, SITE/GATEWAY with commas between")
			fs.DurationVar(&p.wait, "wait", 0, "wait so long for the outcome at the gateways that orders name; those of groups: at all that answer")
			fs.BoolVar(&p.json, "json", false, "print one JSON object a gateway")
			return p.run
		},
	}
}

// pushing is one push.
type pushing struct {
	client
	site, gateways string
	wait           time.Duration
	json           bool

	mu      sync.Mutex
	reports map[string]pushReport   // by SITE/GATEWAY
	ended   map[string]pushDocument // what came of documents, by SITE/GATEWAY and hash
	changed chan struct{}
}

// pushReport is what a gateway says of its configuration, as far as it is shown.
type pushReport struct {
	Gateway string          `json:"gateway"`
	Trust   uint64          `json:"trust"`
	Running json.RawMessage `json:"running"`
	Trial   *pushDocument   `json:"trial,omitempty"`
	Last    *pushDocument   `json:"last,omitempty"`
}

type pushDocument struct {
	Kind     string   `json:"kind,omitempty"`
	Target   string   `json:"target,omitempty"`
	Version  uint64   `json:"version,omitempty"`
	Hash     string   `json:"sha256,omitempty"`
	Step     string   `json:"step,omitempty"`
	Outcome  string   `json:"outcome,omitempty"`
	Reason   string   `json:"reason,omitempty"`
	Problems []string `json:"problems,omitempty"`
}

// pushed is a document with the topics that it goes to.
type pushed struct {
	path   string
	data   []byte
	d      *order.Document
	topics []string
}

func (p *pushing) run(ctx context.Context, env cli.Env, args []string) error {
	if err := checkID(p.verb, "site", p.site); err != nil {
		return err
	}
	var documents []pushed
	for _, path := range args {
		d, err := p.read(path)
		if err != nil {
			return fmt.Errorf("push: %s: %w", path, err)
		}
		documents = append(documents, d)
	}
	if err := p.prepare(nil); err != nil {
		return err
	}
	p.changed = make(chan struct{}, 1)
	if err := p.once(ctx, func(ctx context.Context, conn *mqtt.Conn) error { return p.exchange(ctx, env, conn, documents) }); err != nil {
		return fmt.Errorf("push: %w", err)
	}
	if err := p.show(env.Stdout); err != nil {
		return err
	}
	return p.verdict(documents)
}

// read reads a document and finds its topics. It is not verified: the gateways do.
func (p *pushing) read(path string) (pushed, error) {
	data, err := readDocument(path)
	if err != nil {
		return pushed{}, err
	}
	d, err := order.Read(data)
	if err != nil {
		return pushed{}, err
	}
	if d.Kind == order.KindCommand {
		return pushed{}, errors.New("it is a command: gridfog command send sends it, until it is answered")
	}
	doc := pushed{path: path, data: data, d: d}
	t := d.Target
	switch {
	case t.Everybody() && p.gateways == "":
		return doc, errors.New("it is for everybody: say with -to which gateways it goes to now")
	case t.Everybody():
		for text := range strings.SplitSeq(p.gateways, ",") {
			to, err := order.ParseTarget(text)
			if err != nil || to.Everybody() {
				return doc, fmt.Errorf("-to: %q; want SITE/GATEWAY", text)
			}
			doc.topics = append(doc.topics, orderTopic(to, d.Kind))
		}
	default:
		doc.topics = []string{orderTopic(t, d.Kind)}
	}
	return doc, nil
}

func orderTopic(t order.Target, k order.Kind) string {
	return mqtt.OrderTopic(meter.ID(t.Site), meter.ID(t.Gateway), meter.ID(t.Group), string(k))
}

// settling is how long reports that are retained may take to come.
const settling = 2 * time.Second

// exchange publishes, and waits for what comes of it.
func (p *pushing) exchange(ctx context.Context, env cli.Env, conn *mqtt.Conn, documents []pushed) error {
	if err := conn.Subscribe(ctx, mqtt.ConfigFilter(meter.ID(p.site)), p.take); err != nil {
		return err
	}
	for _, d := range documents {
		for _, topic := range d.topics {
			token, err := conn.Publish(ctx, topic, true, d.data)
			if err != nil {
				return err
			}
			select {
			case <-token.Done():
				if err := token.Err(); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
			fmt.Fprintf(env.Stderr, "%s: published on %s\n", d.path, topic)
		}
	}
	limit := time.NewTimer(max(p.wait, settling))
	defer limit.Stop()
	for {
		if p.wait > 0 && p.settled(documents) {
			return nil
		}
		select {
		case <-limit.C:
			return nil
		case <-ctx.Done():
			return nil
		case <-conn.Done():
			return conn.Err()
		case <-p.changed:
		}
	}
}

func (p *pushing) take(m mqtt.Message) {
	topic, err := mqtt.ParseTopic(m.Topic)
	if err != nil || topic.Kind != mqtt.ConfigReport {
		return
	}
	r := pushReport{Gateway: string(topic.Site) + "/" + string(topic.Gateway)}
	if err := json.Unmarshal(m.Payload, &r); err != nil {
		r.Last = &pushDocument{Outcome: "unreadable", Reason: err.Error()}
	}
	r.Gateway = string(topic.Site) + "/" + string(topic.Gateway) // whatever it says
	p.mu.Lock()
	p.reports[r.Gateway] = r
	if l := r.Last; l != nil && l.Outcome != "waiting" {
		p.ended[r.Gateway+" "+l.Hash] = *l
	}
	p.mu.Unlock()
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// settled says whether every gateway that a document names has come to an end
// with it. Who is in a group nobody here knows: those take until the limit.
func (p *pushing) settled(documents []pushed) bool {
	for _, d := range documents {
		if d.d.Target.Gateway == "" {
			return false
		}
		if _, ended := p.outcome(d); !ended {
			return false
		}
	}
	return true
}

// outcome gives what the gateway that a document names says of it.
func (p *pushing) outcome(d pushed) (last pushDocument, ended bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	gateway := d.d.Target.String()
	if r := p.reports[gateway]; r.has(d) {
		return pushDocument{Outcome: "kept"}, true
	}
	last, ended = p.ended[fmt.Sprintf("%s %x", gateway, d.d.Hash)]
	return last, ended
}

// has says whether a document is in effect: it ended well, whatever came after.
func (r pushReport) has(d pushed) bool {
	if d.d.Kind == order.KindTrust {
		return r.Trust == d.d.Version
	}
	var running struct {
		Layers []pushDocument `json:"layers"`
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(d.data))
	return json.Unmarshal(r.Running, &running) == nil &&
		slices.ContainsFunc(running.Layers, func(l pushDocument) bool { return l.Hash == sum })
}

// verdict is an error when a document was not taken where it had to be.
func (p *pushing) verdict(documents []pushed) error {
	var bad []string
	for _, d := range documents {
		if p.wait == 0 || d.d.Target.Gateway == "" {
			continue
		}
		switch last, ended := p.outcome(d); {
		case !ended:
			bad = append(bad, fmt.Sprintf("%s: no word from %s within %v", d.path, d.d.Target, p.wait))
		case last.Outcome != "kept":
			bad = append(bad, fmt.Sprintf("%s: %s at %s: %s", d.path, last.Outcome, d.d.Target, last.Reason))
		}
	}
	if len(bad) > 0 {
		return errors.New(strings.Join(bad, "\n"))
	}
	return nil
}

// show prints who has what.
func (p *pushing) show(out io.Writer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	names := slices.Sorted(maps.Keys(p.reports))
	if p.json {
		e := json.NewEncoder(out)
		for _, n := range names {
			if err := e.Encode(p.reports[n]); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "GATEWAY\tTRUST\tLAYERS\tLAST\tOUTCOME\tREASON")
	for _, n := range names {
		r := p.reports[n]
		var running struct {
			Layers []pushDocument `json:"layers"`
		}
		layers := []string{}
		if json.Unmarshal(r.Running, &running) == nil {
			for _, l := range running.Layers {
				layers = append(layers, l.name())
			}
		}
		last, outcome, reason := "-", "-", ""
		switch {
		case r.Trial != nil:
			last, outcome = r.Trial.name(), r.Trial.Step
		case r.Last != nil:
			last, outcome, reason = r.Last.name(), r.Last.Outcome, r.Last.Reason
			if len(r.Last.Problems) > 0 {
				reason += ": " + strings.Join(r.Last.Problems, "; ")
			}
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", n, r.Trust, strings.Join(layers, ", "), last, outcome, reason)
	}
	return w.Flush()
}

func (d pushDocument) name() string {
	if d.Target == "" {
		return "?"
	}
	return fmt.Sprintf("%s v%d", d.Target, d.Version)
}
