package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"gridgate/dlms/dlmstest"
	"gridgate/internal/cli"
)

type dlmsOptions struct {
	listen, password, prefix, faults string
	count                            int
	capture                          time.Duration
}

func dlmsVerb() cli.Verb {
	return cli.Verb{
		Name:    "dlms",
		Summary: "DLMS/COSEM meters over the TCP wrapper",
		Example: []string{
			"metersim dlms -listen 127.0.0.1:4059 -count 10",
			"metersim dlms -listen 127.0.0.1:0 -password 12345678",
			"metersim dlms -count 3 -faults garbage,serial",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			var o dlmsOptions
			fs.StringVar(&o.listen, "listen", "127.0.0.1:4059", "the first meter's `host:port`; the others take the ports after it; port 0 takes free ones")
			fs.IntVar(&o.count, "count", 1, "how many meters")
			fs.StringVar(&o.password, "password", "", "the low level `password` of client 17; without one it needs none, as client 16 (public)")
			fs.StringVar(&o.prefix, "serial-prefix", "GRG", "what serial numbers start with; six digits follow")
			fs.DurationVar(&o.capture, "capture", 15*time.Minute, "the capture period of the load profile 1-0:99.1.0, which goes back 40 days")
			fs.StringVar(&o.faults, "faults", "", "`list` of faults; the first is the last meter's, the second is of the one before it:\n"+
				"garbage: its answers are none\nserial: it shows another serial number than the one printed")
			return func(ctx context.Context, env cli.Env, args []string) error {
				if len(args) > 0 {
					return cli.Usagef("dlms: unexpected argument %q", args[0])
				}
				return runDLMS(ctx, env, o)
			}
		},
	}
}

func runDLMS(ctx context.Context, env cli.Env, o dlmsOptions) error {
	var faults []string
	if o.faults != "" {
		faults = strings.Split(o.faults, ",")
	}
	switch {
	case o.count < 1 || o.count > 10000:
		return cli.Usagef("dlms: -count %d: want 1 to 10000", o.count)
	case o.capture < time.Second || o.capture%time.Second != 0:
		return cli.Usagef("dlms: -capture %v: want whole seconds", o.capture)
	case len(faults) > o.count:
		return cli.Usagef("dlms: -faults: %d faults for %d meters", len(faults), o.count)
	}
	logins := map[uint16]string{16: "", 17: o.password}
	serials := make([]string, o.count)
	serve := make([]func(io.ReadWriter) error, o.count)
	for i := range o.count {
		serials[i] = fmt.Sprintf("%s%06d", o.prefix, i+1)
		h := household{number: i, serial: serials[i], capture: o.capture, now: time.Now}
		m := dlmstest.Options{Logins: logins}
		if fault := o.count - 1 - i; fault < len(faults) {
			switch faults[fault] {
			case "garbage":
				m.Tamper = garbage()
			case "serial":
				h.serial = fmt.Sprintf("%s%06d", o.prefix, 900000+i+1)
			default:
				return cli.Usagef("dlms: -faults: no fault %q: want garbage or serial", faults[fault])
			}
		}
		m.Objects = h.objects()
		serve[i] = dlmstest.NewMeter(m).Serve
	}
	return listenAll(ctx, o.listen, serve, func(i int, at net.Addr) {
		fmt.Fprintf(env.Stdout, "%s serial %s\n", at, serials[i])
	})
}

// garbage gives a Tamper that spoils every answer in one of four ways.
func garbage() func(request, frame []byte) []byte {
	var n atomic.Uint32
	return func(_, frame []byte) []byte {
		head := frame[:6]
		switch n.Add(1) % 4 {
		case 0:
			return []byte("HTTP/1.1 400 Bad Request\r\n\r\n") // no wrapper
		case 1:
			return append(head, 0, 4, 0xFF, 0x00, 0x5A, 0xA5) // a wrapper, and no APDU in it
		case 2:
			return append(head, 0xFF, 0xFF, 0xC4) // longer than any APDU
		default:
			return append([]byte{0x7E, 0xA0}, frame...) // out of step
		}
	}
}

// listenAll serves each of serve on a port of its own, any number of
// connections each, until ctx ends. listening is told where, in order.
func listenAll(ctx context.Context, listen string, serve []func(io.ReadWriter) error, listening func(int, net.Addr)) error {
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
func accept(ctx context.Context, ln net.Listener, serve func(io.ReadWriter) error) error {
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
			_ = serve(conn)
			_ = conn.Close()
		})
	}
}

func replayVerb() cli.Verb {
	return cli.Verb{
		Name:    "replay",
		Summary: "a meter that plays a captured DLMS conversation",
		Example: []string{
			"metersim replay -listen 127.0.0.1:4059 -trace conversation.txt",
			"metersim replay -trace conversation.txt -strict",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			listen := fs.String("listen", "127.0.0.1:4059", "`host:port`; port 0 takes a free one")
			file := fs.String("trace", "", "the captured conversation: a `file` of lines \"TX: time<tab>octets\" and \"RX: …\"")
			strict := fs.Bool("strict", false, "want every octet of the client as in the trace, and end with the first conversation;\n"+
				"else each request gets the answer that it got in the trace, in any order")
			return func(ctx context.Context, env cli.Env, args []string) error {
				switch {
				case len(args) > 0:
					return cli.Usagef("replay: unexpected argument %q", args[0])
				case *file == "":
					return cli.Usagef("replay: want -trace FILE")
				}
				return runReplay(ctx, env, *listen, *file, *strict)
			}
		},
	}
}

// errPlayed ends a strict replay that went well.
var errPlayed = errors.New("played to the end")

func runReplay(ctx context.Context, env cli.Env, listen, file string, strict bool) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	trace, err := dlmstest.ParseTrace(f)
	_ = f.Close()
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	listening := func(_ int, at net.Addr) { fmt.Fprintf(env.Stdout, "%s plays %s\n", at, file) }
	if !strict {
		answer := trace.Answer
		if trace.IsHDLC() {
			answer = trace.AnswerHDLC
		}
		return listenAll(ctx, listen, []func(io.ReadWriter) error{func(stream io.ReadWriter) error {
			return answer(stream, func(request []byte) {
				fmt.Fprintf(env.Stderr, "not in the trace: %s\n", dlmstest.Describe(request))
			})
		}}, listening)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err = listenAll(ctx, listen, []func(io.ReadWriter) error{func(stream io.ReadWriter) error {
		err := trace.Serve(stream)
		if err == nil {
			err = errPlayed
		}
		cancel(err)
		return err
	}}, listening)
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, errPlayed) && !errors.Is(cause, context.Canceled) {
		return fmt.Errorf("%s: %w", file, cause)
	}
	return err
}
