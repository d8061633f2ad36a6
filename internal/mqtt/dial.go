package mqtt

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// dialer opens connections over one way out of the gateway: a network device
// ("wwan0"), an address of the gateway's own, or "" for the system's routes.
// Names are asked for on the same way.
func dialer(way string) func(ctx context.Context, network, address string) (net.Conn, error) {
	// MQTT has its keep-alive; TCP's would only cost bytes.
	d := net.Dialer{KeepAlive: -1}
	if way == "" {
		return d.DialContext
	}
	source, err := netip.ParseAddr(way)
	byAddress := err == nil
	control := func(_, _ string, raw syscall.RawConn) error {
		var err error
		if cerr := raw.Control(func(fd uintptr) { err = syscall.BindToDevice(int(fd), way) }); cerr != nil {
			return cerr
		}
		if err != nil {
			return fmt.Errorf("interface %s: %w", way, err)
		}
		return nil
	}
	questions := net.Dialer{}
	if byAddress {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	} else {
		d.Control, questions.Control = control, control
	}
	d.Resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		q := questions
		switch {
		case !byAddress:
		case network == "tcp":
			q.LocalAddr = d.LocalAddr
		default:
			q.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
		}
		return q.DialContext(ctx, network, address)
	}}
	return d.DialContext
}
