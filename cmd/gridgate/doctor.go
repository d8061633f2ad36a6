package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"gridgate/agent"
	"gridgate/agent/bundle"
	"gridgate/agent/doctor"
	"gridgate/agent/status"
	"gridgate/configs"
	"gridgate/drivers/address"
	"gridgate/internal/cli"
)

func doctorVerb() cli.Verb {
	return cli.Verb{
		Name: "doctor", Summary: "look for what is wrong with this gateway, and say what to do",
		Example: []string{
			"gridgate doctor",
			"gridgate doctor -config gridgate.yaml -json",
			"gridgate doctor -bundle /media/usb/gw-1.tar.gz   # for who is not on site; no secrets in it",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			socket := fs.String("control", "", "the control `SOCKET` (default: that of -config)")
			path := fs.String("config", defaultConfig, "the agent's configuration `FILE`")
			asJSON := fs.Bool("json", false, "print one JSON object a check")
			to := fs.String("bundle", "", "write a support bundle to this `FILE` (tar.gz) too; - is standard output, and nothing else on it")
			return func(ctx context.Context, env cli.Env, args []string) error {
				if len(args) > 0 {
					return cli.Usagef("doctor: takes no arguments: %q", args)
				}
				if *to == "-" && *asJSON {
					return cli.Usagef("doctor: -json and -bundle - want the same output")
				}
				return examine(ctx, env, *path, *socket, *to, *asJSON)
			}
		},
	}
}

// examine prints the findings as they come. It fails when one of them is a failure.
func examine(ctx context.Context, env cli.Env, path, socket, to string, asJSON bool) error {
	out := env.Stdout
	if to == "-" {
		out = env.Stderr
	}
	o := doctor.Options{
		Version: version, ConfigPath: path, Socket: socket, Getenv: env.Getenv, Effective: agent.EffectiveFile,
		Sources: func(cfg *configs.Config) address.Sources { return sources(env, cfg.Buffer.Path) }, Secrets: agent.SecretFindings(env.Getenv, func(cfg *configs.Config) ([]status.Secret, error) {
			return status.AgentSecrets{Path: cmp.Or(socket, cfg.Control.Socket)}.List(ctx)
		}),
	}
	r := doctor.Run(ctx, o, func(f doctor.Finding) {
		if asJSON {
			_ = json.NewEncoder(out).Encode(f) // what cannot be printed is told by the exit code
		} else {
			fmt.Fprintln(out, f)
		}
	})
	if err := ctx.Err(); err != nil {
		return err
	}
	ok, warn, fail := r.Count(doctor.OK), r.Count(doctor.Warn), r.Count(doctor.Fail)
	if !asJSON {
		fmt.Fprintf(out, "%d ok, %d to look at, %d failed\n", ok, warn, fail)
	}
	if to != "" {
		if err := writeBundle(ctx, env, r, to); err != nil {
			return err
		}
	}
	if fail > 0 {
		return fmt.Errorf("doctor: %s of %d failed", count(fail, "check"), len(r.Findings))
	}
	return nil
}

// writeBundle writes a support bundle, for the user alone to read.
func writeBundle(ctx context.Context, env cli.Env, r *doctor.Result, to string) error {
	var parts map[string]string
	if r.Report != nil {
		var err error
		if parts, err = status.Parts(ctx, r.Socket); err != nil {
			parts = map[string]string{"agent.txt": err.Error()}
		}
	}
	if to == "-" {
		return bundle.Write(env.Stdout, time.Now(), r.Files(parts), r.Secrets())
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	err = bundle.Write(f, time.Now(), r.Files(parts), r.Secrets())
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	fmt.Fprintf(env.Stderr, "bundle written to %s\n", to)
	return nil
}
