// Package iec21 reads meters by the text protocol of IEC 62056-21 (once IEC
// 1107): over optical heads, current loops and serial servers.
//
//	300 bit/s, 7E1
//	/?12345678!                    →      who is there?
//	                               ←      /LGZ4ZMD310…, an identification
//	ACK 0 4 0                      →      mode C: a readout, at 4800 bit/s
//	4800 bit/s
//	                               ←      STX 1.8.0(001234.5*kWh) … ! CR LF ETX BCC
//
//	ACK 0 4 1                      →      or the programming mode
//	                               ←      SOH P0 STX (…) ETX BCC
//	SOH P1 STX (password) ETX BCC  →
//	                               ←      ACK
//	SOH R5 STX 1.8.0() ETX BCC     →      a register, or P.01(from;to), the load profile
//	                               ←      STX 1.8.0(001234.5*kWh) ETX BCC
//	SOH B0 ETX BCC                 →
//
// In modes A and B the readout follows the identification at once. What came
// without a check character is flagged meter.IdentityNotProven: not even the
// serial number in it is sure.
package iec21

import (
	"context"
	"fmt"
	"time"

	"gridgate/dlms"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// DefaultTimeout is how long an answer may take to begin: the 1.5 s of the
// standard, and what a serial server adds.
const DefaultTimeout = 2 * time.Second

// Config is one meter.
type Config struct {
	ID     meter.ID
	Serial string // the expected serial number; empty when none is configured
	// Address is the device address; "" is whoever is there, on a line of one.
	Address string
	Mode    Mode
	SignOn  int // rate of the sign-on, in bit/s; 0 is 300
	MaxBaud int // the highest rate taken in mode C, in bit/s; 0 is what the meter offers
	// Format has the data bits, the parity and the stop bits of a serial port;
	// its rate does not count. Zero is 7E1. With 8N1 the parity is checked here,
	// where the meter's shows.
	Format line.Settings
	// Password opens the programming mode, which then serves what the readout
	// does not have. Profiles are read without one, too.
	Password dlms.Secret
	Timeout  time.Duration // until an answer begins; 0 is DefaultTimeout
	Now      meter.Now
	// TimeZone is the zone of the meter's clock; nil is UTC.
	TimeZone *time.Location
}

// Meter reads one meter; it implements meter.Visitor. It keeps no session
// between visits. It is not safe for concurrent use; its line is.
type Meter struct {
	cfg  Config
	line *line.Line

	// What the meter showed in earlier visits.
	answered bool                   // it did, the last time
	absent   map[meter.Channel]bool // refused in the programming mode
	command  byte                   // the read command that it takes; 0 is not known
	seasoned bool                   // its times begin with a season
	serialAt string                 // the address of its serial number
	shows    map[meter.Channel]bool // profiles that were read
	visits   uint64                 // counts the visits
	refusals map[stretch]uint64     // the visits in which windows of profiles were first refused
}

// New gives the driver of a meter on a line. It sends nothing.
func New(cfg Config, l *line.Line) *Meter {
	if cfg.SignOn <= 0 {
		cfg.SignOn = bauds()[0]
	}
	if cfg.Format.DataBits == 0 {
		cfg.Format = line.Settings{DataBits: 7, Parity: 'E', StopBits: 1}
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.TimeZone == nil {
		cfg.TimeZone = time.UTC
	}
	return &Meter{cfg: cfg, line: l, absent: map[meter.Channel]bool{}}
}

// Close ends the use of the meter. The line is the caller's.
func (m *Meter) Close() error { return nil }

// settings gives those of the line at a rate.
func (m *Meter) settings(baud int) line.Settings {
	s := m.cfg.Format
	s.Baud = baud
	return s
}

// Visit reads what ask says. See meter.Visitor. A group without channels is all
// that the readout has. Errors are meter.ErrAuthentication, meter.ErrNoAnswer
// and meter.ErrGarbled where they are that.
func (m *Meter) Visit(ctx context.Context, ask meter.Ask) (meter.Got, error) {
	m.visits++
	v := &visit{Meter: m, got: meter.Got{Identity: meter.Identity{Want: m.cfg.Serial}}}
	if len(ask.Acts) > 0 {
		v.got.Done = meter.RefuseActs(ask.Acts, m.cfg.Now(), fmt.Errorf("%w: IEC 62056-21 has nothing for it", meter.ErrCannotAct))
	}
	err := v.run(ctx, ask)
	return v.got, err
}

// tries is how often a meter is called: a sleeping one may miss the first. One
// that did not answer the last time is called once.
func (m *Meter) tries() int {
	if m.answered {
		return 2
	}
	return 1
}

// converse signs on and has one session. Damage is answered with a new sign-on.
func (m *Meter) converse(ctx context.Context, want byte, do func(context.Context, *session) error) error {
	began := false
	err := m.line.Do(ctx, m.settings(m.cfg.SignOn), func(ctx context.Context, port line.Port) error {
		began = true
		var err error
		for try := range maxSignOns {
			var s *session
			s, err = m.begin(ctx, port, want)
			if err == nil {
				err = do(ctx, s)
			}
			if err == nil {
				m.answered = true
				return nil
			}
			if ctx.Err() != nil || !worthAnother(err, try+1 < m.tries()) {
				break
			}
			if err := s.afresh(ctx, m); err != nil {
				break
			}
		}
		m.answered = m.answered && !isTimeout(err)
		return m.explain(err)
	})
	if err != nil && !began {
		return unreachable(err)
	}
	return err
}

// maxSignOns bounds the sign-ons of a session.
const maxSignOns = 2
