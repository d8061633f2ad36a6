package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gridgate/configs"
	"gridgate/drivers/drivertest"
	"gridgate/internal/cli"
)

func modbusVerb() cli.Verb {
	return cli.Verb{
		Name:    "modbus",
		Summary: "Modbus meters over TCP, or over RTU on a pseudo-terminal",
		Example: []string{
			"metersim modbus -listen 127.0.0.1:5020 -count 5",
			"metersim modbus -pty -count 5 -model eastron-sdm120 -link /tmp/rs485",
			"metersim modbus -listen 127.0.0.1:5020 -rtu -count 3 -model abb-b23",
			"metersim modbus -pty -faults late,split,noise -every 3",
			"metersim modbus -model list",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			var o modbusOptions
			fs.StringVar(&o.listen, "listen", "127.0.0.1:5020", "TCP: the first meter's `host:port`; the others take the ports after it; port 0 takes free ones")
			fs.BoolVar(&o.pty, "pty", false, "RTU on a pseudo-terminal, units 1 to -count; prints its path")
			fs.StringVar(&o.link, "link", "", "with -pty: make a symbolic link to the terminal at this `path`")
			fs.IntVar(&o.count, "count", 1, "how many meters")
			fs.BoolVar(&o.rtu, "rtu", false, "with -listen: RTU frames over TCP, units 1 to -count on one port")
			fs.StringVar(&o.model, "model", "eastron-sdm630", "kind of meter: the `name` of a register map; \"list\" prints them")
			fs.StringVar(&o.models, "models", "", "a `directory` with register maps, before the built-in ones")
			fs.Uint64Var(&o.serial, "serial", 20260001, "the first meter's serial number; the others count on")
			fs.StringVar(&o.faults, "faults", "", faultsHelp())
			fs.IntVar(&o.every, "every", 7, "how many requests to one fault")
			o.clock.flags(fs)
			return func(ctx context.Context, env cli.Env, args []string) error {
				if len(args) > 0 {
					return cli.Usagef("modbus: unexpected argument %q", args[0])
				}
				return runModbus(ctx, env, o)
			}
		},
	}
}

type modbusOptions struct {
	listen, link, model, models, faults string
	pty, rtu                            bool
	count, every                        int
	serial                              uint64
	clock                               clockOptions
}

func runModbus(ctx context.Context, env cli.Env, o modbusOptions) error {
	if o.model == "list" {
		fmt.Fprintln(env.Stdout, strings.Join(configs.ModelNames(), "\n"))
		return nil
	}
	model, err := configs.ModelIn(o.models, o.model)
	if err != nil {
		return cli.Usagef("modbus: %v", err)
	}
	f, err := parseFaults(o.faults, o.every)
	if err != nil {
		return cli.Usagef("modbus: %v", err)
	}
	switch {
	case o.count < 1 || o.count > 247:
		return cli.Usagef("modbus: -count %d: want 1 to 247", o.count)
	case o.serial+uint64(o.count) > 1<<32:
		return cli.Usagef("modbus: -serial %d: want at most %d", o.serial, uint64(1<<32)-uint64(o.count))
	case o.link != "" && !o.pty:
		return cli.Usagef("modbus: -link needs -pty")
	case o.rtu && o.pty:
		return cli.Usagef("modbus: -rtu is for -listen; a terminal has no other")
	}
	if err := o.clock.check("modbus"); err != nil {
		return err
	}
	meters := make([]*modbusMeter, o.count)
	for i := range meters {
		meters[i] = &modbusMeter{
			unit: byte(i + 1), serial: uint32(o.serial) + uint32(i), model: model, number: i, now: time.Now, clock: o.clock.clock(),
		}
	}
	if o.pty {
		return servePty(ctx, env.Stdout, meters, f, o.link)
	}
	if o.rtu {
		return serveRTUOverTCP(ctx, env.Stdout, meters, f, o.listen)
	}
	return serveTCP(ctx, env.Stdout, meters, f, o.listen)
}

// servePty puts the meters on one line.
func servePty(ctx context.Context, out io.Writer, meters []*modbusMeter, f *faults, link string) error {
	tty, err := drivertest.Pty()
	if err != nil {
		return err
	}
	defer func() { _ = tty.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = tty.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	path := tty.Path
	if link != "" {
		remove, err := symlink(tty.Path, link)
		if err != nil {
			return err
		}
		defer remove()
		path = link
	}
	for _, m := range meters {
		fmt.Fprintf(out, "%s unit %d serial %d\n", path, m.unit, m.serial)
	}
	err = (&rtuServer{meters: meters, faults: f}).serve(ctx, tty)
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("%s: %w", tty.Path, err)
}

// symlink makes a link, in place of a link left by an earlier run.
func symlink(target, link string) (remove func(), err error) {
	if info, err := os.Lstat(link); err == nil && info.Mode()&os.ModeSymlink != 0 {
		_ = os.Remove(link)
	}
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return nil, err
	}
	if err := os.Symlink(target, link); err != nil {
		return nil, err
	}
	return func() {
		if now, err := os.Readlink(link); err == nil && now == target {
			_ = os.Remove(link)
		}
	}, nil
}

// rtuServer answers on a serial line.
type rtuServer struct {
	meters []*modbusMeter
	faults *faults
	held   []byte // an answer that comes late
}

// requestSize is the length of the reads that the meters know, and the least of
// the writes; anything else on the line is shifted out byte by byte.
const requestSize = 8

func (s *rtuServer) serve(ctx context.Context, rw io.ReadWriter) error {
	var pending []byte
	buf := make([]byte, 256)
	for {
		n, err := rw.Read(buf)
		if err != nil {
			return err
		}
		pending = append(pending, buf[:n]...)
		for len(pending) >= requestSize {
			size := requestSize
			if pending[1] == writeRegisters {
				size = 9 + int(pending[6])
			}
			if len(pending) < size {
				break
			}
			request := pending[:size]
			if !crcGood(request) {
				pending = pending[1:]
				continue
			}
			if err := s.answer(ctx, rw, request); err != nil {
				return err
			}
			pending = pending[size:]
		}
	}
}

func (s *rtuServer) answer(ctx context.Context, w io.Writer, request []byte) error {
	unit := int(request[0])
	if unit < 1 || unit > len(s.meters) {
		return nil
	}
	answer := addCRC(append([]byte{request[0]}, s.meters[unit-1].answer(request[1:len(request)-2])...))
	parts, keep := s.faults.spoil(s.faults.next(), request, answer, s.held, framing{
		weak:    3,
		refusal: func(request []byte) []byte { return addCRC([]byte{request[0], request[1] | 0x80, deviceFailure}) },
		foreign: func(answer []byte) []byte {
			other := append([]byte{answer[0] + 100}, answer[1:len(answer)-2]...)
			return addCRC(other)
		},
	})
	s.held = keep
	return send(ctx, w, parts)
}

// send writes parts with their pauses.
func send(ctx context.Context, w io.Writer, parts []part) error {
	for _, p := range parts {
		if p.pause > 0 {
			timer := time.NewTimer(p.pause)
			select {
			case <-ctx.Done():
				timer.Stop()
				return context.Cause(ctx)
			case <-timer.C:
			}
		}
		if _, err := w.Write(p.bytes); err != nil {
			return err
		}
	}
	return nil
}

// addCRC and crcGood are CRC-16/MODBUS, bit by bit.
func addCRC(frame []byte) []byte {
	sum := crcOf(frame)
	return append(frame, byte(sum), byte(sum>>8))
}

func crcGood(frame []byte) bool {
	n := len(frame) - 2
	sum := crcOf(frame[:n])
	return frame[n] == byte(sum) && frame[n+1] == byte(sum>>8)
}

func crcOf(b []byte) uint16 {
	register := uint16(0xFFFF)
	for _, octet := range b {
		for bit := range 8 {
			out := register&1 ^ uint16(octet>>bit)&1
			register >>= 1
			if out == 1 {
				register ^= 0xA001
			}
		}
	}
	return register
}
