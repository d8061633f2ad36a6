package iec21

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"gridgate/internal/meter"
)

// worthAnother says whether a new sign-on may mend err. Silence is worth one
// only where tries are left.
func worthAnother(err error, tries bool) bool {
	switch {
	case errors.Is(err, meter.ErrAuthentication), errors.Is(err, errOther):
		return false
	case isTimeout(err):
		return tries
	}
	return errors.Is(err, errGarbled)
}

// afresh brings the line back to where a meter can be signed on to: it has
// fallen silent and has the rate of the sign-on.
func (s *session) afresh(ctx context.Context, m *Meter) error {
	if s == nil {
		return errGarbled
	}
	if err := s.hush(ctx, interChar); err != nil {
		return err
	}
	return s.change(m.settings(m.cfg.SignOn))
}

// explain says in the vocabulary's errors, and to a technician, why a session
// stopped.
func (m *Meter) explain(err error) error {
	who := "has it a device address (address=)?"
	if m.cfg.Address != "" {
		who = fmt.Sprintf("is its device address %q?", m.cfg.Address)
	}
	switch {
	case errors.Is(err, errSilent):
		return fmt.Errorf("%w: the meter fell silent after the sign-on (is a lower rate better, baud=300? Does the serial server change its rate?): %w",
			meter.ErrNoAnswer, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w to the sign-on at %d bit/s (does the head sit well and the right way up, is the meter on, %s): %w",
			meter.ErrNoAnswer, m.cfg.SignOn, who, err)
	case errors.Is(err, errGarbled):
		return fmt.Errorf("%w (does the head sit well, are signon= and format= right, do two meters answer? %s)", err, who)
	case isHangUp(err):
		return fmt.Errorf("%w: the serial server hung up: %w", meter.ErrNoAnswer, err)
	}
	return err
}

func isHangUp(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// unreachable says of a connection that did not come about that nobody
// answered, where that is what happened.
func unreachable(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: %w", meter.ErrNoAnswer, err)
	}
	for _, e := range []syscall.Errno{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ETIMEDOUT, syscall.ECONNRESET} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %w", meter.ErrNoAnswer, err)
		}
	}
	return err
}
