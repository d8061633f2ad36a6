package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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
			"gridgate audit verify   # 0: sound; 1: it is not; 3: it is, and an earlier log was moved aside",
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
	if err != nil || show {
		return audited(err)
	}
	if n == 0 {
		fmt.Fprintf(env.Stdout, "%s: ok: no entries\n", dir)
	} else {
		fmt.Fprintf(env.Stdout, "%s: ok: %d entries, the last is %d of %s\n", dir, n, last.Number, last.Time.Format(time.RFC3339))
	}
	return asides(env, dir)
}

func audited(err error) error {
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}

// movedAside is the exit code where the log is sound, and one before it is not.
const movedAside = 3

// asides tells of the logs that were moved aside.
func asides(env cli.Env, dir string) error {
	moved, err := audit.VerifyAside(dir)
	if err != nil || len(moved) == 0 {
		return audited(err)
	}
	var changed []string
	for _, m := range moved {
		fmt.Fprintf(env.Stdout, "%s*: moved aside: %d entries are good, the last is %d", filepath.Join(dir, m.Log), m.Entries, m.Last)
		if m.Why != nil {
			fmt.Fprintf(env.Stdout, "; then %v", m.Why)
		} else {
			fmt.Fprint(env.Stdout, ", and what followed was cut off")
		}
		switch {
		case m.Changed:
			fmt.Fprintf(env.Stdout, "; CHANGED since entry %d said where it ends\n", m.Named)
			changed = append(changed, m.Log+"*")
		case m.Named > 0:
			fmt.Fprintf(env.Stdout, "; entry %d says so\n", m.Named)
		default:
			fmt.Fprint(env.Stdout, "; no entry that is left speaks of it\n")
		}
	}
	if len(changed) > 0 {
		return fmt.Errorf("audit: %s: changed since it was moved aside", strings.Join(changed, ", "))
	}
	return &cli.CodeError{Code: movedAside, Text: fmt.Sprintf(
		"audit: the log is sound; %s before it did not fit when the agent started: changed or cut off. Keep the files elsewhere once you have looked into it", count(len(moved), "log"))}
}
