package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gridgate/agent/status"
	"gridgate/drivers/drivertest"
	"gridgate/internal/cli"
	"gridgate/internal/proctest"
)

// vaulted is a configuration that refers to a secret, and whose agent is not there.
func vaulted(t *testing.T) (config, secrets string) {
	t.Helper()
	dir := t.TempDir()
	config = write(t, "c.yaml", fmt.Sprintf(`version: 1
site: s
gateway: g
buffer: {path: %s}
control: {socket: %s}
uplink: {broker: "tcp://127.0.0.1:1", username: u, password: "secret:broker"}
`, filepath.Join(dir, "buffer"), filepath.Join(dir, "c")))
	if err := os.Mkdir(filepath.Join(dir, "buffer"), 0o700); err != nil {
		t.Fatal(err)
	}
	return config, filepath.Join(dir, "buffer", "secrets")
}

// with runs the verb with something on standard input.
func with(t *testing.T, stdin string, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	env := cli.Env{Stdin: strings.NewReader(stdin), Stdout: &o, Stderr: &e, Getenv: func(string) string { return "" }}
	code = program().Run(t.Context(), env, append([]string{"secret"}, args...))
	return code, o.String(), e.String()
}

// TestSecretsWithoutAnAgent goes through a gateway that is being set up.
func TestSecretsWithoutAnAgent(t *testing.T) {
	t.Parallel()
	config, dir := vaulted(t)
	if code, _, errOut := cmdline(t, "check", "-config", config); code != 1 ||
		!strings.Contains(errOut, `c.yaml:6: uplink.password: "secret:broker": there is no such secret on this gateway; set it with gridgate secret set broker, or push it`) {
		t.Errorf("check: %d, %s", code, errOut)
	}
	if code, out, errOut := with(t, "", "list", "-config", config); code != 0 || strings.TrimSpace(out) != "NAME  SET  PROBLEM" {
		t.Errorf("list: %d, %s%s", code, out, errOut)
	}
	if code, out, errOut := with(t, "hunter2\r\n", "set", "broker", "-config", config); code != 0 || out != "broker is set; the agent uses it when it starts\n" {
		t.Errorf("set: %d, %s%s", code, out, errOut)
	}
	if code, out, errOut := cmdline(t, "check", "-config", config); code != 0 {
		t.Errorf("check: %d, %s%s", code, out, errOut)
	}
	code, out, errOut := with(t, "", "list", "-config", config, "-json")
	var listed status.Secret
	if err := json.Unmarshal([]byte(out), &listed); err != nil || code != 0 || listed.Name != "broker" || listed.Problem != "" || time.Since(listed.Set) > time.Hour {
		t.Errorf("list: %d, %s%s", code, out, errOut)
	}
	_, recipient, _ := with(t, "", "recipient", "-config", config)
	code, out, _ = with(t, "", "recipient", "-config", config, "-json")
	var id status.SecretIdentity
	if err := json.Unmarshal([]byte(out), &id); err != nil || code != 0 || id.Recipient+"\n" != recipient || len(id.SigningKey) != 64 || id.Protection != "file of mode 0600" {
		t.Errorf("recipient: %d, %s; %s", code, out, recipient)
	}
	opened, err := exec.CommandContext(t.Context(), "age", "-d", "-i", filepath.Join(dir, "identity"), filepath.Join(dir, "broker.age")).Output()
	if err != nil || string(opened) != "hunter2" {
		t.Errorf("age opens %q, %v (scripts/setup.sh installs age)", opened, err)
	}
	if code, _, errOut := with(t, "", "rm", "broker", "-config", config); code != 1 || !strings.Contains(errOut, "secret: broker: the configuration that runs refers to it; take the reference away first, or say -force") {
		t.Errorf("rm: %d, %s", code, errOut)
	}
	if code, out, errOut := with(t, "", "rm", "-force", "broker", "-config", config); code != 0 || out != "broker is gone\n" {
		t.Errorf("rm: %d, %s%s", code, out, errOut)
	}
	if code, _, errOut := with(t, "", "rm", "broker", "-force", "-config", config); code != 1 || !strings.Contains(errOut, "secret: broker: there is no such secret") {
		t.Errorf("rm again: %d, %s", code, errOut)
	}
	if err := os.WriteFile(filepath.Join(dir, "identity"), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := with(t, "x", "set", "a", "-config", config); code != 1 || !strings.Contains(errOut, "gridgate secret recipient -new makes another") {
		t.Errorf("a damaged key: %d, %s", code, errOut)
	}
	if code, out, errOut := with(t, "", "recipient", "-new", "-config", config); code != 0 || out == recipient || !strings.HasPrefix(out, "age1") {
		t.Errorf("another key: %d, %s%s", code, out, errOut)
	}
	if code, _, errOut := with(t, "x", "set", "a", "-config", config); code != 0 {
		t.Errorf("with the other key: %d, %s", code, errOut)
	}
}

func TestSecretRefuses(t *testing.T) {
	t.Parallel()
	config, _ := vaulted(t)
	for line, c := range map[string]struct {
		code int
		want string
	}{
		"":                          {2, "secret: want recipient, list, set NAME or rm NAME"},
		"get broker":                {2, `secret: "get"; want recipient, list, set NAME or rm NAME`},
		"set":                       {2, "secret set: want 1 name"},
		"set broker hunter2":        {2, "the secret itself comes from standard input"},
		"set broker hunter2 and so": {2, "the secret itself comes from standard input"},
		"set Broker":                {2, "secret set: want a NAME of 1 to 64 characters of a-z, 0-9 and '-'"},
		"set ../identity":           {2, "secret set: want a NAME"},
		"set a -force":              {2, "-force of rm"},
		"rm a -new":                 {2, "-new is of recipient"},
		"set a -json":               {2, "-json of recipient and list"},
		"list a":                    {2, "secret list: want 0 names"},
		"set a":                     {1, "secret: nothing was given on standard input"},
		"list -config /no/such":     {1, "name the file with -config"},
	} {
		args := strings.Fields(line)
		if !strings.Contains(line, "-config") {
			args = append(args, "-config", config)
		}
		if line == "" {
			args = nil
		}
		code, out, errOut := with(t, "\n", args...)
		if code != c.code || !strings.Contains(errOut, c.want) || strings.Contains(errOut+out, "hunter2") {
			t.Errorf("%s: %d, %s%s\nwant %d, %s", line, code, out, errOut, c.code, c.want)
		}
	}
	if code, _, errOut := with(t, strings.Repeat("x", 8193), "set", "a", "-config", config); code != 1 || !strings.Contains(errOut, "more than the 8192 octets of a secret") {
		t.Errorf("too long: %d, %s", code, errOut)
	}
}

// TestSecretIsAskedFor at a terminal, which shows nothing of it, and is as it was
// afterwards.
func TestSecretIsAskedFor(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "gridgate")
	for typed, want := range map[string]string{"hunter3\x7f2\r": "hunter2", "no\x15hunter2\n": "hunter2", "h\x03": "", "\r": ""} {
		config, dir := vaulted(t)
		terminal, err := drivertest.Pty()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = terminal.Close() })
		end, err := os.OpenFile(terminal.Path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = end.Close() })
		stty := func(args ...string) string {
			cmd := exec.CommandContext(t.Context(), "stty", args...)
			cmd.Stdin = end
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("stty: %v, %s", err, out)
			}
			return string(out)
		}
		stty("sane")
		before := stty("-g")
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "gridgate"), "secret", "set", "a", "-config", config)
		var errOut lockedText
		cmd.Stdin, cmd.Stderr, cmd.Stdout = end, &errOut, &errOut
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		proctest.Until(t, "the terminal shows nothing", func() bool { return strings.Contains(stty("-a"), "-echo ") })
		if _, err := terminal.WriteString(typed); err != nil {
			t.Fatal(err)
		}
		err = cmd.Wait()
		if (err == nil) != (want != "") || !strings.Contains(errOut.String(), "a (it is not shown): \n") {
			t.Errorf("%q: %v, %s", typed, err, errOut.String())
		}
		if stty("-g") != before {
			t.Errorf("%q: the terminal is another: %s", typed, stty("-a"))
		}
		_ = terminal.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // what was shown is there by now
		shown := make([]byte, 100)
		if n, _ := terminal.Read(shown); n > 0 {
			t.Errorf("%q: the terminal shows %q", typed, shown[:n])
		}
		if want == "" {
			continue
		}
		opened, err := exec.CommandContext(t.Context(), "age", "-d", "-i", filepath.Join(dir, "identity"), filepath.Join(dir, "a.age")).Output()
		if err != nil || string(opened) != want {
			t.Errorf("%q: age opens %q, %v", typed, opened, err)
		}
	}
}

// TestNoCoreDumps: the agent leaves nothing of its memory behind, nobody of the same
// user looks into it, and a user who is not root can run it, over a crash too.
func TestNoCoreDumps(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "gridgate")
	dir, err := os.MkdirTemp("", "gg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	program, config, socket := filepath.Join(dir, "gridgate"), filepath.Join(dir, "c.yaml"), filepath.Join(dir, "c")
	binary, err := os.ReadFile(filepath.Join(bin, "gridgate"))
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("version: 1\nsite: s\ngateway: g\nbuffer: {path: %s}\ncontrol: {socket: %s}\nuplink: {broker: \"tcp://127.0.0.1:1\"}\n", filepath.Join(dir, "b"), socket)
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = errors.Join(os.WriteFile(program, binary, 0o755), os.WriteFile(config, []byte(text), 0o644)) //nolint:gosec // for another user
	if nobody := 65534; os.Geteuid() == 0 {
		attr.Credential = &syscall.Credential{Uid: uint32(nobody), Gid: uint32(nobody)} //nolint:gosec // a constant
		err = errors.Join(err, os.Chown(dir, nobody, nobody))
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, signal := range []os.Signal{os.Kill, syscall.SIGTERM} {
		cmd := exec.CommandContext(t.Context(), program, "run", "-config", config)
		var log lockedText
		cmd.Dir, cmd.SysProcAttr, cmd.Stderr = dir, attr, &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		proctest.Until(t, "the agent answers", func() bool {
			_, err := status.Ask(t.Context(), socket)
			return err == nil
		})
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for line := range strings.Lines(string(limits)) {
			if fields := strings.Fields(line); strings.HasPrefix(line, "Max core file size") {
				if found = true; fields[4] != "0" || fields[5] != "0" {
					t.Errorf("%s", line)
				}
			}
		}
		if !found {
			t.Errorf("%s", limits)
		}
		// Of a process that is not dumpable all is root's, whoever runs it.
		if info, err := os.Stat(fmt.Sprintf("/proc/%d/environ", cmd.Process.Pid)); err != nil || owner(info) != 0 {
			t.Errorf("%v, %v", info, err)
		}
		if err := cmd.Process.Signal(signal); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); signal == syscall.SIGTERM && err != nil {
			t.Errorf("%v\n%s", err, log.String())
		}
	}
}
