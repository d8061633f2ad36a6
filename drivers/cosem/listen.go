package cosem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/security"
	"gridgate/dlms/wrapper"
	"gridgate/internal/meter"
)

const (
	// maxSenders is how many meters may be heard at the same time.
	maxSenders = 64
	// maxPush is the longest notification that is put together of blocks, in octets.
	maxPush = 64 << 10
	// idleTimeout is how long a connection may be silent, and frameTimeout how
	// long a frame may take that has begun.
	idleTimeout  = time.Hour
	frameTimeout = time.Minute
)

// ErrKeyMissing says that a notification is ciphered, and that there is no key.
var ErrKeyMissing = errors.New("ciphered, and no key is given")

// Receiver takes what meters send unasked, by the wrapper (IEC 62056-47): from
// one meter or many, in blocks, ciphered.
type Receiver struct {
	Now meter.Now
	// TimeZone is the zone of times that do not tell how far they are from
	// UTC; nil is UTC.
	TimeZone *time.Location
	// Keys are the meters' global keys; without them nothing ciphered is taken.
	// Policy is the least that must be done to what is taken.
	Suite  security.Suite
	Keys   security.Keys
	Policy security.Policy
	// Got is handed what came, and Bad what is none and why, with who sent it;
	// one at a time.
	Got func(from netip.AddrPort, p Pushed)
	Bad func(from netip.AddrPort, err error)

	mu     sync.Mutex // of Got and Bad
	window security.Window
}

// Listen listens on a network, "tcp" or "udp", at an address of this machine,
// until ctx ends. listening is told where, once it does.
func (r *Receiver) Listen(ctx context.Context, network, address string, listening func(net.Addr)) error {
	if network == "udp" {
		return r.listenUDP(ctx, address, listening)
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, network, address)
	if err != nil {
		return unlessEnded(ctx, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	defer func() { _ = ln.Close() }()
	listening(ln.Addr())
	var senders sync.WaitGroup
	defer senders.Wait()
	room := make(chan struct{}, maxSenders)
	for {
		conn, err := ln.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil
		}
		if err != nil {
			return err
		}
		from := addrPort(conn.RemoteAddr())
		select {
		case room <- struct{}{}:
		default:
			_ = conn.Close()
			r.bad(from, fmt.Errorf("over %d connections: this one is closed", maxSenders))
			continue
		}
		senders.Go(func() {
			defer func() { <-room }()
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			if err := r.serve(conn, from); err != nil && ctx.Err() == nil {
				r.bad(from, err)
			}
			_ = conn.Close()
		})
	}
}

// serve takes the frames of a connection until it ends. After a frame that is
// none nobody knows where the next is.
func (r *Receiver) serve(conn net.Conn, from netip.AddrPort) error {
	blocks := dlms.Assembler{Max: maxPush}
	for {
		if err := conn.SetReadDeadline(time.Now().Add(idleTimeout)); err != nil {
			return err
		}
		var head [wrapper.HeaderLen]byte
		_, err := io.ReadFull(conn, head[:1])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := conn.SetReadDeadline(time.Now().Add(frameTimeout)); err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, head[1:]); err != nil {
			return cutShort(err)
		}
		h, err := wrapper.ParseHeader(head[:])
		if err != nil {
			return err
		}
		apdu := make([]byte, h.Length)
		if _, err := io.ReadFull(conn, apdu); err != nil {
			return cutShort(err)
		}
		for _, answer := range r.take(from, &blocks, apdu) {
			if _, err := conn.Write(frame(h, answer)); err != nil {
				return err
			}
		}
	}
}

// unlessEnded gives err, but what came of the end of ctx is none.
func unlessEnded(ctx context.Context, err error) error {
	select {
	case <-ctx.Done():
		return nil
	default:
		return err
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

// sender is who sends datagrams.
type sender struct {
	from  netip.AddrPort
	wPort uint16
}

func (r *Receiver) listenUDP(ctx context.Context, address string, listening func(net.Addr)) error {
	packets, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", address)
	if err != nil {
		return unlessEnded(ctx, err)
	}
	conn, ok := packets.(*net.UDPConn)
	if !ok {
		return errors.Join(fmt.Errorf("%T is no UDP socket", packets), packets.Close())
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer func() { _ = conn.Close() }()
	listening(conn.LocalAddr())
	begun := map[sender]*dlms.Assembler{} // of those whose blocks have not all come
	b := make([]byte, wrapper.HeaderLen+wrapper.MaxLength)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(b)
		if err != nil {
			return unlessEnded(ctx, err)
		}
		h, err := wrapper.ParseHeader(b[:n])
		if err == nil && int(h.Length) != n-wrapper.HeaderLen {
			err = fmt.Errorf("%w: a header for %d octets before %d", dlms.ErrMalformed, h.Length, n-wrapper.HeaderLen)
		}
		if err != nil {
			r.bad(from, err)
			continue
		}
		who := sender{from, h.Source}
		blocks, ok := begun[who]
		if !ok {
			blocks = &dlms.Assembler{Max: maxPush}
		}
		for _, answer := range r.take(from, blocks, b[wrapper.HeaderLen:n]) {
			if _, err := conn.WriteToUDPAddrPort(frame(h, answer), from); err != nil {
				r.bad(from, fmt.Errorf("answering: %w", err))
			}
		}
		switch {
		case !blocks.Started():
			delete(begun, who)
		case !ok && len(begun) >= maxSenders:
			r.bad(from, fmt.Errorf("over %d senders of blocks: these are passed over", maxSenders))
		default:
			begun[who] = blocks
		}
	}
}

// take takes an APDU and gives what is to be answered.
func (r *Receiver) take(from netip.AddrPort, blocks *dlms.Assembler, apdu []byte) (answers [][]byte) {
	whole, ack, err := blocks.Add(apdu)
	if err != nil {
		blocks.Reset()
		r.bad(from, err)
		return nil
	}
	if ack != nil {
		answers = append(answers, ack)
	}
	if whole == nil {
		return answers
	}
	plain, err := r.open(whole)
	var p Pushed
	if err == nil {
		p, err = r.parse(from, plain)
	}
	if err != nil {
		r.bad(from, err)
		return answers
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Got(from, p)
	switch {
	case p.Confirm == nil:
	case security.IsProtected(whole[0]):
		r.Bad(from, errors.New("it waits for an answer, which would have to be ciphered too: none is given"))
	default:
		answers = append(answers, p.Confirm)
	}
	return answers
}

func (r *Receiver) bad(from netip.AddrPort, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Bad(from, err)
}

// open deciphers an APDU that is ciphered.
func (r *Receiver) open(apdu []byte) ([]byte, error) {
	if !security.IsProtected(apdu[0]) {
		if r.Policy != security.Unprotected {
			return nil, fmt.Errorf("%w: not at all", security.ErrWeak)
		}
		return apdu, nil
	}
	p, err := security.Parse(apdu)
	if err != nil {
		return nil, err
	}
	if r.Keys.Encryption.IsZero() {
		return nil, fmt.Errorf("%w (suite %d, %v, from system title %v)", ErrKeyMissing, uint8(p.Control.Suite()), p.Control.Policy(), p.Title)
	}
	opener := security.Receiver{
		Suite: r.Suite, Policy: r.Policy, Title: p.Title, Keys: r.Keys, Direction: security.FromServer, Window: &r.window,
	}
	return opener.Unprotect(nil, apdu)
}

func (r *Receiver) parse(from netip.AddrPort, apdu []byte) (Pushed, error) {
	zone := r.TimeZone
	if zone == nil {
		zone = time.UTC
	}
	base := meter.Row{Meter: meter.ID(from.Addr().Unmap().String()), Stamp: r.Now(), Lane: meter.Instant}
	return ParsePushed(apdu, base, zone, nil)
}

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort()
	}
	return netip.AddrPort{}
}
