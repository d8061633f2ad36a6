package cosem

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/wrapper"
)

// Listen listens on a network, "tcp" or "udp", at an address of this machine,
// until ctx ends. listening is told where, once it does.
func (r *Receiver) Listen(ctx context.Context, network, address string, listening func(net.Addr)) error {
	if network == "udp" {
		conn, err := (&net.ListenConfig{}).ListenPacket(ctx, network, address)
		if err != nil {
			return unlessEnded(ctx, err)
		}
		listening(conn.LocalAddr())
		return r.ServePackets(ctx, conn)
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, network, address)
	if err != nil {
		return unlessEnded(ctx, err)
	}
	listening(ln.Addr())
	return r.Serve(ctx, ln)
}

// Serve takes the connections of ln, until ctx ends. On each come frames of the
// wrapper, or of HDLC where its first octet is their flag.
func (r *Receiver) Serve(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	ended := ctx // what hangs on it, the connections' context too, may end later than ln
	defer func() { _ = ln.Close() }()
	var senders sync.WaitGroup
	defer senders.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // of the connections, when accepting fails
	var room callers
	for {
		conn, err := ln.Accept()
		if ended.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil
		}
		if err != nil {
			return err
		}
		c := &caller{Conn: conn, from: Sender{Net: addrPort(conn.RemoteAddr())}, heard: time.Now()}
		if silent := room.wait(ctx, c); silent != nil {
			r.bad(silent.from, fmt.Errorf("over %d connections: this one, silent for longest, is closed", maxSenders))
			_ = silent.Close()
		}
		senders.Go(func() {
			defer room.leave(c)
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			err := r.serve(c, &room)
			if err != nil && ctx.Err() == nil && !room.isOut(c) {
				r.bad(c.from, err)
			}
			_ = conn.Close()
		})
	}
}

// caller is a connection.
type caller struct {
	net.Conn
	from  Sender
	heard time.Time // of the mutex of callers
	out   bool      // was closed to make room
}

// callers are the connections that there are.
type callers struct {
	mu   sync.Mutex
	all  map[*caller]bool
	left chan struct{} // somebody left
}

// silentLeast is how long a connection was silent at least that has to make
// room: a feeder that goes calls with all its meters at once, and they may wait
// for one another.
const silentLeast = 2 * time.Second

// wait lets c in when there is room. It gives who has to go for it, if somebody
// was silent for long enough.
func (cs *callers) wait(ctx context.Context, c *caller) (silent *caller) {
	for {
		silent, in, after := cs.enter(c)
		if in {
			return silent
		}
		again := time.NewTimer(after)
		select {
		case <-again.C:
		case <-cs.left:
		case <-ctx.Done():
			after = 0
		}
		again.Stop()
		if after == 0 {
			return nil // it is closed with the others
		}
	}
}

// enter lets c in, and gives who has to go, silent for longest, when there is
// no room; else how long to wait until one may be asked to.
func (cs *callers) enter(c *caller) (silent *caller, in bool, after time.Duration) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.all == nil {
		cs.all, cs.left = map[*caller]bool{}, make(chan struct{}, 1)
	}
	if len(cs.all) >= maxSenders {
		for other := range cs.all {
			if silent == nil || other.heard.Before(silent.heard) {
				silent = other
			}
		}
		if after = silentLeast - time.Since(silent.heard); after > 0 {
			return nil, false, after
		}
		silent.out = true
		delete(cs.all, silent)
	}
	cs.all[c] = true
	return silent, true, 0
}

func (cs *callers) leave(c *caller) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.all, c)
	select {
	case cs.left <- struct{}{}:
	default:
	}
}

func (cs *callers) isOut(c *caller) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return c.out
}

func (cs *callers) hear(c *caller) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c.heard = time.Now()
}

// serve takes the frames of a connection until it ends. After a frame that is
// none nobody knows where the next is.
func (r *Receiver) serve(c *caller, room *callers) error {
	in := intake{Receiver: r, most: maxBegun}
	defer in.end()
	for first := true; ; first = false {
		if err := c.SetReadDeadline(time.Now().Add(idleTimeout)); err != nil {
			return err
		}
		var head [wrapper.HeaderLen]byte
		_, err := io.ReadFull(c, head[:1])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		room.hear(c)
		if first && head[0] == hdlcFlag {
			h := hdlcFrames{intake: &in, from: c.from, idle: idleTimeout, heard: func() { room.hear(c) }}
			h.feed(c, head[:1])
			return h.run(c)
		}
		if err := c.SetReadDeadline(time.Now().Add(frameTimeout)); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, head[1:]); err != nil {
			return cutShort(err)
		}
		h, err := wrapper.ParseHeader(head[:])
		if err != nil {
			return err
		}
		apdu := make([]byte, h.Length)
		if _, err := io.ReadFull(c, apdu); err != nil {
			return cutShort(err)
		}
		from := c.from
		from.Port = h.Source
		for _, answer := range in.take(from, apdu) {
			if _, err := c.Write(frame(h, answer)); err != nil {
				return fmt.Errorf("answering: %w", err)
			}
		}
	}
}

func cutShort(err error) error {
	return fmt.Errorf("%w: frame cut short: %w", dlms.ErrMalformed, err)
}

// frame gives the answer to a frame.
func frame(to wrapper.Header, apdu []byte) []byte {
	h := wrapper.Header{Source: to.Destination, Destination: to.Source, Length: uint16(len(apdu))}
	b, _ := h.AppendBinary(nil) // has no error
	return append(b, apdu...)
}

// ServePackets takes the datagrams of conn, until ctx ends. Each is one frame
// of the wrapper. Of a *net.UDPConn it tells how many the machine dropped.
func (r *Receiver) ServePackets(ctx context.Context, conn net.PacketConn) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer func() { _ = conn.Close() }()
	in := intake{Receiver: r}
	defer in.end()
	var storing sync.WaitGroup
	defer storing.Wait()
	room := make(chan struct{}, maxStoring)
	read := counting(conn, func(dropped uint32) {
		r.bad(Sender{Net: addrPort(conn.LocalAddr())}, fmt.Errorf("%d datagrams %w: they came faster than they were taken", dropped, ErrLost))
	})
	b := make([]byte, wrapper.HeaderLen+wrapper.MaxLength)
	for {
		n, to, err := read(b)
		if err != nil {
			return unlessEnded(ctx, err)
		}
		from := Sender{Net: addrPort(to)}
		h, err := wrapper.ParseHeader(b[:n])
		if err == nil && int(h.Length) != n-wrapper.HeaderLen {
			err = fmt.Errorf("%w: a header for %d octets before %d", dlms.ErrMalformed, h.Length, n-wrapper.HeaderLen)
		}
		if err != nil {
			r.bad(from, err)
			continue
		}
		from.Port = h.Source
		send := func(answers [][]byte) {
			for _, answer := range answers {
				if _, err := conn.WriteTo(frame(h, answer), to); err != nil {
					r.bad(from, fmt.Errorf("answering: %w", err))
				}
			}
		}
		answers, t := in.begin(from, b[wrapper.HeaderLen:n])
		send(answers)
		switch {
		case t == nil:
		case t.stored == nil:
			send(r.finish(t, nil))
		default:
			room <- struct{}{}
			storing.Go(func() {
				send(r.finish(t, nil))
				<-room
			})
		}
	}
}

// maxStoring is how many datagrams may wait to be stored and confirmed.
const maxStoring = 256

// receiveBuffer is how much the machine is asked to keep for us, in octets: a
// storm of 1000 meters.
const receiveBuffer = 1 << 20

// counting gives how to read datagrams from conn; dropped is told when the
// machine had no room for some.
func counting(conn net.PacketConn, dropped func(uint32)) func([]byte) (int, net.Addr, error) {
	udp, ok := conn.(*net.UDPConn)
	if !ok {
		return conn.ReadFrom
	}
	_ = udp.SetReadBuffer(receiveBuffer) // as much as it gives
	if raw, err := udp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { // a machine that cannot count does not tell
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RXQ_OVFL, 1)
		})
	}
	var last uint32
	control := make([]byte, 64)
	return func(b []byte) (int, net.Addr, error) {
		n, m, _, from, err := udp.ReadMsgUDPAddrPort(b, control)
		if err != nil {
			return 0, nil, err
		}
		if total, ok := overflow(control[:m]); ok && total != last {
			dropped(total - last)
			last = total
		}
		return n, net.UDPAddrFromAddrPort(from), nil
	}
}

// overflow takes the count of dropped datagrams out of control messages.
func overflow(b []byte) (total uint32, ok bool) {
	messages, err := syscall.ParseSocketControlMessage(b)
	if err != nil {
		return 0, false
	}
	for _, m := range messages {
		if m.Header.Level == syscall.SOL_SOCKET && m.Header.Type == syscall.SO_RXQ_OVFL && len(m.Data) >= 4 {
			return binary.NativeEndian.Uint32(m.Data), true
		}
	}
	return 0, false
}

func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.AddrPort()
	case *net.UDPAddr:
		return a.AddrPort()
	}
	return netip.AddrPort{}
}
