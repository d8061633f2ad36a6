package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"text/tabwriter"
	"time"

	"gridgate/buffer/state"
	"gridgate/dlms/security"
	"gridgate/drivers"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
)

// countersFlags are the flags of counters.
type countersFlags struct {
	readFlags
	sent, from string
	received   bool
}

func countersVerb() cli.Verb {
	return cli.Verb{
		Name: "counters", Summary: "show and accept invocation counters, and how often meters refused", Args: "[accept] [URL]",
		Example: []string{
			"gridgate counters -config /etc/gridgate/gridgate.yaml",
			"gridgate counters accept -config /etc/gridgate/gridgate.yaml -meter house-01 -sent 3000000",
			"gridgate counters accept -config /etc/gridgate/gridgate.yaml -meter house-01 -received",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			var f countersFlags
			fs.StringVar(&f.config, "config", "", "the meters of this configuration `FILE`")
			fs.StringVar(&f.meter, "meter", "", "with -config: only the meter of this `ID`")
			fs.StringVar(&f.control, "control", "", "the control `SOCKET` of a running agent (default: that of -config, or "+defaultControl+")")
			fs.StringVar(&f.counters, "counters", "", "the `DIR` where the counters are kept (default: that of -config, or the agent's, or ~/.local/state/gridgate)")
			fs.BoolVar(&f.json, "json", false, "print one JSON object a line")
			fs.StringVar(&f.sent, "sent", "", "accept: go on behind this `COUNTER`, the last that the meter says it took")
			fs.BoolVar(&f.received, "received", false, "accept: take what the meter sends next, whatever its counter")
			fs.StringVar(&f.from, "from", "", "with -received, where several meters share a key: the system `TITLE` of the meter")
			return func(ctx context.Context, env cli.Env, args []string) error { return f.run(ctx, env, args) }
		},
	}
}

func (f countersFlags) run(ctx context.Context, env cli.Env, args []string) error {
	accept := len(args) > 0 && args[0] == "accept"
	if accept {
		args = args[1:]
	}
	switch {
	case len(args) > 1:
		return cli.Usagef("counters: want at most one URL: %q", args[1:])
	case len(args) == 0 && f.config == "":
		return cli.Usagef("counters: want a URL or -config FILE; `gridgate counters -h` shows examples")
	case !accept && (f.sent != "" || f.received || f.from != ""):
		return cli.Usagef("counters: -sent, -received and -from are of `gridgate counters accept`")
	case accept && (f.sent == "") == !f.received:
		return cli.Usagef("counters: accept: want -sent COUNTER or -received")
	case accept && f.config != "" && f.meter == "":
		return cli.Usagef("counters: accept: want -meter ID: one meter at a time")
	case f.from != "" && !f.received:
		return cli.Usagef("counters: -from is of -received")
	}
	targets, err := f.targets(args)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(env.Stdout)
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	if !accept && !f.json {
		fmt.Fprintln(table, "METER\tCLIENT TITLE\tKEY\tNEXT SENT\tMETER TITLE\tSENT AS\tLAST RECEIVED\tREFUSED")
	}
	for _, t := range targets {
		if len(t.addr.Secrets()) == 0 {
			continue
		}
		if f.control != "" {
			t.control = f.control
		}
		if f.counters != "" {
			t.counters = f.counters
		}
		c, err := t.accounts(ctx, env)
		if err == nil && accept {
			err = f.accept(ctx, out, c)
		} else if err == nil {
			err = c.print(out, table, f.json)
		}
		if err != nil {
			return fmt.Errorf("counters: %s%w", t.label(), err)
		}
	}
	return errors.Join(table.Flush(), out.Flush())
}

// accounts are what is kept of one meter.
type accounts struct {
	id       meter.ID
	kept     *keptCounters
	usesKeys bool
	title    security.Title
	key      security.KeyID

	known   bool
	next    uint32 // that will be sent
	heard   []security.Heard
	refused int
	last    time.Time
}

// accounts looks up what is kept of a meter.
func (t target) accounts(ctx context.Context, env cli.Env) (c *accounts, err error) {
	c = &accounts{id: t.id, usesKeys: t.addr.UsesKeys(), title: security.Title(t.addr.Security.Title)}
	secrets, err := t.addr.Resolve(sources(env, t.buffer))
	if err != nil {
		return nil, err
	}
	if c.usesKeys {
		if c.key, err = drivers.KeyID(t.addr, secrets); err != nil {
			return nil, err
		}
	}
	if c.kept, err = t.keptCounters(ctx, env); err != nil {
		return nil, err
	}
	return c, c.kept.with(ctx, func(s ledger) error {
		salt, err := s.Salt()
		if err == nil {
			c.refused, c.last, _, err = s.Refusals(state.Credentials(salt, drivers.Place(t.addr), drivers.Shown(secrets)...))
		}
		if err != nil || !c.usesKeys {
			return err
		}
		if c.known, err = s.KnownCounters(c.title, c.key); err == nil && c.known {
			c.next, err = s.Reserve(c.title, c.key, 0)
		}
		if err == nil {
			c.heard, err = s.Heard(c.key)
		}
		return err
	})
}

func (c *accounts) print(out *bufio.Writer, table *tabwriter.Writer, asJSON bool) error {
	if asJSON {
		_, err := out.Write(c.appendJSON(out.AvailableBuffer()))
		return err
	}
	title, key, next, refused := "", "", "", strconv.Itoa(c.refused)
	if c.usesKeys {
		title, key, next = c.title.String(), c.key.String(), "not used"
	}
	if c.known {
		next = strconv.FormatUint(uint64(c.next), 10)
	}
	if c.refused > 0 {
		refused += ", " + c.last.Format(time.DateTime)
	}
	lines := c.heard
	if len(lines) == 0 {
		_, err := fmt.Fprintf(table, "%s\t%s\t%s\t%s\t\t\t\t%s\n", c.id, title, key, next, refused)
		return err
	}
	for _, h := range lines {
		if _, err := fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%v\t%s\t%d\t%s\n", c.id, title, key, next, h.Title, sentAs(h.Direction), h.Counter, refused); err != nil {
			return err
		}
	}
	return nil
}

// sentAs says what a meter counts by itself: its answers, and what it pushes.
func sentAs(d security.Direction) string {
	switch d {
	case security.FromServer:
		return "answers"
	case security.Unasked:
		return "pushes"
	case security.FromClient:
		return "requests"
	}
	return fmt.Sprintf("direction %d", d)
}

// appendJSON appends what is kept as a line of JSON:
//
//	{"meter":"m","title":"47…","key":"9f…","next":1024,"received":[{"title":"4D…","as":"answers","counter":77}],"refused":0}
//
// next is null where nothing was sent yet; title and key are "" for meters without.
func (c *accounts) appendJSON(b []byte) []byte {
	b = meter.AppendJSONString(append(b, `{"meter":`...), string(c.id))
	title, key := "", ""
	if c.usesKeys {
		title, key = c.title.String(), c.key.String()
	}
	b = meter.AppendJSONString(append(b, `,"title":`...), title)
	b = meter.AppendJSONString(append(b, `,"key":`...), key)
	if b = append(b, `,"next":`...); c.known {
		b = strconv.AppendUint(b, uint64(c.next), 10)
	} else {
		b = append(b, "null"...)
	}
	b = append(b, `,"received":[`...)
	for i, h := range c.heard {
		if i > 0 {
			b = append(b, ',')
		}
		b = meter.AppendJSONString(append(b, `{"title":`...), h.Title.String())
		b = meter.AppendJSONString(append(b, `,"as":`...), sentAs(h.Direction))
		b = append(strconv.AppendUint(append(b, `,"counter":`...), uint64(h.Counter), 10), '}')
	}
	b = strconv.AppendInt(append(b, `],"refused":`...), int64(c.refused), 10)
	return append(b, "}\n"...)
}

// accept does what a person decided, who looked.
func (f countersFlags) accept(ctx context.Context, out *bufio.Writer, c *accounts) error {
	if !c.usesKeys {
		return errors.New("this meter has no keys, and so no invocation counters")
	}
	if f.received {
		return f.acceptReceived(ctx, out, c)
	}
	last, err := strconv.ParseUint(f.sent, 10, 32)
	if err != nil || last >= 1<<32-1 {
		return cli.Usagef("counters: -sent %q: want a number, 0 to 4294967294", f.sent)
	}
	next := uint32(last) + 1
	if c.known && next <= c.next {
		return fmt.Errorf("the next that is sent is %d already: counters are never set back, for one that is used twice gives the key away", c.next)
	}
	if err := c.kept.Raise(c.title, c.key, next); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s: counters go on with %d\n", c.id, next)
	return err
}

func (f countersFlags) acceptReceived(ctx context.Context, out *bufio.Writer, c *accounts) error {
	heard := c.heard
	if f.from != "" {
		b, err := hex.DecodeString(f.from)
		if err != nil || len(b) != security.TitleLen {
			return cli.Usagef("counters: -from: want 16 hexadecimal digits")
		}
		heard = nil
		for _, h := range c.heard {
			if h.Title == security.Title(b) {
				heard = append(heard, h)
			}
		}
	}
	for _, h := range heard {
		if h.Title != heard[0].Title {
			return errors.New("several meters share this key: want -from TITLE, as `gridgate counters` shows them")
		}
	}
	if len(heard) == 0 {
		return errors.New("nothing was received that could be forgotten: the next answer is taken as it is")
	}
	err := c.kept.with(ctx, func(s ledger) error {
		var errs []error
		for _, h := range heard {
			errs = append(errs, s.ForgetReceived(h.Title, c.key, h.Direction))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s: the next answer of %v is taken as it is\n", c.id, heard[0].Title)
	return err
}
