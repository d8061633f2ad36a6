package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"gridgate/agent/order"
	"gridgate/agent/vault"
	"gridgate/internal/cli"
	"gridgate/internal/secret"
	"gridgate/internal/sys"
)

func secretVerb() cli.Verb {
	return cli.Verb{
		Name:    "secret",
		Summary: "seal a secret for gateways, to be pushed with a configuration",
		Args:    "seal NAME",
		Example: []string{
			"gridgate secret recipient                                     # at the gateway: its public key, age1…",
			"gridfog secret seal -recipient age1… broker <password >>secrets.yaml",
			"gridfog sign -config here/gw-1 -version 7 -secrets secrets.yaml -key config.key -out gw-1.doc gw-1.yaml",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			var recipients []string
			fs.Func("recipient", "the public `KEY` of a gateway, age1…; again for each of a group", func(s string) error {
				recipients = append(recipients, s)
				return nil
			})
			return func(_ context.Context, env cli.Env, args []string) error {
				switch {
				case len(args) == 0 || args[0] != "seal":
					return cli.Usagef("secret: want seal NAME")
				case len(args) > 2:
					// What stands there is perhaps a secret: it is not quoted.
					return cli.Usagef("secret seal: want one NAME; the secret itself comes from standard input: everybody on this machine can read command lines")
				case len(args) < 2 || !vault.IsName(args[1]):
					return cli.Usagef("secret seal: want a NAME of 1 to 64 characters of a-z, 0-9 and '-'")
				case len(recipients) == 0:
					return cli.Usagef("secret seal: want -recipient age1…, which `gridgate secret recipient` says at the gateway")
				}
				if err := sealSecret(env, args[1], recipients); err != nil {
					return fmt.Errorf("secret seal: %w", err)
				}
				return nil
			}
		},
	}
}

// sealSecret prints an entry for the header of a configuration.
func sealSecret(env cli.Env, name string, recipients []string) error {
	value, err := typedSecret(env, name)
	if err != nil {
		return err
	}
	sealed, err := vault.Seal(value, recipients...)
	if err != nil {
		return err
	}
	_, err = env.Stdout.Write(order.AppendSecret(nil, name, sealed))
	return err
}

// typedSecret reads a secret from standard input; who types it sees nothing of it.
func typedSecret(env cli.Env, name string) (secret.Value, error) {
	var data []byte
	var err error
	if f, ok := env.Stdin.(*os.File); ok && sys.IsTerminal(f) {
		fmt.Fprintf(env.Stderr, "%s (it is not shown): ", name)
		data, err = sys.ReadHidden(f, vault.MaxSecret)
		fmt.Fprintln(env.Stderr)
	} else {
		data, err = io.ReadAll(io.LimitReader(env.Stdin, vault.MaxSecret+2))
	}
	value := vault.Trimmed(data)
	if err == nil && value.IsZero() {
		err = errors.New("nothing was given on standard input")
	}
	return value, err
}

// readSecrets reads entries that sealSecret made, and gives them as the key secrets
// of a header.
func readSecrets(path string) (header string, err error) {
	data, err := readDocument(path)
	if err != nil {
		return "", err
	}
	if _, err := order.ReadSecrets(data); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	var b strings.Builder
	b.WriteString("secrets:\n")
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimRight(line, "\r\n"); line == "" || line[0] == '#' {
			continue
		}
		b.WriteString("  " + line + "\n")
	}
	return b.String(), nil
}
