package command

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"gridgate/agent/order"
	"gridgate/internal/meter"
)

// Memory remembers which commands were begun. It is the state file.
type Memory interface {
	// Begin is durable on return; an id that was begun before is an error.
	Begin(id string, expires, now time.Time) error
	// End notes what came of it.
	End(id string, p Past) error
	// Known gives what is known of an id.
	Known(id string) (Past, bool)
	// Open gives those that have no end.
	Open() []string
	// Lost says that what was known was lost, and nobody has anchored it since.
	Lost() bool
}

// Past is what is remembered of a command after its files are gone.
type Past struct {
	State State // Running: it has no end
	Hash  string
	Text  string
}

// Judged is a document that was verified.
type Judged struct {
	Document *order.Document
	Trust    *order.Trust
	Verdict  order.Verdict
}

// Config is what an Engine works with.
type Config struct {
	Dir     string // of its files; it is made
	Memory  Memory
	Gateway *Gateway
	Actions []Action // beside those of this package
	// Meters gives the meters of the configuration in effect.
	Meters func() []Meter
	// Visit has a meter visited before anything else.
	Visit func(ctx context.Context, id meter.ID, ask meter.Ask) (meter.Got, error)
	// Judge verifies a document and says whether it may take effect here and
	// now. Where only the verdict is bad the document is given too.
	Judge func(data []byte) (Judged, error)
	// Trusted says whether the clock can be relied on.
	Trusted func() bool
	// Note writes to the audit log, durably.
	Note func(what, by, detail string) error
	// Send gives a letter to the broker: on up/result/<id>, or where part is not 0
	// on up/result/<id>/<part>. arrived is called when the broker has it, not
	// before Send has returned.
	Send func(id string, part int, payload []byte, arrived func())
	// Report is told of what was refused or done, for the report on orders.
	Report func(d *order.Document, hash [32]byte, r Result)
	// At is told what was just made durable; a test ends the process there.
	At  func(step string)
	Log *slog.Logger
}

const (
	// maxWaiting commands wait for their turn; maxRunning have it, of which
	// one place is for those of the role control.
	maxWaiting = 32
	maxRunning = 4
	// abreast is at how many meters a command is at a time.
	abreast = 8
	// MaxSize of a command, in octets.
	MaxSize = order.MaxSize
	// lookAgain is how often it is looked whether the time is known.
	lookAgain = time.Second
)

// Engine is the task that carries out commands. Take and Look may be called from
// everywhere.
type Engine struct {
	cfg     Config
	store   store
	actions []Action
	mail    *mail
	kick    chan struct{}

	mu     sync.Mutex
	queue  []*entry // in the order in which they came, running ones too
	recent []Result // the last results, for who asks at the gateway
	cap    *hourly
	hints  limiter // of answers to what nobody has signed
}

// entry is a command from its acceptance to its result.
type entry struct {
	id      string
	hash    string
	action  *Action
	targets []Meter
	begun   bool // and that is durable
	resumed bool // it was begun before this start
	running bool
	last    Result // as told last
	waits   bool   // for the time to be known
}

// New makes the directory, takes up what a start before left there, and gives an
// engine; Run does the work.
func New(cfg Config) (*Engine, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("commands: %w", err)
	}
	if cfg.At == nil {
		cfg.At = func(string) {}
	}
	e := &Engine{cfg: cfg, store: store{cfg.Dir}, kick: make(chan struct{}, 1)}
	e.actions = slices.Concat(gatewayActions(), meterActions(), cfg.Actions)
	e.mail = &mail{send: cfg.Send}
	e.cap = openHourly(cfg.Dir)
	e.takeUp()
	return e, nil
}

// Incoming is a document that came as a command.
type Incoming struct {
	Data     []byte
	Via      string // "mqtt" or "local"
	Retained bool   // the broker gives it again with every connection
}

// Take verifies a command and keeps it for its turn. It gives how far it is, or
// why it is refused; either was told to the fog.
func (e *Engine) Take(in Incoming) (Result, error) {
	if len(in.Data) > MaxSize {
		return Result{}, e.reject(in, Judged{}, fmt.Errorf("%w: a command has at most %d octets", order.ErrTooLarge, MaxSize))
	}
	j, err := e.cfg.Judge(in.Data)
	if j.Document == nil {
		return Result{}, e.reject(in, j, err)
	}
	if j.Document.Kind != order.KindCommand {
		return Result{}, e.reject(in, Judged{}, fmt.Errorf("%w: %s; want a command", order.ErrKind, j.Document.Kind))
	}
	if r, known, err := e.known(j.Document, in); known {
		return r, err
	}
	if err != nil {
		return Result{}, e.reject(in, j, err)
	}
	p, err := e.read(j.Document)
	if err == nil {
		err = p.mayBe(j.Trust)
	}
	if err == nil {
		if err = e.mayNow(p, j.Trust); err != nil {
			e.burn(j, err)
		}
	} else if errors.Is(err, ErrMeter) {
		e.burn(j, err)
	}
	if err != nil {
		return Result{}, e.reject(in, j, err)
	}
	return e.accept(in, j, p)
}

// burn has an id never carried out: what refused it may be otherwise by the time
// that somebody publishes it once more.
func (e *Engine) burn(j Judged, why error) {
	d := j.Document
	if j.Verdict != order.Take {
		return
	}
	if err := e.cfg.Memory.Begin(d.ID, d.NotAfter, time.Now()); err == nil {
		_ = e.cfg.Memory.End(d.ID, Past{State: Refused, Hash: hash(d), Text: cut(why.Error(), 200)})
	}
}

func hash(d *order.Document) string { return hex.EncodeToString(d.Hash[:]) }

// accept keeps a command.
func (e *Engine) accept(in Incoming, j Judged, p *plan) (Result, error) {
	en := &entry{id: j.Document.ID, hash: hash(j.Document), action: p.action, targets: p.targets}
	state, text := Accepted, ""
	if j.Verdict == order.Wait {
		state, text = Waiting, "this gateway does not know the time yet"
	}
	e.mu.Lock()
	same := slices.ContainsFunc(e.queue, func(o *entry) bool { return o.id == en.id })
	full := len(e.queue) >= maxWaiting
	if !same && !full {
		e.queue = append(e.queue, en) // its place; nobody takes it up before it is kept
		en.running = true
	}
	e.mu.Unlock()
	if same { // it came twice at the same moment
		r, _, err := e.known(j.Document, in)
		return r, err
	}
	if full {
		return Result{}, e.reject(in, j, fmt.Errorf("%w: %d; send it again later", ErrFull, maxWaiting))
	}
	if err := e.store.put(en.id, docFile, in.Data); err != nil {
		e.forget(en)
		return Result{}, e.reject(in, j, fmt.Errorf("it cannot be kept: %w", err))
	}
	e.cfg.At("kept")
	r := e.say(en, state, text)
	e.mu.Lock()
	en.running = false
	e.mu.Unlock()
	e.rouse()
	return r, nil
}

func (e *Engine) rouse() {
	select {
	case e.kick <- struct{}{}:
	default:
	}
}

func (e *Engine) forget(en *entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.queue = slices.DeleteFunc(e.queue, func(o *entry) bool { return o == en })
}

// known answers a command that came before. One with another content is refused.
func (e *Engine) known(d *order.Document, in Incoming) (r Result, known bool, err error) {
	e.mu.Lock()
	for _, en := range e.queue {
		if en.id == d.ID {
			r, known = en.last, true
			if r.ID == "" {
				r = Result{ID: en.id, Hash: en.hash, Action: en.action.Name, State: Accepted, Time: now()}
			}
		}
	}
	if i := slices.IndexFunc(e.recent, func(o Result) bool { return o.ID == d.ID }); !known && i >= 0 {
		r, known = e.recent[i], true
	}
	e.mu.Unlock()
	if past, is := e.cfg.Memory.Known(d.ID); !known && is {
		r, known = Result{ID: d.ID, Hash: past.Hash, State: past.State, Time: now(), Text: past.Text}, true
	}
	if !known {
		return r, false, nil
	}
	if r.Hash != "" && r.Hash != hash(d) {
		return r, true, e.reject(in, Judged{Document: d}, ErrOtherID)
	}
	if !r.State.Final() {
		e.publish(r)
		return r, true, nil
	}
	r.Replayed = true
	why := ErrReplayed
	if r.State == Refused { // and may not be carried out by somebody who sends it again
		why = errors.New(r.Text)
	} else if r.Text = cut(r.Text, textMost/2); r.Text != "" {
		r.Text = why.Error() + "; then: " + r.Text
	} else {
		r.Text = why.Error()
	}
	if e.first(in, why) {
		e.publish(r)
		e.cfg.Log.Warn("a command came again and is not carried out", "command", r.ID, "via", in.Via)
		again := r
		again.State, again.Text = Refused, why.Error()
		e.cfg.Report(d, d.Hash, again)
		e.note("command.replayed", d, r.ID)
	}
	return r, true, fmt.Errorf("%w (%s)", why, r.State)
}

// first says whether something is worth telling: a retained command comes again
// with every connection, and of others at most some a minute are.
func (e *Engine) first(in Incoming, why error) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.hints.first(in, why.Error(), time.Now())
}

// reject tells why a command is not taken. What nobody trusted has signed is told
// with the id that it shows, and nothing else of it; not where that is the id of
// another one.
func (e *Engine) reject(in Incoming, j Judged, why error) error {
	if !e.first(in, why) {
		return why
	}
	r := Result{State: Refused, Time: now(), Text: cut(why.Error(), textMost)}
	sum := order.Sum(in.Data)
	if j.Document != nil {
		r.ID, sum = j.Document.ID, j.Document.Hash
	} else if id := order.ShownID(in.Data); id != "" && !e.isKnown(id) {
		r.ID = id
	}
	r.Hash = hex.EncodeToString(sum[:])
	e.cfg.Log.Warn("a command is refused", "command", r.ID, "via", in.Via, "error", why)
	if r.ID != "" {
		e.publish(r)
	}
	e.cfg.Report(j.Document, sum, r)
	if j.Document != nil {
		e.note("command.refused", j.Document, fmt.Sprintf("%s: %v", r.ID, why))
	}
	return why
}

// note writes down what was not carried out, though somebody with a key has
// signed it: some of it an hour, since anybody can send it once more.
func (e *Engine) note(what string, d *order.Document, detail string) {
	e.mu.Lock()
	may, last := e.hints.mayWrite(time.Now())
	e.mu.Unlock()
	if last {
		detail = "more are not written down within this hour; " + detail
	}
	if may {
		_ = e.cfg.Note(what, signers(d), detail) // it was told anyway
	}
}

func (e *Engine) isKnown(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, known := e.cfg.Memory.Known(id)
	return known || slices.ContainsFunc(e.queue, func(en *entry) bool { return en.id == id }) ||
		slices.ContainsFunc(e.recent, func(r Result) bool { return r.ID == id })
}

// Look gives what is known of a command.
func (e *Engine) Look(id string) (Result, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, en := range e.queue {
		if en.id == id && en.last.ID != "" {
			return en.last, true
		}
	}
	for _, r := range e.recent {
		if r.ID == id {
			return r, true
		}
	}
	if past, ok := e.cfg.Memory.Known(id); ok {
		return Result{ID: id, Hash: past.Hash, State: past.State, Text: past.Text, Time: now()}, true
	}
	return Result{}, false
}

// Active tells of the commands that have no result yet, for people.
func (e *Engine) Active() (all []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, en := range e.queue {
		text := en.id
		if en.action != nil {
			text += " " + en.action.Name
		}
		text += ": " + string(en.last.State)
		if en.last.Of > 0 {
			text += fmt.Sprintf(" %d of %d", en.last.Done, en.last.Of)
		}
		all = append(all, text)
	}
	return all
}

// Idle says that every command has its result, and the broker has all of them.
func (e *Engine) Idle() bool {
	e.mu.Lock()
	n := len(e.queue)
	e.mu.Unlock()
	return n == 0 && e.mail.isIdle()
}

func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// say tells how far a command is.
func (e *Engine) say(en *entry, s State, text string) Result {
	r := Result{ID: en.id, Hash: en.hash, State: s, Time: now(), Text: cut(text, textMost)}
	if en.action != nil {
		r.Action = en.action.Name
	}
	e.mu.Lock()
	en.last = r
	e.mu.Unlock()
	e.publish(r)
	return r
}

// publish sends what is not final, or what is not kept: a refusal.
func (e *Engine) publish(r Result) {
	if b, _, err := r.pack(nil); err == nil {
		e.mail.say(r.ID, b)
	}
}

// remember keeps a result for who asks at the gateway.
func (e *Engine) remember(r Result) {
	const most = 16
	e.mu.Lock()
	defer e.mu.Unlock()
	e.recent = slices.DeleteFunc(e.recent, func(o Result) bool { return o.ID == r.ID })
	if e.recent = append(e.recent, r); len(e.recent) > most {
		e.recent = e.recent[1:]
	}
}
