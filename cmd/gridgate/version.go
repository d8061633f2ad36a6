package main

import (
	"context"
	"flag"
	"fmt"
	"runtime"

	"gridgate/internal/cli"
)

func versionVerb() cli.Verb {
	return cli.Verb{
		Name: "version", Summary: "print the version", Example: []string{"gridgate version", "gridgate version -json"},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			asJSON := fs.Bool("json", false, "print one JSON object")
			return func(_ context.Context, env cli.Env, args []string) error {
				if len(args) > 0 {
					return cli.Usagef("version: takes no arguments")
				}
				if *asJSON {
					_, err := fmt.Fprintf(env.Stdout, "{\"version\":%q,\"go\":%q,\"os\":%q,\"arch\":%q}\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
					return err
				}
				_, err := fmt.Fprintf(env.Stdout, "gridgate %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
				return err
			}
		},
	}
}
