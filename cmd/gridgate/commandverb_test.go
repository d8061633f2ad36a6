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

func TestLogTail(t *testing.T) {
	t.Parallel()
	var tail logTail
	var all []byte
	for i := range 5000 {
		line := []byte(strings.Repeat("x", i%97) + "\n")
		if n, err := tail.Write(line); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
		all = append(all, line...)
		if i%500 == 0 {
			got := tail.Tail()
			if !bytes.HasSuffix(all, got) || len(got) < min(len(all), logTailSize-200) || len(all) > len(got) && all[len(all)-len(got)-1] != '\n' {
				t.Fatalf("after %d lines: %d octets of %d", i+1, len(got), len(all))
			}
		}
	}
	long := bytes.Repeat([]byte("y"), 2*logTailSize)
	if n, err := tail.Write(append(long, "\nend\n"...)); n != len(long)+5 || err != nil || string(tail.Tail()) != "end\n" {
		t.Errorf("%d, %v, %q", n, err, tail.Tail())
	}
}
