package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"gridgate/agent"
	"gridgate/agent/status"
	"gridgate/agent/vault"
	"gridgate/configs"
	"gridgate/drivers/address"
	"gridgate/internal/cli"
	"gridgate/internal/secret"
	"gridgate/internal/sys"
)

// sources are where references to secrets lead on the gateway whose buffer is in
// that directory; empty: of an ordinary installation.
func sources(env cli.Env, buffer string) address.Sources {
	v := vault.Open(agent.VaultDir(cmp.Or(buffer, agentState)), env.Getenv)
	return address.Sources{Getenv: env.Getenv, ReadFile: os.ReadFile, Store: v.Get}
}

// secretFlags are the flags of secret.
type secretFlags struct {
	config, control      string
	asJSON, renew, force bool
}

func secretVerb() cli.Verb {
	return cli.Verb{
		Name:    "secret",
		Summary: "keep passwords and keys, which a configuration names as secret:NAME",
		Args:    "recipient|list|set NAME|rm NAME",
		Example: []string{
			"gridgate secret recipient                    # the public key that others seal secrets to",
			"gridgate secret set broker                   # asks for it, and shows nothing",
			"gridgate secret set client-key <gateway.key  # or reads it; never from the command line",
			"gridgate secret list",
			"gridgate secret rm house-07",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			var f secretFlags
			fs.StringVar(&f.config, "config", defaultConfig, "the configuration `FILE`")
			fs.StringVar(&f.control, "control", "", "the control `SOCKET` of a running agent (default: that of -config)")
			fs.BoolVar(&f.asJSON, "json", false, "recipient, list: print JSON; of recipient also the key that archives are signed\nwith, and how the private key is kept")
			fs.BoolVar(&f.renew, "new", false, "recipient: make another key, where the one there was is lost: all secrets are to be set anew")
			fs.BoolVar(&f.force, "force", false, "rm: although the configuration refers to it")
			return func(ctx context.Context, env cli.Env, args []string) error {
				if err := f.run(ctx, env, args); err != nil {
					return prefixed(err)
				}
				return nil
			}
		},
	}
}

// prefixed says which verb it was, but of a wrong command line, which says so.
func prefixed(err error) error {
	var usage *cli.UsageError
	if errors.As(err, &usage) {
		return err
	}
	return fmt.Errorf("secret: %w", err)
}

func (f *secretFlags) run(ctx context.Context, env cli.Env, args []string) error {
	takes := map[string]int{"recipient": 0, "list": 0, "set": 1, "rm": 1}
	if len(args) == 0 {
		return cli.Usagef("secret: want recipient, list, set NAME or rm NAME")
	}
	do, args := args[0], args[1:]
	n, known := takes[do]
	switch {
	case !known:
		return cli.Usagef("secret: %.40q; want recipient, list, set NAME or rm NAME", do)
	case do == "set" && len(args) > 1:
		// What stands there is perhaps a secret: it is not quoted.
		return cli.Usagef("secret set: want one NAME; the secret itself comes from standard input: everybody on this machine can read command lines")
	case len(args) != n:
		return cli.Usagef("secret %s: want %s", do, count(n, "name"))
	case n == 1 && !vault.IsName(args[0]):
		return cli.Usagef("secret %s: want a NAME of 1 to 64 characters of a-z, 0-9 and '-'", do)
	case f.renew && do != "recipient", f.force && do != "rm", f.asJSON && n == 1:
		return cli.Usagef("secret %s: -new is of recipient, -force of rm, -json of recipient and list", do)
	}
	s, err := f.open(env)
	if err != nil {
		return err
	}
	switch do {
	case "recipient":
		return s.recipient(ctx, env, f)
	case "list":
		return s.list(ctx, env, f.asJSON)
	case "set":
		return s.set(ctx, env, args[0])
	}
	return s.remove(ctx, env, args[0], f.force)
}

// secretPlace is where secrets are: with the agent that runs, or on flash.
type secretPlace struct {
	agent  status.AgentSecrets
	vault  *vault.Vault
	config string
}

func (f *secretFlags) open(env cli.Env) (*secretPlace, error) {
	buffer, control := agentState, defaultControl
	cfg, err := loadConfig(f.config)
	switch {
	case err == nil:
		buffer, control = cfg.Buffer.Path, cfg.Control.Socket
	case !errors.Is(err, fs.ErrNotExist) || f.config != defaultConfig:
		return nil, err
	}
	return &secretPlace{
		agent: status.AgentSecrets{Path: cmp.Or(f.control, control)}, config: f.config,
		vault: vault.Open(agent.VaultDir(buffer), env.Getenv),
	}, nil
}

// identity asks the agent, or looks itself where there is none.
func (s *secretPlace) identity(ctx context.Context, renew bool) (id status.SecretIdentity, running bool, err error) {
	id, err = s.agent.Identity(ctx, renew)
	if errors.Is(err, status.ErrNoAgent) {
		id, err = agent.IdentityOf(s.vault, renew)
		return id, false, err
	}
	return id, true, err
}

func (s *secretPlace) recipient(ctx context.Context, env cli.Env, f *secretFlags) error {
	id, _, err := s.identity(ctx, f.renew)
	if err != nil {
		return err
	}
	if f.asJSON {
		return json.NewEncoder(env.Stdout).Encode(id)
	}
	fmt.Fprintln(env.Stdout, id.Recipient)
	if id.Protection == string(vault.ByOpenFile) {
		fmt.Fprintf(env.Stderr, "gridgate: secret: others can read the private key: chmod 600 %s/identity\n", s.vault.Dir())
	}
	return nil
}

func (s *secretPlace) list(ctx context.Context, env cli.Env, asJSON bool) error {
	all, err := s.agent.List(ctx)
	if errors.Is(err, status.ErrNoAgent) {
		var entries []vault.Entry
		entries, err = s.vault.List()
		for _, e := range entries {
			all = append(all, status.Secret(e))
		}
	}
	if err != nil {
		return err
	}
	if asJSON {
		enc := json.NewEncoder(env.Stdout)
		for _, e := range all {
			if err := enc.Encode(e); err != nil {
				return err
			}
		}
		return nil
	}
	if len(all) > 0 && all[0].Problem == vault.ErrNoIdentity.Error() {
		id, _, err := s.identity(ctx, false)
		if err == nil {
			err = errors.New(id.Protection)
		}
		fmt.Fprintf(env.Stderr, "gridgate: secret: %v\n", err)
	}
	w := tabwriter.NewWriter(env.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSET\tPROBLEM")
	for _, e := range all {
		set := "being tried"
		if !e.Set.IsZero() {
			set = e.Set.Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", e.Name, set, cmp.Or(e.Problem, "none"))
	}
	return w.Flush()
}

// set seals the secret before it leaves this process: not even the agent's socket
// sees it.
func (s *secretPlace) set(ctx context.Context, env cli.Env, name string) error {
	value, err := readSecret(env, name)
	if err != nil {
		return err
	}
	id, running, err := s.identity(ctx, false)
	if err != nil {
		return err
	}
	if !running {
		if err := s.vault.Set(name, value); err != nil {
			return err
		}
		fmt.Fprintf(env.Stdout, "%s is set; the agent uses it when it starts\n", name)
		return nil
	}
	sealed, err := vault.Seal(value, id.Recipient)
	if err != nil {
		return err
	}
	if err := s.agent.Set(ctx, name, sealed); err != nil {
		return err
	}
	fmt.Fprintf(env.Stdout, "%s is set, and in use where the configuration refers to it\n", name)
	return nil
}

func (s *secretPlace) remove(ctx context.Context, env cli.Env, name string, force bool) error {
	err := s.agent.Remove(ctx, name, force)
	if errors.Is(err, status.ErrNoAgent) {
		if base, rerr := configs.Read(s.config); rerr == nil && !force {
			if cfg, _, cerr := agent.Effective(base); cerr == nil && slices.Contains(cfg.Secrets(), name) {
				return fmt.Errorf("%s: %w", name, agent.ErrSecretInUse)
			}
		}
		err = s.vault.Remove(name)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(env.Stdout, "%s is gone\n", name)
	return nil
}

// readSecret reads a secret from standard input; who types it sees nothing of it.
func readSecret(env cli.Env, name string) (secret.Value, error) {
	if f, ok := env.Stdin.(*os.File); ok && sys.IsTerminal(f) {
		fmt.Fprintf(env.Stderr, "%s (it is not shown): ", name)
		line, err := sys.ReadHidden(f, vault.MaxSecret)
		fmt.Fprintln(env.Stderr)
		if err != nil {
			return secret.Value{}, err
		}
		return given(line)
	}
	data, err := io.ReadAll(io.LimitReader(env.Stdin, vault.MaxSecret+2))
	if err != nil {
		return secret.Value{}, err
	}
	return given(data)
}

// given makes a secret of what was read, without the one line end behind it.
func given(data []byte) (secret.Value, error) {
	value := vault.Trimmed(data)
	switch {
	case value.IsZero():
		return value, errors.New("nothing was given on standard input")
	case value.Len() > vault.MaxSecret:
		return value, fmt.Errorf("more than the %d octets of a secret", vault.MaxSecret)
	}
	return value, nil
}
