package line

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const defaultDialTimeout = 10 * time.Second

// TCP gives the line that is a TCP connection to hostport: a meter, a gateway,
// or a serial port behind a terminal server. It opens nothing.
func TCP(hostport string, o Options) *Line {
	dialer := &net.Dialer{Timeout: o.DialTimeout}
	if dialer.Timeout <= 0 {
		dialer.Timeout = defaultDialTimeout
	}
	return Of(hostport, func(ctx context.Context, _ Settings) (Medium, error) {
		conn, err := dialer.DialContext(ctx, "tcp", hostport)
		if err != nil {
			return nil, dialError(ctx, err)
		}
		tcp, ok := conn.(*net.TCPConn)
		if !ok { // never: the network is "tcp"
			return nil, errors.Join(fmt.Errorf("connect: unexpected %T", conn), conn.Close())
		}
		return &connection{TCPConn: tcp}, nil
	})
}

// dialError says what to do about a connection that did not come about.
func dialError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return advise(err)
}

func advise(err error) error {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return fmt.Errorf("%w: is the host name right, and does the gateway have a name server?", err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: is the port number right, and does the device listen?", err)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return fmt.Errorf("%w: is the device switched on, and is a firewall in between?", err)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return fmt.Errorf("%w: is the address right, and is the network up?", err)
	}
	return err
}

// connection is the Medium of a TCP line.
type connection struct{ *net.TCPConn }

func (c *connection) Apply(Settings) error { return nil }

// Stale looks for a peer that hung up while the line was idle.
func (c *connection) Stale() bool {
	gone := false
	var one [1]byte
	err := c.receive(func(fd int) {
		n, _, err := unix.Recvfrom(fd, one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		waiting := errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)
		gone = err != nil && !waiting || err == nil && n == 0
	})
	return err != nil || gone
}

// Discard drops what has arrived; a hang-up is left for Read to find.
func (c *connection) Discard() error {
	var buf [512]byte
	return c.receive(func(fd int) {
		for {
			n, _, err := unix.Recvfrom(fd, buf[:], unix.MSG_DONTWAIT)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || n == 0 {
				return
			}
		}
	})
}

// receive runs f on the socket without waiting for input. Control, unlike
// Read, is not subject to the deadline.
func (c *connection) receive(f func(fd int)) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { f(int(fd)) })
}
