package agent

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"gridgate/agent/order"
	"gridgate/agent/trial"
	"gridgate/agent/update"
	"gridgate/agent/uplink"
	"gridgate/internal/sys"
)

// updates is the task that brings new firmware. What is signed is accepted by the
// task of orders and lies on a shelf from then on; this one fetches it, and gives it
// back to the task of orders to be tried, with the turn that trials have.
//
//	accepted (shelf) ── fetch ── verify ── window ──> orders: install, switch, restart
//	                                                              │
//	  kept <── confirm ── proven <── the candidate runs <─────────┤ starts anew
//	  reverted <── back ── not proven      the one before runs <──┘
type updates struct {
	a     *Agent
	o     *orders
	slots update.Slots // nil: this program was not started from a slot
	parts *uplink.Parts
	shelf *trial.Shelf
	dir   string
	kick  chan struct{} // what is on the shelf is another, or is trusted no more

	mu      sync.Mutex
	stop    context.CancelFunc // of the fetch that runs; nil: none does
	local   string             // SHA-256 of the document that somebody brought to the gateway
	objects string             // directory that it came with
	state   update.SlotState
	doc     *update.Progress // that is dealt with
	told    int64            // how much of it was there when that was told
	toldAt  time.Time
	last    updateLast
	broken  error // why slots say nothing
}

// updateLast is what came of the update before; it is kept on flash.
type updateLast struct {
	Outcome *update.Outcome `json:"last,omitempty"`
	Sum     string          `json:"document,omitempty"` // of the document as it came
	// Kept is the version of the firmware that was kept last, in Slot.
	Kept string `json:"kept,omitempty"`
	Slot string `json:"slot,omitempty"`
}

// errNoSlots says that firmware cannot be changed here.
var errNoSlots = errors.New("this gridgate was not started by something that has slots (an image's first process, or the package's service), so it cannot be updated")

func (a *Agent) newUpdates(dir string) *updates {
	w := &updates{
		a: a, o: a.orders, slots: a.opts.Slots, parts: uplink.NewParts(),
		shelf: trial.OpenShelf(filepath.Join(dir, "shelf")), dir: dir, kick: make(chan struct{}, 1),
	}
	env := a.opts.Getenv
	if env == nil {
		env = func(string) string { return "" }
	}
	switch {
	case w.slots != nil:
	case env("GRIDGATE_INIT") != "":
		w.slots = update.NewImageSlots(env("GRIDGATE_INIT"))
	case env(update.EnvSlots) != "":
		w.slots = update.NewLinkSlots(env(update.EnvSlots), env(update.EnvSlot), a.restart)
	}
	w.look()
	if data := w.shelf.Last(); data != nil {
		if err := json.Unmarshal(data, &w.last); err != nil {
			a.log.Warn("what came of the last update cannot be read", "error", err)
		}
	}
	return w
}

// look asks what runs.
func (w *updates) look() {
	if w.slots == nil {
		return
	}
	s, err := w.slots.State()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken = err; err != nil {
		w.a.log.Error("the slots of firmware say nothing", "error", err)
		return
	}
	w.state = s
}

// keptVersion is that of the firmware that runs and came by an update; empty: none.
func (w *updates) keptVersion() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last.Slot != w.state.Running {
		return ""
	}
	return w.last.Kept
}

// firmware takes a signed manifest: from then on it is fetched.
func (o *orders) firmware(d *order.Document, data []byte) error {
	w := o.a.updates
	m, files, err := w.check(d)
	if err != nil {
		return err
	}
	w.withdraw()
	defer w.wake() // also where it cannot be stored: the one before goes on
	if err := sys.MakeDir(w.dir, 0o700); err != nil {
		return fmt.Errorf("it cannot be stored: %w", err)
	}
	if old, _, ok, err := w.shelf.OnTrial(); err == nil && ok {
		o.note("firmware.replaced", "", fmt.Sprintf("%s version %d, by version %d", old.Target, old.Version, d.Version))
	}
	w.anew(data)
	// First what is to be fetched, then that it was seen: see configuration.
	if err := w.shelf.Put(d.Target.String(), d.Version, data); err != nil {
		return fmt.Errorf("it cannot be stored: %w", err)
	}
	o.at("firmware-put")
	if err := o.seen(d); err != nil {
		return errors.Join(err, w.shelf.End(trial.Outcome{Step: trial.Refused}))
	}
	o.at("firmware-seen")
	w.withdraw() // the one before may have begun anew meanwhile
	o.note("firmware.accepted", signers(d), fmt.Sprintf("%s version %d: firmware %s, %d files", d.Target, d.Version, m.Firmware, len(files)))
	w.begins(d, m, update.Waiting)
	return nil
}

// anew forgets that a document was dealt with before: it is taken again where the
// state that knew of it is lost.
func (w *updates) anew(data []byte) {
	sum := sha256.Sum256(data)
	w.mu.Lock()
	again := w.last.Sum == hexHash(sum)
	if again {
		w.last.Sum = ""
	}
	w.mu.Unlock()
	if again {
		w.keepLast()
	}
}

// check says whether a document is firmware for this gateway.
func (w *updates) check(d *order.Document) (*update.Manifest, []update.File, error) {
	m, err := update.ParseManifest(d)
	if err != nil {
		return nil, nil, err
	}
	if w.slots == nil {
		return m, nil, errNoSlots
	}
	w.look()
	w.mu.Lock()
	board, broken := w.state.Board, w.broken
	w.mu.Unlock()
	if broken != nil {
		return m, nil, broken
	}
	files, err := m.For(board)
	if err == nil {
		err = m.Judge(w.a.opts.Version, w.keptVersion())
	}
	return m, files, err
}

// withdraw ends the fetch that runs.
func (w *updates) withdraw() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stop != nil {
		w.stop()
	}
}

// revoked has what is fetched verified anew: the keys are others.
func (w *updates) revoked() {
	if _, _, ok, err := w.shelf.OnTrial(); err == nil && ok {
		w.withdraw()
		w.wake()
	}
}

// isInEffect says whether firmware that was taken before is dealt with, or was kept
// last.
func (w *updates) isInEffect(d *order.Document) bool {
	hash := hexHash(d.Hash)
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.last.Outcome
	return w.doc != nil && w.doc.Hash == hash || l != nil && l.Hash == hash && l.Outcome == string(trial.Kept)
}

func (w *updates) wake() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// retold is how often the report is told anew, for whoever looks at its time.
const retold = time.Hour

// run fetches what is on the shelf until ctx ends.
func (w *updates) run(ctx context.Context) error {
	w.publish()
	tick := time.NewTicker(retold)
	defer tick.Stop()
	w.wake()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			w.publish()
		case <-w.kick:
			w.fetchNext(ctx)
		}
	}
}

// fetchNext deals with what is on the shelf, until it has ended or another one is
// there.
func (w *updates) fetchNext(ctx context.Context) {
	if !w.o.isOpen() {
		w.later(ctx)
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.mu.Lock()
	w.stop = cancel
	w.mu.Unlock()
	c, err := w.candidate()
	if c != nil && c.attempts > 0 { // the task of orders goes on with it: see resume
		return
	}
	if c != nil && err == nil {
		err = w.bring(ctx, c)
	}
	w.mu.Lock()
	w.stop = nil
	w.mu.Unlock()
	switch {
	case ctx.Err() != nil || err == nil: // another one is there, or it was tried, or the agent stops
	case errors.Is(err, errSilent):
		w.later(ctx)
	default:
		w.givesUp(ctx, c, err)
	}
}

// givesUp ends what cannot be brought, unless another one has taken its place.
func (w *updates) givesUp(ctx context.Context, c *candidate, why error) {
	for w.o.lockTurn(ctx) != nil { // who accepts another one holds it
		if pause(ctx, lookAgain) != nil {
			return
		}
	}
	defer w.o.turn.Unlock()
	switch e, _, ok, err := w.shelf.OnTrial(); {
	case c == nil && err != nil:
		w.a.log.Error("what firmware is to be fetched cannot be read, and is given up", "error", why)
		w.o.note("firmware.lost", "", why.Error())
		_ = w.shelf.End(trial.Outcome{Step: trial.Refused}) // it is tried again with the next
	case c != nil && (err != nil || ok && e.Sum == c.sum):
		w.ends(c, trial.Outcome{Step: trial.Refused, Reason: why.Error()})
	}
}

// later looks again after a while.
func (w *updates) later(ctx context.Context) {
	t := time.NewTimer(lookAgain)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
		w.wake()
	}
}

// candidate is the firmware on the shelf.
type candidate struct {
	trial.Entry
	attempts int
	turn     bool // it is dealt with by the task of orders
	d        *order.Document
	m        *update.Manifest
	files    []update.File
	sum      string
	job      *update.Job
	staged   []update.Staged
}

// candidate gives what is on the shelf; nil without an error: nothing. With an
// error it is given up.
func (w *updates) candidate() (c *candidate, err error) {
	e, attempts, ok, err := w.shelf.OnTrial()
	if err != nil || !ok {
		return nil, err
	}
	c = &candidate{Entry: e, attempts: attempts, sum: e.Sum}
	w.o.mu.Lock()
	trust := w.o.trust
	w.o.mu.Unlock()
	if trust == nil {
		return c, errNoTrust
	}
	d, err := trust.Verify(e.Data)
	if d == nil {
		if d, _ = order.Read(e.Data); d == nil {
			return nil, err
		}
	}
	if c.d = d; err != nil {
		return c, fmt.Errorf("who signed it is not trusted any more: %w", err)
	}
	if c.m, err = update.ParseManifest(d); err != nil {
		return c, err
	}
	if w.slots == nil {
		return c, errNoSlots
	}
	w.look()
	w.mu.Lock()
	board, broken := w.state.Board, w.broken
	w.mu.Unlock()
	if broken != nil {
		return c, fmt.Errorf("%w: %w", errSilent, broken)
	}
	c.files, err = c.m.For(board)
	return c, err
}

// errSilent says that what holds the slots does not answer; it may later.
var errSilent = errors.New("the slots of firmware say nothing")

func (w *updates) running() update.SlotState {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}
