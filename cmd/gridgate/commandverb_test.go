package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gridgate/internal/cli"
)

func TestCommandVerb(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "none")
	for _, c := range []struct {
		args []string
		want string
		code int
	}{
		{nil, "want apply FILE, or show ID", 2},
		{[]string{"apply"}, "want apply FILE, or show ID", 2},
		{[]string{"dance", "x"}, "want apply FILE, or show ID", 2},
		{[]string{"show", "No Id"}, "command show: id", 2},
		{[]string{"show", "c1"}, "no agent runs here", 1},
		{[]string{"apply", filepath.Join(dir, "nothing")}, "no such file", 1},
		{[]string{"apply", empty}, "the document has no content", 1},
	} {
		var out, err bytes.Buffer
		args := append([]string{"command", "-control", socket}, c.args...)
		code := program().Run(t.Context(), cli.Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &err, Getenv: func(string) string { return "" }}, args)
		if code != c.code || !strings.Contains(err.String(), c.want) {
			t.Errorf("%q: exit %d, %s; want %d, %q", c.args, code, err.String(), c.code, c.want)
		}
	}
}
