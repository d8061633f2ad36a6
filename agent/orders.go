package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"gridgate/agent/audit"
	"gridgate/agent/order"
	"gridgate/agent/trial"
	"gridgate/agent/uplink"
	"gridgate/buffer/state"
)

// orders is the task that deals with signed documents, one at a time.
type orders struct {
	a         *Agent
	box       *uplink.Outbox
	shelf     *trial.Shelf
	in        *mailbox
	export    *export
	dir       string // of the buffer
	trustFile string
	trusted   func() bool // says whether the wall clock can be relied on; a test replaces it

	at func(step string) // is told what was just made durable; a test ends the process there

	// turn is held while a document is dealt with, and while the configuration
	// file is read again.
	turn sync.Mutex

	// Of the task alone:
	waiting  []*incoming // for the time to be known, or the disk to take writes
	refusals refusals
	giveUp   chan string       // ends the trial that runs, and says why
	damaged  map[[32]byte]bool // not nil: what was in effect is lost; true: it was taken once more

	mu        sync.Mutex
	audit     *audit.Log   // nil where it cannot be written
	closed    error        // why no order is taken for now
	noTrust   error        // why there are no keys, where there are none
	trust     *order.Trust // nil: no order is taken
	trustHash [32]byte     // of the document it came from
	busy      string       // what is being tried; empty: nothing
	report    ordersReport
	counts    [maxRefusals]uint64 // of documents that were not taken, by reason
}

// noOrders is told where the audit log cannot be written: nothing is carried out
// that could not be written down.
const noOrders = "orders: none are taken, since none could be written down"

// newOrders opens what the orders before have left. When it cannot, it gives
// orders that take none until they can.
func (a *Agent) newOrders(dir, trustFile string) *orders {
	o := &orders{
		a: a, box: uplink.NewOutbox(), shelf: trial.OpenShelf(filepath.Join(dir, "config")), in: newMailbox(), export: newExport(), giveUp: make(chan string, 1),
		dir: dir, trustFile: trustFile, trusted: a.knowsTime,
		at: failpoint(a.opts.Getenv),
	}
	o.settleSecrets()
	if err := o.open(); err != nil {
		a.log.Error(noOrders, "error", err)
		a.note(noOrders + ": " + err.Error())
	}
	return o
}

// open opens the audit log and reads whose orders are taken. The state has to be
// open: it knows the end of the log.
func (o *orders) open() error {
	err := o.a.state.Held()
	if err == nil {
		err = o.openAudit()
	}
	o.mu.Lock()
	o.closed = err
	o.mu.Unlock()
	if err != nil {
		return err
	}
	if err := o.loadTrust(o.trustFile); err != nil {
		o.mu.Lock()
		o.noTrust = fmt.Errorf("no order is taken: trust: %w", err)
		o.mu.Unlock()
		o.a.log.Error("no order is taken", "error", err)
		o.tell("trust: " + err.Error())
	}
	o.ensureIdentity()
	o.lastReport()
	return nil
}

// tell notes something for an operator.
func (o *orders) tell(text string) {
	o.a.mu.Lock()
	defer o.a.mu.Unlock()
	o.a.note(text)
}

// isOpen says whether orders can be taken.
func (o *orders) isOpen() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closed == nil
}

// loadTrust takes the trust document that was taken last, or else the first one.
func (o *orders) loadTrust(file string) error {
	if data := o.a.state.Trust(); data != nil {
		t, d, err := order.FirstTrust(data)
		if err != nil {
			return fmt.Errorf("the trust document that was taken last: %w", err)
		}
		o.trusts(t, d)
		return nil
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	t, d, err := order.FirstTrust(data)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if err := o.a.state.SetTrust(data); err != nil {
		return err
	}
	if err := o.seen(d); err != nil {
		return err
	}
	o.trusts(t, d)
	o.note("trust.first", "local", fmt.Sprintf("version %d from %s", d.Version, file))
	return nil
}

// trusts puts keys in the place of those that there are.
func (o *orders) trusts(t *order.Trust, d *order.Document) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.trust, o.trustHash = t, d.Hash
}

// knowsTime says whether the wall clock can be relied on.
func (a *Agent) knowsTime() bool {
	clock := a.clock.Load()
	return clock != nil && clock.Trusted()
}

// errBusy is told who submits a document while another one is on trial.
var errBusy = errors.New("another order is on trial; submit it again when that has ended (gridgate status)")

// busyPause is how often who submits a document looks whether another one began
// a trial before it.
const busyPause = 100 * time.Millisecond

// Submit takes a document from somebody at the gateway. It gives when the
// document was refused, or was taken and is being carried out. While another one
// is on trial it is refused at once, and not dealt with later; but for other keys.
func (a *Agent) Submit(ctx context.Context, data []byte) error {
	o := a.orders
	waits := !o.isUrgent(data)
	if what := o.tries(); waits && what != "" {
		return fmt.Errorf("%s: %w", what, errBusy)
	}
	in := &incoming{data: data, via: "local", verdict: make(chan error, 1)}
	if lost := o.in.put(in); lost != nil {
		answer(lost, errBusy)
	}
	tick := time.NewTicker(busyPause)
	defer tick.Stop()
	for {
		select {
		case err := <-in.verdict:
			return err
		case <-ctx.Done():
			o.in.withdraw(in)
			return ctx.Err()
		case <-tick.C:
			if what := o.tries(); waits && what != "" && o.in.withdraw(in) {
				return fmt.Errorf("%s: %w", what, errBusy)
			}
		}
	}
}

// tries says what is on trial; empty: nothing.
func (o *orders) tries() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.busy
}

func (o *orders) trying(what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.busy = what
}

// deal verifies, judges and carries out one document.
func (o *orders) deal(ctx context.Context, in *incoming) {
	o.turn.Lock()
	defer o.turn.Unlock()
	o.judge(ctx, in)
}

// judge does what deal does. turn is held.
func (o *orders) judge(ctx context.Context, in *incoming) {
	if in.carry != nil {
		o.trying("firmware")
		defer answer(in, nil)
		defer o.trying("")
		o.during(ctx, in.data, in.carry)
		return
	}
	if in.tooLong { // its beginning says nothing
		err := fmt.Errorf("%w: at most %d octets are taken", order.ErrTooLarge, order.MaxSize)
		o.refused(in, nil, err)
		answer(in, err)
		return
	}
	d, carry, err := o.accept(in.data)
	switch {
	case errors.Is(err, errSame):
		if in.verdict != nil && !o.isInEffect(d) {
			answer(in, err)
			return
		}
		err = nil
	case errors.Is(err, errWaits):
		o.told(in, d, waits, err)
		answer(in, err)
		o.wait(in)
		return
	case err != nil:
		o.refused(in, d, err)
	}
	if err != nil || carry == nil {
		answer(in, err)
		return
	}
	o.step(d, trial.Measuring) // before the answer: who asks what became of it sees this one
	o.trying(reportDocument(d).name())
	defer o.trying("")
	answer(in, nil)
	o.during(ctx, in.data, carry)
}

// isInEffect says whether a configuration that was taken before is in effect.
func (o *orders) isInEffect(d *order.Document) bool {
	if d.Kind == order.KindFirmware {
		return o.a.updates.isInEffect(d)
	}
	if d.Kind != order.KindConfig {
		return true
	}
	kept, err := o.shelf.Kept()
	return err == nil && slices.ContainsFunc(kept, func(e trial.Entry) bool { return e.Target == d.Target.String() && e.Version == d.Version })
}

// waits is the outcome of a document that is dealt with later.
const waits = "waiting"

// What keeps a document from being carried out that is not wrong.
var (
	errWaits = errors.New("it waits, and is dealt with when that has passed")
	errSame  = errors.New("it was dealt with before and is not in effect; sign it with a higher version to have it tried again")
)

// errNoTrust says that nobody may give orders.
var errNoTrust = errors.New("this gateway has no trust document, so it takes no orders: put the first one where trust.file says, and start it anew")

// accept says whether a document is taken; carry carries it out, and is nil when
// there is nothing to do.
func (o *orders) accept(data []byte) (d *order.Document, carry func(context.Context), err error) {
	o.mu.Lock()
	trust, closed, noTrust := o.trust, o.closed, o.noTrust
	o.mu.Unlock()
	switch {
	case closed != nil:
		return nil, nil, fmt.Errorf("%s: %w: %w", noOrders, closed, errWaits)
	case trust == nil && noTrust != nil:
		return nil, nil, noTrust
	case trust == nil:
		return nil, nil, errNoTrust
	}
	if d, err = trust.Verify(data); err != nil {
		return nil, nil, err
	}
	verdict, err := d.Judge(o.here())
	if err != nil {
		return d, nil, err
	}
	switch verdict {
	case order.Same:
		if !o.isLost(d) {
			return d, nil, errSame
		}
	case order.Wait:
		return d, nil, fmt.Errorf("it is bounded in time, and this gateway does not know the time yet: %w", errWaits)
	case order.Take:
	}
	switch d.Kind {
	case order.KindTrust:
		return d, nil, o.replaceTrust(data)
	case order.KindConfig:
		carry, err := o.configuration(d, data)
		return d, carry, err
	case order.KindCommand:
		return d, nil, errCommand
	case order.KindFirmware:
		return d, nil, o.firmware(d, data)
	}
	return d, nil, fmt.Errorf("this agent carries out no %s", d.Kind)
}

func (o *orders) here() order.Here {
	cfg := o.a.config()
	h := order.Here{
		Site: string(cfg.Site), Gateway: string(cfg.Gateway), Agent: o.a.opts.Version, Now: time.Now(), Trusted: o.trusted(),
		Seen: func(k order.Kind, t order.Target) (uint64, [32]byte, bool) {
			if k == order.KindTrust { // whatever its target: there is one set of keys
				o.mu.Lock() // commands are judged by a task of their own
				defer o.mu.Unlock()
				return o.trust.Version, o.trustHash, true
			}
			d, ok := o.a.state.Document(string(k), t.String())
			return d.Version, d.Hash, ok
		},
	}
	for _, g := range cfg.Trust.Groups {
		h.Groups = append(h.Groups, string(g))
	}
	return h
}

// seen remembers that a document was taken: none that is older is any more.
func (o *orders) seen(d *order.Document) error {
	return o.a.state.SetDocument(string(d.Kind), d.Target.String(), state.Document{Version: d.Version, Hash: d.Hash})
}

// replaceTrust puts other keys in the place of those that there are.
func (o *orders) replaceTrust(data []byte) error {
	next, d, err := o.trust.VerifyTrust(data)
	if err != nil {
		return err
	}
	// The keys first: without them the version is worth nothing, and a cut
	// between makes the document come again.
	if err := o.a.state.SetTrust(data); err != nil {
		return err
	}
	o.at("trust")
	if err := o.seen(d); err != nil {
		return err
	}
	o.trusts(next, d)
	if o.a.state.Lost() { // whoever holds the root keys says that all is known again
		if err := o.a.state.Anchor(); err != nil {
			return err
		}
		o.note("state.anchored", signers(d), fmt.Sprintf("trust version %d", d.Version))
	}
	o.note("trust.replaced", signers(d), fmt.Sprintf("version %d", d.Version))
	o.ended(d, string(trial.Kept), "", nil)
	o.a.updates.revoked()
	return nil
}

// signers says which roles have signed, with how many keys of each, and which:
// config×1 E7620F1842B4E81F.
func signers(d *order.Document) string {
	var all []string
	for _, r := range order.Roles() {
		if keys := d.SignedBy(r); len(keys) > 0 {
			all = append(all, fmt.Sprintf("%s×%d %s", r, len(keys), strings.Join(keys, " ")))
		}
	}
	return strings.Join(all, " ")
}

// isLost says whether a document that was taken before was in effect perhaps, and
// is lost. It may be taken once more.
func (o *orders) isLost(d *order.Document) bool {
	if o.damaged == nil || d.Kind != order.KindConfig || o.damaged[d.Hash] || o.isInEffect(d) {
		return false
	}
	o.damaged[d.Hash] = true
	return true
}

// refused tells why a document is not taken. Only what somebody with a key has
// signed is worth an entry in the audit log: anybody can send the rest.
func (o *orders) refused(in *incoming, d *order.Document, why error) {
	o.countRefusal(why)
	if first := o.told(in, d, string(trial.Refused), why); !first || d == nil {
		return
	}
	may, last := o.refusals.mayWrite(time.Now())
	if !may {
		return
	}
	text := fmt.Sprintf("%s %s: %v", d.Kind, d.Target, why)
	if last {
		text = "more are not written down within this hour; " + text
	}
	o.note("order.refused", signers(d), text)
}

// told reports what keeps a document from being carried out; first is false when
// that was told of the same one before. The broker gives a retained one again
// with every connection: that is no news.
func (o *orders) told(in *incoming, d *order.Document, outcome string, why error) (first bool) {
	if first = o.refusals.first(in.data, why); !first && in.retained {
		return false
	}
	o.a.log.Warn("an order is not taken", "outcome", outcome, "via", in.via, "error", why)
	if d != nil && d.Kind == order.KindFirmware || strings.HasPrefix(in.topic, string(order.KindFirmware)+"/") {
		if outcome != waits {
			o.a.updates.refusedOrder(in.data, d, outcome, why)
		}
	} else if d == nil {
		o.outcome(documentReport{Hash: hexHash(order.Sum(in.data))}, outcome, why.Error(), nil)
	} else {
		o.ended(d, outcome, why.Error(), nil)
	}
	return first
}

func hexHash(h [32]byte) string { return hex.EncodeToString(h[:]) }
