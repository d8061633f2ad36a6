package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gridgate/internal/proctest"
)

// bashWith runs a script in bash with the programs of bin, the completions loaded.
func bashWith(t *testing.T, bin, script string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "--norc", "-c", "source <(gridgate completion bash) || exit 9\n"+script)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return string(out)
}

// TestCompletion has bash complete command lines of the program itself.
func TestCompletion(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "gridgate")
	config := write(t, "g.yaml", strings.ReplaceAll(wellFormed, "DIR", t.TempDir()))
	if out := bashWith(t, bin, "complete -p gridgate"); !strings.Contains(out, "-F _gridgate gridgate") {
		t.Errorf("complete -p: %q", out)
	}
	complete := func(words ...string) []string {
		quoted := make([]string, len(words))
		for i, w := range words {
			quoted[i] = "'" + w + "'"
		}
		out := bashWith(t, bin, "COMP_WORDS=("+strings.Join(quoted, " ")+"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _gridgate; printf '%s\\n' \"${COMPREPLY[@]}\"")
		return strings.Fields(out)
	}
	var verbs []string
	for _, v := range program().Verbs {
		verbs = append(verbs, v.Name)
	}
	if got := complete("gridgate", ""); !slices.Equal(got, append(verbs, "help")) {
		t.Errorf("verbs %q", got)
	}
	for _, c := range []struct {
		words []string
		want  string
	}{
		{[]string{"gridgate", "scan", "-protocol", ""}, "modbus dlms iec21"},
		{[]string{"gridgate", "sniff", "--protocol", "m"}, "modbus modbus-tcp"},
		{[]string{"gridgate", "buffer", "query", "-lane", "i"}, "interval instant"},
		{[]string{"gridgate", "buffer", "c"}, "check compact"},
		{[]string{"gridgate", "config", ""}, "reference schema effective diff apply"},
		{[]string{"gridgate", "read", "-config", config, "-meter", ""}, "m1"},
		{[]string{"gridgate", "read", "-config", config[:len(config)-2]}, config},
		{[]string{"gridgate", "scan", "-config-o"}, "-config-out"},
		{[]string{"gridgate", "sniff", filepath.Dir(config) + "/"}, config},
	} {
		if got := strings.Join(complete(c.words...), " "); got != c.want {
			t.Errorf("%q: %q, want %q", c.words, got, c.want)
		}
	}
	// Every flag of every verb is offered, and every file it needs is well-formed.
	for _, v := range program().Verbs {
		got := complete("gridgate", v.Name, "-")
		for _, f := range v.Flags() {
			if !slices.Contains(got, "-"+f.Name) {
				t.Errorf("%s: no -%s in %q", v.Name, f.Name, got)
			}
		}
	}
	script := filepath.Join(t.TempDir(), "gridgate.bash")
	bashWith(t, bin, "gridgate completion bash > '"+script+"'")
	if out, err := exec.CommandContext(t.Context(), "shellcheck", "-s", "bash", script).CombinedOutput(); err != nil {
		t.Errorf("shellcheck: %v: %s (scripts/setup.sh installs it)", err, out)
	}
}

// TestManPage has mandoc find nothing to say against the page, and every verb and
// flag in it.
func TestManPage(t *testing.T) {
	t.Parallel()
	code, page, _ := cmdline(t, "man")
	if code != 0 {
		t.Fatal(code)
	}
	cmd := exec.CommandContext(t.Context(), "mandoc", "-T", "lint", "-W", "warning")
	cmd.Stdin = strings.NewReader(page)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("mandoc: %v: %s (scripts/setup.sh installs it)", err, out)
	}
	for _, v := range program().Verbs {
		if !strings.Contains(page, ".SS \"gridgate "+v.Name) {
			t.Errorf("no %s", v.Name)
		}
		for _, f := range v.Flags() {
			if !strings.Contains(page, `\fB\-`+strings.ReplaceAll(f.Name, "-", `\-`)+`\fR`) {
				t.Errorf("no %s -%s", v.Name, f.Name)
			}
		}
	}
}

func TestConfigInACommandLine(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"gridgate read -config a.yaml -meter": "a.yaml", "gridgate read --config a.yaml": "a.yaml", "gridgate read -config=b": "b",
		"gridgate config diff x": defaultConfig, "gridgate read -config": defaultConfig, "": defaultConfig, "gridgate read --config=c d": "c",
	} {
		if got := configIn(line); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}
