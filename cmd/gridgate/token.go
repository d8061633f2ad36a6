package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"flag"
	"fmt"

	"gridgate/internal/cli"
	"gridgate/internal/meter"
)

func tokenVerb() cli.Verb {
	return cli.Verb{
		Name:    "token",
		Summary: "make a token that lets somebody see the local page",
		Args:    "new",
		Example: []string{
			"gridgate token new -role technician",
			"gridgate token new -role viewer -name office-screen",
			"gridgate token new -role consumer -meter house-01",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			role := fs.String("role", "", "viewer, technician or consumer (`ROLE`)")
			name := fs.String("name", "", "the token's `NAME` in the configuration (default: that of the meter or the role)")
			id := fs.String("meter", "", "the `METER` that a consumer sees")
			return func(_ context.Context, env cli.Env, args []string) error {
				if len(args) != 1 || args[0] != "new" {
					return cli.Usagef("token: want new")
				}
				if err := checkToken(*role, name, *id); err != nil {
					return err
				}
				return newToken(env, *role, *name, *id)
			}
		},
	}
}

// checkToken says what is wrong with what a token is to be, and names it where
// nobody did.
func checkToken(role string, name *string, id string) error {
	switch role {
	case "consumer":
		if id == "" {
			return cli.Usagef("token: a consumer sees one meter: name it with -meter")
		}
	case "viewer", "technician":
		if id != "" {
			return cli.Usagef("token: -meter is for the role consumer; a %s sees every meter", role)
		}
	default:
		return cli.Usagef("token: -role: want viewer, technician or consumer")
	}
	if *name == "" {
		*name = role
		if id != "" {
			*name = id
		}
	}
	for what, s := range map[string]string{"-name": *name, "-meter": id} {
		if _, err := meter.ParseID(s); err != nil && s != "" {
			return cli.Usagef("token: %s: %v", what, err)
		}
	}
	return nil
}

// newToken prints a token, which nobody can find out later, and what the
// configuration wants of it.
func newToken(env cli.Env, role, name, id string) error {
	token := randomToken()
	if id != "" {
		id = "\n      meter: " + id
	}
	_, err := fmt.Fprintf(env.Stdout, `token: %s

Keep it now: it is not stored anywhere. The page takes it behind a #, as in
  http://127.0.0.1:8080/#token=%s
and the API as Authorization: Bearer. Put this into the configuration, and apply it:

page:
  tokens:
    - name: %s
      role: %s%s
      sha256: %x
`, token, token, name, role, id, sha256.Sum256([]byte(token)))
	return err
}

// randomToken gives 160 random bits in characters that can be read aloud.
func randomToken() string {
	const letters = "0123456789abcdefghjkmnpqrstvwxyz"
	var b [32]byte
	_, _ = rand.Read(b[:]) // it never fails
	for i := range b {
		b[i] = letters[b[i]&31]
	}
	return string(b[:])
}
