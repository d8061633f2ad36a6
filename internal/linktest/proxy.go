package linktest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
)

// Proxy puts the link between real sockets: whoever connects to in talks over
// the link to target. It runs until ctx is cancelled, then closes in and every
// connection, waits for its goroutines, and returns nil.
//
// The kernel's own buffers come on top of the link's: a client that minds
// latency bounds its send buffer.
func (l *Link) Proxy(ctx context.Context, in net.Listener, target string) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = in.Close() })
	defer stop()
	defer in.Close() //nolint:errcheck // it may be closed already
	for {
		client, err := in.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		all.Go(func() { l.carry(ctx, client, target) })
	}
}

// carry carries one connection.
func (l *Link) carry(ctx context.Context, client net.Conn, target string) {
	l.mu.Lock()
	cut := l.outage == Cut
	l.mu.Unlock()
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", target)
	if err != nil || cut {
		reset(client)
		if err == nil {
			reset(server)
		}
		return
	}
	if tcp, ok := client.(*net.TCPConn); ok {
		// Less stalls on the large segments of a loopback device.
		_ = tcp.SetReadBuffer(32 << 10)
	}
	near, far := l.Pipe()
	ends := []net.Conn{client, near, far, server}
	stop := context.AfterFunc(ctx, func() {
		for _, c := range ends {
			_ = c.Close()
		}
	})
	defer stop()
	var all sync.WaitGroup
	for _, pair := range [][2]net.Conn{{near, client}, {client, near}, {server, far}, {far, server}} {
		all.Go(func() { pump(pair[0], pair[1], ends) })
	}
	all.Wait()
	for _, c := range ends {
		_ = c.Close()
	}
}

// pump copies until the end of the stream, which it passes on, or an error,
// which ends all ends.
func pump(to, from net.Conn, ends []net.Conn) {
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 2<<10))
	if err == nil {
		if half, ok := to.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
			return
		}
	}
	for _, c := range ends {
		if errors.Is(err, syscall.ECONNRESET) {
			reset(c)
		} else {
			_ = c.Close()
		}
	}
}

// reset closes c so that a real peer sees a reset.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
