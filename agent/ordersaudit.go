package agent

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"

	"gridgate/agent/audit"
	"gridgate/buffer/state"
	"gridgate/internal/mqtt"
)

// auditHead keeps the end of the audit log in the state.
type auditHead struct{ s *state.State }

func (h auditHead) AuditHead() (uint64, [32]byte, bool) {
	head, ok := h.s.AuditHead()
	return head.Number, head.Hash, ok
}

func (h auditHead) SetAuditHead(n uint64, hash [32]byte) error {
	return h.s.SetAuditHead(state.AuditHead{Number: n, Hash: hash})
}

func (o *orders) openAudit() error {
	log, broken, err := audit.Open(filepath.Join(o.dir, "audit"), auditHead{o.a.state})
	if err != nil {
		return err
	}
	o.mu.Lock()
	o.audit = log
	o.mu.Unlock()
	o.export.begin(o.a.state.AuditSent())
	if broken != nil {
		o.a.log.Error("the audit log does not fit its end and begins anew", "error", broken)
		o.tell("audit: " + broken.Error())
		o.note("audit.broken", "", broken.Error())
	}
	return nil
}

// note adds an entry to the audit log, which goes to the fog then.
func (o *orders) note(what, by, detail string) {
	if err := o.write(what, by, detail); err != nil {
		o.a.log.Error("what was done cannot be written down", "what", what, "detail", detail, "error", err)
	}
}

// write does the same and tells when it cannot.
func (o *orders) write(what, by, detail string) error {
	clock := "untrusted"
	if o.trusted() {
		clock = "trusted"
	}
	log := o.auditLog()
	if log == nil {
		return errors.New("there is no audit log")
	}
	if _, err := log.Add(audit.Entry{Time: time.Now(), Clock: clock, What: what, By: by, Detail: detail}); err != nil {
		return err
	}
	o.export.more()
	return nil
}

// auditLog gives the log, nil where it cannot be written.
func (o *orders) auditLog() *audit.Log {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.audit
}

// close closes the audit log.
func (o *orders) close() error {
	log := o.auditLog()
	if log == nil {
		return nil
	}
	o.noteSent()
	return log.Close()
}

// exportAtOnce entries of the audit log wait for the broker; the others wait in
// the log.
const exportAtOnce = 16

// export is how far the audit log has gone to the fog.
type export struct {
	kick chan struct{}

	mu      sync.Mutex
	given   uint64 // through which entries were given to the outbox
	waiting int    // of them have not arrived
	arrived uint64 // through which they have
}

func newExport() *export { return &export{kick: make(chan struct{}, 1)} }

func (e *export) begin(sent uint64) {
	e.mu.Lock()
	e.given, e.arrived, e.waiting = sent, sent, 0
	e.mu.Unlock()
	e.more()
}

// more says that there may be something to send.
func (e *export) more() {
	select {
	case e.kick <- struct{}{}:
	default:
	}
}

// has is told that the broker has an entry: they arrive in their order.
func (e *export) has(number uint64) {
	e.mu.Lock()
	e.arrived = max(e.arrived, number)
	e.waiting--
	e.mu.Unlock()
	e.more()
}

// exporting sends entries until ctx ends, a trial or not: each once, and after a
// cut those again that nobody noted to have arrived.
func (o *orders) exporting(ctx context.Context) {
	for {
		o.noteSent()
		o.exportNext()
		select {
		case <-ctx.Done():
			return
		case <-o.export.kick:
		}
	}
}

// exportNext gives entries to the outbox, as far as there is room.
func (o *orders) exportNext() {
	log, e := o.auditLog(), o.export
	e.mu.Lock()
	from, room := e.given, exportAtOnce-e.waiting
	e.mu.Unlock()
	if log == nil || room <= 0 {
		return
	}
	entries, err := log.After(from, room)
	if err != nil {
		o.a.log.Error("the audit log cannot be read, and goes no further to the fog", "error", err)
	}
	cfg := o.a.config()
	for _, entry := range entries {
		e.mu.Lock()
		e.given, e.waiting = entry.Number, e.waiting+1
		e.mu.Unlock()
		o.box.Hand(mqtt.AuditTopic(cfg.Site, cfg.Gateway), entry.JSON(), func() { e.has(entry.Number) })
	}
}

// noteSent stores through which entries the fog has them.
func (o *orders) noteSent() {
	o.export.mu.Lock()
	arrived := o.export.arrived
	o.export.mu.Unlock()
	if o.auditLog() == nil || arrived <= o.a.state.AuditSent() {
		return
	}
	if err := o.a.state.SetAuditSent(arrived); err != nil {
		o.a.log.Warn("through where the audit log was sent cannot be noted: it is sent again after a restart", "error", err)
	}
}
