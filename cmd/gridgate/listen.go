package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"time"

	"gridgate/dlms/security"
	"gridgate/drivers"
	"gridgate/drivers/address"
	"gridgate/drivers/cosem"
	"gridgate/drivers/line"
	"gridgate/internal/cli"
)

// listenFlags are the flags of listen.
type listenFlags struct {
	zone, config, objects, control, counters string
	last                                     time.Duration
	json                                     bool
}

func listenVerb() cli.Verb {
	return cli.Verb{
		Name: "listen", Summary: "print what DLMS meters push, over the network or on a line", Args: "URL",
		Example: []string{
			"gridgate listen tcp://:4059",
			"gridgate listen dlms+udp://127.0.0.1:4059 -for 10m -json",
			"gridgate listen 'dlms+wrapper://0.0.0.0:4059?ek=file:/etc/gridgate/ek&ak=file:/etc/gridgate/ak&title=4752470000000001'",
			"gridgate listen 'serial:///dev/ttyUSB0?baud=2400&format=8E1'   # a customer port (HAN)",
			"gridgate listen dlms+hdlc://10.0.0.9:2001                      # the same behind a serial server",
			"gridgate listen tcp://:4059 -config /etc/gridgate/gridgate.yaml",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			var f listenFlags
			fs.DurationVar(&f.last, "for", 0, "stop after this `DURATION`, with exit code 1 where nothing could be taken of what came (default: with SIGINT)")
			fs.StringVar(&f.zone, "zone", "UTC", "the time `ZONE` of meters that do not tell their own")
			fs.StringVar(&f.config, "config", "", "know the meters of this configuration `FILE`: their names, serial numbers and keys")
			fs.StringVar(&f.objects, "objects", "", "the `OBJECTS` of a meter that pushes values only, as in 1-0:1.8.0,1-0:2.8.0")
			fs.StringVar(&f.control, "control", "", "the control `SOCKET` of a running agent that a line is borrowed from\n(default: that of -config, or "+defaultControl+")")
			fs.StringVar(&f.counters, "counters", "", "with title: the `DIR` where the invocation counters of answers are kept, never to be restored or copied\n"+
				"(default: that of -config, or the agent's, or ~/.local/state/gridgate)")
			fs.BoolVar(&f.json, "json", false, "print one JSON object a value")
			return func(ctx context.Context, env cli.Env, args []string) error {
				return f.run(ctx, env, args)
			}
		},
	}
}

func (f listenFlags) run(ctx context.Context, env cli.Env, args []string) error {
	if len(args) != 1 {
		return cli.Usagef("listen: want one URL; `gridgate listen -h` shows examples")
	}
	at, err := address.ParseListen(args[0])
	if err != nil {
		return wrongAddress("listen", err)
	}
	zone, err := loadZone("listen", f.zone)
	if err != nil {
		return err
	}
	if f.last < 0 {
		return cli.Usagef("listen: -for %v: want a duration above zero", f.last)
	}
	objects, err := cosem.ParseObjects(f.objects)
	if err != nil {
		return cli.Usagef("listen: -objects: %v", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	h := hearing{env: env, out: newRowPrinter(env.Stdout, f.json), cancel: cancel, config: f.config, told: map[string]bool{}}
	h.Receiver = cosem.Receiver{Now: now, TimeZone: zone, Objects: objects, Got: h.got, Bad: h.notTaken, MeterTitle: security.Title(at.Meter)}
	if err := f.secure(ctx, env, &h.Receiver, &at); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if f.last > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, f.last)
		defer stop()
	}
	if at.IsLine() {
		err = h.onLine(ctx, f.control, at)
	} else {
		err = h.Listen(ctx, at.Network, at.Host, func(a net.Addr) {
			fmt.Fprintf(env.Stderr, "gridgate: listening on %s %v\n", at.Network, a)
		})
	}
	if f.last > 0 && err == nil && h.taken == 0 && h.refused > 0 {
		return fmt.Errorf("listen: nothing could be taken of what came, %d times, for the reasons above", h.refused)
	}
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		err = cause // what was received could not be printed
	}
	if err != nil {
		return fmt.Errorf("listen: %w", advised(err))
	}
	return nil
}

// secure gives the receiver keys, meters, and a place for its counters.
func (f *listenFlags) secure(ctx context.Context, env cli.Env, r *cosem.Receiver, at *address.Listen) error {
	secrets, err := at.Secrets.Resolve(sources(env, ""))
	if err != nil {
		return err
	}
	if err := drivers.SetKeys(r, at.Secrets.Security.Suite, secrets); err != nil {
		return err
	}
	title := at.Secrets.Security.Title
	counters := target{control: defaultControl}
	if f.config != "" {
		cfg, err := loadConfig(f.config)
		if err != nil {
			return err
		}
		counters.control, counters.counters = cfg.Control.Socket, cfg.Buffer.Path
		for _, m := range cfg.Meters {
			if !m.Address.Scheme.IsDLMS() {
				continue
			}
			secrets, err := m.Address.Resolve(sources(env, cfg.Buffer.Path))
			if err != nil {
				return fmt.Errorf("meter %s: %w", m.ID, err)
			}
			model, err := cfg.DLMSModel(m.Address.Model)
			if err != nil {
				return fmt.Errorf("meter %s: %w", m.ID, err)
			}
			known, err := drivers.Known(drivers.Config{
				ID: m.ID, Serial: m.Serial, Address: m.Address, Secrets: secrets, DLMS: &model.Model, TimeZone: cfg.TimeZone,
			})
			if err != nil {
				return fmt.Errorf("meter %s: %w", m.ID, err)
			}
			if r.Meters = append(r.Meters, known); title == (address.Title{}) {
				title = m.Address.Security.Title
			}
		}
	}
	if f.control != "" {
		counters.control = f.control
	}
	if f.counters != "" {
		counters.counters = f.counters
	}
	f.control = counters.control
	if r.Title = security.Title(title); r.Title.IsZero() {
		return nil
	}
	counters.addr.Scheme = address.DLMSWrapper
	counters.addr.Security = address.Security{Protection: address.AuthenticatedEncrypted, Title: title}
	r.Counters, err = counters.keptCounters(ctx, env)
	return err
}

// hearing is a receiver that prints.
type hearing struct {
	cosem.Receiver
	env    cli.Env
	out    *rowPrinter
	cancel context.CancelCauseFunc
	config string
	told   map[string]bool // of whom it was said that nobody knows them

	taken, refused int // of what came
}

func (h *hearing) got(from cosem.Sender, p cosem.Pushed) (stored func() error, err error) {
	h.taken++
	if !p.Known && h.config != "" {
		h.unknown(from, p)
	}
	if len(p.Rows) == 0 {
		h.bad(from, fmt.Errorf("%v without values", p.Kind))
	}
	if p.Identity.Exchanged() {
		h.bad(from, fmt.Errorf("another meter: configured serial %s, found %s", p.Identity.Want, p.Identity.Found))
	}
	for _, row := range p.Rows {
		h.out.print(row)
	}
	if err = h.out.flush(); err != nil {
		h.cancel(err)
	}
	return nil, err
}

// unknown says once of a sender that it is none of the configured meters.
func (h *hearing) unknown(from cosem.Sender, p cosem.Pushed) {
	const enough = 256
	who := fmt.Sprintf("system title %v, serial number %q", p.Title, p.Identity.Found)
	if p.Title.IsZero() {
		who = fmt.Sprintf("serial number %q", p.Identity.Found)
	}
	if len(h.told) >= enough || h.told[who] {
		return
	}
	h.told[who] = true
	h.bad(from, fmt.Errorf("%s: %w of %s (a meter there with this serial number or this host knows it)", who, cosem.ErrUnknown, h.config))
}

// notTaken is told what was not handed on, and what was and cannot be answered.
func (h *hearing) notTaken(from cosem.Sender, err error) {
	h.refused++
	h.bad(from, err)
}

func (h *hearing) bad(from cosem.Sender, err error) {
	fmt.Fprintf(h.env.Stderr, "gridgate: listen: from %v: %v%s\n", from, err, h.advice(err))
}

// advice says what to do about a notification that was not taken.
func (h *hearing) advice(err error) string {
	switch {
	case errors.Is(err, cosem.ErrKeyMissing):
		return " (give the meter's: URL?ek=file:/PATH&ak=file:/PATH)"
	case errors.Is(err, cosem.ErrTitleMissing):
		return " (give it: URL?meter=16 hexadecimal digits)"
	case errors.Is(err, cosem.ErrUnanswered) && h.Title.IsZero():
		return " (give the system title that the meter knows us by: URL?title=16 hexadecimal digits)"
	case errors.Is(err, security.ErrSuite):
		return " (give it: URL?suite=N)"
	case errors.Is(err, security.ErrWeak):
		return " (without keys it would be taken)"
	}
	return ""
}

// onLine listens on a serial port or serial server, borrowed from the agent
// where one has it.
func (h *hearing) onLine(ctx context.Context, control string, at address.Listen) (err error) {
	giveBack, err := borrow(ctx, control, at.Line.Line)
	if err != nil {
		return err
	}
	defer giveBack()
	l := drivers.OpenLine(at.Line, line.Options{Program: "gridgate listen"})
	defer func() { err = errors.Join(err, l.Close()) }()
	o := cosem.LineOptions{Answer: at.Confirm, Settings: line.Settings{
		Baud: at.Line.Baud, DataBits: at.Line.DataBits, Parity: at.Line.Parity, StopBits: at.Line.StopBits,
	}}
	return h.ServeLine(ctx, l, o, func() {
		fmt.Fprintf(h.env.Stderr, "gridgate: listening on line %v\n", l)
	})
}
