package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"gridgate/agent/command"
	"gridgate/internal/cli"
)

func commandVerb() cli.Verb {
	return cli.Verb{
		Name:    "command",
		Summary: "make, sign and send commands to gateways, repeat them until they answer, and show what came of them",
		Args:    "run|make|send|table [ACTION [KEY=VALUE…] | DOCUMENT…]",
		Example: []string{
			"gridfog command run -broker mqtts://fog.example -ca ca.pem -cert me.pem -key me.key \\\n      -sign command.key -to north/gw-7 -meters house-07 read groups=[load]",
			"gridfog command make -queue queue -to north/gw-7 -meters house-07 disconnect     # queue/ID.body, for a hardware module to sign",
			"gridfog command make -queue queue -sign control.key -to north/_group/west output output=boiler for=2h",
			"gridfog command send -broker mqtts://fog.example … -queue queue -wait 24h      # what is signed there and has no result",
			"gridfog command table -queue queue                                             # who has answered what",
			"actions of gateways of this version: " + strings.Join(command.Names(), ", "),
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			m := &making{now: time.Now}
			s := &sending{client: client{verb: "command"}}
			s.flags(fs, "mqtt://127.0.0.1:1883")
			m.flags(fs)
			fs.DurationVar(&s.wait, "wait", 2*time.Minute, "send, run: wait so long for results")
			fs.BoolVar(&s.json, "json", false, "print one JSON object a message, or a row of the table")
			fs.StringVar(&s.out, "out", ".", "the `DIR` that files go to which gateways send, where there is no -queue")
			return func(ctx context.Context, env cli.Env, args []string) error {
				if len(args) == 0 || !slices.Contains([]string{"run", "make", "send", "table"}, args[0]) {
					return cli.Usagef("command: want run, make, send or table")
				}
				what, rest := args[0], args[1:]
				s.queue = queue{m.queue}
				switch what {
				case "make":
					if m.queue == "" {
						return cli.Usagef("command make: want a -queue")
					}
					made, err := m.make(rest)
					for _, d := range made {
						fmt.Fprintln(env.Stdout, d.path)
					}
					return err
				case "table":
					if m.queue == "" || len(rest) > 0 {
						return cli.Usagef("command table: want a -queue, and nothing else")
					}
					return s.table(env)
				case "send":
					return s.sendFiles(ctx, env, rest)
				}
				return s.run(ctx, env, m, rest)
			}
		},
	}
}

// run makes, signs and sends.
func (s *sending) run(ctx context.Context, env cli.Env, m *making, args []string) error {
	if m.sign == "" {
		return cli.Usagef("command run: want -sign, the key file that signs; to sign elsewhere: command make, then command send")
	}
	if m.queue == "" {
		dir, err := os.MkdirTemp("", "gridfog-command-")
		if err != nil {
			return fmt.Errorf("command: %w", err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		m.queue = dir
	}
	made, err := m.make(args)
	if err != nil {
		return err
	}
	return s.send(ctx, env, made)
}
