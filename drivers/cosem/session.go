package cosem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/wrapper"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// errStale says that the association that was kept is gone.
var errStale = errors.New("the association was gone")

// link is the line as a dlms.Transport: the wrapper, and a deadline for each
// answer. A port is good for one visit.
type link struct {
	client, server uint16
	timeout        time.Duration
	port           line.Port
	conn           *wrapper.Conn
}

func (l *link) use(port line.Port) {
	l.port = port
	l.conn = wrapper.NewConn(port, l.client, l.server, maxAPDU)
}

// Send sends a request; from now on the time for its answer runs.
func (l *link) Send(_ context.Context, apdu []byte) error {
	if err := l.port.SetDeadline(time.Now().Add(l.timeout)); err != nil {
		return err
	}
	return l.conn.Send(apdu)
}

// Receive waits for an answer. The line interrupts it when ctx ends.
func (l *link) Receive(_ context.Context, b []byte) ([]byte, error) { return l.conn.Receive(b) }

// session takes up the association that is open on the line, or opens one.
// kept says that it was open already.
func (m *Meter) session(ctx context.Context, port line.Port) (kept bool, err error) {
	if m.client != nil && m.opened == m.line.Opened() {
		m.link.use(port)
		return true, nil
	}
	m.client, m.known, m.serial = nil, false, ""
	m.link = &link{client: m.cfg.Client, server: m.cfg.Server, timeout: m.cfg.Timeout}
	m.link.use(port)
	o := dlms.Options{}
	if m.cfg.Auth == AuthLLS {
		o.Mechanism, o.Password = dlms.LLS, m.cfg.Password
	}
	client := dlms.NewClient(m.link, o)
	if _, err := client.Associate(ctx); err != nil {
		return false, err
	}
	m.client, m.opened = client, m.line.Opened()
	return false, nil
}

// release ends the association in good order, or with the connection.
func (m *Meter) release(ctx context.Context, port line.Port) {
	err := m.client.Release(ctx)
	m.client = nil
	if err != nil {
		port.Drop()
	}
}

// end gives up the association and the connection: what may still come on it
// cannot be told from an answer to what is asked next.
func (m *Meter) end(port line.Port) {
	m.client = nil
	port.Drop()
}

// isForgotten says whether err is what comes of a meter that has forgotten the
// association: it hangs up, keeps silent, or does not allow the service.
func isForgotten(err error) bool {
	const serviceNotAllowed = 1 // state-error of an exception
	var exception *dlms.ExceptionError
	return errors.As(err, &exception) && exception.State == serviceNotAllowed ||
		isHangUp(err) || errors.Is(err, os.ErrDeadlineExceeded)
}

func isHangUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// explain says in the vocabulary's errors, and to a technician, why a visit
// stopped.
func (m *Meter) explain(err error) error {
	var refusal *dlms.AssociationError
	switch {
	case errors.Is(err, dlms.ErrAuthentication):
		return fmt.Errorf("the meter refused client %d: %w (%s): %w", m.cfg.Client, meter.ErrAuthentication, m.advice(err), err)
	case errors.As(err, &refusal):
		return fmt.Errorf("the meter refused client %d (does it know this client?): %w", m.cfg.Client, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w within %v (is the meter on, does it know client %d and server %d?): %w",
			meter.ErrNoAnswer, m.cfg.Timeout, m.cfg.Client, m.cfg.Server, err)
	case isHangUp(err):
		return fmt.Errorf("%w: the meter hung up (does it know client %d and server %d, or does it serve another client?): %w",
			meter.ErrNoAnswer, m.cfg.Client, m.cfg.Server, err)
	case isGarbled(err):
		return fmt.Errorf("%w: %w", meter.ErrGarbled, err)
	}
	return err
}

// advice says what to try when the meter refuses the credentials.
func (m *Meter) advice(err error) string {
	const mechanismNotKnown = 11
	var refusal *dlms.AssociationError
	switch {
	case m.cfg.Auth != AuthLLS:
		return "it wants a password: auth=lls?"
	case errors.As(err, &refusal) && refusal.Diagnostic == mechanismNotKnown:
		return "it does not take auth=lls from this client"
	}
	return "wrong password?"
}

func isGarbled(err error) bool {
	return errors.Is(err, dlms.ErrMalformed) || errors.Is(err, dlms.ErrTooLarge) ||
		errors.Is(err, wrapper.ErrVersion) || errors.Is(err, wrapper.ErrTooLong)
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
