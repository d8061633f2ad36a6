package main

import (
	"context"
	"flag"

	"gridgate/internal/cli"
)

func manVerb() cli.Verb {
	return cli.Verb{
		Name: "man", Summary: "print the manual page", Example: []string{"gridgate man | man -l -"},
		Setup: func(*flag.FlagSet) func(context.Context, cli.Env, []string) error {
			return func(_ context.Context, env cli.Env, args []string) error {
				if len(args) > 0 {
					return cli.Usagef("man: unexpected argument %q", args[0])
				}
				return program().Man(env.Stdout, manDate, version, manAbout)
			}
		},
	}
}

// manDate is when the language of the command line was changed last: a page has a
// date, and the same source makes the same page.
const manDate = "2026-11-22"

// manAbout is what the page has behind the verbs.
const manAbout = `.SH FILES
.TP
.I /etc/gridgate/gridgate.yaml
The configuration of the gateway.
.TP
.I /var/lib/gridgate/buffer
The readings, and what must survive their loss.
.TP
.I /var/lib/gridgate/firmware/slots
Programs that updates brought: the service starts the one that the link trial or
current leads to in its own place.
.TP
.I /run/gridgate/control.sock
By which tools ask the running agent, and borrow its lines.
.SH SEE ALSO
The guides in /usr/share/doc/gridgate: technician.md, modbus.md, dlms.md.
`
