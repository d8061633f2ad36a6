package line

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// UDP gives the line that is a meter's UDP port. Each write is a datagram; each
// read gives one, as much of it as there is room for, from that port and no
// other. Nothing says whether anybody is there, and datagrams get lost. It
// opens nothing.
func UDP(hostport string, o Options) *Line {
	dialer := &net.Dialer{Timeout: o.DialTimeout}
	if dialer.Timeout <= 0 {
		dialer.Timeout = defaultDialTimeout // of the name
	}
	return Of(hostport, func(ctx context.Context, _ Settings) (Medium, error) {
		conn, err := dialer.DialContext(ctx, "udp", hostport)
		if err != nil {
			return nil, dialError(ctx, err)
		}
		udp, ok := conn.(*net.UDPConn)
		if !ok { // never: the network is "udp"
			return nil, errors.Join(fmt.Errorf("connect: unexpected %T", conn), conn.Close())
		}
		return &datagrams{UDPConn: udp}, nil
	})
}

// datagrams is the Medium of a UDP line.
type datagrams struct{ *net.UDPConn }

// Read passes over empty datagrams, which are no end.
func (d *datagrams) Read(p []byte) (int, error) {
	for {
		n, err := d.UDPConn.Read(p)
		if n > 0 || err != nil || len(p) == 0 {
			return n, lost(err)
		}
	}
}

func (d *datagrams) Write(p []byte) (int, error) {
	n, err := d.UDPConn.Write(p)
	return n, lost(err)
}

// lost says what to do where the meter's host said that nobody listens.
func lost(err error) error {
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return err // as the exchange knows it
	}
	return advise(err)
}

func (d *datagrams) Apply(Settings) error { return nil }

// Stale looks for what the network said of datagrams sent before.
func (d *datagrams) Stale() bool {
	raw, err := d.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		pending, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		gone = err != nil || pending != 0
	})
	return err != nil || gone
}

// Discard drops the datagrams that have arrived.
func (d *datagrams) Discard() error {
	raw, err := d.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) {
		var one [1]byte
		for {
			if _, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_DONTWAIT); err != nil && !errors.Is(err, unix.EINTR) {
				return
			}
		}
	})
}
