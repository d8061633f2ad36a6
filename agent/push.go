package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"gridgate/configs"
	"gridgate/dlms/security"
	"gridgate/drivers"
	"gridgate/drivers/cosem"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// runningPush is what hears meters that send unasked.
type runningPush struct {
	tasks []*task
	lines []*line.Line
}

func (p *runningPush) stop() {
	if p == nil {
		return
	}
	for _, t := range p.tasks {
		t.cancel()
	}
	for _, t := range p.tasks {
		t.stop()
	}
	for _, l := range p.lines {
		_ = l.Close() // nothing waits on it any more
	}
}

const (
	// storeMost is how long who wants to be confirmed waits for the disk; then
	// it is not confirmed, and sends again.
	storeMost = 5 * time.Second
	// pushLoss is how many pushes of a meter may come before their counter is
	// written. After a crash they would be taken once more, and are then rows
	// that the fog has already: same meter, time and value.
	pushLoss = 256
	// listenRetry is how long a port is left alone that cannot be listened on.
	listenRetry = 10 * time.Second
)

// startPush starts to listen in each place. What cannot be listened on is told,
// and tried again. mu is held.
func (a *Agent) startPush(ctx context.Context, cfg *configs.Config) {
	a.push = &runningPush{}
	if len(cfg.Push.Listen) == 0 {
		return
	}
	r := &cosem.Receiver{
		Now: a.now, TimeZone: cfg.TimeZone, Strict: true, Meters: a.knownMeters(cfg),
		Title: security.Title(cfg.Push.Title), Counters: a.state, Received: a.receivedPushes(cfg),
		Bad: a.badPush,
	}
	ids := make(map[meter.ID]string) // the line of each
	for _, l := range cfg.Lines() {
		for _, m := range l.Meters {
			ids[m.ID] = l.Key
		}
	}
	r.Got = func(_ cosem.Sender, p cosem.Pushed) (func() error, error) { return a.pushed(ids, p), nil }
	for _, l := range cfg.Push.Listen {
		serve := func(ctx context.Context) error { return r.Listen(ctx, l.Network, l.Host, func(net.Addr) {}) }
		if l.IsLine() {
			port := drivers.OpenLine(l.Line, line.Options{Program: "gridgate run"})
			a.push.lines = append(a.push.lines, port)
			o := cosem.LineOptions{Answer: l.Confirm, Settings: line.Settings{
				Baud: l.Line.Baud, DataBits: l.Line.DataBits, Parity: l.Line.Parity, StopBits: l.Line.StopBits,
			}}
			serve = func(ctx context.Context) error { return r.ServeLine(ctx, port, o, func() {}) }
		}
		a.push.tasks = append(a.push.tasks, a.start(ctx, "push "+l.Text, func(ctx context.Context) error {
			a.listen(ctx, l.Text, serve)
			return nil
		}))
	}
}

// listen serves one place until ctx ends.
func (a *Agent) listen(ctx context.Context, where string, serve func(context.Context) error) {
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-retry.C:
		}
		if err := serve(ctx); err != nil && ctx.Err() == nil {
			a.log.Error("meters that push cannot be heard", "listen", where, "error", err)
		}
		retry.Reset(listenRetry)
	}
}

// knownMeters gives the meters that may push: all that speak DLMS.
func (a *Agent) knownMeters(cfg *configs.Config) (known []cosem.Known) {
	for _, m := range cfg.Meters {
		if !m.Address.Scheme.IsDLMS() {
			continue
		}
		secrets, err := m.Address.Resolve(a.sources())
		if err != nil {
			continue // told where its line starts
		}
		model, err := modelOf(cfg, m)
		if err != nil {
			continue // as well
		}
		k, err := drivers.Known(drivers.Config{ID: m.ID, Serial: m.Serial, Address: m.Address, Secrets: secrets, DLMS: model, TimeZone: cfg.TimeZone})
		if err != nil {
			a.log.Error("meter cannot push", "meter", string(m.ID), "error", err)
			continue
		}
		known = append(known, k)
	}
	return known
}

// receivedPushes remembers the counters of ciphered pushes over restarts, so
// that an old one is not taken again.
func (a *Agent) receivedPushes(cfg *configs.Config) *security.Window {
	var keys []security.KeyID
	for _, m := range cfg.Meters {
		secrets, err := m.Address.Resolve(a.sources())
		if err != nil || !m.Address.UsesKeys() {
			continue
		}
		if id, err := drivers.KeyID(m.Address, secrets); err == nil {
			keys = append(keys, id)
		}
	}
	w := &security.Window{}
	w.Keep(a.state, pushLoss, keys...)
	return w
}

// pushed takes what a meter sent. For who wants to be confirmed it gives how to
// wait until it is stored.
func (a *Agent) pushed(lines map[meter.ID]string, p cosem.Pushed) (stored func() error) {
	if len(p.Rows) == 0 {
		return nil
	}
	id := p.Rows[0].Meter
	a.mu.Lock()
	if l := a.lines[lines[id]]; l != nil {
		l.poller.Wake(id)
	}
	a.mu.Unlock()
	if len(p.Confirm) == 0 {
		sink{a.intake, a}.Submit(p.Rows, nil, nil)
		return nil
	}
	done := make(chan struct{})
	sink{a.intake, a}.Submit(p.Rows, nil, func() { close(done) })
	return func() error {
		limit := time.NewTimer(storeMost)
		defer limit.Stop()
		select {
		case <-done:
			return nil
		case <-limit.C:
			return errors.New("it could not be stored in time")
		}
	}
}

// badPush tells what was not taken. A stranger is noted for the technician, by
// what it shows.
func (a *Agent) badPush(from cosem.Sender, err error) {
	if errors.Is(err, cosem.ErrRepeated) {
		return
	}
	a.log.Warn("push not taken", "from", from.String(), "error", err)
	if errors.Is(err, cosem.ErrUnknown) {
		host := from.String()
		if i := strings.LastIndexByte(host, ':'); i > 0 && from.Net.IsValid() {
			host = host[:i]
		}
		a.mu.Lock()
		a.note(fmt.Sprintf("a meter at %s pushes, and is not configured: %v", host, err))
		a.mu.Unlock()
	}
}
