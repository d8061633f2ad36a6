package poll

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gridgate/internal/meter"
)

// AlarmExchanged is the channel of the alarm that another meter answers than
// the configured one; its value says in text which was found.
const AlarmExchanged meter.Channel = "event.meter-exchanged"

func (p *Poller) recallExchanges() {
	for _, m := range p.meters {
		m.alarmed = p.cfg.Memory.Exchanged(m.ID)
	}
}

// keepExchange remembers for which serial number there was an alarm, after it
// was handed on: a crash between repeats it.
func (p *Poller) keepExchange(m *meterState) {
	if p.cfg.Memory.Exchanged(m.ID) == m.alarmed {
		return
	}
	if err := p.cfg.Memory.SetExchanged(m.ID, m.alarmed); err != nil {
		p.cfg.Log.Error("the alarm of an exchanged meter cannot be remembered", "meter", string(m.ID), "error", err)
	}
}

// refused says whether the meter refused its credentials too often to be shown
// them again, and follows what tools found meanwhile.
func (p *Poller) refused(m *meterState) bool {
	n, _ := p.cfg.Memory.Refusals(m.Credentials)
	switch {
	case n >= authLimit && !m.locked:
		p.lock(m, errors.New("it refused our credentials before, here or by a tool"))
	case n < authLimit && m.locked && !m.unkept:
		m.locked = false
		p.become(m, Waiting, "")
	}
	return m.locked
}

// visit visits m for all its groups that are due.
func (p *Poller) visit(ctx context.Context, m *meterState) {
	now := time.Now()
	ask, groups, blocked := p.ask(m, now)
	if len(groups) == 0 {
		p.become(m, Failing, blocked[0].Error())
		return
	}
	got, err := m.Visitor.Visit(ctx, ask)
	if ctx.Err() != nil && !errors.Is(err, meter.ErrAuthentication) {
		err = nil // a stop is no failure of the meter; what came before it counts
		groups = nil
	}
	got.Failures = append(got.Failures, blocked...)
	again := p.identify(m, &got, len(ask.Profiles) > 0, err == nil)
	p.submit(m, got)
	p.keepExchange(m)
	for _, i := range groups {
		isProfile := m.Groups[i].Profile != ""
		if again && !m.again && isProfile && err == nil {
			continue // still due: now with the cursor of the meter that answers
		}
		m.due[i] = p.after(m.Groups[i], m.due[i], now)
	}
	m.again = again // one that shows another serial each time has its turn like the others
	switch {
	case err != nil:
		p.failed(m, err)
	case ctx.Err() == nil:
		p.succeeded(m, got)
	}
}

// ask gathers what is due. Profiles wait for the visit that first shows the
// meter's serial number, because cursors are kept by it. A profile whose cursor
// cannot be read is blocked and tried again soon; the registers are read.
func (p *Poller) ask(m *meterState, now time.Time) (ask meter.Ask, groups []int, blocked []meter.Failure) {
	for i, g := range m.Groups {
		if m.due[i].After(now) {
			continue
		}
		if g.Profile == "" {
			groups = append(groups, i)
			ask.Groups = append(ask.Groups, meter.Group{Name: g.Name, Lane: g.Lane, Channels: g.Channels})
			continue
		}
		if !m.proven {
			groups = append(groups, i)
			continue
		}
		since := now.Add(-firstReach).UnixMilli()
		cursor, ok, err := p.cfg.Sink.Cursor(m.ID, m.serial, g.Profile)
		if err != nil {
			m.due[i] = now.Add(cursorRetry)
			blocked = append(blocked, meter.Failure{Channel: g.Profile, Err: fmt.Errorf("cursor: %w", err)})
			continue
		}
		if ok {
			since = cursor.Time
		}
		groups = append(groups, i)
		ask.Profiles = append(ask.Profiles, meter.Profile{Channel: g.Profile, Lane: g.Lane, Since: since})
	}
	return ask, groups, blocked
}

// identify looks at who answered. It gives true when profiles must be asked
// again, because they were asked with another meter's cursors or not at all.
func (p *Poller) identify(m *meterState, got *meter.Got, askedProfiles, answered bool) (again bool) {
	found := got.Identity.Found
	// Drivers ask who answers before they read anything. So a meter that gave
	// rows and no serial number has none, and its cursors are kept under none.
	answered = answered || len(got.Rows)+len(got.Cursors) > 0
	known := m.proven && (found == m.serial || found == "" && !answered)
	if !known && (found != "" || answered) {
		again = true
		m.serial, m.proven = found, true
		if askedProfiles {
			got.Cursors = nil
			got.Rows = slices.DeleteFunc(got.Rows, func(r meter.Row) bool { return r.Stamp.Source == meter.FromMeter })
		}
	}
	switch {
	case got.Identity.Exchanged() && m.alarmed != found:
		m.alarmed = found
		p.cfg.Log.Error("meter exchanged: another meter answers than the configured one; its rows are kept under the serial found",
			"line", p.cfg.Line, "meter", string(m.ID), "configured", m.Serial, "found", found)
		got.Rows = append(got.Rows, meter.Row{
			Meter: m.ID, Serial: found, Channel: AlarmExchanged, Lane: meter.Alarm, Stamp: p.cfg.Now(),
			Value: meter.TextValue(fmt.Sprintf("configured %s, found %s", m.Serial, found)),
		})
	case found != "" && !got.Identity.Exchanged():
		m.alarmed = ""
	}
	return again
}

// submit hands the rows on. Rows of profiles travel with their cursors, apart
// from registers, so that under pressure they can be given up and read again.
func (p *Poller) submit(m *meterState, got meter.Got) {
	rows := len(got.Rows)
	if len(got.Cursors) > 0 {
		var profile, registers []meter.Row
		for _, r := range got.Rows {
			if r.Stamp.Source == meter.FromMeter {
				profile = append(profile, r)
			} else {
				registers = append(registers, r)
			}
		}
		p.cfg.Sink.Submit(profile, got.Cursors)
		got.Rows = registers
	}
	p.cfg.Sink.Submit(got.Rows, nil)
	p.mu.Lock()
	m.status.Visits++
	m.status.Rows += uint64(rows)
	if got.Identity.Found != "" {
		m.status.Serial = got.Identity.Found
	}
	p.mu.Unlock()
}

func (p *Poller) succeeded(m *meterState, got meter.Got) {
	m.pause, m.notBefore, m.doubtful = 0, time.Time{}, 0
	if err := p.cfg.Memory.Accepted(m.Credentials); err != nil {
		p.cfg.Log.Error("the count of refused authentications cannot be kept", "meter", string(m.ID), "error", err)
	}
	state, text := OK, ""
	if len(got.Failures) > 0 {
		state, text = Partial, got.Failures[0].Error()
		if n := len(got.Failures) - 1; n > 0 {
			text += fmt.Sprintf(" (and %d more)", n)
		}
	}
	if got.Identity.Exchanged() {
		state = Exchanged
		text = fmt.Sprintf("configured serial is %s, found %s: correct the configuration or the wiring", m.Serial, got.Identity.Found)
	}
	p.become(m, state, text)
}

func (p *Poller) failed(m *meterState, err error) {
	m.pause = min(max(2*m.pause, pauseFirst), pauseMost)
	m.notBefore = time.Now().Add(m.pause)
	if !p.isRefusal(m, err) {
		p.become(m, Failing, err.Error())
		return
	}
	n, countErr := p.cfg.Memory.Refused(m.Credentials, time.Now())
	m.unkept = countErr != nil
	if n >= authLimit || m.unkept { // a refusal that cannot be counted is the last one
		p.lock(m, err)
		return
	}
	p.become(m, Failing, err.Error())
}

// isRefusal says whether a failed visit counts as a refusal of the credentials.
// A meter that falls silent or hangs up over our proof may have refused it: with
// credentials that it never took that counts; with others the line is the
// likelier cause, until it comes again and again.
func (p *Poller) isRefusal(m *meterState, err error) bool {
	if errors.Is(err, meter.ErrAuthentication) {
		m.doubtful = 0
		return true
	}
	var doubt interface{ MayBeRefusal() bool }
	if !errors.As(err, &doubt) || !doubt.MayBeRefusal() {
		m.doubtful = 0
		return false
	}
	m.doubtful++
	return m.doubtful >= doubtLimit || !p.cfg.Memory.WasAccepted(m.Credentials)
}

func (p *Poller) lock(m *meterState, err error) {
	m.locked = true
	p.become(m, LockedOut, fmt.Sprintf("%v; not tried again with these credentials, since meters lock out: correct them, "+
		"or try them by hand with gridgate read -force, which takes the lock away if the meter lets it in", err))
}

// become notes the state of a meter and logs it when it is another than
// before.
func (p *Poller) become(m *meterState, state State, text string) {
	p.mu.Lock()
	before := m.status
	m.status.State, m.status.Err = state, text
	if state == OK || state == Partial || state == Exchanged {
		m.status.Since = time.Now()
	}
	p.mu.Unlock()
	if before.State == state && (before.Err == text || state == Failing) {
		return
	}
	log := p.cfg.Log.With("line", p.cfg.Line, "meter", string(m.ID))
	switch state {
	case OK:
		log.Info("meter reads", "serial", m.status.Serial)
	case Partial, Failing:
		log.Warn("meter does not read", "state", string(state), "error", text)
	case LockedOut:
		log.Error("meter locked", "error", text)
	case Exchanged, Waiting: // logged where it was found
	}
}
