package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"

	"gridgate/agent/order"
	"gridgate/internal/cli"
)

func trustVerb() cli.Verb {
	return cli.Verb{
		Name:    "trust",
		Summary: "write a trust document, which says whose keys may sign what, or show one",
		Args:    "[DOCUMENT]",
		Example: []string{
			"gridfog trust -version 1 -threshold 2 -root r1.pub,r2.pub,r3.pub -config c.pub -command o.pub -control s.pub -firmware f.pub >trust.yaml",
			"gridfog trust trust   # show a signed one, and check it",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			files := map[order.Role]*string{}
			for _, r := range order.Roles() {
				files[r] = fs.String(string(r), "", fmt.Sprintf("public keys of the role %s: `FILES`, with commas between", r))
			}
			version := fs.Uint64("version", 0, "the document's `NUMBER`, higher than any before")
			threshold := fs.Int("threshold", 1, "how `many` root keys have to sign the next document")
			disconnects := fs.Int("disconnects-per-hour", 10, "how `many` breakers a gateway opens within an hour at most")
			two := fs.String("two-signatures", "", "the `ACTIONS` that want two keys to sign, with commas between, such as disconnect,output")
			return func(_ context.Context, env cli.Env, args []string) error {
				if len(args) == 1 {
					return showTrust(env, args[0])
				}
				if len(args) > 1 || *version == 0 || *files[order.Root] == "" {
					return cli.Usagef("trust: want -version and at least -root, or a DOCUMENT to show")
				}
				return writeTrust(env, *version, *threshold, *disconnects, *two, files)
			}
		},
	}
}

func writeTrust(env cli.Env, version uint64, threshold, disconnects int, two string, files map[order.Role]*string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "gridgate: %d\nkind: trust\ntarget: '*'\nversion: %d\n---\nroles:\n", order.Format, version)
	for _, r := range order.Roles() {
		if *files[r] == "" {
			continue
		}
		fmt.Fprintf(&b, "  %s:\n", r)
		if r == order.Root {
			fmt.Fprintf(&b, "    threshold: %d\n", threshold)
		}
		b.WriteString("    keys:\n")
		for path := range strings.SplitSeq(*files[r], ",") {
			text, err := os.ReadFile(path)
			if err != nil {
				return fmt.Errorf("trust: -%s: %w", r, err)
			}
			k, err := order.ParseKey(string(text))
			if err != nil {
				return fmt.Errorf("trust: -%s: %s: %w", r, path, err)
			}
			fmt.Fprintf(&b, "      - %s # %s\n", k, path)
		}
	}
	fmt.Fprintf(&b, "limits:\n  disconnects_per_hour: %d\n", disconnects)
	if two != "" {
		fmt.Fprintf(&b, "  two_signatures: [%s]\n", two)
	}
	if _, err := order.ReadTrust([]byte(b.String())); err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	_, err := fmt.Fprint(env.Stdout, b.String())
	return err
}

func showTrust(env cli.Env, path string) error {
	data, err := readDocument(path)
	if err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	t, d, err := order.FirstTrust(data)
	if err != nil {
		return fmt.Errorf("trust: %s: %w", path, err)
	}
	fmt.Fprintf(env.Stdout, "trust document, version %d, signed by %d of its %d root keys (%d must)\n",
		d.Version, d.Signed(order.Root), len(t.Keys(order.Root)), t.Threshold(order.Root))
	for _, r := range t.Has() {
		for _, k := range t.Keys(r) {
			fmt.Fprintf(env.Stdout, "%-9s %s\n", r, k)
		}
	}
	fmt.Fprintf(env.Stdout, "at most %d disconnects an hour\n", t.DisconnectsPerHour)
	return nil
}
