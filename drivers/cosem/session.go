package cosem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"gridgate/dlms"
	"gridgate/drivers/line"
)

// errStale says that the association that was kept is gone.
var errStale = errors.New("the association was gone")

// session takes up the association that is open on the line, or opens one.
// kept says that it was open already.
func (m *Meter) session(ctx context.Context, port line.Port) (kept bool, err error) {
	m.leaving = false
	if m.client != nil && m.opened == m.line.Opened() && !m.sleeps() {
		m.link.use(port)
		m.link.probe = true
		return true, nil
	}
	m.client, m.known, m.serial, m.good = nil, false, "", dlms.Attribute{}
	m.link = m.connect(port, m.cfg.Client)
	client := dlms.NewClient(m.link, m.options())
	if _, err := client.Associate(ctx); err != nil {
		return false, err
	}
	if m.counter != nil {
		m.counter.Took()
	}
	m.client, m.opened = client, m.line.Opened()
	m.entered++
	return false, nil
}

// release ends the association in good order, or with the connection.
func (m *Meter) release(ctx context.Context, port line.Port) {
	client := m.client
	m.client = nil
	switch err := m.link.release(ctx, client); {
	case err == nil:
	case ctx.Err() != nil && m.cfg.HDLC != nil:
		m.link.leave(nil)
	default:
		m.drop(port)
	}
}

// drop gives up what the port was used for: what may still come on it cannot be
// told from an answer to what is asked next. HDLC can tell: by the addresses
// whose answer it is, and by the UA, which comes behind all that was asked for
// before, whether it is to what is asked now. So others keep their connections.
// A meter that signs on knows no addresses before.
func (m *Meter) drop(port line.Port) {
	if m.cfg.HDLC != nil && m.cfg.ModeE == nil {
		port.Doubt()
		return
	}
	port.Drop()
}

// end gives up the association and the connection after err. Where it was our
// side that had enough, the line ends the conversation in good order.
func (m *Meter) end(ctx context.Context, port line.Port, err error) {
	client := m.client
	m.client = nil
	if ctx.Err() != nil {
		m.link.leave(client)
		return
	}
	m.link.hangUp(ctx, err)
	m.drop(port)
}

// isForgotten says whether err is what comes of a meter that has forgotten the
// association: it hangs up, keeps silent, or does not allow the service.
func isForgotten(err error) bool {
	var exception *dlms.ExceptionError
	return errors.As(err, &exception) && (exception.State == dlms.ServiceNotAllowed || isCipherException(exception)) ||
		isHangUp(err) || isForgottenHDLC(err) || errors.Is(err, os.ErrDeadlineExceeded)
}

func isHangUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// Format says that it is a meter, whatever the verb: fmt cannot ask a secret
// within it, of a field that is not exported, how it is to be printed.
func (m *Meter) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "meter "+string(m.cfg.ID)) }
