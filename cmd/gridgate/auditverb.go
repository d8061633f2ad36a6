package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"gridgate/agent/audit"
	"gridgate/internal/cli"
)

func auditVerb() cli.Verb {
	return cli.Verb{
		Name:    "audit",
		Summary: "show the log of what was ordered, or find out whether somebody changed it",
		Args:    "verify|show",
		Example: []string{
			"gridgate audit verify",
			"gridgate audit show -json",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			path := fs.String("path", agentState, "the agent's buffer `DIR`")
			asJSON := fs.Bool("json", false, "show: print one JSON object an entry")
			return func(_ context.Context, env cli.Env, args []string) error {
				if len(args) != 1 || args[0] != "verify" && args[0] != "show" {
					return cli.Usagef("audit: want verify or show")
				}
				return auditLog(env, filepath.Join(*path, "audit"), args[0] == "show", *asJSON)
			}
		},
	}
}

// auditLog goes through the log. The number of the last entry it cannot know:
// the agent does, and says at its start when it is another.
func auditLog(env cli.Env, dir string, show, asJSON bool) error {
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("audit: no log is there: %w", err)
	}
	n := 0
	last, err := audit.Verify(dir, func(e audit.Entry) {
		n++
		switch {
		case show && asJSON:
			fmt.Fprintf(env.Stdout, "%s\n", e.JSON())
		case show:
			fmt.Fprintf(env.Stdout, "%d  %s  %-15s %s  %s\n", e.Number, e.Time.Format(time.RFC3339), e.What, e.By, e.Detail)
		}
	})
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	aside, err := audit.SetAside(dir)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if len(aside) > 0 {
		return fmt.Errorf("audit: %s did not fit when the agent started: it was changed or cut off; entries go on after it, and the fog has those before", aside[0])
	}
	if !show {
		fmt.Fprintf(env.Stdout, "%s: ok: %d entries, the last is %d of %s\n", dir, n, last.Number, last.Time.Format(time.RFC3339))
	}
	return nil
}
