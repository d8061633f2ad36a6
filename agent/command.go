package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gridgate/agent/command"
	"gridgate/agent/order"
	"gridgate/agent/trial"
	"gridgate/agent/uplink"
	"gridgate/buffer/state"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

// commands is the task that carries out commands, apart from that of the other
// orders: a trial takes a quarter of an hour, and a breaker does not wait for it.
type commands struct {
	a  *Agent
	in chan command.Incoming // what came over MQTT

	site, gateway meter.ID

	at func(step string) // is told what was just made durable; a test ends the process there

	opening sync.Mutex
	engine  atomic.Pointer[command.Engine] // nil while its directory cannot be made

	mu        sync.Mutex
	levelBack *time.Timer // puts the log level back; nil where nobody ordered another
	level     slog.Level  // that it is put back to
}

// maxIncoming is how many commands may have come and not been looked at. The fog
// sends again what it has no answer to.
const maxIncoming = 6

func (a *Agent) newCommands() *commands {
	return &commands{a: a, in: make(chan command.Incoming, maxIncoming), site: a.cfg.Site, gateway: a.cfg.Gateway, at: failAt}
}

// open gives the engine, once its directory can be made.
func (c *commands) open() (*command.Engine, error) {
	c.opening.Lock()
	defer c.opening.Unlock()
	if engine := c.engine.Load(); engine != nil {
		return engine, nil
	}
	o := c.a.orders
	engine, err := command.New(command.Config{
		Dir: filepath.Join(o.dir, "commands"), Memory: commandMemory{c.a.state}, Gateway: c.a.commandGateway(),
		Meters: c.meters, Visit: c.visit, Judge: o.judgeCommand, Trusted: func() bool { return o.trusted() }, Note: o.write, Send: c.send, Report: o.refusedCommand,
		At: func(step string) { c.at(step) }, Log: c.a.log,
	})
	if err == nil {
		c.engine.Store(engine)
	}
	return engine, err
}

// take is given what comes over MQTT; it does not block.
func (c *commands) take(d uplink.Order) {
	if c.a.tunnels.take(d.Payload) {
		return
	}
	select {
	case c.in <- command.Incoming{Data: slices.Clone(d.Payload[:min(len(d.Payload), command.MaxSize+1)]), Via: "mqtt", Retained: d.Retained}:
	default:
		c.a.log.Warn("too many commands at once: one is dropped")
	}
}

// run carries out commands until ctx ends.
func (c *commands) run(ctx context.Context) error {
	engine, err := c.open()
	for err != nil {
		c.a.log.Error("commands cannot be kept, so none are taken; tried again", "error", err)
		pause := time.NewTimer(reopenFirst)
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil
		case <-pause.C:
		}
		engine, err = c.open()
	}
	var tasks sync.WaitGroup
	defer tasks.Wait()
	tasks.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case in := <-c.in:
				_, _ = engine.Take(in) // whoever sent it was told
			}
		}
	})
	return engine.Run(ctx)
}

// Command takes a command from somebody at the gateway, and gives how far it is
// as JSON. It is refused with an error.
func (a *Agent) Command(data []byte) (json.RawMessage, error) {
	engine, err := a.commands.open()
	if err != nil {
		return nil, err
	}
	r, err := engine.Take(command.Incoming{Data: data, Via: "local"})
	if err != nil {
		return nil, err
	}
	return json.Marshal(r)
}

// CommandResult gives what is known of a command; nil: nothing.
func (a *Agent) CommandResult(id string) (json.RawMessage, error) {
	engine, err := a.commands.open()
	if err != nil {
		return nil, err
	}
	r, ok := engine.Look(id)
	if !ok {
		return nil, nil
	}
	return json.Marshal(r)
}

// active tells of the commands that have no result yet.
func (c *commands) active() []string {
	if engine := c.engine.Load(); engine != nil {
		return engine.Active()
	}
	return nil
}

func (c *commands) meters() (all []command.Meter) {
	for _, m := range c.a.config().Meters {
		all = append(all, command.Meter{ID: m.ID, Serial: m.Serial, Protected: m.Protected})
	}
	return all
}

// visit has a meter visited before anything that is due.
func (c *commands) visit(ctx context.Context, id meter.ID, ask meter.Ask) (meter.Got, error) {
	a := c.a
	a.mu.Lock()
	var on *runningLine
	var broken string
	for _, l := range a.cfg.Lines() {
		for _, m := range l.Meters {
			if m.ID == id {
				on = a.lines[l.Key]
			}
		}
	}
	if on != nil {
		for _, b := range on.broken {
			if b.Meter == id {
				broken = b.Err
			}
		}
	}
	a.mu.Unlock()
	switch {
	case on == nil:
		return meter.Got{}, fmt.Errorf("meter %s: %w: it is not visited now", id, meter.ErrNoLine)
	case broken != "":
		return meter.Got{}, fmt.Errorf("meter %s: it cannot be opened: %s", id, broken)
	}
	return on.poller.Do(ctx, id, ask)
}

// send is called by the uplink too, which must not wait for a.mu.
func (c *commands) send(id string, part int, payload []byte, arrived func()) {
	c.a.orders.box.Hand(mqtt.PartTopic(c.site, c.gateway, meter.ID(id), part), payload, arrived)
}

// judgeCommand verifies a command, and says whether it may take effect here and now.
func (o *orders) judgeCommand(data []byte) (j command.Judged, err error) {
	o.mu.Lock()
	trust, closed, noTrust := o.trust, o.closed, o.noTrust
	o.mu.Unlock()
	switch {
	case closed != nil:
		return j, fmt.Errorf("%s: %w", noOrders, closed)
	case trust == nil && noTrust != nil:
		return j, noTrust
	case trust == nil:
		return j, errNoTrust
	}
	j.Trust = trust
	d, err := trust.Verify(data)
	if err != nil { // what has signatures of others beside is nobody's
		return j, err
	}
	j.Document = d
	j.Verdict, err = d.Judge(o.here())
	return j, err
}

// refusedCommand puts a command that was refused into the report on orders.
func (o *orders) refusedCommand(d *order.Document, hash [32]byte, r command.Result) {
	if r.State != command.Refused {
		return
	}
	last := outcomeReport{documentReport: documentReport{Kind: string(order.KindCommand), ID: r.ID, Hash: r.Hash}, Outcome: string(trial.Refused), Reason: r.Text}
	if d != nil {
		last.documentReport = reportDocument(d)
	}
	o.mu.Lock()
	o.report.Command = &last
	o.mu.Unlock()
	o.publish()
}

// commandMemory keeps what must not be forgotten of commands in the state.
type commandMemory struct{ s *state.State }

func (m commandMemory) Begin(id string, expires, now time.Time) error {
	return m.s.BeginCommand(id, expires, now)
}

func (m commandMemory) End(id string, p command.Past) error {
	stage := state.Failed
	switch p.State {
	case command.Done:
		stage = state.Done
	case command.Unknown:
		stage = state.Unknown
	case command.Waiting, command.Accepted, command.Running, command.Refused, command.Failed:
	}
	return m.s.EndCommand(id, stage, []byte(string(p.State)+"\n"+p.Hash+"\n"+p.Text))
}

func (m commandMemory) Known(id string) (command.Past, bool) {
	c, ok := m.s.Command(id)
	if !ok {
		return command.Past{}, false
	}
	word, rest, _ := strings.Cut(string(c.Result), "\n")
	hash, text, _ := strings.Cut(rest, "\n")
	p := command.Past{State: command.State(word), Hash: hash, Text: text}
	switch {
	case c.Stage == state.Begun:
		p.State = command.Running
	case !p.State.Final():
		p = command.Past{State: command.Unknown}
	}
	return p, true
}

func (m commandMemory) Open() []string { return m.s.OpenCommands() }

func (m commandMemory) Lost() bool { return m.s.Lost() }

// errCommand is told where a command comes as another order.
var errCommand = errors.New("a command comes on down/command, or by gridgate command apply")
