package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"
)

func program(got *string) Program {
	return Program{Name: "tool", Summary: "a tool", Verbs: []Verb{{
		Name: "do", Summary: "do it", Args: "THING", Example: []string{"tool do x -n 3"},
		Setup: func(fs *flag.FlagSet) func(context.Context, Env, []string) error {
			n := fs.Int("n", 1, "how often")
			return func(_ context.Context, _ Env, args []string) error {
				*got = fmt.Sprint(*n, args)
				if len(args) == 0 {
					return Usagef("do: nothing to do")
				}
				if args[0] == "fail" {
					return errors.New("broken")
				}
				return nil
			}
		},
	}}}
}

func TestRun(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args        string
		code        int
		got         string
		out, errOut string
	}{
		{"do x -n 3 y", 0, "3 [x y]", "", ""},
		{"do -n 3 x", 0, "3 [x]", "", ""},
		{"do x -- -n 3", 0, "1 [x -n 3]", "", ""},
		{"do", 2, "1 []", "", "nothing to do"},
		{"do fail", 1, "1 [fail]", "", "broken"},
		{"do x -m", 2, "", "", "flag provided but not defined: -m"},
		{"do x -h", 0, "", "tool do x -n 3", ""},
		{"help do", 0, "", "how often", ""},
		{"help", 0, "", "do it", ""},
		{"", 2, "", "", "no verb given"},
		{"fly", 2, "", "", `unknown verb "fly"`},
	} {
		var got string
		var out, errOut bytes.Buffer
		code := program(&got).Run(t.Context(), Env{Stdout: &out, Stderr: &errOut}, strings.Fields(c.args))
		if code != c.code || got != c.got || !strings.Contains(out.String(), c.out) || !strings.Contains(errOut.String(), c.errOut) {
			t.Errorf("tool %s: code %d, did %q\nstdout %s\nstderr %s", c.args, code, got, &out, &errOut)
		}
	}
}
