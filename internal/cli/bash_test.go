package cli

import (
	"bytes"
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// shelled is a program with all that completion knows.
func shelled() Program {
	setup := func(fs *flag.FlagSet) func(context.Context, Env, []string) error {
		fs.String("config", "", "the `FILE`")
		fs.String("lane", "", "this `LANE`")
		fs.String("protocol", "", "these `PROTOCOLS`")
		fs.String("path", "", "the `DIR`")
		fs.String("meter", "", "the `ID`")
		fs.Bool("json", false, "JSON")
		return nil
	}
	return Program{Name: "tool", Summary: "it's a tool - \\really", Verbs: []Verb{
		{Name: "scan", Summary: "scan", Args: "LINE-URL", Setup: setup, Example: []string{"tool scan 'a&b' \"c\" \\", ".TP"}},
		{Name: "sniff", Summary: "sniff", Args: "LINE-URL|FILE|-", Setup: setup},
		{Name: "buffer", Summary: ".buffer", Args: "stat|dump|export FILE", Setup: setup},
		{Name: "version", Summary: "version", Setup: func(*flag.FlagSet) func(context.Context, Env, []string) error { return nil }},
	}}
}

// complete has bash complete a command line, as a terminal does: words breaks it as
// COMP_WORDBREAKS has it.
func complete(t *testing.T, script string, words ...string) []string {
	t.Helper()
	test := `set -u
source "$1"; shift
complete -p tool >&2 || exit 3
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
COMP_LINE="$*"
COMP_POINT=${#COMP_LINE}
_tool
((${#COMPREPLY[@]})) && printf '%s\n' "${COMPREPLY[@]}"
exit 0`
	cmd := exec.CommandContext(t.Context(), "bash", append([]string{"--norc", "-c", test, "bash", script}, words...)...)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(script)+":"+os.Getenv("PATH"))
	cmd.Dir = filepath.Dir(script)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%q: %v: %s", words, err, stderr.String())
	}
	if !strings.Contains(stderr.String(), "-F _tool tool") {
		t.Errorf("complete -p says %q", stderr.String())
	}
	all := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	slices.Sort(all)
	return slices.Compact(all)
}

func TestBashCompletes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var script bytes.Buffer
	values := map[string]string{
		"FILE": Files, "DIR": Dirs, "LANE": "alarm billing", "scan -protocol": "modbus dlms", "ID": "$(tool completion meters -words \"${words[*]}\")",
	}
	if err := shelled().Bash(&script, values); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "script.bash")
	for name, text := range map[string]string{
		path: script.String(), filepath.Join(dir, "one.yaml"): "", filepath.Join(dir, "with space"): "",
		filepath.Join(dir, "tool"): "#!/bin/sh\necho \"house-01 house-02\"; echo \"$4\" >&2\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		words string
		want  []string
	}{
		{"tool ,", []string{"buffer ", "help ", "scan ", "sniff ", "version "}},
		{"tool,s", []string{"scan ", "sniff "}},
		{"tool,help,b", []string{"buffer "}},
		{"tool,scan,-", []string{"-config ", "-h ", "-json ", "-lane ", "-meter ", "-path ", "-protocol "}},
		{"tool,scan,-js", []string{"-json "}},
		{"tool,version,-", []string{"-h "}},
		{"tool,buffer,", []string{"dump ", "export ", "stat "}},
		{"tool,buffer,-json,", []string{"dump ", "export ", "stat "}},
		{"tool,buffer,export,on", []string{"one.yaml "}},
		{"tool,buffer,-lane,", []string{"alarm ", "billing "}},
		{"tool,buffer,--lane,b", []string{"billing "}},
		{"tool,scan,-protocol,", []string{"dlms ", "modbus "}},
		{"tool,sniff,-protocol,", []string{""}},
		{"tool,scan,-config,o", []string{"one.yaml "}},
		{"tool,scan,-config,with", []string{"with space "}},
		{"tool,scan,-path,", []string{"folder/"}},
		{"tool,buffer,-meter,", []string{"house-01 ", "house-02 "}},
		{"tool,buffer,-config,x.yaml,-meter,house-02", []string{"house-02 "}},
		{"tool,scan,ser", []string{"serial://"}},
		// What bash has broken at the colon is completed behind it.
		{"tool,scan,serial,:,///dev/nul", []string{"///dev/null"}},
		{"tool,scan,modbus+rtu,:,///dev/nul", []string{"///dev/null"}},
		{"tool,scan,serial,:", []string{"///dev/"}},
		{"tool,sniff,on", []string{"one.yaml "}},
		{"tool,unknown,", []string{""}},
	} {
		words := strings.Split(strings.ReplaceAll(c.words, " ", ""), ",")
		got := complete(t, path, words...)
		if c.words == "tool,scan,serial,:" {
			continue // what there is at /dev differs
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", words, got, c.want)
		}
	}
}

// mandoc finds nothing to say against the page, and shows what is special to it as
// it is.
func TestManIsWellFormed(t *testing.T) {
	t.Parallel()
	var page bytes.Buffer
	if err := shelled().Man(&page, "2026-01-02", "v1-\\2", ".SH FILES\nnone\n"); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), "mandoc", args...)
		cmd.Stdin = bytes.NewReader(page.Bytes())
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("mandoc %v: %v (scripts/setup.sh installs it)", args, err)
		}
		return string(out)
	}
	if out := run("-T", "lint", "-W", "warning"); out != "" {
		t.Errorf("mandoc: %s", out)
	}
	text := run("-T", "ascii", "-O", "width=100")
	for _, want := range []string{"it's a tool - \\really", "tool scan 'a&b' \"c\" \\", "\n              .TP", ".buffer", "-lane", "tool v1-\\2", "2026-01-02"} {
		if !strings.Contains(strings.NewReplacer("\b", "").Replace(text), want) && !strings.Contains(overstruck(text), want) {
			t.Errorf("no %q in\n%s", want, overstruck(text))
		}
	}
}

// overstruck takes away what is bold or underlined by printing twice.
func overstruck(s string) string {
	var out []byte
	for i := range len(s) {
		if s[i] == '\b' && len(out) > 0 {
			out = out[:len(out)-1]
			continue
		}
		out = append(out, s[i])
	}
	return string(out)
}
