package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"gridgate/agent/poll"
	"gridgate/agent/status"
	"gridgate/buffer/state"
	"gridgate/configs"
	"gridgate/drivers"
	"gridgate/drivers/address"
	"gridgate/drivers/line"
	"gridgate/drivers/plc"
	"gridgate/internal/meter"
)

// runningLine is a line with its poller.
type runningLine struct {
	line   medium
	single *line.Line  // that it is; nil where it is a bridge
	bridge *plc.Bridge // that it is; nil where it is a line
	poller *poll.Poller
	task   *task
	broken []poll.Status // meters that could not be opened
	clocks map[meter.ID]*meterClock
	pulse  *pulse
	lent   atomic.Int32 // to how many tools it is
	// dates tells the meters' secrets from others.
	dates string
}

// closeGrace is how long meters have to let go of their sessions, all lines
// together. After it their lines are closed under them.
const closeGrace = time.Second

// stopLines stops lines, all at once: each may have to interrupt an exchange.
func stopLines(lines map[string]*runningLine) {
	for _, l := range lines {
		l.task.cancel()
	}
	grace := time.NewTimer(closeGrace)
	defer grace.Stop()
	over := false
	for _, l := range lines {
		if !over {
			select {
			case <-l.task.done:
			case <-grace.C:
				over = true
			}
		}
		_ = l.line.Close() // readings were handed on before sessions end: nothing is lost
		<-l.task.done
	}
}

// Apply changes the running configuration to next. Only what differs is
// restarted: an unchanged line misses no poll. What cannot change while the
// agent runs is refused whole, and the old configuration goes on.
func (a *Agent) Apply(ctx context.Context, next *configs.Config) error {
	a.applying.Lock()
	defer a.applying.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lines == nil {
		return errors.New("the agent is stopping")
	}
	diff := configs.Compare(a.cfg, next)
	if len(diff.Restart) > 0 {
		return fmt.Errorf("configuration not applied: %s can only change with a restart of gridgate", strings.Join(diff.Restart, ", "))
	}
	if diff.Intake {
		a.intake.SetWindow(next.Intake.Window, next.Intake.Offline)
		a.intake.SetMaxWaiting(int(next.Intake.MaxWaiting))
	}
	a.judge(next)
	if diff.Modem && a.running {
		a.modem.Load().stop()
		a.startModem(ctx, next)
	}
	if diff.Time {
		a.clock.Load().task.stop()
		clock := a.newClock(next)
		a.clock.Store(clock)
		if a.running {
			a.startClock(ctx, clock)
		}
	}
	if !a.running {
		a.cfg = next // Run starts with it
		return nil
	}
	gone := make(map[string]*runningLine)
	secrets := a.newSecrets(next, diff)
	for _, key := range slices.Concat(diff.LinesRemoved, diff.LinesChanged, secrets) {
		gone[key] = a.lines[key]
		delete(a.lines, key)
	}
	stopLines(gone)
	for _, l := range next.Lines() {
		if _, runs := a.lines[l.Key]; !runs {
			a.startLine(ctx, next, l)
		}
	}
	if diff.Uplink || a.uplink.err != nil || a.uplink.dates != a.uplinkDates(next.Uplink) {
		a.uplink.stop()
		a.startUplink(ctx, next)
	}
	if diff.Push || len(secrets) > 0 && len(next.Push.Listen) > 0 { // they are the keys of pushes too
		push := a.push
		a.cfg = next  // for who has mu meanwhile
		a.mu.Unlock() // what is being taken may wait for it
		push.stop()
		a.mu.Lock()
		if a.lines == nil {
			return errors.New("the agent is stopping")
		}
		a.startPush(ctx, next)
	}
	if l := a.live.Load(); l != nil {
		l.keep(func(id meter.ID) bool { _, ok := next.Meter(id); return ok })
	}
	a.cfg = next
	if diff.Page && !a.swapPage(ctx, next) {
		return errors.New("the agent is stopping")
	}
	a.log.Info("configuration applied", "lines_added", len(diff.LinesAdded), "lines_removed", len(diff.LinesRemoved),
		"lines_changed", len(gone)-len(diff.LinesRemoved), "uplink_changed", diff.Uplink)
	a.keepHash(next)
	return nil
}

// newSecrets gives the lines that the configuration leaves as they are, but
// whose password files are others than when they were read, or that have a
// meter which could not be opened: applying is how one tries again.
func (a *Agent) newSecrets(next *configs.Config, diff configs.Diff) []string {
	var keys []string
	for _, l := range next.Lines() {
		r, runs := a.lines[l.Key]
		if runs && !slices.Contains(diff.LinesChanged, l.Key) && (len(r.broken) > 0 || r.dates != a.secretDates(l)) {
			keys = append(keys, l.Key)
		}
	}
	return keys
}

func (a *Agent) secretDates(l configs.Line) string {
	var b strings.Builder
	for _, m := range l.Meters {
		b.WriteString(a.addressDates(m.Address) + ";")
	}
	return b.String()
}

// addressDates tells the contents of the files of an address's secrets apart.
func (a *Agent) addressDates(addr address.Address) string {
	var b strings.Builder
	for i, s := range addr.Secrets() {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(a.secretDate(s.Secret))
	}
	return b.String()
}

// secretDate tells one content of a password file from another without
// telling anything of the content.
func (a *Agent) secretDate(s address.Secret) string {
	if name, ok := s.InStore(); ok {
		return a.vault.Mark(name)
	}
	path, ok := s.InFile()
	if !ok {
		return ""
	}
	info, err := os.Stat(path)
	if err != nil {
		return "none"
	}
	return info.ModTime().UTC().Format(time.RFC3339Nano)
}

// startLine opens the meters of a line and starts its poller. A meter that
// cannot be opened (a secret that is not there) is told and left out; the
// others go on. mu is held.
func (a *Agent) startLine(ctx context.Context, cfg *configs.Config, l configs.Line) {
	r := &runningLine{
		dates: a.secretDates(l), clocks: map[meter.ID]*meterClock{}, pulse: newPulse(),
	}
	r.open(l)
	var meters []poll.Meter
	for _, m := range l.Meters {
		v, credentials, err := a.openMeter(cfg, m, r)
		if err != nil {
			a.log.Error("meter cannot be opened", "line", l.Key, "meter", string(m.ID), "error", err)
			r.broken = append(r.broken, poll.Status{Meter: m.ID, Line: l.Key, State: poll.Failing, Err: err.Error()})
			continue
		}
		r.clocks[m.ID] = newMeterClock(cfg, m)
		pm := poll.Meter{ID: m.ID, Serial: m.Serial, Credentials: credentials, Visitor: v, Clock: r.clocks[m.ID]}
		for _, g := range m.Groups {
			pm.Groups = append(pm.Groups, groupOf(g))
		}
		a.fromModel(cfg, m, v, &pm)
		port, node := r.to(m)
		if pm.Free = port.Settle; node != nil {
			pm.Visitor = plc.Observe(v, node)
		}
		meters = append(meters, pm)
	}
	pc := poll.Config{
		Line: l.Key, Meters: meters, Sink: sink{a.intake, a}, Memory: a.state,
		Now: a.now, TimeZone: cfg.TimeZone, Log: a.log, Serial: l.Serial,
	}
	if !l.Serial {
		pc.Gate = a.gate
	}
	if r.bridge != nil {
		pc.Parallel, pc.VisitLimit, pc.Recent = parallel(l), plcVisitLimit, plcRecent
	}
	pc.Pulse = r.pulse.beat
	r.poller = poll.New(pc)
	r.task = a.start(ctx, "line "+l.Key, r.poller.Run)
	a.lines[l.Key] = r
}

// openMeter gives the driver of a meter, and the name of the credentials that it
// shows.
func (a *Agent) openMeter(cfg *configs.Config, m configs.Meter, r *runningLine) (v meter.Visitor, credentials string, err error) {
	secrets, err := m.Address.Resolve(a.sources())
	if err != nil {
		return nil, "", err
	}
	salt, err := a.state.Salt()
	if err != nil { // a full disk keeps nobody from reading meters
		a.log.Error("what meters refuse cannot be kept", "error", err)
	}
	dc := drivers.Config{
		ID: m.ID, Serial: m.Serial, Address: m.Address, Secrets: secrets, Counters: a.state, Caches: a.store,
		TimeZone: cfg.TimeZone, Now: a.now,
	}
	switch {
	case m.Address.Scheme.IsModbus():
		if dc.Model, err = cfg.Model(m.Address.Model); err != nil {
			return nil, "", err
		}
	case m.Address.Scheme.IsDLMS():
		if dc.DLMS, err = modelOf(cfg, m); err != nil {
			return nil, "", err
		}
	}
	l, node := r.to(m)
	dc.Node = node
	dc.NextKeys, dc.KeysFound = a.nextKeys(m)
	v, err = drivers.Open(dc, l)
	return v, state.Credentials(salt, drivers.Place(m.Address), drivers.Shown(secrets)...), err
}

// lend keeps the agent off a line until giveBack is called.
func (a *Agent) lend(ctx context.Context, name string) (giveBack func(), err error) {
	a.mu.Lock()
	r, ok := a.lines[a.lineKey(name)]
	a.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("line %s: %w", name, status.ErrUnused)
	}
	back, err := r.line.Lend(ctx)
	if err != nil {
		return nil, err
	}
	r.lent.Add(1)
	return func() {
		r.lent.Add(-1)
		back()
	}, nil
}

// lineKey finds the line that name means: its key, or another path of the same
// serial port. mu is held.
func (a *Agent) lineKey(name string) string {
	if _, ok := a.lines[name]; ok {
		return name
	}
	want, err := os.Stat(name)
	if err != nil {
		return name
	}
	for key := range a.lines {
		if have, err := os.Stat(key); err == nil && os.SameFile(want, have) {
			return key
		}
	}
	return name
}
