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
	"gridgate/drivers/line"
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
			"metersim modbus -pty -baud 9600 -units 3,7,12,30 -model eastron-sdm120,abb-b23   # a slow line to scan",
			"metersim modbus -model list",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			var o modbusOptions
			fs.StringVar(&o.listen, "listen", "127.0.0.1:5020", "TCP: the first meter's `host:port`; the others take the ports after it; port 0 takes free ones")
			fs.BoolVar(&o.pty, "pty", false, "RTU on a pseudo-terminal, units 1 to -count; prints its path")
			fs.StringVar(&o.link, "link", "", "with -pty: make a symbolic link to the terminal at this `path`")
			fs.IntVar(&o.count, "count", 1, "how many meters")
			fs.BoolVar(&o.rtu, "rtu", false, "with -listen: RTU frames over TCP, units 1 to -count on one port")
			fs.StringVar(&o.model, "model", "eastron-sdm630", "kind of meter: the `name` of a register map, or several that the meters have in turn; \"list\" prints them")
			fs.StringVar(&o.units, "units", "", "the `numbers` of the units on a line, instead of 1 to -count, as in 3,7,12; one that is there twice is two meters")
			fs.BoolVar(&o.identity, "device-id", false, "the meters say who made them by function 43/14")
			fs.IntVar(&o.baud, "baud", 0, "with -pty: a line of so many `bit/s`: octets take their time, and at other rates there is garbage; 0 is no pace")
			fs.StringVar(&o.format, "format", "8N1", "with -baud: the format, as in 8E1; a pseudo-terminal tells no parity, but stop bits")
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
	units, format                       string
	pty, rtu, identity                  bool
	count, every, baud                  int
	serial                              uint64
	clock                               clockOptions
}

func runModbus(ctx context.Context, env cli.Env, o modbusOptions) error {
	if o.model == "list" {
		fmt.Fprintln(env.Stdout, strings.Join(configs.ModelNames(), "\n"))
		return nil
	}
	models, err := o.kinds()
	if err != nil {
		return err
	}
	units, err := o.numbers()
	if err != nil {
		return err
	}
	pace, err := o.pace()
	if err != nil {
		return err
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
	meters := make([]*modbusMeter, len(units))
	for i := range meters {
		meters[i] = &modbusMeter{
			unit: units[i], serial: uint32(o.serial) + uint32(i), model: models[i%len(models)], number: i, shows: o.identity, now: time.Now, clock: o.clock.clock(),
		}
	}
	if o.pty {
		return servePty(ctx, env.Stdout, meters, f, o.link, pace)
	}
	if o.rtu {
		return serveRTUOverTCP(ctx, env.Stdout, meters, f, o.listen)
	}
	return serveTCP(ctx, env.Stdout, meters, f, o.listen)
}

// servePty puts the meters on one line.
func servePty(ctx context.Context, out io.Writer, meters []*modbusMeter, f *faults, link string, pace line.Settings) error {
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
	var stream io.ReadWriter = tty
	if pace.Baud > 0 {
		stream = drivertest.NewUART(ctx, tty, pace, terminalSettings(tty, pace))
	}
	err = (&rtuServer{meters: meters, faults: f}).serve(ctx, stream)
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

// frameSilence is much more than the silence that parts frames at any rate, and than
// a machine pauses within one write.
const frameSilence = 60 * time.Millisecond

// identitySize is that of a request for the device's identification.
const identitySize = 7

func (s *rtuServer) serve(ctx context.Context, rw io.ReadWriter) error {
	var pending []byte
	var last time.Time
	buf := make([]byte, 256)
	for {
		n, err := rw.Read(buf)
		if err != nil {
			return err
		}
		if time.Since(last) > frameSilence {
			pending = pending[:0] // a frame does not pause
		}
		last = time.Now()
		pending = append(pending, buf[:n]...)
		for len(pending) >= identitySize {
			size := requestSize
			switch {
			case pending[1] == writeRegisters:
				size = 9 + int(pending[6])
			case pending[1] == encapsulated && crcGood(pending[:identitySize]):
				size = identitySize
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
	var all [][]byte
	for _, m := range s.meters {
		if m.unit == request[0] {
			all = append(all, addCRC(append([]byte{request[0]}, m.answer(request[1:len(request)-2])...)))
		}
	}
	if len(all) == 0 {
		return nil
	}
	answer := drivertest.Collide(all...)
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
