package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gridgate/agent/status"
	"gridgate/internal/cli"
	"gridgate/internal/proctest"
)

// cmdline runs gridgate in this process and gives exit code, stdout, stderr.
func cmdline(t *testing.T, args ...string) (int, string, string) {
	t.Helper()
	var out, errOut bytes.Buffer
	home := t.TempDir()
	getenv := func(name string) string {
		if name == "HOME" || name == "XDG_STATE_HOME" { // what tools count is of this test alone
			return home
		}
		return os.Getenv(name)
	}
	env := cli.Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errOut, Getenv: getenv}
	code := program().Run(t.Context(), env, args)
	return code, out.String(), errOut.String()
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const wellFormed = `version: 1
site: s
gateway: g
buffer: {path: DIR/buffer}
control: {socket: DIR/control.sock}
uplink: {broker: "tcp://127.0.0.1:1"}
groups:
  now: {lane: instant, every: 1s, channels: [1-0:1.8.0]}
meters:
  - {id: m1, url: "dlms+wrapper://127.0.0.1:4059", serial: A1, groups: [now]}
`

const onlyProfiles = `version: 1
site: s
gateway: g
buffer: {path: /tmp/none}
uplink: {broker: "tcp://127.0.0.1:1"}
groups:
  load: {lane: interval, every: 15m, profile: 1-0:99.1.0}
meters:
  - {id: m1, url: "dlms+wrapper://127.0.0.1:4059", groups: [load]}
`

func TestAWrongConfigurationIsRefusedWithThePlace(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ old, new, want string }{
		"unknown key":     {"site: s\n", "site: s\nsiet: x\n", ":3: siet"},
		"wrong type":      {"every: 1s", "every: often", ":8: groups.now.every"},
		"no unit":         {"every: 1s", "every: 15", ":8: groups.now.every"},
		"duplicate meter": {"groups: [now]}\n", "groups: [now]}\n  - {id: m1, url: \"dlms+wrapper://127.0.0.1:4060\", groups: [now]}\n", ":11: meters[1].id"},
		"unknown group":   {"groups: [now]}\n", "groups: [never]}\n", ":10: meters[0].groups"},
		"secret in the broker's password": {
			"tcp://127.0.0.1:1\"", "tcp://127.0.0.1:1\", username: u, password: Hunter2", ":6: uplink.password",
		},
		"secret in an address": {
			"127.0.0.1:4059", "127.0.0.1:4059?client=17&auth=lls&password=Hunter2", ":10: meters[0].url",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(wellFormed, c.old, c.new, 1)
			if text == wellFormed {
				t.Fatal("nothing was changed")
			}
			path := write(t, "site.yaml", text)
			for _, verb := range []string{"check", "run"} {
				code, _, errOut := cmdline(t, verb, "-config", path)
				if code != 1 || !strings.Contains(errOut, "site.yaml"+c.want) {
					t.Errorf("%s: exit code %d, want 1 and %q in:\n%s", verb, code, c.want, errOut)
				}
				if strings.Contains(errOut, "Hunter2") {
					t.Errorf("%s: the secret is printed:\n%s", verb, errOut)
				}
			}
		})
	}
}

func TestAllProblemsComeInOnePass(t *testing.T) {
	t.Parallel()
	text := strings.NewReplacer("site: s\n", "site: S!\n", "every: 1s", "every: 0s", "serial: A1", "seriel: A1").Replace(wellFormed)
	code, _, errOut := cmdline(t, "check", "-config", write(t, "site.yaml", text))
	for _, want := range []string{":2: site", ":8: groups.now.every", ":10: meters[0].seriel"} {
		if code != 1 || !strings.Contains(errOut, want) {
			t.Errorf("exit code %d, want 1 and %q in:\n%s", code, want, errOut)
		}
	}
}

func TestCheckAndVersion(t *testing.T) {
	t.Parallel()
	if code, out, errOut := cmdline(t, "check", "-config", write(t, "site.yaml", wellFormed)); code != 0 || !strings.Contains(out, "ok") {
		t.Errorf("check: %d, %s%s", code, out, errOut)
	}
	if code, out, _ := cmdline(t, "version", "-json"); code != 0 || !json.Valid([]byte(out)) {
		t.Errorf("version: %d, %s", code, out)
	}
}

func TestEveryVerbHasHelpWithAnExample(t *testing.T) {
	t.Parallel()
	for _, v := range program().Verbs {
		code, out, errOut := cmdline(t, v.Name, "-h")
		if code != 0 || !strings.Contains(out, "example:\n  gridgate "+v.Name) {
			t.Errorf("gridgate %s -h: exit code %d\n%s%s", v.Name, code, out, errOut)
		}
	}
}

func TestReadSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	port := proctest.FreePorts(t, 1) // nobody listens there
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no address":      {[]string{"read"}, 2, "want a URL"},
		"unknown scheme":  {[]string{"read", "dlsm://h"}, 2, "unknown scheme: want one of dlms+wrapper"},
		"unknown key":     {[]string{"read", "modbus+tcp://127.0.0.1?unti=1&model=eastron-sdm630"}, 2, "unti"},
		"unknown model":   {[]string{"read", "modbus+tcp://127.0.0.1?unit=1&model=nope"}, 1, "eastron-sdm630"},
		"bad OBIS":        {[]string{"read", "dlms+wrapper://127.0.0.1", "1-0:1.8"}, 2, "1-0:1.8"},
		"nobody there":    {[]string{"read", fmt.Sprintf("dlms+wrapper://127.0.0.1:%d", port), "1-0:1.8.0"}, 1, fmt.Sprintf("127.0.0.1:%d", port)},
		"no such port":    {[]string{"read", "modbus+rtu:///dev/ttyNONE?unit=1&model=eastron-sdm120"}, 1, "no such port"},
		"no such file":    {[]string{"read", "-config", "/nonexistent.yaml"}, 1, "/nonexistent.yaml"},
		"profiles only":   {[]string{"read", "-config", write(t, "p.yaml", onlyProfiles)}, 1, "meter m1: its groups are profiles only"},
		"no such meter":   {[]string{"read", "-config", write(t, "s.yaml", wellFormed), "-meter", "m9"}, 1, `no meter "m9"`},
		"a secret stays":  {[]string{"read", "dlms+wrapper://127.0.0.1?auth=lls&password=Hunter2&x=1"}, 2, "write '&' as %26"},
		"no secret there": {[]string{"read", "dlms+wrapper://127.0.0.1?client=17&auth=lls&password=env:GRIDGATE_NOT_SET", "1-0:1.8.0"}, 1, "GRIDGATE_NOT_SET"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out, errOut := cmdline(t, append(c.args, "-control", filepath.Join(t.TempDir(), "none"))...)
			if code != c.code || !strings.Contains(errOut, c.want) || strings.Contains(errOut+out, "Hunter2") {
				t.Errorf("exit code %d, want %d and %q in:\n%s%s", code, c.code, c.want, out, errOut)
			}
		})
	}
}

// TestTroubleOnSomeLinesLeavesTheOthers runs a gateway whose broker is away
// and most of whose meters are in trouble, each in another way.
func TestTroubleOnSomeLinesLeavesTheOthers(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "gridgate", "metersim")
	sim := filepath.Join(bin, "metersim")
	port := proctest.FreePorts(t, 6)
	at := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", port+i) }
	for i, args := range [][]string{
		{"-serial-prefix", "GOOD"},
		{"-serial-prefix", "LOCK", "-password", "right123"},
		{"-serial-prefix", "NEW"},
		{"-serial-prefix", "GARB", "-faults", "garbage"},
	} {
		p := proctest.Start(t, nil, sim, append([]string{"dlms", "-listen", at(i), "-count", "1"}, args...)...)
		p.Await(at(i))
	}
	garbled := proctest.Start(t, nil, sim, "modbus", "-listen", at(4), "-count", "1", "-model", "eastron-sdm630", "-faults", "garbage", "-every", "1")
	garbled.Await(at(4))
	dir := t.TempDir()
	text := fmt.Sprintf(`version: 1
site: s
gateway: g
buffer: {path: %[1]s/buffer}
control: {socket: %[1]s/control.sock}
intake: {window: 100ms}
uplink: {broker: "tcp://%[2]s"}
groups:
  now: {lane: instant, every: 1s, channels: [1-0:1.8.0]}
meters:
  - {id: good, serial: GOOD000001, groups: [now], url: "dlms+wrapper://%[3]s"}
  - {id: wrong-password, groups: [now], url: "dlms+wrapper://%[4]s?client=17&auth=lls&password=env:WRONG"}
  - {id: exchanged, serial: OLD000001, groups: [now], url: "dlms+wrapper://%[5]s"}
  - {id: garbage-dlms, groups: [now], url: "dlms+wrapper://%[6]s?timeout=500ms"}
  - {id: garbage-modbus, groups: [now], url: "modbus+tcp://%[7]s?unit=1&model=eastron-sdm630&timeout=500ms"}
  - {id: no-port, groups: [now], url: "modbus+rtu:///dev/ttyNONE?unit=1&model=eastron-sdm120"}
  - {id: nobody, groups: [now], url: "dlms+wrapper://%[2]s"}
  - {id: no-secret, groups: [now], url: "dlms+wrapper://%[8]s?client=17&auth=lls&password=file:/nonexistent"}
`, dir, at(5), at(0), at(1), at(2), at(3), at(4), "127.0.0.2:4059")
	config := write(t, "trouble.yaml", text)
	socket := filepath.Join(dir, "control.sock")
	agent := proctest.Start(t, []string{"WRONG=wrong"}, filepath.Join(bin, "gridgate"), "run", "-config", config)
	agent.Await("gridgate runs")

	want := map[string]struct{ state, text string }{
		"good":           {"ok", ""},
		"wrong-password": {"locked", "authentication"},
		"exchanged":      {"exchanged", "found NEW000001"},
		"garbage-dlms":   {"failing", "garbled answer"},
		"garbage-modbus": {"failing", at(4)},
		"no-port":        {"failing", "no such port"},
		"nobody":         {"failing", at(5)},
		"no-secret":      {"failing", "/nonexistent"},
	}
	var report status.Report
	defer func() {
		for _, m := range report.Meters {
			if m.State != want[m.Meter].state {
				t.Logf("%s is %s (%s)", m.Meter, m.State, m.Error)
			}
		}
	}()
	proctest.Until(t, "every meter is in its state", func() bool {
		var err error
		if report, err = status.Ask(t.Context(), socket); err != nil {
			t.Fatal(err)
		}
		for _, m := range report.Meters {
			if m.State != want[m.Meter].state {
				return false
			}
		}
		return len(report.Meters) == len(want) && report.Uplink.Error != ""
	})
	for _, m := range report.Meters {
		if w := want[m.Meter]; !strings.Contains(m.Error, w.text) {
			t.Errorf("%s: want %q in %q", m.Meter, w.text, m.Error)
		}
	}
	if u := report.Uplink; u.Connected || !strings.Contains(u.Error, at(5)) {
		t.Errorf("the uplink without a broker: %+v", u)
	}
	for _, m := range report.Meters {
		if m.Meter != "good" {
			continue
		}
		rows := m.Rows
		proctest.Until(t, "the good meter is read on", func() bool {
			r, err := status.Ask(t.Context(), socket)
			return err == nil && r.Meters[0].Rows > rows+1
		})
	}

	t.Run("a second agent on the same buffer", func(t *testing.T) {
		code, _, errOut := cmdline(t, "run", "-config", config)
		if code != 1 || !strings.Contains(errOut, fmt.Sprint(agent.PID())) {
			t.Errorf("exit code %d, want 1 and the first agent's pid %d in:\n%s", code, agent.PID(), errOut)
		}
	})
	t.Run("status for people", func(t *testing.T) {
		code, out, errOut := cmdline(t, "status", "-config", config)
		if code != 0 || !strings.Contains(out, "wrong-password") || !strings.Contains(out, "locked") {
			t.Errorf("exit code %d\n%s%s", code, out, errOut)
		}
	})
	t.Run("a tool reads while the agent runs", func(t *testing.T) {
		code, out, errOut := cmdline(t, "read", "-config", config, "-meter", "good", "-json")
		if code != 0 || !strings.Contains(out, `"serial":"GOOD000001"`) {
			t.Errorf("exit code %d\n%s%s", code, out, errOut)
		}
	})
	t.Run("a wrong configuration on SIGHUP", func(t *testing.T) {
		if err := os.WriteFile(config, []byte(strings.Replace(text, "site: s", "site: S S", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		agent.Signal(syscall.SIGHUP)
		out := agent.Await("the old one goes on")
		if !strings.Contains(out, "trouble.yaml:2: site") {
			t.Errorf("the refusal does not name the place:\n%s", out)
		}
	})
	if code := agent.Stop(); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
	if strings.Contains(agent.Output(), "right123") || strings.Contains(agent.Output(), "\"wrong\"") {
		t.Error("a password is in the log")
	}
}

// TestEachLineSaysWhatItIsOf: all that is wrong with an address is told, each
// behind what it is wrong with.
func TestEachLineSaysWhatItIsOf(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"read", "objects"} {
		code, _, errOut := cmdline(t, verb, "dlms+hdlc://h:1?suite=9&title=zz&server=1")
		said := strings.Split(strings.TrimSuffix(errOut, "\n"), "\n")
		if code != 2 || len(said) < 2 {
			t.Errorf("%s: exit code %d\n%s", verb, code, errOut)
		}
		for _, line := range said {
			if !strings.HasPrefix(line, "gridgate: "+verb+": address: ") {
				t.Errorf("%s: %q", verb, line)
			}
		}
	}
}
