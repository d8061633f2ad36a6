package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gridgate/buffer/state"
	"gridgate/dlms/security"
	"gridgate/internal/cli"
)

// TestAnAgentsCountersAreTaken: where nobody says which counters to use and an
// agent runs, its counters are used, wherever it keeps them. A tool that counted
// in a place of its own would sooner or later use what the agent uses.
func TestAnAgentsCountersAreTaken(t *testing.T) {
	t.Parallel()
	where, dir, home := securedMeter(t), t.TempDir(), t.TempDir()
	s, err := state.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	title, key := security.Title([]byte("GRG\x00\x00\x00\x00\x01")), testKey(t, 0).ID()
	first, err := s.Reserve(title, key, 1)
	if err != nil {
		t.Fatal(err)
	}
	agent := serveCounters(t, s, dir)
	var out, errOut bytes.Buffer
	env := cli.Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errOut, Getenv: func(name string) string {
		if name == "HOME" {
			return home
		}
		return ""
	}}
	code := program().Run(t.Context(), env, []string{
		"read", "dlms+wrapper://" + where + "?client=1&auth=gmac&security=authenc&title=4752470000000001&ek=" + testEK + "&ak=" + testAK,
		"0-0:1.0.0", "-control", agent,
	})
	if next, err := s.Reserve(title, key, 1); code != 0 || err != nil || next <= first+1 {
		t.Errorf("%d, %s%s; the agent's next is %d after %d, %v", code, &out, &errOut, next, first, err)
	}
	if _, err := os.Stat(filepath.Join(home, ".local", "state", "gridgate", "state.db")); err == nil {
		t.Error("the tool counts in a place of its own beside the agent")
	}
}
