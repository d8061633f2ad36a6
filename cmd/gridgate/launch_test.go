package main

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gridgate/agent/update"
	"gridgate/internal/proctest"
)

// launchSite is an installed package, started anew whenever it ends.
type launchSite struct {
	t             *testing.T
	dir, packaged string
	config        string
	environment   []string
}

func newLaunchSite(t *testing.T, bin string) *launchSite {
	t.Helper()
	dir := t.TempDir()
	s := &launchSite{t: t, dir: filepath.Join(dir, "firmware", "slots"), packaged: filepath.Join(bin, "gridgate"), config: filepath.Join(dir, "gridgate.yaml")}
	s.environment = []string{"GRIDGATE_SLOTS=" + s.dir}
	text := fmt.Sprintf("version: 1\nsite: here\ngateway: gw\nbuffer: {path: %s/buffer}\ncontrol: {socket: %s/socket}\nuplink: {broker: \"tcp://127.0.0.1:9\"}\nmeters: []\n", dir, dir)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// install brings a program as an update does, and has it tried.
func (s *launchSite) install(running, program string) {
	s.t.Helper()
	data, err := os.ReadFile(program)
	if err != nil {
		s.t.Fatal(err)
	}
	slots := update.NewLinkSlots(s.dir, running, func() {})
	err = slots.Install(s.t.Context(), []update.Staged{{Name: "gridgate", Path: program, Size: int64(len(data)), SHA256: sha256.Sum256(data)}})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := slots.Switch(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *launchSite) confirm(running string) {
	s.t.Helper()
	if err := update.NewLinkSlots(s.dir, running, func() {}).Confirm(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *launchSite) script(text string) string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "script")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil { //nolint:gosec // a program
		s.t.Fatal(err)
	}
	return path
}

func (s *launchSite) start() *proctest.Process {
	s.t.Helper()
	return proctest.Start(s.t, s.environment, s.packaged, "run", "-config", s.config)
}

// runs starts it and checks that the agent comes up, from where it has to be, as the
// same process and with what launched it in its environment.
func (s *launchSite) runs(program string) *proctest.Process {
	s.t.Helper()
	p := s.start()
	p.Await("gridgate runs")
	proc := fmt.Sprintf("/proc/%d/", p.PID())
	if exe, err := os.Readlink(proc + "exe"); err != nil || exe != program {
		s.t.Errorf("%s runs, want %s: %v\n%s", exe, program, err, p.Output())
	}
	env, err := os.ReadFile(proc + "environ")
	launched := strings.Contains("\x00"+string(env), "\x00GRIDGATE_LAUNCHER="+s.packaged+"\x00")
	if err != nil || launched != (program != s.packaged) {
		s.t.Errorf("%v: environment %q", err, env)
	}
	return p
}

func (s *launchSite) slot(name string) string { return filepath.Join(s.dir, name, "gridgate") }

func (s *launchSite) tries() string {
	data, err := os.ReadFile(filepath.Join(s.dir, "tries"))
	if err != nil {
		s.t.Error(err)
	}
	return strings.TrimSpace(string(data))
}

func stops(t *testing.T, p *proctest.Process) {
	t.Helper()
	if code := p.Stop(); code != 0 {
		t.Errorf("exit code %d: %s", code, p.Output())
	}
}

// TestLaunch is of the built program.
func TestLaunch(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "gridgate")
	t.Run("an update's way", func(t *testing.T) { launched(t, bin) })
	t.Run("killed at any moment", func(t *testing.T) { launchedIsKilled(t, bin) })
	t.Run("others are not launched", func(t *testing.T) { othersAreNotLaunched(t, bin) })
}

// launched: the packaged program runs until there is another; that is tried,
// confirmed, and stays; and what comes after it and does no good is left again.
func launched(t *testing.T, bin string) {
	t.Parallel()
	s := newLaunchSite(t, bin)
	stops(t, s.runs(s.packaged))
	s.install("", s.packaged)
	stops(t, s.runs(s.slot("a")))
	s.confirm("a")
	for range 4 {
		p := s.runs(s.slot("a"))
		p.Kill()
	}
	// It exits at once.
	s.install("a", s.script("exit 3"))
	for n := range 3 {
		if code := s.start().Wait(); code != 3 || s.tries() != strconv.Itoa(2-n) {
			t.Errorf("start %d: exit code %d, %s tries left", n+1, code, s.tries())
		}
	}
	p := s.runs(s.slot("a"))
	if !strings.Contains(p.Output(), "it was not confirmed in as many starts as it had") {
		t.Errorf("the log does not say why: %s", p.Output())
	}
	stops(t, p)
	// It hangs, and a watchdog ends it.
	s.install("a", s.script("echo hangs; exec sleep 1000"))
	for range 3 {
		p := s.start()
		p.Await("hangs")
		p.Kill()
	}
	stops(t, s.runs(s.slot("a")))
	// It is for another machine, which only starting it shows.
	s.install("a", filepath.Join(s.config))
	p = s.runs(s.slot("a"))
	if !strings.Contains(p.Output(), "exec format error") {
		t.Errorf("the log does not say why: %s", p.Output())
	}
	stops(t, p)
	// A way back by hand, and a card that forgets.
	if err := os.WriteFile(s.slot("a"), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	p = s.runs(s.packaged)
	if !strings.Contains(p.Output(), "a slot is passed over") {
		t.Errorf("the log does not say why: %s", p.Output())
	}
	stops(t, p)
	if err := os.Remove(filepath.Join(s.dir, "current")); err != nil {
		t.Fatal(err)
	}
	stops(t, s.runs(s.packaged))
}

// launchedIsKilled at any moment: no start is counted that was none, and none is
// made that is not counted.
func launchedIsKilled(t *testing.T, bin string) {
	t.Parallel()
	s := newLaunchSite(t, bin)
	s.install("", s.packaged)
	s.runs(s.slot("a")).Kill()
	s.confirm("a")
	s.install("a", s.packaged)
	left := 3
	for range 30 {
		p := s.start()
		timer := time.NewTimer(time.Duration(rand.IntN(60)) * time.Millisecond)
		<-timer.C
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID()))
		p.Kill()
		now, err := strconv.Atoi(s.tries())
		if err != nil || now > left || now < left-1 {
			t.Fatalf("%d tries left, and then %d: %v", left, now, err)
		}
		if exe == s.slot("b") && now == left {
			t.Errorf("a start of b was not counted: %d tries left", now)
		}
		if left = now; left == 0 {
			break
		}
	}
	for s.tries() != "0" {
		s.runs(s.slot("b")).Kill()
	}
	stops(t, s.runs(s.slot("a")))
}

// othersAreNotLaunched: other verbs, what was launched already, and slots that
// are not there.
func othersAreNotLaunched(t *testing.T, bin string) {
	t.Parallel()
	s := newLaunchSite(t, bin)
	s.install("", s.script("echo launched; exit 3"))
	out, err := exec.CommandContext(t.Context(), "env", append(s.environment, s.packaged, "version")...).CombinedOutput()
	if err != nil || strings.Contains(string(out), "launched") {
		t.Errorf("version: %v: %s", err, out)
	}
	out, err = exec.CommandContext(t.Context(), "env", append(s.environment, s.packaged, "run", "-no-such-flag")...).CombinedOutput()
	if err == nil || strings.Contains(string(out), "launched") {
		t.Errorf("a wrong flag: %v: %s", err, out)
	}
	if s.tries() != "3" {
		t.Errorf("%s tries left", s.tries())
	}
	good := s.environment
	s.environment = append(s.environment, "GRIDGATE_SLOT=b")
	p := s.start()
	p.Await("gridgate runs")
	stops(t, p)
	s.environment = []string{"GRIDGATE_SLOTS="}
	stops(t, s.runs(s.packaged))
	s.environment = []string{"GRIDGATE_SLOTS=" + s.config}
	p = s.runs(s.packaged)
	if !strings.Contains(p.Output(), "the slots cannot be read") {
		t.Errorf("the log does not say so: %s", p.Output())
	}
	stops(t, p)
	s.environment = good // and it would have been launched
	if code := s.start().Wait(); code != 3 {
		t.Errorf("exit code %d", code)
	}
}

// againTest, in the environment, makes TestAgainChild start anew.
const againTest = "GRIDGATE_TEST_AGAIN"

// TestAgainChild is no test, but the process under test.
func TestAgainChild(t *testing.T) {
	if os.Getenv(againTest) != "" {
		t.Setenv(againTest, "")
		t.Fatal(again())
	}
}

// TestAgain: what was launched starts anew through its launcher, as the same process;
// without it, as what it is.
func TestAgain(t *testing.T) {
	t.Parallel()
	s := newLaunchSite(t, t.TempDir())
	launcher := s.script(`echo "launcher $$ ${GRIDGATE_SLOT-none} ${GRIDGATE_LAUNCHER-none} $GRIDGATE_SLOTS"`)
	env := append(s.environment, againTest+"=1", "GRIDGATE_SLOT=a", "GRIDGATE_LAUNCHER="+launcher)
	p := proctest.Start(t, env, os.Args[0], "-test.run=^TestAgainChild$")
	p.Wait()
	if want := fmt.Sprintf("launcher %d none none %s", p.PID(), s.dir); !strings.Contains(p.Output(), want) {
		t.Errorf("%q, want %q", p.Output(), want)
	}
	env[len(env)-1] += ".gone"
	p = proctest.Start(t, env, os.Args[0], "-test.run=^TestAgainChild$")
	if code := p.Wait(); code != 0 || !strings.Contains(p.Output(), "PASS") { // with nothing more to do
		t.Errorf("without its launcher: %d, %q", code, p.Output())
	}
}
