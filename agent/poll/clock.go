package poll

import (
	"time"

	"gridgate/internal/meter"
)

// keepClock hands what a visit found of a meter's clock to who decides about
// it, and what comes of it to the rows and cursors of the visit.
func (p *Poller) keepClock(m *meterState, got *meter.Got) {
	if m.Clock == nil || !m.proven || got.Identity.Exchanged() {
		return
	}
	m.Clock.Recall(func() (int64, bool, error) {
		c, ok, err := p.cfg.Sink.Cursor(m.ID, m.serial, meter.ClockCursor)
		return c.Time, ok, err
	})
	rows, keep := m.Clock.Took(p.cfg.Now(), got)
	for i := range rows {
		rows[i].Meter, rows[i].Serial = m.ID, got.Identity.Found
		if got.Identity.Found == "" {
			rows[i].Quality |= meter.IdentityNotProven
		}
	}
	got.Rows = append(got.Rows, rows...)
	if keep != 0 {
		got.Cursors = append(got.Cursors, meter.Cursor{Meter: m.ID, Serial: m.serial, Profile: meter.ClockCursor, Time: keep})
	}
	if s := got.ClockSet; s != nil {
		p.tellClockSet(m, s)
	}
}

func (p *Poller) tellClockSet(m *meterState, s *meter.ClockSet) {
	log := p.cfg.Log.With("line", p.cfg.Line, "meter", string(m.ID), "was_off", s.Before.Offset)
	switch {
	case s.Err == nil && s.After != nil:
		log.Info("meter clock set", "is_off", s.After.Offset)
	case s.Err == nil:
		log.Info("meter clock set, and not read back")
	case s.Sent:
		log.Warn("meter clock not set", "error", s.Err)
	default:
		log.Debug("meter clock left alone", "error", s.Err)
	}
}

// clockOrder gives what the visit that begins is to do about the meter's clock.
func (p *Poller) clockOrder(m *meterState) *meter.SetClock {
	if m.Clock == nil {
		return nil
	}
	if wait, order := m.Clock.Next(p.cfg.Now()); wait <= 0 {
		return order
	}
	return nil
}

// planClock has a visit made for the meter's clock when that is to be set. It is
// one of its own: those of aligned groups are where capture periods end.
func (p *Poller) planClock(m *meterState) {
	if m.Clock == nil {
		return
	}
	wait, order := m.Clock.Next(p.cfg.Now())
	m.setting = order != nil
	for i := range m.jobs {
		if j := &m.jobs[i]; j.class == clock && m.setting && m.failed.IsZero() {
			j.due = time.Now().Add(wait)
		}
	}
}
