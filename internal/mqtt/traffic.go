package mqtt

import (
	"net"
	"sync/atomic"
)

// What is reckoned for what an application does not see, in bytes.
const (
	// header is of IPv4 and TCP with time stamps.
	header = 52
	// loneAck is a TCP acknowledgement with nothing in it, shared among
	// segments: about every second one is carried by data the other way.
	loneAck = header / 2
	segment = 1360
	// opening and closing of a connection: SYN, SYN, ACK; FIN, ACK, FIN, ACK.
	opening = 2*60 + header + 4*header
	// asking for a name, with the answer.
	asking = 200
	// vain is an attempt that nobody answers, three times.
	vain = 3 * 60
)

// Traffic counts what connections cost in IP packets of both directions: the
// bytes of the streams as they are, TLS included, and for headers,
// acknowledgements and opening what they mostly take. Repetitions by TCP are
// not seen. The zero value has counted nothing. It is safe for concurrent use.
type Traffic struct{ bytes atomic.Int64 }

// Bytes gives the count so far.
func (t *Traffic) Bytes() int64 { return t.bytes.Load() }

func (t *Traffic) carried(n int) { t.bytes.Add(Carried(n)) }

// Carried is what n bytes that go one way cost as Traffic counts it.
func Carried(n int) int64 {
	segments := (n + segment - 1) / segment
	return int64(n + segments*(header+loneAck))
}

// opened counts an attempt to connect to a name or an address.
func (t *Traffic) opened(ok bool, address string) {
	if t == nil {
		return
	}
	n := int64(vain)
	if ok {
		n = opening
	}
	if host, _, err := net.SplitHostPort(address); err == nil && net.ParseIP(host) == nil {
		n += asking
	}
	t.bytes.Add(n)
}

// over gives nc with its bytes counted.
func (t *Traffic) over(nc net.Conn) net.Conn {
	if t == nil {
		return nc
	}
	return &meteredConn{nc, t}
}

type meteredConn struct {
	net.Conn
	traffic *Traffic
}

func (c *meteredConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.traffic.carried(n)
	return n, err
}

func (c *meteredConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.traffic.carried(n)
	return n, err
}
