package main

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"gridgate/agent"
	"gridgate/configs"
	"gridgate/internal/cli"
)

func checkVerb() cli.Verb {
	return cli.Verb{
		Name:    "check",
		Summary: "say what is wrong with a configuration, all of it at once",
		Example: []string{
			"gridgate check -config /etc/gridgate/gridgate.yaml",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			path := fs.String("config", "", "the configuration `file`")
			return func(_ context.Context, env cli.Env, args []string) error {
				if *path == "" || len(args) > 0 {
					return cli.Usagef("check: want -config FILE and nothing else")
				}
				return check(env, *path)
			}
		},
	}
}

// check reads the configuration as run would; it opens no line and reads no
// secret, but looks whether those of the store are there. Problems go to standard error, a line each.
func check(env cli.Env, path string) error {
	cfg, err := loadOn(path, agent.StoreOf(env.Getenv))
	var problems configs.Problems
	if errors.As(err, &problems) {
		fmt.Fprintln(env.Stderr, problems)
		return fmt.Errorf("check: %s: %s", path, count(len(problems), "problem"))
	}
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	fmt.Fprintf(env.Stdout, "%s: ok: %s on %s, %s, to %s\n", path, count(len(cfg.Meters), "meter"),
		count(len(cfg.Lines()), "line"), count(len(cfg.Groups), "group"), cfg.Uplink.Broker)
	for _, a := range cfg.Advice() {
		fmt.Fprintf(env.Stderr, "%s: %s\n", path, a)
	}
	return nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
