package main

import (
	"context"
	"flag"
	"io"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"gridgate/drivers/drivertest"
	"gridgate/internal/cli"
)

// paceOptions are the flags of how fast a line is.
type paceOptions struct {
	baud       int
	turnaround time.Duration
}

func (o *paceOptions) flags(fs *flag.FlagSet) {
	fs.IntVar(&o.baud, "baud", 0, "hdlc, modee: a line of so many `bit/s`: octets take their time both ways; by mode E this is what is offered,\n"+
		"and the sign-on is at 300; on a terminal the client must set this rate, or leave it at the 38400 of new ones; 0 is no pace, and offers 9600")
	fs.DurationVar(&o.turnaround, "turnaround", 0, "how long the meter takes before it answers")
}

// modeEBauds are the rates that there are by mode E.
func modeEBauds() []int { return []int{300, 600, 1200, 2400, 4800, 9600, 19200} }

func (o *paceOptions) check(transport string) error {
	switch {
	case o.baud != 0 && transport != transportHDLC && transport != transportModeE:
		return cli.Usagef("dlms: -baud is of -transport hdlc and modee")
	case o.baud != 0 && transport == transportModeE && !slices.Contains(modeEBauds(), o.baud):
		return cli.Usagef("dlms: -baud %d: by mode E there are 300, 600, 1200, 2400, 4800, 9600 and 19200", o.baud)
	case o.baud != 0 && (o.baud < 50 || o.baud > 4000000):
		return cli.Usagef("dlms: -baud %d: want 50 to 4000000", o.baud)
	case o.turnaround < 0 || o.turnaround > time.Minute:
		return cli.Usagef("dlms: -turnaround %v: want up to 1m", o.turnaround)
	case o.turnaround != 0 && transport == transportUDP:
		return cli.Usagef("dlms: -turnaround is not of -transport udp")
	}
	return nil
}

// terminalRate gives the rate that the client set its end of a pseudo-terminal
// to; 0 is that of a new terminal, 38400, which nobody set. Parity and data bits cannot be seen: Linux has a
// pseudo-terminal at 8 bits without parity whatever is set.
func terminalRate(tty *drivertest.Terminal) func() int {
	rates := map[uint32]int{
		unix.B300: 300, unix.B600: 600, unix.B1200: 1200, unix.B2400: 2400, unix.B4800: 4800, unix.B9600: 9600, unix.B19200: 19200,
		unix.B38400: 0, unix.B57600: 57600, unix.B115200: 115200,
	}
	return func() int {
		raw, err := tty.SyscallConn()
		if err != nil {
			return 0
		}
		rate := 0
		err = raw.Control(func(fd uintptr) {
			if settings, err := unix.IoctlGetTermios(int(fd), unix.TCGETS); err == nil {
				known, ok := rates[settings.Cflag&unix.CBAUD]
				if rate = known; !ok {
					rate = 1 // none that a meter has
				}
			}
		})
		if err != nil {
			return 0
		}
		return rate
	}
}

// rated is a terminal whose meter hears only what is sent at its rate.
type rated struct {
	io.ReadWriter
	rate func() int
	want int
}

func (r rated) Read(b []byte) (int, error) {
	for {
		n, err := r.ReadWriter.Read(b)
		if at := r.rate(); err != nil || at == 0 || at == r.want {
			return n, err
		}
	}
}

// timed is a terminal that keeps the rate at which its octets came. By the time
// that a paced line has passed them on, the client may have another.
type timed struct {
	io.ReadWriter
	rate func() int
	then int
}

func (t *timed) Read(b []byte) (int, error) {
	n, err := t.ReadWriter.Read(b)
	t.then = t.rate()
	return n, err
}

func (t *timed) rateThen() int { return t.then }

// settleTime is how long the meter waits for a client to change the rate of a
// terminal before it answers at a new one. The standard gives it up to 1.5 s.
const settleTime = time.Second

// settled waits until a terminal has a rate, or has had the time to get it.
func settled(ctx context.Context, rate func() int) func(baud int) {
	const look = 5 * time.Millisecond
	return func(baud int) {
		ticker := time.NewTicker(look)
		defer ticker.Stop()
		for range settleTime / look {
			if at := rate(); at == baud || at == 0 {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	}
}
