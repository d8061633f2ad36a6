package cosem

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gridgate/dlms/hdlc"
	"gridgate/dlms/modee"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// ModeE is how a meter is brought to HDLC that wakes with the text protocol of
// its optical port (IEC 62056-21, mode E).
type ModeE struct {
	Address string // of the device; "" is whoever is there
	SignOn  int    // rate of the sign-on, in bit/s; 0 is 300
	MaxBaud int    // the highest rate taken, in bit/s; 0 is what the meter offers
}

const (
	// signOnTimeout is the longest that an answer of the text protocol may
	// take, and reactionTime the shortest that it has to be given (IEC
	// 62056-21, 6.3.14: 1.5 s, and some are late).
	signOnTimeout = 3 * time.Second
	reactionTime  = 1600 * time.Millisecond
	// keepAwake is for how long a meter that is not spoken to stays with HDLC:
	// 120 s, unless its object IEC HDLC setup says otherwise.
	keepAwake = 100 * time.Second
)

// errSignOn says that the meter did not get as far as HDLC.
var errSignOn = errors.New("hand-over")

// sleeps says whether the meter is back to its text protocol by now.
func (m *Meter) sleeps() bool { return m.cfg.ModeE != nil && time.Since(m.wire.last) > keepAwake }

// settings are those that an exchange begins with.
func (m *Meter) settings() line.Settings {
	if m.cfg.ModeE != nil && m.client != nil && !m.sleeps() {
		return line.Settings{Baud: m.wire.rate}
	}
	return m.cfg.Settings
}

// signOn brings the meter to HDLC where that is needed. Where it is silent, it
// is called a second time: it may sleep through the first, or still be with the
// HDLC of before, at its rate. All that is within one time-out.
func (l *link) signOn(ctx context.Context) error {
	m := l.meter
	if m.cfg.ModeE == nil {
		return nil
	}
	tries, before := 2, m.wire.rate
	if before > 0 {
		tries = 3
	}
	wait := m.cfg.Timeout / time.Duration(tries)
	if wait < reactionTime {
		tries, wait = 1, m.cfg.Timeout
	}
	m.wire.once = min(wait, signOnTimeout)
	defer func() { m.wire.once = 0 }()
	var err error
	for n := range tries {
		if n == 1 && before > 0 {
			l.wake(ctx, before)
			continue
		}
		if err = l.handOver(ctx); err == nil {
			return nil
		}
		if !isSilent(err) || ctx.Err() != nil {
			break
		}
	}
	return fmt.Errorf("%w: %w", errSignOn, l.silence(err))
}

func isSilent(err error) bool { return errors.Is(err, errSilent) || isTimeout(err) }

func (l *link) handOver(ctx context.Context) error {
	m := l.meter
	r, err := modee.HandOver(ctx, patient{m.wire}, modee.Config{
		Address: m.cfg.ModeE.Address, SignOn: m.cfg.ModeE.SignOn, MaxBaud: m.cfg.ModeE.MaxBaud, Timeout: m.wire.once,
		Switch: func(baud int, f modee.Format) error { return l.port.Apply(modeESettings(baud, f)) },
	})
	if err != nil {
		return err
	}
	m.wire.rate, m.wire.open, l.handed = r.Baud, false, true
	return nil
}

// patient is a wire whose time-outs are what they are.
type patient struct{ *wire }

func (p patient) Read(b []byte) (int, error) { return p.port.Read(b) }

func modeESettings(baud int, f modee.Format) line.Settings {
	s := line.Settings{Baud: baud}
	if f == modee.SevenE1 {
		s.DataBits, s.Parity = 7, 'E'
	}
	return s
}

// wake brings a meter back to the text protocol that still has HDLC at a rate.
func (l *link) wake(ctx context.Context, rate int) {
	if l.port.Apply(line.Settings{Baud: rate}) == nil {
		const noRetries = -1
		_ = l.newHDLC(hdlc.Default(), noRetries).Disconnect(ctx)
		l.meter.wire.open = false
	}
}

// explainModeE says why a meter did not go over to HDLC, nil when it is
// something else.
func (m *Meter) explainModeE(client uint16, err error) error {
	if m.cfg.ModeE == nil || !errors.Is(err, errSignOn) {
		return m.explainHandedOver(client, err)
	}
	own, baud := *m.cfg.ModeE, 300
	if own.SignOn > 0 {
		baud = own.SignOn
	}
	who := "has it a device address (address=)?"
	if own.Address != "" {
		who = fmt.Sprintf("is its device address %q?", own.Address)
	}
	switch {
	case errors.Is(err, modee.ErrReadout):
		return fmt.Errorf("the meter offers mode C, not E: it sends its registers as text and does not go over to HDLC (has it DLMS at this port, "+
			"and mode E switched on? One that speaks HDLC from the start is dlms+hdlc): %w", err)
	case errors.Is(err, modee.ErrRefused):
		return fmt.Errorf("the meter refused to go over to HDLC (is mode E switched on at this port, is a lower rate better, baud=2400?): %w", err)
	case errors.Is(err, modee.ErrRate):
		return fmt.Errorf("the meter cannot go over to HDLC (is it a meter with DLMS, and is baud= not below what it can do?): %w", err)
	case errors.Is(err, modee.ErrIdentification), errors.Is(err, modee.ErrGarbled):
		return fmt.Errorf("%w: what answers the sign-on is no meter's identification (does the head sit well, is %d bit/s right (signon=), "+
			"do two meters answer? %s): %w", meter.ErrGarbled, baud, who, err)
	case isTimeout(err):
		return fmt.Errorf("%w to the sign-on at %d baud 7E1: is the head on the meter, the right way up, is the meter on, %s "+
			"After a conversation that was cut off some need two minutes: %w", meter.ErrNoAnswer, baud, who, err)
	}
	return nil
}

// explainHandedOver says why a meter that signed on is silent in HDLC, nil when
// it is something else.
func (m *Meter) explainHandedOver(client uint16, err error) error {
	if m.cfg.ModeE == nil || m.link == nil || !m.link.handed || m.link.connected || !errors.Is(err, errSilent) {
		return nil
	}
	return fmt.Errorf("%w in HDLC at %d baud 8N1, after the meter had signed on (does the head do that rate, baud=2400? "+
		"Does the meter know %s?): %w", meter.ErrNoAnswer, m.wire.rate, m.addressed(client), err)
}
