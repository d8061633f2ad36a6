package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"time"

	"gridgate/agent/command"
	"gridgate/agent/order"
	"gridgate/agent/status"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
)

func commandVerb() cli.Verb {
	return cli.Verb{
		Name:    "command",
		Summary: "give a signed command to the agent, or show what came of one",
		Args:    "apply FILE | show ID",
		Example: []string{
			"gridgate command apply -wait 2m read.doc   # from a USB stick, say",
			"gridgate command show c-20261122-1",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			path := fs.String("config", defaultConfig, "the configuration `FILE`")
			socket := fs.String("control", "", "the control `SOCKET` (default: that of -config)")
			wait := fs.Duration("wait", 0, "apply: wait so long for the result")
			asJSON := fs.Bool("json", false, "print what the fog is told, as JSON")
			return func(ctx context.Context, env cli.Env, args []string) error {
				if len(args) != 2 || args[0] != "apply" && args[0] != "show" {
					return cli.Usagef("command: want apply FILE, or show ID")
				}
				at, err := controlSocket(*socket, *path)
				if err != nil {
					return err
				}
				c := commanding{env: env, socket: at, json: *asJSON}
				if args[0] == "show" {
					return c.show(ctx, args[1])
				}
				return c.apply(ctx, args[1], *wait)
			}
		},
	}
}

type commanding struct {
	env    cli.Env
	socket string
	json   bool
}

// show prints what is known of a command.
func (c commanding) show(ctx context.Context, id string) error {
	if _, err := meter.ParseID(id); err != nil {
		return cli.Usagef("command show: %v", err)
	}
	raw, err := status.CommandResult(ctx, c.socket, id)
	if err != nil {
		return fmt.Errorf("command show: %w", err)
	}
	if raw == nil {
		return fmt.Errorf("command show: nothing is known of %s: it never came, was refused, or has expired", id)
	}
	var r command.Result
	if err := json.Unmarshal(raw, &r); err != nil {
		return fmt.Errorf("command show: %w", err)
	}
	c.print(raw, r)
	return nil
}

// apply gives a command to the agent, and waits for what comes of it.
func (c commanding) apply(ctx context.Context, path string, wait time.Duration) error {
	document, err := readLimited(path, 1<<20)
	if err != nil {
		return fmt.Errorf("command apply: %w", err)
	}
	raw, err := status.Command(ctx, c.socket, document)
	if err != nil {
		return fmt.Errorf("command apply: %s: %w", path, err)
	}
	var r command.Result
	if err := json.Unmarshal(raw, &r); err != nil {
		return fmt.Errorf("command apply: %w", err)
	}
	if wait <= 0 {
		c.print(raw, r)
		return nil
	}
	d, err := order.Read(document)
	if err != nil {
		return fmt.Errorf("command apply: %w", err)
	}
	return c.await(ctx, d.ID, wait)
}

// await waits for the result of a command. A restart that was ordered takes the
// agent away for a moment.
func (c commanding) await(ctx context.Context, id string, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	shown := ""
	for {
		raw, err := status.CommandResult(ctx, c.socket, id)
		var r command.Result
		if err == nil && raw != nil {
			if err := json.Unmarshal(raw, &r); err != nil {
				return fmt.Errorf("command apply: %w", err)
			}
		}
		if r.State.Final() {
			c.print(raw, r)
			if r.State != command.Done {
				return fmt.Errorf("command apply: %s: %s", id, r.State)
			}
			return nil
		}
		if line := stepText(r); r.ID != "" && line != shown {
			shown = line
			fmt.Fprintln(c.env.Stderr, line)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("command apply: no result within %v; see gridgate command show %s", wait, id)
		case <-tick.C:
		}
	}
}

func stepText(r command.Result) string {
	line := r.ID + ": " + string(r.State)
	if r.Of > 0 {
		line += fmt.Sprintf(" %d of %d", r.Done, r.Of)
	}
	if r.Text != "" {
		line += ": " + r.Text
	}
	return line
}

// print prints what came of a command: at each meter, where it is of meters.
func (c commanding) print(raw json.RawMessage, r command.Result) {
	if c.json {
		fmt.Fprintf(c.env.Stdout, "%s\n", raw)
		return
	}
	fmt.Fprintln(c.env.Stdout, stepText(r))
	for _, m := range r.Meters {
		fmt.Fprintf(c.env.Stdout, "  %-32s  %-8s %s\n", m.Meter, m.State, m.Text)
		var rows []json.RawMessage
		if m.Data != nil && json.Unmarshal(m.Data, &rows) == nil {
			for _, row := range rows {
				fmt.Fprintf(c.env.Stdout, "    %s\n", row)
			}
		} else if m.Data != nil {
			fmt.Fprintf(c.env.Stdout, "    %s\n", m.Data)
		}
	}
	if r.Data != nil {
		fmt.Fprintf(c.env.Stdout, "  %s\n", r.Data)
	}
}
