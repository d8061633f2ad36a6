package poll

import (
	"errors"
	"fmt"
	"time"

	"gridgate/internal/meter"
)

const (
	authLimit  = 2 // refusals, after which a meter may lock out for good
	pauseFirst = 5 * time.Second
	pauseMost  = time.Hour
	// A meter that is dead for longer than deadAfter is tried once a day.
	deadAfter = 3 * day
	pauseDead = day
	// together is how near one another the outages of meters begin that have
	// one cause: a feeder, an adapter.
	together = 2 * time.Minute
)

func (p *Poller) recallLockouts() {
	for _, m := range p.meters {
		if p.cfg.Lockouts.AuthFailures(m.ID, m.Fingerprint) >= authLimit {
			p.lock(m, errors.New("it refused our credentials before this start"))
		}
	}
}

func (p *Poller) succeeded(m *meterState, got meter.Got) {
	if !m.failed.IsZero() {
		m.recovered = m.failed
	}
	m.pause, m.notBefore, m.failed = 0, time.Time{}, time.Time{}
	p.forgive(m)
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

// lacksLine says whether a visit failed because the serial port is gone.
func (p *Poller) lacksLine(err error) bool { return p.cfg.Serial && errors.Is(err, meter.ErrNoLine) }

// failed makes the pause before the next visit. A port that is gone is held
// against the line and not against the meter.
func (p *Poller) failed(m *meterState, err error) {
	now := time.Now()
	if p.lacksLine(err) {
		m.lineGone = true
		p.become(m, Failing, err.Error())
		return
	}
	if m.failed.IsZero() {
		m.failed = now
	}
	m.pause = min(max(2*m.pause, pauseFirst), pauseMost)
	if now.Sub(m.failed) > deadAfter {
		m.pause = pauseDead
	}
	m.notBefore = now.Add(m.pause)
	if !errors.Is(err, meter.ErrAuthentication) {
		p.become(m, Failing, err.Error())
		return
	}
	n := p.cfg.Lockouts.AuthFailures(m.ID, m.Fingerprint) + 1
	countErr := p.cfg.Lockouts.SetAuthFailures(m.ID, m.Fingerprint, n)
	if n >= authLimit || countErr != nil { // a refusal that cannot be counted is the last one
		p.lock(m, err)
		return
	}
	p.become(m, Failing, err.Error())
}

// cameBack looks at what the visit that ended says of the line and of others.
// When the port is gone no meter is visited for a moment. When a meter answers
// again, those that fell silent with it are tried too.
func (p *Poller) cameBack(m *meterState) {
	p.noLine = time.Time{}
	if m.lineGone {
		m.lineGone = false
		p.noLine = time.Now().Add(lineRetry)
		return
	}
	if m.recovered.IsZero() {
		return
	}
	began := m.recovered
	m.recovered = time.Time{}
	for _, o := range p.meters {
		if o != m && !o.busy && !o.failed.IsZero() && o.failed.Sub(began).Abs() < together {
			o.notBefore = time.Time{}
		}
	}
}

func (p *Poller) lock(m *meterState, err error) {
	m.locked = true
	p.become(m, LockedOut, fmt.Sprintf("%v; not tried again until its configuration changes, since meters lock out", err))
}

// forgive clears the count of refusals after a session that was accepted.
func (p *Poller) forgive(m *meterState) {
	if p.cfg.Lockouts.AuthFailures(m.ID, m.Fingerprint) == 0 {
		return
	}
	if err := p.cfg.Lockouts.SetAuthFailures(m.ID, m.Fingerprint, 0); err != nil {
		p.cfg.Log.Error("the count of refused authentications cannot be kept", "meter", string(m.ID), "error", err)
	}
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
