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

	"gridgate/drivers/drivertest"
	"gridgate/internal/cli"
)

// iec21Options are the flags of the verb.
type iec21Options struct {
	listen, link, mode, password, challenge, faults string
	pty, bare                                       bool
	count, every, baud, pace                        int
	serial                                          uint64
	capture                                         time.Duration
	clock                                           clockOptions
}

func iec21Verb() cli.Verb {
	return cli.Verb{
		Name:    "iec21",
		Summary: "meters of IEC 62056-21, modes A, B and C, over TCP and on a pseudo-terminal",
		Example: []string{
			"metersim iec21 -listen 127.0.0.1:4001 -count 3",
			"metersim iec21 -pty -link /tmp/optical -password 12345678 -pace 300",
			"metersim iec21 -mode b -faults bcc,noise,late",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			var o iec21Options
			fs.StringVar(&o.listen, "listen", "127.0.0.1:4001", "TCP: `host:port` of the line that the meters hang on; port 0 takes a free one")
			fs.BoolVar(&o.pty, "pty", false, "the line is a pseudo-terminal; prints its path")
			fs.StringVar(&o.link, "link", "", "with -pty: make a symbolic link to the terminal at this `path`")
			fs.IntVar(&o.count, "count", 1, "how many meters on the line, told apart by device address, which is the serial number")
			fs.StringVar(&o.mode, "mode", "c", "a: readout at the rate of the sign-on; b: at -baud, not asked; c: at an agreed rate, and registers")
			fs.IntVar(&o.baud, "baud", 9600, "the rate that the meters offer in modes b and c")
			fs.IntVar(&o.pace, "pace", 0, "the rate of the sign-on: octets take the `bit/s` of the line, as it changes; 0 is no time at all")
			fs.BoolVar(&o.bare, "bare", false, "the readout of modes a and b has no frame and no check character")
			fs.Uint64Var(&o.serial, "serial", 50000001, "the first meter's serial number; the others count on")
			fs.StringVar(&o.password, "password", "", "what opens the programming mode; none is needed by default")
			fs.StringVar(&o.challenge, "challenge", "", "what the meters challenge with (P0)")
			fs.DurationVar(&o.capture, "capture", 15*time.Minute, "the capture period of the load profile P.01, which goes back 40 days; whole minutes")
			o.clock.flags(fs)
			fs.StringVar(&o.faults, "faults", "", iec21FaultsHelp())
			fs.IntVar(&o.every, "every", 5, "how many messages to one fault")
			return func(ctx context.Context, env cli.Env, args []string) error {
				if len(args) > 0 {
					return cli.Usagef("iec21: unexpected argument %q", args[0])
				}
				return runIEC21(ctx, env, o)
			}
		},
	}
}

func (o *iec21Options) check() error {
	const most = 1 << 40
	switch {
	case o.count < 1 || o.count > 1000:
		return cli.Usagef("iec21: -count %d: want 1 to 1000", o.count)
	case o.mode != "a" && o.mode != "b" && o.mode != "c":
		return cli.Usagef("iec21: -mode %q: want a, b or c", o.mode)
	case iec21Letter(o.mode, o.baud) == 0:
		return cli.Usagef("iec21: -baud %d: want 300 (not in mode b), 600, 1200, 2400, 4800, 9600 or 19200", o.baud)
	case o.pace < 0 || o.pace > 115200:
		return cli.Usagef("iec21: -pace %d: want 0 to 115200", o.pace)
	case o.bare && o.mode == "c":
		return cli.Usagef("iec21: -bare is of modes a and b")
	case o.capture < time.Minute || o.capture%time.Minute != 0:
		return cli.Usagef("iec21: -capture %v: want whole minutes", o.capture)
	case o.link != "" && !o.pty:
		return cli.Usagef("iec21: -link needs -pty")
	case o.serial > most:
		return cli.Usagef("iec21: -serial %d: want at most %d", o.serial, uint64(most))
	case len(o.password) > 32 || len(o.challenge) > 32:
		return cli.Usagef("iec21: -password, -challenge: want at most 32 characters")
	}
	return o.clock.check("iec21")
}

func runIEC21(ctx context.Context, env cli.Env, o iec21Options) error {
	if err := o.check(); err != nil {
		return err
	}
	f, err := parseIEC21Faults(o.faults, o.every)
	if err != nil {
		return cli.Usagef("iec21: %v", err)
	}
	bus := &iec21Bus{options: o, faults: f}
	for i := range o.count {
		serial := strconv.FormatUint(o.serial+uint64(i), 10)
		clock := o.clock.clock()
		bus.meters = append(bus.meters, household{number: i, serial: serial, capture: o.capture, now: clock.now, clock: clock})
	}
	say := func(where string) {
		for _, m := range bus.meters {
			fmt.Fprintf(env.Stdout, "%s address %s serial %s\n", where, m.serial, m.serial)
		}
	}
	if !o.pty {
		serve := []func(context.Context, io.ReadWriter) error{bus.serve}
		return listenAll(ctx, o.listen, serve, func(_ int, at net.Addr) { say(at.String()) })
	}
	tty, err := drivertest.Pty()
	if err != nil {
		return err
	}
	defer func() { _ = tty.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = tty.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	path := tty.Path
	if o.link != "" {
		remove, err := symlink(tty.Path, o.link)
		if err != nil {
			return err
		}
		defer remove()
		path = o.link
	}
	say(path)
	err = bus.serve(ctx, tty)
	if ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return nil
	}
	return fmt.Errorf("%s: %w", path, err)
}

// iec21Letter gives the character by which a meter tells its rate
// (IEC 62056-21, 6.3.14), 0 for a rate that there is none for.
func iec21Letter(mode string, baud int) byte {
	n := byte(0)
	for rate := 300; rate <= 19200; rate *= 2 {
		if rate == baud {
			switch {
			case mode == "a":
				return ' '
			case mode == "b" && n > 0:
				return 'A' + n - 1
			case mode == "c":
				return '0' + n
			}
		}
		n++
	}
	return 0
}
