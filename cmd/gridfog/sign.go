package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"aead.dev/minisign"

	"gridgate/agent/order"
	"gridgate/configs"
	"gridgate/internal/cli"
)

func signVerb() cli.Verb {
	return cli.Verb{
		Name:    "sign",
		Summary: "sign an order, or add a signature to one",
		Args:    "FILE",
		Example: []string{
			"gridfog sign -key root-1.key -out trust trust.yaml                 # a document with its header",
			"gridfog sign -key root-2.key -out trust.2 trust                    # one signature more",
			"gridfog sign -key config.key -config here/gw-1 -version 7 -out gw-1.doc gw-1.yaml   # a configuration: the header is made",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			var s signing
			fs.StringVar(&s.key, "key", "", "the secret key `FILE`")
			fs.StringVar(&s.password, "password-file", "", "a `FILE` with the key's password")
			fs.StringVar(&s.out, "out", "", "the `FILE` to write; standard output unless told")
			fs.StringVar(&s.target, "config", "", "FILE is a configuration for this `TARGET`: SITE/GATEWAY or SITE/_group/GROUP")
			fs.Uint64Var(&s.version, "version", 0, "its `NUMBER`, higher than any before")
			fs.StringVar(&s.minAgent, "min-agent", "", "the oldest agent `VERSION` that may take it")
			fs.StringVar(&s.secrets, "secrets", "", "with -config: a `FILE` of sealed secrets to bring, as gridfog secret seal prints them")
			return func(_ context.Context, env cli.Env, args []string) error {
				if s.secrets != "" && s.target == "" {
					return cli.Usagef("sign: -secrets goes with -config")
				}
				if len(args) != 1 || s.key == "" {
					return cli.Usagef("sign: want -key FILE and one FILE to sign")
				}
				return s.run(env, args[0])
			}
		},
	}
}

type signing struct {
	key, password, out, target, minAgent, secrets string
	version                                       uint64
}

func (s *signing) run(env cli.Env, path string) error {
	key, err := readKey(s.key, s.password)
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	data, err := readDocument(path)
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	var signatures [][]byte
	body := data
	switch {
	case s.target != "":
		if body, err = s.configuration(path, data); err != nil {
			return err
		}
	case bytes.HasPrefix(data, []byte("untrusted comment: ")):
		if body, signatures, err = order.Unseal(data); err != nil {
			return fmt.Errorf("sign: %s: %w", path, err)
		}
	}
	signed, err := signDocument(key, body, signatures...)
	if err != nil {
		return fmt.Errorf("sign: %s: %w", path, err)
	}
	if s.out == "" {
		_, err = env.Stdout.Write(signed)
		return err
	}
	if err := os.WriteFile(s.out, signed, 0o644); err != nil { //nolint:gosec // everybody may read it
		return fmt.Errorf("sign: %w", err)
	}
	return nil
}

// configuration gives the body of a configuration document.
func (s *signing) configuration(path string, layer []byte) ([]byte, error) {
	target, err := order.ParseTarget(s.target)
	if err != nil {
		return nil, cli.Usagef("sign: -config: %v", err)
	}
	if s.version == 0 {
		return nil, cli.Usagef("sign: -config wants a -version")
	}
	if _, err := configs.Merge(configs.Layer{Name: path, Data: layer}); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "gridgate: %d\nkind: config\ntarget: %s\nversion: %d\n", order.Format, target, s.version)
	if s.minAgent != "" {
		fmt.Fprintf(&b, "min_agent: %q\n", s.minAgent)
	}
	if s.secrets != "" {
		header, err := readSecrets(s.secrets)
		if err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
		b.WriteString(header)
	}
	return append([]byte(b.String()+"---\n"), layer...), nil
}

// signDocument signs a body that a gateway could read, beside those who have
// signed it.
func signDocument(key minisign.PrivateKey, body []byte, signatures ...[]byte) ([]byte, error) {
	comment := "timestamp:" + fmt.Sprint(time.Now().Unix())
	sealed := order.Seal(body, append(signatures, order.Sign(key, body, comment))...)
	if _, err := order.Read(sealed); err != nil {
		return nil, err
	}
	return sealed, nil
}

// readDocument reads what may be a document.
func readDocument(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, order.MaxSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > order.MaxSize {
		return nil, fmt.Errorf("%s: more than the %d octets that a gateway takes", path, order.MaxSize)
	}
	return data, nil
}
