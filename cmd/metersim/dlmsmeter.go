package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"gridgate/dlms/dlmstest"
	"gridgate/dlms/security"
	"gridgate/drivers/drivertest"
	"gridgate/internal/cli"
)

// dlmsMeter is one simulated meter and its line.
type dlmsMeter struct {
	meter     *dlmstest.Meter
	serial    string
	title     security.Title
	transport string
	hdlc      hdlcOptions
	station   dlmstest.Station
	modeE     dlmstest.ModeE
	pace      paceOptions
	push      *pusher
	fault     *lineFault // nil for none
}

// serve serves one stream.
func (d *dlmsMeter) serve(ctx context.Context, stream io.ReadWriter) error {
	if d.fault != nil && d.fault.kind == faultEcho {
		stream = echoing{stream}
	}
	line := dlmstest.NewLine(ctx, stream, d.pace.baud, d.pace.turnaround)
	faulty := faultyLine{line, ctx, d.fault}
	switch d.transport {
	case transportHDLC:
		shared := &lockedWriter{ReadWriter: faulty}
		d.push.open(shared)
		defer d.push.closed(shared)
		return d.meter.ServeHDLC(shared, d.station)
	case transportModeE:
		e := d.modeE
		if d.pace.baud != 0 {
			e.Switch = line.SetBaud
		}
		return dlmstest.ServeModeE(faulty, e, d.meter.Station(d.station))
	}
	return d.meter.Serve(faulty)
}

// serveTerminal serves a terminal, whose rate is heard.
func (d *dlmsMeter) serveTerminal(ctx context.Context, tty *drivertest.Terminal) error {
	rate := terminalRate(tty)
	switch {
	case d.transport == transportModeE:
		own, from := *d, &timed{ReadWriter: tty, rate: rate}
		own.modeE.Rate, own.modeE.Settle = from.rateThen, settled(ctx, rate)
		return own.serve(ctx, from)
	case d.transport == transportHDLC && d.pace.baud != 0:
		return d.serve(ctx, rated{tty, rate, d.pace.baud})
	}
	return d.serve(ctx, tty)
}

// hdlcOptions are the properties of an HDLC link.
type hdlcOptions struct {
	physical, addrLen, info, window int
	inactivity                      time.Duration
}

func (o *hdlcOptions) flags(fs *flag.FlagSet) {
	fs.IntVar(&o.physical, "physical", 0, "hdlc, modee: the first meter's physical address, the others count on; 0 is none, and any will do; the logical one is 1")
	fs.IntVar(&o.addrLen, "addrlen", 0, "hdlc, modee: octets of the meter's address: 1, 2 or 4, and no other form of it; 0 is any form")
	fs.IntVar(&o.info, "info", 128, "hdlc, modee: the longest information field, 32 to 2030 `octets`")
	fs.IntVar(&o.window, "window", 1, "hdlc, modee: the window, 1 to 7 frames")
	fs.DurationVar(&o.inactivity, "inactivity", 2*time.Minute, "hdlc, modee: a connection is over when nothing came for so long; 0 is never")
}

// station gives the link; the address is logical 1, and physical if there is
// one (IEC 62056-46, 6.4.2).
func (o *hdlcOptions) station() (dlmstest.Station, error) {
	s := dlmstest.Station{MaxInfo: o.info, Window: o.window, AnyForm: o.addrLen == 0, Inactivity: o.inactivity}
	length := o.addrLen
	if length == 0 {
		switch {
		case o.physical == 0:
			length = 1
		case o.physical < 1<<7:
			length = 2
		default:
			length = 4
		}
	}
	p := o.physical
	switch {
	case o.physical < 0 || o.physical >= 1<<14:
		return s, cli.Usagef("dlms: -physical %d: want 1 to %d", o.physical, 1<<14-1)
	case o.inactivity < 0:
		return s, cli.Usagef("dlms: -inactivity %v: want 0 or more", o.inactivity)
	case o.info < 32 || o.info > 2030:
		return s, cli.Usagef("dlms: -info %d: want 32 to 2030", o.info)
	case o.window < 1 || o.window > 7:
		return s, cli.Usagef("dlms: -window %d: want 1 to 7", o.window)
	case length == 1 && p == 0:
		s.Server = []byte{1<<1 | 1}
	case length == 2 && p < 1<<7:
		s.Server = []byte{1 << 1, byte(p<<1) | 1}
	case length == 4:
		s.Server = []byte{0, 1 << 1, byte(p>>7) << 1, byte(p<<1) | 1}
	default:
		return s, cli.Usagef("dlms: -addrlen %d: want 1, 2 or 4, and room for -physical %d", o.addrLen, o.physical)
	}
	return s, nil
}

// servePtys gives each meter a terminal of its own.
func servePtys(ctx context.Context, meters []*dlmsMeter, link string, say func(int, string)) error {
	group, ctx := errgroup.WithContext(ctx)
	for i, m := range meters {
		tty, err := drivertest.Pty()
		if err != nil {
			return errors.Join(err, group.Wait())
		}
		path := tty.Path
		remove := func() {}
		if link != "" {
			path = link
			if i > 0 {
				path += "-" + strconv.Itoa(i)
			}
			if remove, err = symlink(tty.Path, path); err != nil {
				return errors.Join(err, tty.Close(), group.Wait())
			}
		}
		say(i, path)
		group.Go(func() error {
			defer func() { _ = tty.Close() }()
			defer remove()
			stop := context.AfterFunc(ctx, func() { _ = tty.SetDeadline(time.Unix(1, 0)) })
			defer stop()
			err := m.serveTerminal(ctx, tty)
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("%s: %w", path, err)
		})
	}
	return group.Wait()
}

// serveUDP gives each meter a port of its own. Each client's address has a
// session of its own.
func serveUDP(ctx context.Context, listen string, meters []*dlmsMeter, say func(int, net.Addr)) error {
	host, portText, err := net.SplitHostPort(listen)
	port, perr := strconv.ParseUint(portText, 10, 16)
	if err != nil || perr != nil || port+uint64(len(meters)) > 1<<16 {
		return cli.Usagef("-listen %q: want host:port with room for %d ports", listen, len(meters))
	}
	var conns []net.PacketConn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for i := range meters {
		at := uint64(0)
		if port != 0 {
			at = port + uint64(i)
		}
		conn, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", net.JoinHostPort(host, strconv.FormatUint(at, 10)))
		if err != nil {
			return err
		}
		conns = append(conns, conn)
	}
	group, ctx := errgroup.WithContext(ctx)
	for i, m := range meters {
		say(i, conns[i].LocalAddr())
		group.Go(func() error { return m.serveDatagrams(ctx, conns[i]) })
	}
	return group.Wait()
}

// maxSessions is how many addresses a meter talks to over UDP; when there are
// more it forgets them all.
const maxSessions = 64

func (d *dlmsMeter) serveDatagrams(ctx context.Context, conn net.PacketConn) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	sessions := map[string]*dlmstest.Session{}
	buf := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		s := sessions[from.String()]
		if s == nil {
			if len(sessions) == maxSessions {
				clear(sessions)
			}
			s = d.meter.NewSession()
			sessions[from.String()] = s
		}
		for _, out := range s.Frame(buf[:n]) {
			_ = send(ctx, datagramsTo{conn, from}, d.fault.spoil(out)) // who went away misses it
		}
	}
}

// datagramsTo writes datagrams to an address.
type datagramsTo struct {
	conn net.PacketConn
	to   net.Addr
}

func (d datagramsTo) Write(b []byte) (int, error) { return d.conn.WriteTo(b, d.to) }
