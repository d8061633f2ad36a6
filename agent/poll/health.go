package poll

import (
	"errors"
	"fmt"
	"time"

	"gridgate/internal/meter"
)

const (
	authLimit = 2 // refusals, after which a meter may lock out for good
	// doubtLimit is how many visits in a row that may have been refused, or cut
	// off by the line, count as a refusal of credentials that the meter took
	// before. Two of those lock it: six visits in a row, which a line that
	// loses one in twenty just there does to one meter of a thousand in two years.
	doubtLimit = 5
	pauseFirst = 5 * time.Second
	pauseMost  = time.Hour
	// A meter that is dead for longer than deadAfter is tried once a day.
	deadAfter = 3 * day
	pauseDead = day
	// together is how near one another the outages of meters begin that have
	// one cause: a feeder, an adapter.
	together = 2 * time.Minute
)

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

func (p *Poller) succeeded(m *meterState, got meter.Got) {
	if !m.failed.IsZero() {
		m.recovered = m.failed
	}
	m.pause, m.notBefore, m.failed, m.doubtful = 0, time.Time{}, time.Time{}, 0
	p.accepted(m)
	state, text, result := OK, "", Answered
	if len(got.Failures) > 0 {
		result = Partly
		state, text = Partial, got.Failures[0].Error()
		if n := len(got.Failures) - 1; n > 0 {
			text += fmt.Sprintf(" (and %d more)", n)
		}
	}
	if got.Identity.Exchanged() {
		state = Exchanged
		text = fmt.Sprintf("configured serial is %s, found %s: correct the configuration or the wiring", m.Serial, got.Identity.Found)
	}
	p.count(m, result)
	p.become(m, state, text)
}

// accepted clears the count of refusals after a session that the meter took.
func (p *Poller) accepted(m *meterState) {
	if err := p.cfg.Memory.Accepted(m.Credentials); err != nil {
		p.cfg.Log.Error("the count of refused authentications cannot be kept", "meter", string(m.ID), "error", err)
	}
}

// lacksLine says whether a visit failed because the serial port is gone.
func (p *Poller) lacksLine(err error) bool { return p.cfg.Serial && errors.Is(err, meter.ErrNoLine) }

// failed makes the pause before the next visit. A port that is gone is held
// against the line and not against the meter.
func (p *Poller) failed(m *meterState, err error) {
	now := time.Now()
	p.count(m, resultOf(err))
	if p.lacksLine(err) {
		m.lineGone = true
		p.become(m, Failing, err.Error())
		p.mu.Lock()
		m.status.Gone = true
		p.mu.Unlock()
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

// isRefusal says whether a failed visit counts as a refusal of the credentials.
// A meter that falls silent or hangs up over our proof may have refused it: with
// credentials that it never took that counts; with others the line is the
// likelier cause, until it comes again and again.
func (p *Poller) isRefusal(m *meterState, err error) bool {
	if errors.Is(err, meter.ErrAuthentication) {
		m.doubtful = 0
		return true
	}
	if !mayBeRefusal(err) {
		m.doubtful = 0
		return false
	}
	m.doubtful++
	return m.doubtful >= doubtLimit || !p.cfg.Memory.WasAccepted(m.Credentials)
}

func mayBeRefusal(err error) bool {
	var doubt interface{ MayBeRefusal() bool }
	return errors.As(err, &doubt) && doubt.MayBeRefusal()
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
	m.status.State, m.status.Err, m.status.Gone = state, text, false
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
