package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"gridgate/dlms/dlmstest"
	"gridgate/internal/cli"
)

// dlmsOptions are the flags of the verb.
type dlmsOptions struct {
	listen, link, prefix, faults string
	transport                    string
	pty, bus                     bool
	count, every                 int
	capture                      time.Duration
	hdlc                         hdlcOptions
	pace                         paceOptions
	push                         pushOptions
	secured                      securedOptions
	clock                        clockOptions
	acts                         actOptions
}

func dlmsVerb() cli.Verb {
	return cli.Verb{
		Name:    "dlms",
		Summary: "DLMS/COSEM meters over TCP, UDP, HDLC, mode E and pseudo-terminals",
		Example: []string{
			"metersim dlms -listen 127.0.0.1:4059 -count 10 -password 12345678",
			"metersim dlms -transport hdlc -pty -link /tmp/optical -auth gmac -security authenc",
			"metersim dlms -transport modee -pty -baud 9600 -turnaround 50ms -auth lls -password 12345678",
			"metersim dlms -transport hdlc -pty -bus -count 6 -physical 17 -baud 9600   # an RS-485 line to scan",
			"metersim dlms -transport hdlc -count 3 -faults late,noise,segment -every 3",
			"metersim dlms -push 127.0.0.1:4060 -push-every 15s",
			"metersim dlms -offset 90s -drift -20",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			var o dlmsOptions
			fs.StringVar(&o.listen, "listen", "127.0.0.1:4059", "the first meter's `host:port`; the others take the ports after it; port 0 takes free ones")
			fs.StringVar(&o.transport, "transport", transportWrapper, "wrapper (TCP), udp (the wrapper over UDP), hdlc, or modee (HDLC after a sign-on by IEC 62056-21)")
			fs.BoolVar(&o.pty, "pty", false, "hdlc or modee on pseudo-terminals, one a meter; prints their paths; -transport wrapper means hdlc then")
			fs.BoolVar(&o.bus, "bus", false, "with -pty: all meters on one terminal, told apart by -physical; -baud is then that of the line, and at others there is garbage")
			fs.StringVar(&o.link, "link", "", "with -pty: make a symbolic link to the terminal at this `path`, with -1, -2, … behind it for the others")
			fs.IntVar(&o.count, "count", 1, "how many meters")
			fs.StringVar(&o.prefix, "serial-prefix", "GRG", "what serial numbers start with; six digits follow")
			fs.DurationVar(&o.capture, "capture", 15*time.Minute, "the capture period of the load profile 1-0:99.1.0, which goes back 40 days")
			fs.StringVar(&o.faults, "faults", "", dlmsFaultsHelp())
			fs.IntVar(&o.every, "every", 5, "how many answers to one fault")
			o.clock.flags(fs)
			o.hdlc.flags(fs)
			o.pace.flags(fs)
			o.push.flags(fs)
			o.secured.flags(fs)
			o.acts.flags(fs)
			return func(ctx context.Context, env cli.Env, args []string) error {
				if len(args) > 0 {
					return cli.Usagef("dlms: unexpected argument %q", args[0])
				}
				return runDLMS(ctx, env, o)
			}
		},
	}
}

// The transports.
const (
	transportWrapper = "wrapper"
	transportUDP     = "udp"
	transportHDLC    = "hdlc"
	transportModeE   = "modee"
)

func (o *dlmsOptions) check(faults []string) error {
	if o.pty && o.transport == transportWrapper {
		o.transport = transportHDLC // what there is on terminals
	}
	switch {
	case o.count < 1 || o.count > 10000:
		return cli.Usagef("dlms: -count %d: want 1 to 10000", o.count)
	case o.capture < time.Second || o.capture%time.Second != 0:
		return cli.Usagef("dlms: -capture %v: want whole seconds", o.capture)
	case len(faults) > o.count:
		return cli.Usagef("dlms: -faults: %d faults for %d meters", len(faults), o.count)
	case o.every < 1:
		return cli.Usagef("dlms: -every %d: want 1 or more", o.every)
	case !slices.Contains([]string{transportWrapper, transportUDP, transportHDLC, transportModeE}, o.transport):
		return cli.Usagef("dlms: -transport %q: want wrapper, udp, hdlc or modee", o.transport)
	case o.pty && o.transport == transportUDP:
		return cli.Usagef("dlms: -pty is for -transport hdlc and modee")
	case o.transport == transportUDP && o.secured.ref == "sn":
		return cli.Usagef("dlms: -ref sn is not of -transport udp: short names do not number their requests")
	case o.link != "" && !o.pty:
		return cli.Usagef("dlms: -link needs -pty")
	case o.bus && (!o.pty || o.transport != transportHDLC || o.hdlc.physical == 0):
		return cli.Usagef("dlms: -bus needs -pty, -transport hdlc and -physical, which tells the meters apart")
	}
	if err := errors.Join(o.clock.check("dlms"), o.acts.check()); err != nil {
		return err
	}
	if err := errors.Join(o.pace.check(o.transport), o.push.check(o.transport)); err != nil {
		return err
	}
	for _, f := range faults {
		if err := checkDLMSFault(f, o.transport); err != nil {
			return err
		}
	}
	return nil
}

func runDLMS(ctx context.Context, env cli.Env, o dlmsOptions) error {
	var faults []string
	if o.faults != "" {
		faults = strings.Split(o.faults, ",")
	}
	if err := o.check(faults); err != nil {
		return err
	}
	secured, err := o.secured.parse()
	if err != nil {
		return err
	}
	meters := make([]*dlmsMeter, o.count)
	for i := range o.count {
		if meters[i], err = o.meter(i, secured, faults); err != nil {
			return err
		}
	}
	scheme := "dlms+" + o.transport
	say := func(i int, where string) {
		d := meters[i]
		fmt.Fprintf(env.Stdout, "%s serial %s%s\n", where, d.serial, secured.describe(d.title, scheme, where, o.pty, d))
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, m := range meters {
		group.Go(func() error { return m.push.run(ctx) })
	}
	group.Go(func() error {
		switch {
		case o.bus:
			return serveBus(ctx, meters, o.link, say)
		case o.pty:
			return servePtys(ctx, meters, o.link, say)
		case o.transport == transportUDP:
			return serveUDP(ctx, o.listen, meters, func(i int, at net.Addr) { say(i, at.String()) })
		}
		serve := make([]func(context.Context, io.ReadWriter) error, len(meters))
		for i, m := range meters {
			serve[i] = m.serve
		}
		return listenAll(ctx, o.listen, serve, func(i int, at net.Addr) { say(i, at.String()) })
	})
	return group.Wait()
}

// meter makes the meter with that number.
func (o *dlmsOptions) meter(i int, secured *secured, faults []string) (*dlmsMeter, error) {
	d := &dlmsMeter{serial: fmt.Sprintf("%s%06d", o.prefix, i+1), transport: o.transport, hdlc: o.hdlc, pace: o.pace}
	if d.hdlc.physical != 0 {
		d.hdlc.physical += i
	}
	var err error
	if d.station, err = d.hdlc.station(); err != nil {
		return nil, err
	}
	d.modeE = dlmstest.ModeE{Address: d.serial, Device: d.serial[:min(len(d.serial), 16)], Baud: o.pace.baud}
	clock := o.clock.clock()
	h := household{number: i, serial: d.serial, capture: o.capture, now: clock.now, clock: clock, acts: &o.acts}
	m := dlmstest.Options{Clients: secured.clients(), Security: secured.security(i), Zone: time.Local}
	if n := o.count - 1 - i; n < len(faults) {
		d.fault = &lineFault{kind: faults[n], every: o.every}
		switch faults[n] {
		case faultGarbage:
			m.Tamper = garbage()
		case faultCut:
			m.Tamper = cut(o.every)
		case faultSerial:
			h.serial = fmt.Sprintf("%s%06d", o.prefix, 900000+i+1)
		case faultFRMR:
			d.station.Rejects = d.fault.now
		}
	}
	d.push = newPusher(o.push, o.transport, secured.policy)
	d.push.station = d.station
	m.Name = h.deviceName()
	m.Objects = append(h.objects(), h.setups(d)...)
	d.modeE.Readout = h.readout
	d.title = m.Security.Title
	d.meter = dlmstest.NewMeter(m)
	d.push.meter = d.meter
	return d, nil
}

// listenAll serves each of serve on a port of its own, any number of
// connections each, until ctx ends. listening is told where, in order.
func listenAll(ctx context.Context, listen string, serve []func(context.Context, io.ReadWriter) error, listening func(int, net.Addr)) error {
	host, portText, err := net.SplitHostPort(listen)
	port, perr := strconv.ParseUint(portText, 10, 16)
	if err != nil || perr != nil || port+uint64(len(serve)) > 1<<16 {
		return cli.Usagef("-listen %q: want host:port with room for %d ports", listen, len(serve))
	}
	var listeners []net.Listener
	closeAll := func() {
		for _, ln := range listeners {
			_ = ln.Close()
		}
	}
	for i := range serve {
		at := uint64(0)
		if port != 0 {
			at = port + uint64(i)
		}
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, strconv.FormatUint(at, 10)))
		if err != nil {
			closeAll()
			return err
		}
		listeners = append(listeners, ln)
	}
	group, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, closeAll)
	defer stop()
	for i, ln := range listeners {
		listening(i, ln.Addr())
		group.Go(func() error { return accept(ctx, ln, serve[i]) })
	}
	return group.Wait()
}

// accept serves connections until ctx ends. What goes wrong on one of them is
// its client's affair.
func accept(ctx context.Context, ln net.Listener, serve func(context.Context, io.ReadWriter) error) error {
	var conns sync.WaitGroup
	defer conns.Wait()
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
		conns.Go(func() {
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			_ = serve(ctx, conn)
			_ = conn.Close()
		})
	}
}
