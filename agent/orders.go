package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"gridgate/agent/audit"
	"gridgate/agent/order"
	"gridgate/agent/trial"
	"gridgate/agent/uplink"
	"gridgate/buffer/state"
	"gridgate/internal/mqtt"
)

// orders is the task that deals with signed documents, one at a time.
type orders struct {
	a     *Agent
	box   *uplink.Outbox
	shelf *trial.Shelf
	audit *audit.Log // nil where it cannot be written
	in    chan incoming

	mu     sync.Mutex
	trust  *order.Trust // nil: no order is taken
	report ordersReport
}

// incoming is a document that waits to be dealt with.
type incoming struct {
	data []byte
	via  string // "mqtt" or "local"
	// verdict, where it is not nil, is told whether the document is taken.
	verdict chan<- error
}

// maxOrders wait; the fog sends one again that found no room.
const maxOrders = 4

// noOrders is told where the audit log cannot be written: nothing is carried out
// that could not be written down.
const noOrders = "orders: none are taken, since none could be written down"

// newOrders opens what the orders before have left. With an error it gives orders
// that take none.
func (a *Agent) newOrders(dir, trustFile string) (*orders, error) {
	o := &orders{
		a: a, box: uplink.NewOutbox(), shelf: trial.OpenShelf(filepath.Join(dir, "config")), in: make(chan incoming, maxOrders),
	}
	log, broken, err := audit.Open(filepath.Join(dir, "audit"), auditHead{a.state})
	if err != nil {
		return o, err
	}
	o.audit = log
	if broken != nil {
		a.log.Error("the audit log does not fit its end and begins anew", "error", broken)
		a.note("audit: " + broken.Error())
		o.note("audit.broken", "", broken.Error())
	}
	if err := o.loadTrust(trustFile); err != nil {
		a.log.Error("no order is taken", "error", err)
		a.note("trust: " + err.Error())
	}
	return o, nil
}

// loadTrust takes the trust document that was taken last, or else the first one.
func (o *orders) loadTrust(file string) error {
	if data := o.a.state.Trust(); data != nil {
		t, _, err := order.FirstTrust(data)
		if err != nil {
			return fmt.Errorf("the trust document that was taken last: %w", err)
		}
		o.trust = t
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
	o.trust = t
	o.note("trust.first", "local", fmt.Sprintf("version %d from %s", d.Version, file))
	return nil
}

// auditHead keeps the end of the audit log in the state.
type auditHead struct{ s *state.State }

func (h auditHead) AuditHead() (uint64, [32]byte, bool) {
	head, ok := h.s.AuditHead()
	return head.Number, head.Hash, ok
}

func (h auditHead) SetAuditHead(n uint64, hash [32]byte) error {
	return h.s.SetAuditHead(state.AuditHead{Number: n, Hash: hash})
}

// note adds an entry to the audit log, and sends it.
func (o *orders) note(what, by, detail string) {
	clock := "untrusted"
	if o.trusted() {
		clock = "trusted"
	}
	if o.audit == nil {
		return
	}
	e, err := o.audit.Add(audit.Entry{Time: time.Now(), Clock: clock, What: what, By: by, Detail: detail})
	if err != nil {
		o.a.log.Error("what was done cannot be written down", "what", what, "detail", detail, "error", err)
		return
	}
	cfg := o.a.config()
	o.box.Say(mqtt.AuditTopic(cfg.Site, cfg.Gateway), false, e.JSON())
}

// trusted says whether the wall clock can be relied on.
func (o *orders) trusted() bool {
	clock := o.a.clock.Load()
	return clock != nil && clock.Trusted()
}

// close closes the audit log.
func (o *orders) close() error {
	if o.audit == nil {
		return nil
	}
	return o.audit.Close()
}

// take is given what comes over MQTT.
func (o *orders) take(d uplink.Order) {
	select {
	case o.in <- incoming{data: d.Payload, via: "mqtt"}:
	default:
		o.a.log.Warn("an order found no room; the fog sends it again", "order", d.Name)
	}
}

// Submit takes a document from somebody at the gateway. It gives when the
// document was refused, or was taken and is being carried out.
func (a *Agent) Submit(ctx context.Context, data []byte) error {
	verdict := make(chan error, 1)
	select {
	case a.orders.in <- incoming{data: data, via: "local", verdict: verdict}:
	case <-ctx.Done():
		return fmt.Errorf("another order is being carried out: %w", ctx.Err())
	}
	select {
	case err := <-verdict:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run deals with documents until ctx ends.
func (o *orders) run(ctx context.Context) error {
	o.resume(ctx)
	o.publish()
	for {
		select {
		case <-ctx.Done():
			return nil
		case in := <-o.in:
			o.deal(ctx, in)
		}
	}
}

// deal verifies, judges and carries out one document.
func (o *orders) deal(ctx context.Context, in incoming) {
	answer := func(err error) {
		if in.verdict != nil {
			in.verdict <- err
		}
	}
	d, carry, err := o.accept(in.data)
	if err != nil {
		o.refused(d, err)
		answer(err)
		return
	}
	answer(nil)
	if carry != nil {
		carry(ctx)
	}
}

// errNoTrust says that nobody may give orders.
var errNoTrust = errors.New("this gateway has no trust document, so it takes no orders: put the first one where trust.file says, and start it anew")

// accept says whether a document is taken; carry carries it out, and is nil when
// there is nothing to do.
func (o *orders) accept(data []byte) (d *order.Document, carry func(context.Context), err error) {
	if o.trust == nil {
		return nil, nil, errNoTrust
	}
	if d, err = o.trust.Verify(data); err != nil {
		return nil, nil, err
	}
	verdict, err := d.Judge(o.here())
	if err != nil {
		return d, nil, err
	}
	switch verdict {
	case order.Same:
		return d, nil, nil
	case order.Wait:
		return d, nil, errors.New("it is bounded in time, and this gateway does not know the time yet: it waits; the fog sends it again")
	case order.Take:
	}
	switch d.Kind {
	case order.KindTrust:
		return d, nil, o.replaceTrust(data)
	case order.KindConfig:
		carry, err := o.configuration(d, data)
		return d, carry, err
	case order.KindCommand, order.KindFirmware:
	}
	return d, nil, fmt.Errorf("this agent carries out no %s", d.Kind)
}

func (o *orders) here() order.Here {
	cfg := o.a.config()
	h := order.Here{
		Site: string(cfg.Site), Gateway: string(cfg.Gateway), Agent: o.a.opts.Version, Now: time.Now(), Trusted: o.trusted(),
		Seen: func(k order.Kind, t order.Target) (uint64, [32]byte, bool) {
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
	if err := o.seen(d); err != nil {
		return err
	}
	o.mu.Lock()
	o.trust = next
	o.mu.Unlock()
	o.note("trust.replaced", signers(d), fmt.Sprintf("version %d", d.Version))
	o.ended(d, string(trial.Kept), "", nil)
	return nil
}

// signers says which roles have signed, and how many keys of each.
func signers(d *order.Document) string {
	var all []string
	for _, r := range order.Roles() {
		if n := d.Signed(r); n > 0 {
			all = append(all, fmt.Sprintf("%s×%d", r, n))
		}
	}
	return strings.Join(all, " ")
}

// refused tells why a document is not taken. Only what somebody with a key has
// signed is worth an entry in the audit log: anybody can send the rest.
func (o *orders) refused(d *order.Document, why error) {
	o.a.log.Warn("an order is refused", "error", why)
	if d != nil {
		o.note("order.refused", signers(d), fmt.Sprintf("%s %s: %v", d.Kind, d.Target, why))
	}
	o.ended(d, string(trial.Refused), why.Error(), nil)
}

func hexHash(h [32]byte) string { return hex.EncodeToString(h[:]) }
