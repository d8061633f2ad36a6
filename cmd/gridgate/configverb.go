package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"gridgate/agent"
	"gridgate/agent/order"
	"gridgate/agent/status"
	"gridgate/configs"
	"gridgate/internal/cli"
)

func configVerb() cli.Verb {
	return cli.Verb{
		Name:    "config",
		Summary: "show the language of configurations, what runs and what would change; apply a signed order",
		Args:    "reference|schema|effective|diff|apply [FILE]",
		Example: []string{
			"gridgate config reference",
			"gridgate config schema                   # the same for editors and other programs: a JSON Schema",
			"gridgate config effective                # the file, with what was pushed on it",
			"gridgate config diff new.yaml            # what would change if it were in its place, or a part of it were pushed",
			"gridgate config apply -wait 20m gw-1.doc # a signed document, from a USB stick say",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			path := fs.String("config", defaultConfig, "the configuration `FILE`")
			socket := fs.String("control", "", "the control `SOCKET` (default: that of -config)")
			wait := fs.Duration("wait", 0, "apply: wait so long for the outcome")
			return func(ctx context.Context, env cli.Env, args []string) error {
				if len(args) == 0 {
					return cli.Usagef("config: want reference, schema, effective, diff or apply")
				}
				what, rest := args[0], args[1:]
				files := map[string]int{"reference": 0, "schema": 0, "effective": 0, "diff": 1, "apply": 1}
				n, known := files[what]
				if !known {
					return cli.Usagef("config: %q; want reference, schema, effective, diff or apply", what)
				}
				if len(rest) != n {
					return cli.Usagef("config %s: want %s", what, count(n, "file"))
				}
				switch what {
				case "reference":
					_, err := env.Stdout.Write(configs.Reference())
					return err
				case "schema":
					s, err := configs.Schema()
					if err == nil {
						_, err = env.Stdout.Write(s)
					}
					return err
				case "effective":
					return effective(env, *path)
				case "diff":
					return configDiff(env, *path, rest[0])
				}
				at, err := controlSocket(*socket, *path)
				if err != nil {
					return err
				}
				return applyOrder(ctx, env, at, rest[0], *wait)
			}
		},
	}
}

// effective prints the configuration that an agent with this file runs.
func effective(env cli.Env, path string) error {
	base, err := configs.Read(path)
	if err != nil {
		return err
	}
	text, kept, err := agent.EffectiveText(base)
	if err != nil {
		return err
	}
	fmt.Fprintf(env.Stdout, "# %s", path)
	for _, e := range kept {
		fmt.Fprintf(env.Stdout, ", and on it %s version %d", e.Target, e.Version)
	}
	fmt.Fprintln(env.Stdout)
	_, err = env.Stdout.Write(text)
	return err
}

// configDiff says what would change if another file stood where path is, or, where
// the other is a part of a configuration, if it lay on what is in effect.
func configDiff(env cli.Env, path, other string) error {
	base, err := configs.Read(path)
	if err != nil {
		return err
	}
	now, _, err := agent.Effective(base)
	if err != nil {
		return err
	}
	next, err := configs.Read(other)
	if err != nil {
		return err
	}
	then, _, err := agent.EffectiveOn(next, agent.StoreOf(env.Getenv))
	if err != nil && !configs.Whole(next) {
		then, err = agent.With(base, next, agent.StoreOf(env.Getenv))
	}
	if err != nil {
		return err
	}
	d := configs.Compare(now, then)
	for _, c := range d.Changes() {
		fmt.Fprintln(env.Stdout, c)
	}
	for _, k := range d.Restart {
		fmt.Fprintf(env.Stdout, "%s changed: takes a restart of gridgate\n", k)
	}
	if d.Empty() {
		fmt.Fprintln(env.Stdout, "nothing would change")
	}
	return nil
}

// applyOrder gives a signed document to the running agent, and waits for what
// comes of it.
func applyOrder(ctx context.Context, env cli.Env, socket, path string, wait time.Duration) error {
	document, err := readLimited(path, 1<<20)
	if err != nil {
		return fmt.Errorf("config apply: %w", err)
	}
	if err := status.Submit(ctx, socket, document); err != nil {
		return fmt.Errorf("config apply: %s: %w", path, err)
	}
	fmt.Fprintf(env.Stdout, "%s: taken\n", path)
	if wait <= 0 {
		return nil
	}
	d, err := order.Read(document)
	if err != nil {
		return fmt.Errorf("config apply: %w", err)
	}
	if d.Kind == order.KindTrust { // it is in effect, a trial or not
		fmt.Fprintf(env.Stdout, "done: %s version %d: kept\n", d.Target, d.Version)
		return nil
	}
	return awaitOutcome(ctx, env, socket, fmt.Sprintf("%s version %d", d.Target, d.Version), wait)
}

// awaitOutcome waits for what comes of the document of that name.
func awaitOutcome(ctx context.Context, env cli.Env, socket, name string, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	shown := ""
	for {
		r, err := status.Ask(ctx, socket)
		if err != nil {
			return fmt.Errorf("config apply: %w", err)
		}
		switch o := r.Orders; {
		case o.Trial != "" && o.Trial != shown:
			shown = o.Trial
			fmt.Fprintln(env.Stderr, o.Trial)
		case o.Trial == "" && (o.Last == name+": kept" || slices.Contains(o.Layers, name)):
			fmt.Fprintf(env.Stdout, "done: %s: kept\n", name)
			return nil
		case o.Trial == "" && strings.HasPrefix(o.Last, name+": "):
			return errors.New("config apply: " + o.Last)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("config apply: no outcome within %v; see gridgate status", wait)
		case <-tick.C:
		}
	}
}

func readLimited(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s: more than %d octets", path, most)
	}
	return data, err
}
