package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gridgate/agent/timesync/timetest"
	"gridgate/internal/cli"
	"gridgate/internal/proctest"
)

// clockConfig writes a configuration with time servers and nothing to read.
func clockConfig(t *testing.T, servers ...string) (path, socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "gg") // t.TempDir is too long for a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path, socket = filepath.Join(dir, "c.yaml"), filepath.Join(dir, "c.sock")
	text := fmt.Sprintf("version: 1\nsite: s\ngateway: g\nbuffer: {path: %s}\ncontrol: {socket: %s}\nuplink: {broker: \"tcp://127.0.0.1:1\"}\n"+
		"time: {servers: [\"%s\"], min_poll: 16s, hardware_clock: none}\n", filepath.Join(dir, "b"), socket, strings.Join(servers, "\", \""))
	text = strings.Replace(text, `servers: [""], `, "", 1)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, socket
}

func runClock(t *testing.T, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	env := cli.Env{Stdout: &out, Stderr: &errs}
	if code := program().Run(t.Context(), env, append([]string{"clock"}, args...)); code != 0 {
		t.Fatalf("clock %q: exit code %d: %s", args, code, errs.String())
	}
	return out.String(), errs.String()
}

// holds says whether a line of out begins with the first word and has the rest.
func holds(out string, words ...string) bool {
	for line := range strings.Lines(out) {
		line = strings.Join(strings.Fields(line), " ")
		if rest, ok := strings.CutPrefix(line, words[0]); ok && strings.Contains(rest, words[1]) {
			return true
		}
	}
	return false
}

func TestClockWithoutAnAgent(t *testing.T) {
	t.Parallel()
	a, b, c := timetest.StartChrony(t, "", timetest.Synchronised), timetest.StartChrony(t, "+5s", timetest.Synchronised), timetest.StartChrony(t, "", timetest.Synchronised)
	d := timetest.StartChrony(t, "+5s", timetest.Synchronised)
	tests := map[string]struct {
		servers []string
		want    [][]string
	}{
		"one of three is off": {[]string{a.Address, b.Address, c.Address}, [][]string{
			{"state", "synchronised"},
			{a.Address, "chosen"},
			{b.Address, "false ticker +5s"},
			{c.Address, "chosen"},
			{"warning", b.Address + " is a false ticker: it is 5s off"},
			{"off by", "at most"},
		}},
		"two of three are off": {[]string{a.Address, b.Address, d.Address}, [][]string{
			{"state", "unsynchronised: no majority: "}, {"off by", "nobody knows"}, {a.Address, "candidate"}, {d.Address, "candidate +5s"},
		}},
		"one alone": {[]string{a.Address}, [][]string{
			{"state", "synchronised"}, {"warning", "one time server only"}, {a.Address, "chosen"},
		}},
		"the same twice": {[]string{a.Address, strings.Replace(a.Address, "127.0.0.1", "[::ffff:127.0.0.1]", 1)}, [][]string{
			{strings.Replace(a.Address, "127.0.0.1", "[::ffff:127.0.0.1]", 1), "it is the same server as " + a.Address},
		}},
		"nobody": {[]string{"127.0.0.1:1", "no-such-name.invalid"}, [][]string{
			{"state", "unsynchronised: none of 2 servers"},
			{"127.0.0.1:1", "0 of 1 connection refused"},
			{"no-such-name.invalid", "no-such-name.invalid cannot be looked up: "},
		}},
		"none": {nil, [][]string{{"state", ""}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, _ := clockConfig(t, tt.servers...)
			out, errs := runClock(t, "-config", path)
			for _, want := range tt.want {
				if !holds(out, want...) {
					t.Errorf("no line %q in\n%s", want, out)
				}
			}
			if !strings.Contains(errs, "no agent runs here") {
				t.Errorf("%q", errs)
			}
		})
	}
}

func TestClockOfAnAgent(t *testing.T) {
	t.Parallel()
	a, b, c := timetest.StartChrony(t, "", timetest.Synchronised), timetest.StartChrony(t, "", timetest.Synchronised), timetest.StartChrony(t, "-5s", timetest.Synchronised)
	path, _ := clockConfig(t, a.Address, b.Address, c.Address)
	p := proctest.Start(t, nil, filepath.Join(proctest.Build(t, "gridgate"), "gridgate"), "run", "-config", path)
	p.Await("gridgate runs")
	p.Await("clock synchronised")
	out, errs := runClock(t, "-config", path)
	for _, want := range [][]string{{"state", "synchronised"}, {"source", "ntp"}, {"next poll", "every 16s"}, {c.Address, "false ticker -5s"}} {
		if !holds(out, want...) {
			t.Errorf("no line %q in\n%s", want, out)
		}
	}
	if errs != "" {
		t.Errorf("%q", errs)
	}
	out, _ = runClock(t, "-config", path, "-json")
	var r clockReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Measured || len(r.Gateway.Servers) != 3 || r.Gateway.Bound == nil || r.Meters == nil {
		t.Errorf("%v: %s", err, out)
	}
	if code := p.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestClockOfNobody(t *testing.T) {
	t.Parallel()
	_, socket := clockConfig(t, "127.0.0.1:1")
	var out, errs bytes.Buffer
	code := program().Run(t.Context(), cli.Env{Stdout: &out, Stderr: &errs}, []string{"clock", "-control", socket})
	if code != 1 || !strings.Contains(errs.String(), "no agent runs here") {
		t.Errorf("exit code %d, %q", code, errs.String())
	}
}
