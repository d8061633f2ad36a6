package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"gridgate/agent/order"
	"gridgate/agent/poll"
	"gridgate/agent/trial"
	"gridgate/configs"
	"gridgate/internal/meter"
	"gridgate/internal/sys"
)

// base is the configuration of the file that the agent was started with.
func (a *Agent) base() (configs.Layer, error) {
	if a.opts.ConfigPath == "" {
		return configs.Layer{}, errors.New("the agent was started without a configuration file, so none can be laid on it")
	}
	return configs.Read(a.opts.ConfigPath)
}

// layered gives the configuration that base and documents make.
func layered(base configs.Layer, documents []trial.Entry, store configs.Store) (*configs.Config, error) {
	text, err := layeredText(base, documents)
	if err != nil {
		return nil, err
	}
	if len(documents) == 0 {
		return configs.ParseOn(base.Name, text, store)
	}
	return configs.ParseOn("effective configuration", text, store)
}

// layeredText gives it as a document. Layers of groups come first, in the order
// in which base names the groups, then the gateway's.
func layeredText(base configs.Layer, documents []trial.Entry) ([]byte, error) {
	below, err := configs.Parse(base.Name, base.Data)
	if err != nil || len(documents) == 0 {
		return base.Data, err
	}
	var targets []order.Target
	for _, g := range below.Trust.Groups {
		targets = append(targets, order.Target{Site: string(below.Site), Group: string(g)})
	}
	targets = append(targets, order.Target{Site: string(below.Site), Gateway: string(below.Gateway)})
	layers := []configs.Layer{base}
	for _, t := range targets {
		for _, e := range documents {
			if e.Target != t.String() {
				continue
			}
			d, err := order.Read(e.Data)
			if err != nil {
				return nil, fmt.Errorf("configuration %s version %d: %w", e.Target, e.Version, err)
			}
			layers = append(layers, configs.Layer{Name: fmt.Sprintf("%s version %d", e.Target, e.Version), Data: d.Payload})
		}
	}
	return configs.Merge(layers...)
}

// Effective gives the configuration that an agent started with this file runs:
// what was pushed since lies on it.
func Effective(base configs.Layer) (*configs.Config, []trial.Entry, error) {
	return EffectiveOn(base, nil)
}

// EffectiveOn is Effective; references to secrets that are not there are problems.
func EffectiveOn(base configs.Layer, store configs.Store) (*configs.Config, []trial.Entry, error) {
	kept, err := keptOn(base)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := layered(base, kept, store)
	return cfg, kept, err
}

// EffectiveText gives the same as a document.
func EffectiveText(base configs.Layer) ([]byte, []trial.Entry, error) {
	kept, err := keptOn(base)
	if err != nil {
		return nil, nil, err
	}
	text, err := layeredText(base, kept)
	return text, kept, err
}

// With gives the configuration that one more layer on what is in effect makes;
// references to secrets that are not there are problems.
func With(base, layer configs.Layer, store configs.Store) (*configs.Config, error) {
	text, _, err := EffectiveText(base)
	if err != nil {
		return nil, err
	}
	if text, err = configs.Merge(configs.Layer{Name: base.Name, Data: text}, layer); err != nil {
		return nil, err
	}
	return configs.ParseOn("effective configuration", text, store)
}

func keptOn(base configs.Layer) ([]trial.Entry, error) {
	below, err := configs.Parse(base.Name, base.Data)
	if err != nil {
		return nil, err
	}
	return trial.OpenShelf(shelfDir(below)).Kept()
}

// restore makes the agent begin with what was kept. What cannot be laid on the
// file any more is left out, and told.
func (a *Agent) restore() {
	base, err := a.base()
	if err != nil {
		return
	}
	if _, err := a.orders.shelf.Kept(); errors.Is(err, trial.ErrDamaged) {
		a.log.Error("what was pushed is damaged and set aside; the configuration file goes alone", "error", err)
		a.note("configuration: what was pushed is damaged: push it again: " + err.Error())
		a.orders.damaged = map[[32]byte]bool{}
		if err := a.orders.shelf.Mend(); err != nil {
			a.log.Error("what was pushed cannot be set aside", "error", err)
		}
	}
	cfg, kept, err := Effective(base)
	if err == nil {
		if d := configs.Compare(a.cfg, cfg); len(d.Restart) > 0 {
			err = fmt.Errorf("it changes %s", strings.Join(d.Restart, ", "))
		}
	}
	if err != nil {
		a.log.Error("what was pushed cannot be laid on the configuration file, which goes alone", "error", err)
		a.note("configuration: what was pushed is not in effect: " + err.Error())
		return
	}
	a.cfg = cfg
	a.orders.running(cfg, kept)
}

// Reload reads the configuration file again and applies what changed. It is
// refused while a pushed configuration is on trial.
func (a *Agent) Reload(ctx context.Context) error {
	if err := a.orders.lockTurn(ctx); err != nil {
		return err
	}
	defer a.orders.turn.Unlock()
	base, err := a.base()
	if err != nil {
		return err
	}
	cfg, kept, err := EffectiveOn(base, a.storeWith(nil))
	if err != nil {
		return err
	}
	if err := a.Apply(ctx, cfg); err != nil {
		return err
	}
	a.orders.running(cfg, kept)
	a.orders.note("config.reloaded", "local", a.opts.ConfigPath)
	a.orders.publish()
	return nil
}

// config gives the running configuration.
func (a *Agent) config() *configs.Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cfg
}

// configuration checks a pushed configuration; carry tries it.
func (o *orders) configuration(d *order.Document, data []byte) (carry func(context.Context), err error) {
	next, err := o.with(d, data)
	if err != nil {
		return nil, err
	}
	running := o.a.config()
	diff := configs.Compare(running, next)
	if !slices.Equal(next.Trust.Groups, running.Trust.Groups) { // they say which layers there are
		diff.Restart = append(diff.Restart, "trust.groups")
	}
	if len(diff.Restart) > 0 {
		return nil, fmt.Errorf("%s can only change in the gateway's own file, and with a restart", strings.Join(diff.Restart, ", "))
	}
	// First what is to be tried, then that it was seen: a cut between makes the
	// document come again, the other way round it would be lost.
	if err := o.shelf.Put(d.Target.String(), d.Version, data); err != nil {
		return nil, fmt.Errorf("it cannot be stored: %w", err)
	}
	o.at("put")
	if err := o.seen(d); err != nil {
		return nil, errors.Join(err, o.shelf.End(trial.Outcome{Step: trial.Refused}))
	}
	o.at("seen")
	return func(ctx context.Context) { o.try(ctx, d, next, diff) }, nil
}

// with gives the configuration that runs when d takes effect too.
func (o *orders) with(d *order.Document, data []byte) (*configs.Config, error) {
	base, err := o.a.base()
	if err != nil {
		return nil, err
	}
	kept, err := o.shelf.Kept()
	if err != nil {
		return nil, err
	}
	documents := []trial.Entry{{Target: d.Target.String(), Version: d.Version, Data: data}}
	for _, e := range kept {
		if e.Target != d.Target.String() {
			documents = append(documents, e)
		}
	}
	next, err := layered(base, documents, o.a.storeWith(d.Secrets))
	return next, errors.Join(err, o.a.vault.Check(d.Secrets))
}

// try puts a configuration on trial and tells how it went.
func (o *orders) try(ctx context.Context, d *order.Document, next *configs.Config, diff configs.Diff) {
	a := o.a
	before := a.config()
	o.note("config.trial", signers(d), fmt.Sprintf("%s version %d", d.Target, d.Version))
	if _, attempts, _, err := o.shelf.OnTrial(); err == nil && attempts == 0 {
		o.settle(ctx, before)
	}
	changes := append(diff.Changes(), secretChanges(d.Secrets)...)
	s := &pushed{o: o, next: next, before: before, secrets: d.Secrets, changed: slices.Concat(diff.LinesAdded, diff.LinesChanged, linesOf(next, d.Secrets))}
	j := &journal{Shelf: o.shelf, o: o, d: d, next: next, changes: changes}
	end := trial.Run(ctx, trial.Config{
		Measure: a.health, Deadline: before.Trust.Prove, Settle: min(settleMost, before.Trust.Prove/4), MaxMemory: sys.MemoryLimit() / 4 * 3,
		Step: func(step trial.Step) { o.step(d, step) }, GiveUp: o.giveUp,
	}, j, s)
	s.stop()
	if end.Step == trial.Suspended {
		return
	}
	a.log.Info("configuration tried", "target", d.Target.String(), "version", d.Version, "outcome", string(end.Step), "reason", end.Reason)
	o.trying("") // first: who hears of the end may submit the next
	o.ended(d, string(end.Step), end.Reason, changes)
}

// settleMost is how long a configuration has to do well without a break.
const settleMost = time.Minute

// settle visits the meters that were not visited yet, so that it is known which
// of them read before a configuration is tried: a document that is retained
// comes with the first connection, before anything was read.
func (o *orders) settle(ctx context.Context, cfg *configs.Config) {
	ctx, cancel := context.WithTimeout(ctx, cfg.Trust.Prove)
	defer cancel()
	var keys []string
	for _, l := range cfg.Lines() {
		keys = append(keys, l.Key)
	}
	o.a.visit(ctx, keys)
}

// journal is the shelf, with the outcome written down before the trial is over:
// after a cut it is told.
type journal struct {
	*trial.Shelf
	o       *orders
	d       *order.Document
	next    *configs.Config
	changes []string
}

// Begin counts an attempt.
func (j *journal) Begin(before trial.Health) (attempt int, first trial.Health, err error) {
	attempt, first, err = j.Shelf.Begin(before)
	j.o.at("begun")
	return attempt, first, err
}

// End writes down how the trial ended.
func (j *journal) End(end trial.Outcome) error {
	o, d := j.o, j.d
	if end.Step == trial.Kept {
		kept, err := o.shelf.Kept()
		if err != nil {
			o.a.log.Error("what was kept cannot be read again", "error", err)
		}
		o.running(j.next, kept)
	}
	o.note("config."+string(end.Step), signers(d), fmt.Sprintf("%s version %d: %s", d.Target, d.Version, end.Reason))
	o.at("noted")
	err := o.keepLast(d, end, j.changes)
	o.at("told")
	err = errors.Join(err, j.Shelf.End(end))
	o.at("ended")
	return err
}

// keepLast keeps what came of a document over restarts.
func (o *orders) keepLast(d *order.Document, end trial.Outcome, changes []string) error {
	last, err := json.Marshal(outcomeOf(reportDocument(d), string(end.Step), end.Reason, changes))
	if err != nil {
		return err
	}
	return o.shelf.SetLast(last)
}

// resume goes on with a trial that a cut or a crash ended. What was before is in
// effect then.
func (o *orders) resume(ctx context.Context) {
	e, _, ok, err := o.shelf.OnTrial()
	if err == nil && !ok {
		return
	}
	var d *order.Document
	if err != nil {
		err = fmt.Errorf("what was on trial cannot be read and is given up: %w", err)
		o.note("config.lost", "", err.Error())
	} else {
		o.trying(documentReport{Target: e.Target, Version: e.Version}.name())
		defer o.trying("")
		d, err = o.resumed(ctx, e)
	}
	if err == nil {
		return
	}
	if err := o.shelf.End(trial.Outcome{Step: trial.Refused}); err != nil {
		o.a.log.Error("the end of a trial cannot be noted", "error", err)
	}
	o.refused(&incoming{data: e.Data, via: "restart"}, d, err)
}

func (o *orders) resumed(ctx context.Context, e trial.Entry) (*order.Document, error) {
	if o.trust == nil {
		return nil, errNoTrust
	}
	d, err := o.trust.Verify(e.Data)
	if err != nil {
		return nil, err
	}
	kept, err := o.shelf.Kept()
	if err != nil {
		return d, err
	}
	for _, k := range kept {
		if k.Sum == e.Sum { // the cut came right after
			o.note("config.kept", signers(d), fmt.Sprintf("%s version %d, before a restart", d.Target, d.Version))
			end := trial.Outcome{Step: trial.Kept}
			if err := o.keepLast(d, end, secretChanges(d.Secrets)); err != nil {
				o.a.log.Error("the end of a trial cannot be noted", "error", err)
			}
			o.ended(d, string(trial.Kept), "", nil)
			return d, o.shelf.End(end)
		}
	}
	if err := o.seen(d); err != nil {
		return d, err
	}
	next, err := o.with(d, e.Data)
	if err != nil {
		return d, err
	}
	o.during(ctx, e.Data, func(ctx context.Context) { o.try(ctx, d, next, configs.Compare(o.a.config(), next)) })
	return d, nil
}

// pushed is a configuration on trial.
type pushed struct {
	o            *orders
	next, before *configs.Config
	changed      []string          // keys of the lines that begin anew
	secrets      map[string][]byte // that it brings
	probes       *task
}

// Apply makes the configuration take effect, and visits the meters of lines that
// begin anew: their schedules may be far apart.
func (p *pushed) Apply(ctx context.Context) error {
	p.o.a.vault.Try(p.secrets)
	if err := p.o.a.Apply(ctx, p.next); err != nil {
		return err
	}
	p.o.at("applied")
	p.probes = p.o.a.start(ctx, "trial", p.probe)
	return nil
}

// probe visits the meters of lines that began anew.
func (p *pushed) probe(ctx context.Context) error {
	p.o.a.visit(ctx, p.changed)
	return nil
}

// visit asks each meter of lines that was not visited yet who it is.
func (a *Agent) visit(ctx context.Context, keys []string) {
	var lines sync.WaitGroup
	for _, key := range keys {
		poller := a.poller(key)
		if poller == nil {
			continue
		}
		lines.Go(func() {
			for _, s := range poller.Status() {
				if s.State == poll.Waiting && ctx.Err() == nil {
					_, _ = poller.Do(ctx, s.Meter, meter.Ask{}) // its status says what came of it
				}
			}
		})
	}
	lines.Wait()
}

func (p *pushed) stop() { p.probes.stop() }

// Keep makes starts come back to the configuration. Its secrets are written before
// and moved to their places after it: a start in between moves them.
func (p *pushed) Keep() error {
	take, err := p.o.a.vault.Stage(p.secrets)
	if err != nil {
		return err
	}
	p.o.at("staged")
	err = p.o.shelf.Keep()
	p.o.at("kept")
	if err != nil {
		return err
	}
	p.o.a.keepSecrets(take, p.secrets)
	p.o.at("taken")
	return nil
}

// Revert makes the configuration before take effect again; when that does not
// go either, one without meters: the fog can be reached, and send another.
func (p *pushed) Revert(ctx context.Context) error {
	p.stop()
	p.o.a.vault.Try(nil)
	err := p.o.a.Apply(ctx, p.before)
	p.o.at("reverted")
	if err == nil {
		return nil
	}
	safe := p.before.WithoutMeters()
	p.o.a.mu.Lock()
	p.o.a.note("configuration: neither the pushed one nor the one before can be applied; the gateway only listens to the fog: " + err.Error())
	p.o.a.mu.Unlock()
	return errors.Join(err, p.o.a.Apply(ctx, safe))
}

// poller gives the poller of a line, nil where there is none.
func (a *Agent) poller(key string) *poll.Poller {
	a.mu.Lock()
	defer a.mu.Unlock()
	if l := a.lines[key]; l != nil {
		return l.poller
	}
	return nil
}

// health says how well the gateway does. Meters of a line that began anew have
// to have been visited since: at first they wait.
func (a *Agent) health(time.Time) trial.Health {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := trial.Health{Meters: len(a.cfg.Meters)}
	h.Memory, _ = sys.Resident()
	h.Reached = a.uplink != nil && a.uplink.uplink != nil && a.uplink.uplink.Stats().Connected
	for _, l := range a.lines {
		for _, s := range l.poller.Status() {
			if s.State == poll.OK {
				h.Reading++
			}
		}
	}
	return h
}
