package cosem

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

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
	// signOnTimeout is the longest that an answer of the text protocol may take.
	signOnTimeout = 3 * time.Second
	// signOns is how often a meter is called: it may sleep through the first.
	signOns = 2
)

// errSignOn says that the meter did not get as far as HDLC.
var errSignOn = errors.New("hand-over")

// signOn brings the meter to HDLC where that is needed.
func (l *link) signOn(ctx context.Context) error {
	if l.modeE == nil {
		return nil
	}
	c := modee.Config{
		Address: l.modeE.Address, SignOn: l.modeE.SignOn, MaxBaud: l.modeE.MaxBaud, Timeout: min(l.timeout, signOnTimeout),
		Switch: func(baud int, f modee.Format) error {
			s := line.Settings{Baud: baud}
			if f == modee.SevenE1 {
				s.DataBits, s.Parity = 7, 'E'
			}
			return l.port.Apply(s)
		},
	}
	var err error
	for range signOns {
		if _, err = modee.HandOver(ctx, timed{l.port}, c); err == nil {
			return nil
		}
		if !isTimeout(err) || ctx.Err() != nil {
			break
		}
	}
	return fmt.Errorf("%w: %w", errSignOn, err)
}

// explainModeE says why a meter did not go over to HDLC, nil when it is
// something else.
func (m *Meter) explainModeE(err error) error {
	if m.cfg.ModeE == nil || !errors.Is(err, errSignOn) {
		return nil
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
		return fmt.Errorf("the meter sends its registers as text and does not go over to HDLC (has it DLMS at this port, "+
			"and mode E switched on? One that speaks HDLC from the start is dlms+hdlc): %w", err)
	case errors.Is(err, modee.ErrRefused):
		return fmt.Errorf("the meter refused to go over to HDLC (is mode E switched on at this port, is a lower rate better, baud=2400?): %w", err)
	case errors.Is(err, modee.ErrRate):
		return fmt.Errorf("the meter cannot go over to HDLC (is it a meter with DLMS, and is baud= not below what it can do?): %w", err)
	case errors.Is(err, modee.ErrIdentification), errors.Is(err, modee.ErrGarbled):
		return fmt.Errorf("%w: what answers the sign-on is no meter's identification (does the head sit well, is %d bit/s right (signon=), "+
			"do two meters answer? %s): %w", meter.ErrGarbled, baud, who, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w to the sign-on at %d bit/s (does the head sit well and the right way up, is the meter on, %s "+
			"After a conversation that was cut off some need two minutes): %w", meter.ErrNoAnswer, baud, who, err)
	}
	return nil
}
