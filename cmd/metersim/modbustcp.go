package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"gridgate/internal/cli"
)

// serveRTUOverTCP puts the meters on one line behind a terminal server.
func serveRTUOverTCP(ctx context.Context, out io.Writer, meters []*modbusMeter, f *faults, listen string) error {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	for _, m := range meters {
		fmt.Fprintf(out, "%s unit %d serial %d\n", ln.Addr(), m.unit, m.serial)
	}
	return serveConns(ctx, ln, func(ctx context.Context, conn io.ReadWriter) error {
		return (&rtuServer{meters: meters, faults: f}).serve(ctx, conn)
	})
}

// serveTCP gives each meter a port of its own.
func serveTCP(ctx context.Context, out io.Writer, meters []*modbusMeter, f *faults, listen string) error {
	host, portText, err := net.SplitHostPort(listen)
	port, perr := strconv.ParseUint(portText, 10, 16)
	if err != nil || perr != nil || port+uint64(len(meters)) > 1<<16 {
		return cli.Usagef("modbus: -listen %q: want host:port with room for %d ports", listen, len(meters))
	}
	group, ctx := errgroup.WithContext(ctx)
	var listeners []net.Listener
	for i, m := range meters {
		at := uint64(0)
		if port != 0 {
			at = port + uint64(i)
		}
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, strconv.FormatUint(at, 10)))
		if err != nil {
			for _, ln := range listeners {
				_ = ln.Close()
			}
			return err
		}
		m.unit = 1
		listeners = append(listeners, ln)
	}
	for i, m := range meters {
		fmt.Fprintf(out, "%s unit %d serial %d\n", listeners[i].Addr(), m.unit, m.serial)
		group.Go(func() error { return (&tcpServer{meter: m, faults: f}).serve(ctx, listeners[i]) })
	}
	return group.Wait()
}

// tcpServer answers on one port, any number of connections.
type tcpServer struct {
	meter  *modbusMeter
	faults *faults
}

func (s *tcpServer) serve(ctx context.Context, ln net.Listener) error {
	return serveConns(ctx, ln, s.talk)
}

// serveConns talks on every connection until the client goes or ctx ends.
func serveConns(ctx context.Context, ln net.Listener, talk func(context.Context, io.ReadWriter) error) error {
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	var conns errgroup.Group
	for {
		conn, err := ln.Accept()
		if err != nil {
			_ = conns.Wait()
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		conns.Go(func() error {
			hangUp := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
			defer hangUp()
			defer func() { _ = conn.Close() }()
			_ = talk(ctx, conn) // a client that went away is no news
			return nil
		})
	}
}

// talk answers until the client goes, or sends what is no Modbus.
func (s *tcpServer) talk(ctx context.Context, conn io.ReadWriter) error {
	var held []byte
	for {
		head := make([]byte, 7) // transaction, protocol, length, unit
		if _, err := io.ReadFull(conn, head); err != nil {
			return err
		}
		length := int(head[4])<<8 | int(head[5])
		if head[2] != 0 || head[3] != 0 || length < 2 || length > 254 {
			return errors.New("not Modbus")
		}
		body := make([]byte, length-1)
		if _, err := io.ReadFull(conn, body); err != nil {
			return err
		}
		if head[6] != s.meter.unit {
			continue
		}
		frame := func(pdu []byte) []byte {
			return append([]byte{head[0], head[1], 0, 0, 0, byte(1 + len(pdu)), head[6]}, pdu...)
		}
		request := append(head, body...) // head is not used as a slice again
		parts, keep := s.faults.spoil(s.faults.next(), request, frame(s.meter.answer(body)), held, framing{
			weak:    2,
			refusal: func(request []byte) []byte { return frame([]byte{request[7] | 0x80, deviceFailure}) },
			foreign: func(answer []byte) []byte {
				other := append([]byte{answer[0] ^ 0x40}, answer[1:]...)
				return other
			},
		})
		held = keep
		if err := send(ctx, conn, parts); err != nil {
			return err
		}
	}
}
