package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gridgate/configs"
	"gridgate/internal/cli"
)

// runToken runs the verb.
func runToken(ctx context.Context, args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	code = program().Run(ctx, cli.Env{Stdout: &o, Stderr: &e, Getenv: os.Getenv}, append([]string{"token"}, args...))
	return code, o.String(), e.String()
}

// What the verb prints is a configuration, and its hash is of the token.
func TestToken(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, args := range [][]string{
		{"new", "-role", "technician"},
		{"new", "-role", "viewer", "-name", "office-screen"},
		{"new", "-role", "consumer", "-meter", "modbus-01"},
	} {
		code, out, errs := runToken(t.Context(), args...)
		if code != 0 || errs != "" {
			t.Fatalf("%q: %d %s", args, code, errs)
		}
		token, rest, ok := strings.Cut(strings.TrimPrefix(out, "token: "), "\n")
		_, fragment, found := strings.Cut(rest, "apply it:\n\n")
		if !ok || !found || len(token) != 32 || seen[token] {
			t.Fatalf("%q: %s", args, out)
		}
		seen[token] = true
		sum := sha256.Sum256([]byte(token))
		if !strings.Contains(fragment, hex.EncodeToString(sum[:])) || strings.Contains(fragment, token) {
			t.Errorf("%q: the fragment is not of the token's hash alone:\n%s", args, fragment)
		}
		path := filepath.Join(t.TempDir(), "gridgate.yaml")
		text := "version: 1\nsite: here\ngateway: gw1\nuplink: {broker: tcp://127.0.0.1:1}\ngroups: {g: {lane: instant, every: 15m, channels: [1-0:1.8.0]}}\n" +
			"meters:\n  - {id: modbus-01, url: 'modbus+tcp://127.0.0.1:1502?unit=1&model=eastron-sdm630', groups: [g]}\n"
		if err := os.WriteFile(path, []byte(text+fragment), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := configs.Load(path)
		if err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		if len(cfg.Page.Tokens) != 1 || cfg.Page.Tokens[0].SHA256 != sum || cfg.Page.Listen != configs.DefaultPage {
			t.Errorf("%q: %+v", args, cfg.Page)
		}
	}
}

func TestTokenRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, want string }{
		{"", "want new"},
		{"old", "want new"},
		{"new", "-role: want viewer, technician or consumer"},
		{"new -role admin", "-role: want viewer"},
		{"new -role consumer", "name it with -meter"},
		{"new -role viewer -meter house-01", "-meter is for the role consumer"},
		{"new -role viewer -name Office", "-name: id \"Office\""},
		{"new -role consumer -meter House", "-"},
	} {
		code, out, errs := runToken(t.Context(), strings.Fields(c.args)...)
		if code != 2 || out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("token %s: %d %q %q, want 2 and %q", c.args, code, out, errs, c.want)
		}
	}
}
