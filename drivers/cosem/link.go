package cosem

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/hdlc"
	"gridgate/dlms/wrapper"
	"gridgate/drivers/line"
)

// hdlcRetries is how often a frame is repeated that is not answered.
const hdlcRetries = 2

// HDLC is how frames of HDLC go to a meter (IEC 62056-46). The logical device
// is Config.Server, and the client is at most 127.
type HDLC struct {
	Physical uint16 // address of the device on its line; 0 is none
	AddrLen  int    // octets of the address: 1, 2 or 4; 0 is as few as do
	// Propose is what the meter is asked to agree to; zero is 128 octets and
	// 1 frame, and asks nothing.
	Propose hdlc.Parameters
}

// link is the line as a dlms.Transport: the wrapper, or HDLC, and a deadline
// for each answer. A port is good for one visit.
type link struct {
	client, server uint16
	timeout        time.Duration
	datagrams      bool // each an APDU with its wrapper
	port           line.Port
	conn           *wrapper.Conn
	hdlc           *hdlc.Link // nil without HDLC
	modeE          *ModeE     // nil without
	connected      bool       // HDLC is
	wrong          error      // the addresses are
}

// connect gives the way from a client to the meter. It sends nothing yet.
func (m *Meter) connect(port line.Port, client uint16) *link {
	l := &link{client: client, server: m.cfg.Server, timeout: m.cfg.Timeout, datagrams: m.cfg.Datagrams, modeE: m.cfg.ModeE}
	switch old := m.link; {
	case m.cfg.HDLC == nil:
	case old != nil && old.hdlc != nil && old.client == client:
		l.hdlc = old.hdlc // it knows what the meter may still have to say
	default:
		var server hdlc.Address
		if server, l.wrong = hdlc.ServerAddress(m.cfg.Server, m.cfg.HDLC.Physical, m.cfg.HDLC.AddrLen); client > 0x7F {
			l.wrong = fmt.Errorf("%w: client %d over HDLC: want 1 to 127", hdlc.ErrAddress, client)
		}
		l.hdlc = hdlc.NewLink(timed{port}, hdlc.Config{
			Client: hdlc.ClientAddress(uint8(client)), Server: server, Propose: m.cfg.HDLC.Propose,
			Timeout: m.cfg.Timeout, Retries: hdlcRetries, MaxAPDU: maxAPDU,
		})
	}
	l.use(port)
	return l
}

func (l *link) use(port line.Port) {
	l.port = port
	if l.hdlc != nil {
		l.hdlc.SetStream(timed{port})
		return
	}
	if l.datagrams {
		port = &datagrams{Port: port}
	}
	l.conn = wrapper.NewConn(port, l.client, l.server, maxAPDU)
}

// leave forgets what is of one exchange.
func (l *link) leave() { l.port, l.conn = nil, nil }

// timed is a port whose deadlines are counted from now, as HDLC wants them.
type timed struct{ line.Port }

// SetTimeout makes reads and writes give up d from now.
func (t timed) SetTimeout(d time.Duration) error { return t.SetDeadline(time.Now().Add(d)) }

// Send sends a request; from now on the time for its answer runs. HDLC
// connects with the first.
func (l *link) Send(ctx context.Context, apdu []byte) error {
	if l.wrong != nil {
		return l.wrong
	}
	if l.hdlc != nil {
		if !l.connected {
			if err := l.signOn(ctx); err != nil {
				return err
			}
			if err := l.hdlc.Connect(ctx); err != nil {
				return err
			}
			l.connected = true
		}
		return l.hdlc.Send(ctx, apdu)
	}
	if err := l.port.SetDeadline(time.Now().Add(l.timeout)); err != nil {
		return err
	}
	return l.conn.Send(apdu)
}

// Receive waits for an answer. The line interrupts it when ctx ends.
func (l *link) Receive(ctx context.Context, b []byte) ([]byte, error) {
	if l.hdlc != nil {
		return l.hdlc.Receive(ctx, b)
	}
	return l.conn.Receive(b)
}

// release ends an association, and what carries it. HDLC ends it with the
// connection.
func (l *link) release(ctx context.Context, c *dlms.Client) error {
	if l.hdlc == nil {
		return c.Release(ctx)
	}
	if !l.connected {
		return nil
	}
	l.connected = false
	return l.hdlc.Disconnect(ctx)
}

// hangUp tells the meter that the conversation is over after err, where the
// meter is there and the line is ours to tell it: it serves nobody else before.
func (l *link) hangUp(ctx context.Context, err error) {
	if l != nil && l.hdlc != nil && l.connected && ctx.Err() == nil && !isTimeout(err) && !isHangUp(err) {
		l.connected = false
		_ = l.hdlc.Disconnect(ctx)
	}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// isForgottenHDLC says whether the meter has forgotten the connection.
func isForgottenHDLC(err error) bool {
	var reject *hdlc.RejectError
	return errors.Is(err, hdlc.ErrDisconnected) || errors.As(err, &reject)
}

func isGarbledHDLC(err error) bool {
	return errors.Is(err, hdlc.ErrLLC) || errors.Is(err, hdlc.ErrSequence) ||
		errors.Is(err, hdlc.ErrParameters) || errors.Is(err, hdlc.ErrTooLong)
}
