package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"aead.dev/minisign"

	"gridgate/internal/cli"
)

func keygenVerb() cli.Verb {
	return cli.Verb{
		Name:    "keygen",
		Summary: "make a key pair that signs orders, as minisign does",
		Args:    "NAME",
		Example: []string{
			"gridfog keygen -password-file pass root-1   # writes root-1.key and root-1.pub",
			"minisign -G -p root-1.pub -s root-1.key     # the same with minisign",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			password := fs.String("password-file", "", "a `FILE` with the password that the secret key is encrypted with")
			open := fs.Bool("no-password", false, "leave the secret key unencrypted")
			return func(_ context.Context, env cli.Env, args []string) error {
				if len(args) != 1 {
					return cli.Usagef("keygen: want one NAME: NAME.key and NAME.pub are written")
				}
				if (*password == "") != *open {
					return cli.Usagef("keygen: want -password-file FILE, or -no-password")
				}
				return keygen(env, args[0], *password)
			}
		},
	}
}

func keygen(env cli.Env, name, passwordFile string) error {
	public, secret, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("keygen: %w", err)
	}
	var key []byte
	if passwordFile == "" {
		key, err = secret.MarshalText()
	} else {
		var password string
		if password, err = readPassword(passwordFile); err == nil {
			key, err = minisign.EncryptKey(password, secret)
		}
	}
	if err != nil {
		return fmt.Errorf("keygen: %w", err)
	}
	text, err := public.MarshalText()
	if err != nil {
		return fmt.Errorf("keygen: %w", err)
	}
	for _, f := range []struct {
		path string
		data []byte
		mode os.FileMode
	}{{name + ".key", key, 0o600}, {name + ".pub", append(text, '\n'), 0o644}} {
		if err := writeNew(f.path, f.data, f.mode); err != nil {
			return fmt.Errorf("keygen: %w", err)
		}
	}
	fmt.Fprintf(env.Stdout, "%s.key  secret: keep it where only its role can reach it\n%s.pub  %s\n", name, name, public)
	return nil
}

// writeNew writes a file that must not be there: a key that is written over is
// lost.
func writeNew(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func readPassword(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	p := strings.TrimRight(string(b), "\r\n")
	if p == "" {
		return "", fmt.Errorf("%s: there is no password in it", path)
	}
	return p, nil
}

// readKey reads a secret key, minisign's or ours.
func readKey(path, passwordFile string) (minisign.PrivateKey, error) {
	var key minisign.PrivateKey
	data, err := os.ReadFile(path)
	if err != nil {
		return key, err
	}
	if !minisign.IsEncrypted(data) {
		if err := key.UnmarshalText(data); err != nil {
			return key, fmt.Errorf("%s: not a minisign secret key", path)
		}
		return key, nil
	}
	if passwordFile == "" {
		return key, fmt.Errorf("%s: the key is encrypted; name its password with -password-file", path)
	}
	password, err := readPassword(passwordFile)
	if err != nil {
		return key, err
	}
	if key, err = minisign.DecryptKey(password, data); err != nil {
		return key, fmt.Errorf("%s: not a minisign secret key, or not its password", path)
	}
	return key, nil
}
