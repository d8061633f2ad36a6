package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"gridgate/agent/status"
	"gridgate/agent/validate"
	"gridgate/configs"
	"gridgate/drivers"
	"gridgate/drivers/address"
	"gridgate/drivers/cosem"
	"gridgate/drivers/line"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
	"gridgate/internal/sys"
)

// readFlags are the flags of read.
type readFlags struct {
	config, meter, control, serial, counters string
	json, force                              bool
}

func readVerb() cli.Verb {
	return cli.Verb{
		Name: "read", Summary: "read meters once, by address or by configuration", Args: "URL [OBIS…]",
		Example: []string{
			"gridgate read 'dlms+wrapper://10.0.0.7:4059?client=17&auth=lls&password=12345678' 1-0:1.8.0 1-0:32.7.0",
			"gridgate read 'dlms+wrapper://10.0.0.7?client=1&auth=gmac&security=authenc&title=4752470000000001&ek=file:ek&ak=file:ak' 1-0:1.8.0",
			"gridgate read 'modbus+rtu:///dev/ttyS1?baud=9600&unit=7&model=eastron-sdm630' -json",
			"gridgate read 'iec21:///dev/ttyUSB0?address=12345678'",
			"gridgate read -config /etc/gridgate/gridgate.yaml -meter house-01",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			var f readFlags
			fs.StringVar(&f.config, "config", "", "read the meters of this configuration `FILE`")
			fs.StringVar(&f.meter, "meter", "", "with -config: only the meter of this `ID`")
			fs.StringVar(&f.control, "control", "", "the control `SOCKET` of a running agent that the line is borrowed from\n(default: that of -config, or "+defaultControl+")")
			fs.StringVar(&f.serial, "serial", "", "with URL: the serial `NUMBER` that the meter must show")
			fs.StringVar(&f.counters, "counters", "", "the `DIR` where the invocation counters of ciphered meters are kept, never to be restored or copied\n"+
				"(default: that of -config, or the agent's, or ~/.local/state/gridgate)")
			fs.BoolVar(&f.json, "json", false, "print one JSON object a value")
			fs.BoolVar(&f.force, "force", false, forceHelp)
			return func(ctx context.Context, env cli.Env, args []string) error {
				targets, err := f.targets(args)
				if err != nil {
					return err
				}
				return readAll(ctx, env, f, targets)
			}
		},
	}
}

const forceHelp = "try credentials that the meter refused twice; it may lock out for good"

// unnamed is the id of a meter that has only an address.
const unnamed = "meter"

// target is one meter to read.
type target struct {
	id       meter.ID
	serial   string
	addr     address.Address
	zone     *time.Location
	control  string
	counters string
	buffer   string // whose secrets count; empty: those of an ordinary installation
	models   string // where register maps are
	groups   []meter.Group
	force    bool // show the meter what it refused twice
	guessing bool // the channels are a guess: what the meter lacks is no error
	auto     bool // what to read is what the meter has
}

func (f readFlags) targets(args []string) ([]target, error) {
	if f.config == "" {
		return f.addressed(args)
	}
	if len(args) > 0 {
		return nil, cli.Usagef("read: want a URL or -config, not both")
	}
	cfg, err := loadConfig(f.config)
	if err != nil {
		return nil, err
	}
	var all []target
	for _, m := range cfg.Meters {
		if f.meter != "" && string(m.ID) != f.meter {
			continue
		}
		t := target{id: m.ID, serial: m.Serial, addr: m.Address, zone: cfg.TimeZone, control: cfg.Control.Socket, counters: cfg.Buffer.Path, buffer: cfg.Buffer.Path, models: cfg.Models}
		t.auto = m.Auto
		for _, g := range m.Groups {
			if g.Profile == "" {
				t.groups = append(t.groups, meter.Group{Name: string(g.Name), Lane: g.Lane, Channels: g.Channels})
			}
		}
		all = append(all, t)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("read: %s has no meter %q", f.config, f.meter)
	}
	return all, nil
}

// addressed gives the target of a URL, with the channels named behind it or
// those that such a meter should have.
func (f readFlags) addressed(args []string) ([]target, error) {
	if len(args) == 0 {
		return nil, cli.Usagef("read: want a URL or -config FILE; `gridgate read -h` shows examples")
	}
	addr, err := address.Parse(args[0])
	if err != nil {
		return nil, wrongAddress("read", err)
	}
	t := target{id: unnamed, serial: f.serial, addr: addr, zone: time.UTC, control: defaultControl, models: configs.DefaultModels}
	group := meter.Group{Name: "read", Lane: meter.Instant}
	for _, arg := range args[1:] {
		c, err := meter.ParseChannel(arg)
		if err != nil {
			return nil, cli.Usagef("read: %v", err)
		}
		group.Channels = append(group.Channels, c)
	}
	if len(group.Channels) == 0 {
		t.guessing = true
		if group.Channels, err = usualChannels(addr); err != nil {
			return nil, err
		}
	}
	t.groups = []meter.Group{group}
	return []target{t}, nil
}

// usualChannels gives what to read of a meter when nobody says: all registers
// of a Modbus model; none, which is all, of a readout; of others what nearly
// every meter has.
func usualChannels(addr address.Address) ([]meter.Channel, error) {
	var channels []meter.Channel
	if addr.Scheme.IsModbus() {
		model, err := configs.ModelIn(configs.DefaultModels, addr.Model)
		if err != nil {
			return nil, err
		}
		for _, r := range model.Registers {
			channels = append(channels, r.Channel)
		}
		return channels, nil
	}
	if addr.Scheme.IsDLMS() && addr.Model != "" {
		model, err := configs.DLMSModelIn(configs.DefaultModels, addr.Model)
		if err != nil {
			return nil, err
		}
		for _, g := range model.Groups {
			channels = append(channels, g.Channels...)
		}
		if len(channels) > 0 {
			return channels, nil
		}
	}
	if addr.Scheme == address.IEC21 && addr.Mode != address.ModeP {
		return nil, nil
	}
	for _, code := range []string{
		"0-0:1.0.0", "0-0:96.1.0", "1-0:1.8.0", "1-0:2.8.0", "1-0:3.8.0", "1-0:4.8.0", "1-0:1.7.0", "1-0:2.7.0",
		"1-0:31.7.0", "1-0:32.7.0", "1-0:51.7.0", "1-0:52.7.0", "1-0:71.7.0", "1-0:72.7.0", "1-0:14.7.0",
	} {
		c, err := meter.ParseChannel(code)
		if err != nil {
			return nil, err
		}
		channels = append(channels, c)
	}
	return channels, nil
}

// readAll reads the targets one after another; one that fails is told and the
// others are read.
func readAll(ctx context.Context, env cli.Env, f readFlags, targets []target) error {
	out := newRowPrinter(env.Stdout, f.json)
	failed := 0
	for _, t := range targets {
		if f.control != "" {
			t.control = f.control
		}
		if f.counters != "" {
			t.counters = f.counters
		}
		t.force = f.force
		got, err := readOne(ctx, env, t)
		(&validate.Validator{}).Check(got.Rows)
		for _, row := range got.Rows {
			out.print(row)
		}
		if err := out.flush(); err != nil {
			return err
		}
		if got.Identity.Exchanged() {
			err = errors.Join(err, fmt.Errorf("another meter answers: configured serial %s, found %s", t.serial, got.Identity.Found))
		}
		for _, failure := range got.Failures {
			if t.guessing && len(got.Rows) > 0 {
				continue
			}
			err = errors.Join(err, failure)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed++
			fmt.Fprintf(env.Stderr, "gridgate: read: %s%v\n", t.label(), advised(err))
		}
	}
	if failed > 0 {
		return fmt.Errorf("read: %d of %d meters not read in full", failed, len(targets))
	}
	return nil
}

// label names the meter before an error. The line is in the error.
func (t target) label() string {
	if t.id == unnamed {
		return ""
	}
	return fmt.Sprintf("meter %s: ", t.id)
}

// advised adds to an error what only this tool can say.
func advised(err error) error {
	var busy *line.BusyError
	if errors.As(err, &busy) {
		return fmt.Errorf("%w (name its control socket with -control, or its configuration with -config)", err)
	}
	return err
}

// errOnlyProfiles says that a meter has no registers to read.
var errOnlyProfiles = errors.New("its groups are profiles only, which read does not read: name channels behind its address")

// readOne visits one meter once.
func readOne(ctx context.Context, env cli.Env, t target) (got meter.Got, err error) {
	if len(t.groups) == 0 && !t.auto {
		return got, errOnlyProfiles
	}
	err = t.with(ctx, env, "read", func(v meter.Visitor) (err error) {
		if dlms, ok := v.(*cosem.Meter); ok && t.auto {
			found, err := dlms.Discover(ctx)
			if err != nil {
				return err
			}
			for _, f := range found {
				if f.Profile == "" && f.Lane != meter.Billing { // they are among the others
					t.groups = append(t.groups, meter.Group{Name: f.Name, Lane: f.Lane, Channels: f.Channels})
				}
			}
		}
		got, err = v.Visit(ctx, meter.Ask{Groups: slices.Clone(t.groups)})
		return err
	})
	return got, err
}

// with opens the meter for a verb, on a line borrowed from the agent where one
// runs, and closes it behind do.
func (t target) with(ctx context.Context, env cli.Env, verb string, do func(meter.Visitor) error) (err error) {
	giveBack, shared, err := lent(ctx, t.control, t.addr.Line)
	if err != nil {
		return err
	}
	defer giveBack()
	secrets, err := t.addr.Resolve(sources(env, t.buffer))
	if err != nil {
		return err
	}
	counters, err := t.keptCounters(ctx, env)
	if err != nil && t.addr.UsesKeys() {
		return err
	}
	tries, err := t.attempts(ctx, env, counters, secrets)
	if err != nil {
		return err
	}
	dc := drivers.Config{ID: t.id, Serial: t.serial, Address: t.addr, Secrets: secrets, Counters: counters, TimeZone: t.zone, Now: now}
	if err := t.setModel(&dc); err != nil {
		return err
	}
	l := drivers.OpenLine(t.addr, line.Options{Program: "gridgate " + verb, Shared: shared})
	defer func() { err = errors.Join(err, l.Close()) }()
	v, err := drivers.Open(dc, l)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close(), counters.flush(ctx)) }()
	err = do(v)
	return errors.Join(err, tries.note(ctx, err))
}

// setModel adds what is known of the meter's model.
func (t target) setModel(c *drivers.Config) error {
	switch {
	case t.addr.Scheme.IsModbus():
		m, err := configs.ModelIn(t.models, t.addr.Model)
		c.Model = m
		return err
	case t.addr.Scheme.IsDLMS():
		m, err := configs.DLMSModelIn(t.models, t.addr.Model)
		if err != nil {
			return err
		}
		c.DLMS = &m.Model
	}
	return nil
}

// borrow borrows the line from the agent that serves the socket; where there
// is nothing to borrow the line is free.
func borrow(ctx context.Context, socket, name string) (giveBack func(), err error) {
	giveBack, _, err = lent(ctx, socket, name)
	return giveBack, err
}

// lent is borrow; lent says whether there was an agent that used the line.
func lent(ctx context.Context, socket, name string) (giveBack func(), lent bool, err error) {
	giveBack, err = status.Borrow(ctx, socket, name)
	if errors.Is(err, status.ErrNoAgent) || errors.Is(err, status.ErrUnused) {
		return func() {}, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("borrowing the line from the running agent: %w", err)
	}
	return giveBack, true, nil
}

func now() meter.Stamp {
	s := meter.Stamp{Time: time.Now().UnixMilli(), Mono: sys.Uptime().Milliseconds(), Bound: meter.UnknownBound}
	if bound, ok := sys.ClockError(); ok {
		s.Bound = uint32(bound.Milliseconds())
	}
	return s
}

// wrongAddress says of each thing that is wrong with an address that it is of
// the address.
func wrongAddress(verb string, err error) error {
	prefix := verb + ": address: "
	return cli.Usagef("%s%s", prefix, strings.ReplaceAll(err.Error(), "\n", "\n"+prefix))
}
