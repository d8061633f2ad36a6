package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"gridgate/drivers/drivertest"
	"gridgate/internal/cli"
)

// modemOptions are the flags of the verb.
type modemOptions struct {
	link, maker, faults, script, reset string
	every                              int
	boot                               time.Duration
	state                              modemState
}

// modemFaults are what a modem does to answers.
const modemFaults = "garbage (octets that are no text), split (pauses within answers), unsolicited (codes between the lines), late (3 s)"

func modemVerb() cli.Verb {
	return cli.Verb{
		Name:    "modem",
		Summary: "a mobile modem that takes AT commands on a pseudo-terminal",
		Example: []string{
			"metersim modem -link /tmp/modem",
			"metersim modem -link /tmp/modem -pin 1234 -attempts 2 -maker ublox",
			"metersim modem -link /tmp/modem -registration searching -signal -109",
			"printf '5s sim out\\n20s hang\\n' >day && metersim modem -link /tmp/modem -script day",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			var o modemOptions
			fs.StringVar(&o.link, "link", "", "make a symbolic link to the terminal at this `path`")
			fs.StringVar(&o.maker, "maker", "quectel", "whose commands it knows: sim800, quectel, ublox, or plain, which does not tell how many attempts are left")
			fs.StringVar(&o.state.pin, "pin", "", "the SIM's PIN; none is wanted by default")
			fs.IntVar(&o.state.attempts, "attempts", 3, "how often the PIN may be tried")
			fs.StringVar(&o.state.sim, "sim", "in", "in, out, puk or failure")
			fs.StringVar(&o.state.registration, "registration", "home", strings.Join(modemRegistrations(), ", "))
			fs.StringVar(&o.state.operator, "operator", "Zone 3 Mobile", "the network's name")
			fs.IntVar(&o.state.signal, "signal", -81, "how strong the network is, in `dBm`, -113 to -51; 0 is not known")
			fs.BoolVar(&o.state.timeless, "no-time", false, "the network tells no time")
			fs.DurationVar(&o.boot, "boot", 2*time.Second, "how long a restart takes")
			fs.StringVar(&o.reset, "reset", "", "make a FIFO at this `path` that is its reset line: a 1 resets it")
			fs.StringVar(&o.script, "script", "", "a `file` or FIFO of lines AFTER COMMAND, as 10s sim out, each that long after the one before: sim, registration, signal, operator, pin, attempts with a value; hang, wake, garbage, clean, restart")
			fs.StringVar(&o.faults, "faults", "", modemFaults)
			fs.IntVar(&o.every, "every", 5, "how many answers to one fault")
			return func(ctx context.Context, env cli.Env, args []string) error {
				if len(args) > 0 {
					return cli.Usagef("modem: unexpected argument %q", args[0])
				}
				return runModem(ctx, env, o)
			}
		},
	}
}

func (o *modemOptions) check() error {
	for _, f := range strings.Split(o.faults, ",") {
		if f != "" && !slices.Contains([]string{"garbage", "split", "unsolicited", "late"}, f) {
			return cli.Usagef("modem: -faults %q: want %s", f, modemFaults)
		}
	}
	switch {
	case !slices.Contains([]string{"sim800", "quectel", "ublox", "plain"}, o.maker):
		return cli.Usagef("modem: -maker %q: want sim800, quectel, ublox or plain", o.maker)
	case o.every < 1:
		return cli.Usagef("modem: -every %d: want 1 or more", o.every)
	case o.boot < 0 || o.boot > time.Minute:
		return cli.Usagef("modem: -boot %v: want 0s to 1m", o.boot)
	}
	for _, c := range [][2]string{
		{"sim", o.state.sim},
		{"registration", o.state.registration},
		{"signal", fmt.Sprint(o.state.signal)},
		{"pin", o.state.pin},
		{"attempts", fmt.Sprint(o.state.attempts)},
	} {
		if err := (&modemState{}).set(c[0], c[1]); err != nil {
			return cli.Usagef("modem: -%v", err)
		}
	}
	return nil
}

// modemSim is the modem at work.
type modemSim struct {
	options modemOptions
	out     io.Writer
	tty     io.ReadWriter

	mu      sync.Mutex
	state   modemState
	answers int
	hung    bool
	garbled bool
	booting time.Time // it says nothing before
}

func runModem(ctx context.Context, env cli.Env, o modemOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	tty, err := drivertest.Pty()
	if err != nil {
		return err
	}
	defer func() { _ = tty.Close() }()
	ctx, cancel := context.WithCancel(ctx)
	path := tty.Path
	if o.link != "" {
		remove, err := symlink(tty.Path, o.link)
		if err != nil {
			cancel()
			return err
		}
		defer remove()
		path = o.link
	}
	m := &modemSim{options: o, out: env.Stdout, tty: tty, state: o.state}
	m.state.open = m.state.pin == ""
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel()
	for _, in := range []struct {
		path string
		do   func(context.Context, *bufio.Reader) error
	}{{o.script, m.play}, {o.reset, m.watchLine}} {
		if in.path == "" {
			continue
		}
		f, err := openModemInput(in.path, in.path == o.reset)
		if err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, func() { _ = f.Close() })
		defer stop()
		tasks.Go(func() {
			if err := in.do(ctx, bufio.NewReader(f)); err != nil && ctx.Err() == nil {
				m.say("%s: %v", in.path, err)
			}
		})
	}
	stop := context.AfterFunc(ctx, func() { _ = tty.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	fmt.Fprintf(env.Stdout, "%s modem imei %s iccid %s\n", path, modemIMEI, modemICCID)
	err = m.serve(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("%s: %w", path, err)
}

// openModemInput opens a file that lines come from. A FIFO is opened for both, so
// that it has no end.
func openModemInput(path string, make bool) (*os.File, error) {
	if make {
		if err := syscall.Mkfifo(path, 0o666); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode()&os.ModeNamedPipe != 0 {
		return os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	}
	return os.Open(path)
}

func (m *modemSim) say(format string, args ...any) {
	fmt.Fprintf(m.out, "modem: "+format+"\n", args...)
}

// play carries out a script.
func (m *modemSim) play(ctx context.Context, in *bufio.Reader) error {
	for {
		line, err := in.ReadString('\n')
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			after, command, _ := strings.Cut(line, " ")
			wait, bad := time.ParseDuration(after)
			if bad != nil {
				return fmt.Errorf("%q: want AFTER COMMAND, as 10s sim out", line)
			}
			pause := time.NewTimer(wait)
			select {
			case <-ctx.Done():
				pause.Stop()
				return nil
			case <-pause.C:
			}
			if err := m.command(strings.TrimSpace(command)); err != nil {
				return err
			}
			m.say("%s", command)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// command is one of a script.
func (m *modemSim) command(text string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	name, value, _ := strings.Cut(text, " ")
	switch name {
	case "hang":
		m.hung = true
	case "wake":
		m.hung = false
	case "garbage":
		m.garbled = true
	case "clean":
		m.garbled = false
	case "restart":
		m.restart()
	default:
		return m.state.set(name, strings.TrimSpace(value))
	}
	return nil
}

// watchLine is the reset line: it resets the modem, hung or not.
func (m *modemSim) watchLine(_ context.Context, in *bufio.Reader) error {
	for {
		c, err := in.ReadByte()
		if err != nil {
			return err
		}
		if c == '1' {
			m.mu.Lock()
			m.restart()
			m.mu.Unlock()
			m.say("reset by the line")
		}
	}
}

// restart begins anew. mu is held.
func (m *modemSim) restart() {
	m.hung, m.garbled = false, false
	m.state.open, m.state.echo, m.state.errors = m.state.pin == "", true, 0
	m.booting = time.Now().Add(m.options.boot)
}

func (m *modemSim) serve(ctx context.Context) error {
	m.state.echo = true
	in := bufio.NewReaderSize(m.tty, 1024)
	for {
		line, err := in.ReadSlice('\r')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		command := strings.TrimSpace(string(line))
		m.mu.Lock()
		parts := m.respond(command)
		m.mu.Unlock()
		if err := send(ctx, m.tty, parts); err != nil {
			return err
		}
	}
}

// respond gives what goes out on a command, with pauses. mu is held.
func (m *modemSim) respond(command string) []part {
	if m.hung || time.Now().Before(m.booting) {
		return nil
	}
	if !m.booting.IsZero() {
		m.booting = time.Time{}
	}
	if m.garbled {
		return []part{{bytes: []byte("\xff\x00\xfe\x81\x13garb\x01age\r\n\xff\xff\r\n")}}
	}
	if command == "" {
		return nil
	}
	var out strings.Builder
	if m.state.echo {
		out.WriteString(command + "\r")
	}
	body := m.answer(command)
	m.answers++
	fault := ""
	if all := strings.FieldsFunc(m.options.faults, func(c rune) bool { return c == ',' }); len(all) > 0 && m.answers%m.options.every == 0 {
		fault = all[m.answers/m.options.every%len(all)]
	}
	if fault == "unsolicited" {
		out.WriteString("\r\n+CREG: 2\r\n\r\n+CGREG: 5,\"1A2B\",\"0001F2A3\",7\r\n\r\nRING\r\n")
	}
	out.WriteString(body)
	text := []byte(out.String())
	switch fault {
	case "garbage":
		return []part{{bytes: []byte("\xfe\xff\x80\x00\x07\xfc\r\n")}}
	case "late":
		return []part{{bytes: text, pause: 3 * time.Second}}
	case "split":
		half := len(text) / 2
		return []part{{bytes: text[:half]}, {bytes: text[half:], pause: 50 * time.Millisecond}}
	}
	return []part{{bytes: text}}
}
