package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"gridgate/dlms/dlmstest"
	"gridgate/internal/cli"
)

// wPorts is a frame of the wrapper (IEC 62056-47) as bridges see it.
type wPorts struct {
	from, to uint16
	body     []byte
}

// frameHead is the octets before the body.
const frameHead = 8

func (f wPorts) bytes() []byte {
	b := []byte{0, 1, byte(f.from >> 8), byte(f.from), byte(f.to >> 8), byte(f.to), byte(len(f.body) >> 8), byte(len(f.body))}
	return append(b, f.body...)
}

func takeFrame(r io.Reader) (f wPorts, err error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return f, err
	}
	if binary.BigEndian.Uint16(head[0:]) != 1 {
		return f, errors.New("not the wrapper")
	}
	f.from, f.to = binary.BigEndian.Uint16(head[2:]), binary.BigEndian.Uint16(head[4:])
	f.body = make([]byte, binary.BigEndian.Uint16(head[6:]))
	_, err = io.ReadFull(r, f.body)
	return f, err
}

// ended is nil for the end of a stream between frames.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// primeNew is the message that a node joined: type 1, device id, capabilities
// (ARQ), serial number with its length, EUI-48.
func primeNew(n *plcNode) []byte {
	m := []byte{1, byte(n.device >> 8), byte(n.device), 0, 1, byte(len(n.serial))}
	m = append(m, n.serial...)
	return append(m, n.eui[:]...)
}

// primeRemove is the message that it left: type 2, device id.
func primeRemove(n *plcNode) []byte { return []byte{2, byte(n.device >> 8), byte(n.device)} }

// servePrime is a PRIME base node. It serves one client, as they do: another
// takes the first one's place.
func (l *powerLine) servePrime(stream io.ReadWriter) error {
	var over atomic.Bool
	defer over.Store(true)
	send := func(from, to uint16, body []byte) {
		if !over.Load() {
			_, _ = stream.Write(wPorts{from, to, body}.bytes()) // a client that went away misses it
		}
	}
	for {
		f, err := takeFrame(stream)
		if err != nil {
			return ended(err)
		}
		if f.to == 0 {
			l.primeMessage(f.body, func(body []byte) { send(0, 1, body) })
			continue
		}
		l.carry(func() {
			n := l.byDevice(f.to)
			if n == nil {
				return
			}
			for _, answer := range l.answers(n, "", f.from, f.body) {
				l.carry(func() { send(f.to, f.from, answer) })
			}
		})
	}
}

// primeMessage takes a message of the client.
func (l *powerLine) primeMessage(body []byte, told func([]byte)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case len(body) == 1 && body[0] == 3: // start reporting
		l.told = told
		for _, n := range l.nodes {
			if !n.away {
				told(primeNew(n))
			}
		}
	case len(body) == 3 && body[0] == 4: // delete: it joins again at once
		for _, n := range l.nodes {
			if n.device != 0 && n.device == binary.BigEndian.Uint16(body[1:]) {
				told(primeRemove(n))
				l.last++
				n.device = l.last
				clear(n.sessions)
				told(primeNew(n))
			}
		}
	}
}

func (l *powerLine) byDevice(id uint16) *plcNode {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.nodes {
		if !n.away && n.device == id {
			return n
		}
	}
	return nil
}

// headed gives the node that an APDU with the header of a request is for: E6,
// network, length, address.
func (l *powerLine) headed(apdu []byte) (n *plcNode, rest []byte) {
	if len(apdu) < 3 || apdu[0] != 0xE6 || int(apdu[1]) != l.network || len(apdu) < 3+int(apdu[2]) {
		return nil, nil
	}
	address, rest := apdu[3:3+int(apdu[2])], apdu[3+int(apdu[2]):]
	for _, n := range l.nodes {
		if string(n.address()) == string(address) {
			return n, rest
		}
	}
	return nil, nil
}

// header puts the header of a response before an APDU: E7, network, length,
// address.
func (l *powerLine) header(n *plcNode, apdu []byte) []byte {
	b := append([]byte{0xE7, byte(l.network), byte(len(n.address()))}, n.address()...)
	return append(b, apdu...)
}

// serveGateway is a gateway: by the wrapper, or on a terminal by HDLC.
func (l *powerLine) serveGateway(stream io.ReadWriter) error {
	if l.pty {
		return l.gatewayHDLC(stream)
	}
	var over atomic.Bool
	defer over.Store(true)
	for {
		f, err := takeFrame(stream)
		if err != nil {
			return ended(err)
		}
		n, apdu := l.headed(f.body)
		if n == nil {
			continue
		}
		l.carry(func() {
			for _, answer := range l.answers(n, "", f.from, apdu) {
				l.carry(func() {
					if !over.Load() {
						_, _ = stream.Write(wPorts{f.to, f.from, l.header(n, answer)}.bytes())
					}
				})
			}
		})
	}
}

// gatewayTries is how often a gateway sends what gets lost.
const gatewayTries = 4

// repeat has a frame sent until it arrives.
func (l *powerLine) repeat() bool {
	for range gatewayTries {
		if l.pass() {
			return true
		}
	}
	return false
}

// gatewayHDLC is a gateway that speaks HDLC: with all clients, at any address.
// It sends again what gets lost: its client hears from it that it has nothing
// yet, and waits.
func (l *powerLine) gatewayHDLC(stream io.ReadWriter) error {
	station := dlmstest.Station{AnyForm: true, Inactivity: 2 * time.Minute}
	station.Answers = func(client byte, apdu []byte) [][]byte {
		n, rest := l.headed(apdu)
		if n == nil || !l.repeat() {
			return nil
		}
		var out [][]byte
		for _, answer := range l.answers(n, "", uint16(client), rest) {
			if l.repeat() {
				out = append(out, l.header(n, answer))
			}
		}
		return out
	}
	return station.Serve(stream)
}

// serveG3 gives each node a port.
func (l *powerLine) serveG3(ctx context.Context, say func(string, ...any)) error {
	host, portText, err := net.SplitHostPort(l.listen)
	port, perr := strconv.ParseUint(portText, 10, 16)
	if err != nil || perr != nil || port+uint64(len(l.nodes)) > 1<<16 {
		return cli.Usagef("-listen %q: want host:port with room for %d ports", l.listen, len(l.nodes))
	}
	group, ctx := errgroup.WithContext(ctx)
	for i, n := range l.nodes {
		at := uint64(0)
		if port != 0 {
			at = port + uint64(i)
		}
		conn, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", net.JoinHostPort(host, strconv.FormatUint(at, 10)))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		say("plc+g3://%v serial %s", conn.LocalAddr(), n.serial)
		group.Go(func() error {
			<-ctx.Done()
			return conn.SetDeadline(time.Unix(1, 0))
		})
		group.Go(func() error {
			if err := l.datagrams(conn, n); ctx.Err() == nil {
				return err
			}
			return nil
		})
	}
	say("ready %s", l.listen)
	return group.Wait()
}

func (l *powerLine) datagrams(conn net.PacketConn, n *plcNode) error {
	buf := make([]byte, 1<<16)
	for {
		size, from, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		if size < frameHead || binary.BigEndian.Uint16(buf) != 1 || int(binary.BigEndian.Uint16(buf[6:])) != size-frameHead || l.isAway(n) {
			continue
		}
		client, server := binary.BigEndian.Uint16(buf[2:]), binary.BigEndian.Uint16(buf[4:])
		apdu := append([]byte(nil), buf[frameHead:size]...)
		l.carry(func() {
			for _, answer := range l.answers(n, fmt.Sprint(from), client, apdu) {
				l.carry(func() { _, _ = conn.WriteTo(wPorts{server, client, answer}.bytes(), from) })
			}
		})
	}
}

// firstPhysical is the first physical address: those below are special.
const firstPhysical = 16

// serveHDLC is a transparent bridge: frames go as they are, to meters that
// answer at addresses of their own.
func (l *powerLine) serveHDLC(stream io.ReadWriter) error {
	stations := make([]dlmstest.Station, len(l.nodes))
	for i, n := range l.nodes {
		p := firstPhysical + i
		s := n.meter.Station(dlmstest.Station{
			Server: []byte{0, 1 << 1, byte(p>>7) << 1, byte(p<<1) | 1}, AnyForm: true, Inactivity: 2 * time.Minute,
		})
		whole := s.Answers
		s.Answers = func(client byte, apdu []byte) [][]byte {
			if l.isAway(n) {
				return nil
			}
			return whole(client, apdu)
		}
		stations[i] = s
	}
	return dlmstest.ServeBus(lossy{stream, l}, stations...)
}

// lossy is a stream whose frames take the way over the power line.
type lossy struct {
	io.ReadWriter
	line *powerLine
}

func (s lossy) Read(b []byte) (int, error) {
	for {
		n, err := s.ReadWriter.Read(b)
		if err != nil || s.line.pass() || s.line.ctx.Err() != nil {
			return n, err
		}
	}
}

func (s lossy) Write(b []byte) (int, error) {
	if !s.line.pass() {
		return len(b), nil
	}
	return s.ReadWriter.Write(b)
}
