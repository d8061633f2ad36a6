package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"gridgate/agent"
	"gridgate/drivers"
	"gridgate/drivers/address"
	"gridgate/drivers/line"
	"gridgate/internal/cli"
)

// scanFlags are the flags of scan.
type scanFlags struct {
	control string
	json    bool
	beyond  time.Duration
}

func scanVerb() cli.Verb {
	return cli.Verb{
		Name: "scan", Summary: "list the nodes of a power line, read or not", Args: "URL",
		Example: []string{"gridgate scan plc+prime://10.0.0.9:4059", "gridgate scan plc+prime://10.0.0.9 -for 10m -json"},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			var f scanFlags
			fs.StringVar(&f.control, "control", defaultControl, "the control `SOCKET` of a running agent that the line is borrowed from")
			fs.BoolVar(&f.json, "json", false, "print one JSON object a node")
			fs.DurationVar(&f.beyond, "for", 0, "listen for so long for nodes that join; without it until those are told that are there")
			return func(ctx context.Context, env cli.Env, args []string) error {
				if len(args) != 1 {
					return cli.Usagef("scan: want one URL; `gridgate scan -h` shows examples")
				}
				return scan(ctx, env, f, args[0])
			}
		},
	}
}

func scan(ctx context.Context, env cli.Env, f scanFlags, url string) (err error) {
	scheme, _, _ := strings.Cut(url, "://")
	if s := address.Scheme(strings.ToLower(scheme)); !s.IsPLC() && (slices.Contains(address.Schemes(), s) || s == "serial" || s == "tcp") {
		return cli.Usagef("scan: %s: scanning such a line is not in this version; it scans plc+prime", s)
	}
	addr, err := address.ParseLine(url)
	switch {
	case err != nil:
		return wrongAddress("scan", err)
	case addr.Scheme == address.PLCGateway, addr.Scheme == address.PLCG3:
		return cli.Usagef("scan: %s: such a bridge has no list of its nodes; `gridgate status` shows those that the agent reads", addr.Scheme)
	}
	giveBack, err := borrow(ctx, f.control, addr.Line)
	if err != nil {
		return err
	}
	defer giveBack()
	b := drivers.OpenBridge(addr, line.Options{Program: "gridgate scan"}, false, nil)
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := b.List(ctx, f.beyond); err != nil {
		return fmt.Errorf("scan: line %s: %w", addr.Line, err)
	}
	nodes := agent.Nodes(b.Table(), nil)
	if !f.json {
		return printNodes(env.Stdout, nodes, time.Now())
	}
	out := json.NewEncoder(env.Stdout)
	for i := range nodes {
		if err := out.Encode(nodes[i]); err != nil {
			return err
		}
	}
	return nil
}
