package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gridgate/configs"
	"gridgate/internal/cli"
)

// runCheck runs the verb on a document and gives what it says.
func runCheck(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	p := cli.Program{Name: "gridgate", Verbs: []cli.Verb{checkVerb()}}
	code = p.Run(t.Context(), cli.Env{Stdout: &out, Stderr: &errs}, append([]string{"check"}, args...))
	return code, out.String(), errs.String()
}

func TestCheck(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "c.yaml")
	write := func(doc []byte) {
		if err := os.WriteFile(name, doc, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(configs.Demo())
	code, stdout, stderr := runCheck(t, "-config", name)
	if want := name + ": ok: 20 meters on 16 lines, 3 groups, to tcp://127.0.0.1:11883\n"; code != 0 || stdout != want || stderr != "" {
		t.Errorf("exit %d, %q, %q; want 0 and %q", code, stdout, stderr, want)
	}

	write([]byte("version: 1\nsite: S\ngateway: g\nuplink: {broker: tcp://h, username: u, password: hunter2}\n"))
	code, stdout, stderr = runCheck(t, "-config", name)
	lines := strings.Split(stderr, "\n")
	if code != 1 || stdout != "" || len(lines) != 4 ||
		!strings.HasPrefix(lines[0], name+`:2: site: "S": want `) ||
		!strings.HasPrefix(lines[1], name+":4: uplink.password: a secret has no place") ||
		lines[2] != "gridgate: check: "+name+": 2 problems" || strings.Contains(stderr, "hunter2") {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}

	if code, _, stderr = runCheck(t, "-config", name+".none"); code != 1 || !strings.Contains(stderr, "no such file") {
		t.Errorf("no file: exit %d, %q", code, stderr)
	}
	for _, args := range [][]string{nil, {name}, {"-config", name, "more"}} {
		if code, _, _ = runCheck(t, args...); code != 2 {
			t.Errorf("%q: exit %d, want 2", args, code)
		}
	}
}
