package cosem

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/hdlc"
	"gridgate/dlms/wrapper"
	"gridgate/drivers/line"
)

// hdlcRetries is how often a frame within a connection is repeated, or asked
// after, that is not answered. An SNRM is not: a meter that is off costs the
// line one time-out.
const hdlcRetries = 2

// HDLC is how frames of HDLC go to a meter (IEC 62056-46). The logical device
// is Config.Server, and the client is at most 127.
type HDLC struct {
	Physical uint16 // address of the device on its line; 0 is none
	AddrLen  int    // octets of the address: 1, 2 or 4; 0 is as few as do
	// Info and Window are the longest information field, in octets, and the
	// most frames in a row that the meter is asked to agree to, both ways. 0 is
	// the most that the line carries well. What the meter grants holds.
	Info, Window int
}

// link is the line as a dlms.Transport: the wrapper, or HDLC, and a deadline
// for each answer. A port is good for one exchange.
type link struct {
	meter  *Meter
	client uint16
	port   line.Port
	bare   bool // the association shows nothing: no password, no key
	probe  bool // the conversation is of an exchange before, and the meter did not answer in this one

	frames *frames // of the wrapper; nil with HDLC
	conn   *wrapper.Conn

	hdlc      *hdlc.Link // nil without a connection that was begun
	connected bool       // HDLC is
	handed    bool       // the meter signed on and went over to HDLC
	wrong     error      // the addresses are
}

// connect gives the way from a client to the meter. It sends nothing yet.
func (m *Meter) connect(port line.Port, client uint16) *link {
	l := &link{meter: m, client: client, bare: m.cfg.Auth == AuthNone && !m.usesKeys()}
	if m.cfg.HDLC != nil {
		if _, l.wrong = l.server(); client > 0x7F {
			l.wrong = fmt.Errorf("%w: client %d over HDLC: want 1 to 127", hdlc.ErrAddress, client)
		}
	}
	l.use(port)
	return l
}

// server gives the meter's address in HDLC.
func (l *link) server() (hdlc.Address, error) {
	return hdlc.ServerAddress(l.meter.cfg.Server, l.meter.cfg.HDLC.Physical, l.meter.cfg.HDLC.AddrLen)
}

// use goes on in the next exchange.
func (l *link) use(port line.Port) {
	l.port = port
	if l.meter.cfg.HDLC != nil {
		l.meter.wire.port = port
		return
	}
	if l.meter.cfg.Datagrams {
		port = &datagrams{Port: port}
	}
	if l.frames == nil {
		l.frames = &frames{}
		l.conn = wrapper.NewConn(l.frames, l.client, l.meter.cfg.Server, maxAPDU)
	}
	l.frames.Port = port
}

// forget lets go of what is of one exchange.
func (l *link) forget() {
	if l.port, l.probe = nil, false; l.frames != nil {
		l.frames.Port = nil
	}
}

// Send sends a request; from now on the time for its answer runs. HDLC
// connects with the first.
func (l *link) Send(ctx context.Context, apdu []byte) error {
	if l.wrong != nil {
		return l.wrong
	}
	if l.meter.cfg.HDLC == nil {
		l.frames.asked(l.patience(apdu))
		if err := l.port.SetDeadline(l.frames.due); err != nil {
			return err
		}
		return l.conn.Send(apdu)
	}
	if !l.connected {
		if err := l.signOn(ctx); err != nil {
			return err
		}
		if err := l.dial(ctx); err != nil {
			return err
		}
	}
	if l.probe {
		// A meter that has forgotten the connection is not asked three times.
		l.meter.wire.once = l.meter.cfg.Timeout
	}
	sealed, err := l.seal(apdu)
	if err != nil {
		return err
	}
	return l.silence(l.hdlc.Send(ctx, sealed))
}

// patience is how long the answer to a request may be awaited. Of two tries that the
// client makes where datagrams get lost, each has half the time.
func (l *link) patience(apdu []byte) time.Duration {
	const aarq, getRequest, gloGetRequest, dedGetRequest = 0x60, 0xC0, 0xC8, 0xD0
	m := l.meter
	if m.cfg.Wait != nil {
		return m.cfg.Wait()
	}
	if !m.cfg.Datagrams || len(apdu) == 0 {
		return m.cfg.Timeout
	}
	switch apdu[0] {
	case getRequest, gloGetRequest, dedGetRequest:
		return m.cfg.Timeout / 2
	case aarq:
		if l.bare {
			return m.cfg.Timeout / 2
		}
	}
	return m.cfg.Timeout
}

// Receive waits for an answer. The line interrupts it when ctx ends.
func (l *link) Receive(ctx context.Context, b []byte) ([]byte, error) {
	if l.meter.cfg.HDLC == nil {
		l.frames.more()
		b, err := l.conn.Receive(b)
		if err == nil {
			l.frames.open = false
		}
		return b, l.frames.explain(err)
	}
	b, err := l.receive(ctx, b)
	if err == nil {
		l.meter.wire.open, l.probe = false, false
	}
	l.meter.wire.once = 0
	return b, l.silence(err)
}

// silence makes the silence of a meter that was asked once a time-out.
func (l *link) silence(err error) error {
	if errors.Is(err, errSilent) {
		return fmt.Errorf("%w: %w", err, os.ErrDeadlineExceeded)
	}
	return err
}

// waited says for how long a meter was waited for in vain.
func (m *Meter) waited(err error) string {
	if m.cfg.Wait != nil {
		return fmt.Sprintf("%v, as long as answers take on this line", m.cfg.Wait().Round(time.Second))
	}
	if m.cfg.HDLC != nil && !errors.Is(err, errSilent) {
		return fmt.Sprintf("%d times %v", hdlcRetries+1, m.cfg.Timeout)
	}
	return m.cfg.Timeout.String()
}

// release ends an association, and what carries it. HDLC ends it with the
// connection.
func (l *link) release(ctx context.Context, c *dlms.Client) error {
	if l.meter.cfg.HDLC == nil {
		return c.Release(ctx)
	}
	if !l.connected {
		return nil
	}
	if err := l.releaseBehind(ctx, c); err != nil {
		return err
	}
	l.connected = false
	err := l.hdlc.Disconnect(ctx)
	if err == nil {
		l.meter.wire.open = false
	}
	return err
}

// hangUp tells the meter that the conversation is over after err, where the
// meter is there and the line is ours to tell it: it serves nobody else before.
func (l *link) hangUp(ctx context.Context, err error) {
	if l.connected && ctx.Err() == nil && !isTimeout(err) && !isHangUp(err) {
		l.meter.wire.once = l.meter.cfg.Timeout // it may be gone by now
		_ = l.release(ctx, nil)
		l.meter.wire.once = 0
	}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// isForgottenHDLC says whether the meter has forgotten the connection.
func isForgottenHDLC(err error) bool { return errors.Is(err, hdlc.ErrDisconnected) || isReject(err) }

// isReject says whether the meter rejected a frame: the connection is over, and
// it is not because of what was in the frame.
func isReject(err error) bool {
	var reject *hdlc.RejectError
	return errors.As(err, &reject)
}

func isGarbledHDLC(err error) bool {
	return errors.Is(err, hdlc.ErrLLC) || errors.Is(err, hdlc.ErrSequence) ||
		errors.Is(err, hdlc.ErrParameters) || errors.Is(err, hdlc.ErrTooLong)
}
