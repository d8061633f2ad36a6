package iec21

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"gridgate/dlms/modee"
	"gridgate/drivers/line"
)

// Mode is how a meter is read (IEC 62056-21, 6.4).
type Mode uint8

// The modes.
const (
	Auto        Mode = iota // A, B or C, as the identification says
	ModeA                   // the readout follows at once, at the rate of the sign-on
	ModeB                   // the readout follows at once, at the rate that the meter tells
	ModeC                   // the readout is asked for, at a rate that is agreed on
	Programming             // no readout: registers are asked for one by one, in the programming mode of mode C
)

// What may be asked for in mode C.
const (
	dataReadout     = '0'
	programmingMode = '1'
)

const (
	maxAddress = 32
	reaction   = 200 * time.Millisecond // before a meter is written to
	fast       = 20 * time.Millisecond  // the same, for those with a small third letter
)

// errRate says that the rates of meter and configuration do not meet.
var errRate = errors.New("no common rate")

// errMode says that the meter has no programming mode.
var errMode = errors.New("the meter is one of mode A or B: it has a readout and no registers to ask for")

// bauds are the rates of mode C by their digits; mode B has them from A on,
// without the first (IEC 62056-21, 6.3.14).
func bauds() []int { return []int{300, 600, 1200, 2400, 4800, 9600, 19200} }

// modeOf tells the mode and the highest rate from the character of the rate.
func modeOf(rate byte) (Mode, int) {
	all := bauds()
	switch {
	case rate >= '0' && int(rate-'0') < len(all):
		return ModeC, all[rate-'0']
	case rate >= '0' && rate <= '9':
		return ModeC, all[0] // reserved; every meter has this one
	case rate >= 'A' && int(rate-'A')+1 < len(all):
		return ModeB, all[rate-'A'+1]
	}
	return ModeA, 0
}

// session is one sign-on and what follows it.
type session struct {
	*conn
	id      modee.Identification
	mode    Mode
	pause   time.Duration // before we write
	command byte          // of reads; 0 until one was answered
}

// begin signs on and brings the line to where the meter sends what is wanted.
func (m *Meter) begin(ctx context.Context, port line.Port, want byte) (*session, error) {
	if len(m.cfg.Address) > maxAddress || !isDevice(m.cfg.Address) {
		return nil, modee.ErrAddress
	}
	s := &session{conn: &conn{
		port: port, now: m.cfg.Now, timeout: m.cfg.Timeout, char: m.settings(m.cfg.SignOn).CharTime(),
	}}
	if err := s.settle(ctx, m.line.Idle()); err != nil {
		return s, err
	}
	request := []byte("/?" + m.cfg.Address + "!\r\n")
	if err := s.write(ctx, request); err != nil {
		return s, err
	}
	var err error
	if s.id, err = s.identification(ctx, string(request)); err != nil {
		return s, fmt.Errorf("sign-on: %w", err)
	}
	s.pause = reaction
	if third := s.id.Maker[2]; third >= 'a' && third <= 'z' {
		s.pause = fast
	}
	mode, offered := modeOf(s.id.Rate)
	switch m.cfg.Mode {
	case Auto:
	case Programming:
		mode = ModeC
	case ModeA, ModeB, ModeC:
		mode = m.cfg.Mode
	}
	s.mode = mode
	switch {
	case mode != ModeC && want == programmingMode:
		return s, errMode
	case mode == ModeA:
		return s, nil
	case mode == ModeB && offered == 0:
		return s, fmt.Errorf("%w: the meter names no rate of mode B: %v", errRate, s.id)
	case mode == ModeB:
		return s, s.change(m.settings(offered))
	}
	return s, m.acknowledge(ctx, s, max(offered, bauds()[0]), want)
}

// acknowledge chooses a rate and what is to follow.
func (m *Meter) acknowledge(ctx context.Context, s *session, offered int, want byte) error {
	at := -1
	for n, baud := range bauds() {
		if baud <= offered && (m.cfg.MaxBaud <= 0 || baud <= m.cfg.MaxBaud) {
			at = n
		}
	}
	if at < 0 {
		return fmt.Errorf("%w: at most %d bit/s", errRate, m.cfg.MaxBaud)
	}
	if err := pause(ctx, s.pause); err != nil {
		return err
	}
	if err := s.write(ctx, []byte{ack, '0', '0' + byte(at), want, '\r', '\n'}); err != nil {
		return err
	}
	return s.change(m.settings(bauds()[at]))
}

// between is how long a meter listens after its readout, at its rate, for a
// NAK; only then does it hear a sign-on.
const between = interChar + reaction

// settle waits for the end of an earlier conversation, idle ago, and throws away
// what is left of it: a meter that was left within its readout goes on with it.
func (s *session) settle(ctx context.Context, idle time.Duration) error {
	if err := s.port.Discard(); err != nil {
		return err
	}
	_, err := s.octet(ctx, max(between-idle, reaction))
	switch {
	case isTimeout(err):
		return context.Cause(ctx)
	case err != nil:
		return err
	}
	return s.hush(ctx, interChar)
}

func (s *session) change(to line.Settings) error {
	s.wire = 0
	s.char = to.CharTime()
	return s.port.Apply(to)
}

// identification waits for the line of a meter; an echo of the request is
// passed over.
func (s *session) identification(ctx context.Context, request string) (modee.Identification, error) {
	var got []byte
	wait := s.timeout + s.wire
	for range maxNoise {
		b, err := s.octet(ctx, wait)
		switch {
		case err != nil && len(got) > 0:
			return modee.Identification{}, inside(err)
		case err != nil:
			return modee.Identification{}, err
		case b == '/':
			got = got[:0]
			s.resetParity()
		case len(got) == 0:
			continue
		}
		wait = interChar
		if got = append(got, b); b != '\n' {
			continue
		}
		if string(got) == request {
			got, wait = got[:0], s.timeout+s.wire
			continue
		}
		if err := s.parity(); err != nil {
			return modee.Identification{}, err
		}
		id, err := modee.ParseIdentification(got)
		if err != nil {
			return id, fmt.Errorf("%w: %w", errGarbled, err)
		}
		return id, nil
	}
	return modee.Identification{}, fmt.Errorf("%w: noise", errGarbled)
}

func isDevice(s string) bool {
	return strings.Trim(s, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz ") == ""
}
