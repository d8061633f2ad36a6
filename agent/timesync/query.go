package timesync

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"time"

	"github.com/beevik/ntp"
)

// The header of an NTP packet (RFC 5905, 7.3):
//
//	 0  1  leap indicator (2 bits), version (3), mode (3)
//	 1  1  stratum; 0 in a kiss-o'-death
//	 2 10  poll, precision, root delay, root dispersion
//	12  4  reference id; the code of a kiss-o'-death
//	16  8  reference timestamp
//	24  8  origin timestamp: of a reply, the transmit timestamp of its request
//	32  8  receive timestamp
//	40  8  transmit timestamp
const (
	header     = 48
	modeServer = 4
)

// network asks servers over the network.
type network struct {
	roots *x509.CertPool
	now   func() (now time.Time, sure bool) // to check certificates by
	nts   keys
}

// exchange is an Exchange.
func (n *network) exchange(ctx context.Context, r Request) (Sample, error) {
	if r.Server.NTS {
		return n.secured(ctx, r)
	}
	at := r.At
	if at == "" {
		at = withPort(r.Server.Address, "123")
	}
	link := &link{ctx: ctx}
	defer link.release()
	resp, err := ntp.QueryWithOptions(at, link.options(r))
	return link.sample(resp, err)
}

// withPort adds the port that is not given.
func withPort(address, port string) string {
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address
	}
	return net.JoinHostPort(address, port)
}

// link is the connection of one exchange. It hands on only what answers the
// request: packets of another mode or origin are as if they had not come.
type link struct {
	net.Conn
	ctx     context.Context
	secured bool // replies without authentication are as if they had not come
	origin  [8]byte
	refusal error // a *Kiss, or ErrNotSynchronised
	address string
	free    func() bool
}

func (l *link) options(r Request) ntp.QueryOptions {
	left := defaultAnswer
	if deadline, ok := l.ctx.Deadline(); ok {
		left = time.Until(deadline)
	}
	return ntp.QueryOptions{
		Timeout: max(left, time.Millisecond), GetSystemTime: r.Now,
		Dialer: func(_, remote string) (net.Conn, error) { return l.dial(remote) },
	}
}

func (l *link) dial(remote string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(l.ctx, "udp", remote)
	if err != nil {
		return nil, err
	}
	l.Conn, l.address = conn, conn.RemoteAddr().String()
	l.free = context.AfterFunc(l.ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return l, nil
}

func (l *link) release() {
	if l.free != nil {
		l.free()
	}
}

// Write sends a request and remembers what its reply has to name.
func (l *link) Write(b []byte) (int, error) {
	if len(b) >= header {
		copy(l.origin[:], b[40:48])
	}
	return l.Conn.Write(b)
}

// Read gives the reply.
func (l *link) Read(b []byte) (int, error) {
	for {
		n, err := l.Conn.Read(b)
		if err != nil {
			return n, err
		}
		if !l.isReply(b[:n]) {
			continue
		}
		if kiss := code(b[12:16]); b[1] == 0 && (!l.secured || kiss == "NTSN") { // another one is first checked to be the server's
			l.refusal = refusal(kiss)
			return 0, l.refusal
		}
		return n, nil
	}
}

func (l *link) isReply(b []byte) bool {
	if len(b) < header || b[0]&7 != modeServer || [8]byte(b[24:32]) != l.origin {
		return false
	}
	if !l.secured {
		return true
	}
	// Who has lost our keys says NTSN, and can authenticate nothing.
	return b[1] == 0 && code(b[12:16]) == "NTSN" || authenticated(b[header:])
}

// refusal is what an answer of stratum 0 means: most codes, and none, that the
// server has no time itself.
func refusal(code string) error {
	switch code {
	case "DENY", "RSTR", "RATE", "NTSN":
		return &Kiss{Code: code}
	}
	return ErrNotSynchronised
}

// code gives a kiss code, what is no letter as '?'.
func code(b []byte) string {
	c := [4]byte(b)
	for i := range c {
		if c[i] < ' ' || c[i] > '~' {
			c[i] = '?'
		}
	}
	return string(c[:])
}

// sample makes a sample of a response.
func (l *link) sample(r *ntp.Response, err error) (Sample, error) {
	if l.refusal != nil {
		return Sample{}, l.refusal
	}
	if err != nil {
		if l.ctx.Err() != nil {
			return Sample{}, errNoAnswer
		}
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return Sample{}, errNoAnswer
		}
		return Sample{}, err
	}
	if r.IsKissOfDeath() {
		return Sample{}, refusal(r.KissCode)
	}
	if r.Leap == ntp.LeapNotInSync || r.Stratum >= 16 {
		return Sample{}, ErrNotSynchronised
	}
	if err := r.Validate(); err != nil {
		return Sample{}, err
	}
	t := r.Timestamps
	s := Sample{
		Offset: r.ClockOffset, Trip: t.ClientRecv.Sub(t.ClientXmit) - t.ServerXmit.Sub(t.ServerRecv),
		Delay: r.RootDelay, Dispersion: r.RootDispersion + r.Precision, Stratum: r.Stratum, Address: l.address,
	}
	if s.Trip < 0 {
		return Sample{}, errImpossible
	}
	switch r.Leap {
	case ntp.LeapAddSecond:
		s.Leap = 1
	case ntp.LeapDelSecond:
		s.Leap = -1
	default:
	}
	return s, nil
}

var (
	errNoAnswer   = errors.New("no answer")
	errImpossible = errors.New("its answer says that it had the question for longer than we waited")
)
