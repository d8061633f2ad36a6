package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gridgate/agent/update"
	"gridgate/internal/proctest"
)

// bootService runs systemd as the first process of namespaces of its own, with
// nothing but gridgate's unit. $1 is a cgroup of its own, $2 a folder with lib, etc,
// units and gridgate. What it writes to, it has copies of.
const bootService = `set -e
mkdir "$1"
echo $$ >"$1/cgroup.procs"
echo $$ >"$2/pid"
exec unshare --mount --pid --fork --kill-child --mount-proc --uts --ipc --net --cgroup sh -c '
set -e
mount --make-rprivate /
mount --bind "$1/lib" /var/lib
mount --bind "$1/etc" /etc
mount -t tmpfs tmpfs /usr/local/bin
cp "$1/gridgate" /usr/local/bin/gridgate
mount -t tmpfs tmpfs /run
cp -r "$1/units" /run/units
umount -l /sys/fs/cgroup || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /var/tmp
mount -t tmpfs tmpfs /tmp
ip link set lo up
export container=gridgate-test SYSTEMD_UNIT_PATH=/run/units
exec /lib/systemd/systemd --system --unit=test.target --show-status=no' sh "$2"
`

// service is gridgate's unit under systemd.
type service struct {
	t           *testing.T
	dir, cgroup string
	starts      int // that the log told of
}

func startService(t *testing.T, program string) *service {
	t.Helper()
	s := &service{t: t, dir: t.TempDir()}
	if err := os.Chmod(s.dir, 0o755); err != nil { //nolint:gosec // the service's user has to get through
		t.Fatal(err)
	}
	s.cgroup = filepath.Join(unifiedCgroup(t), fmt.Sprintf("gridgate-test-%d", os.Getpid()))
	unit, err := os.ReadFile("../../configs/systemd/gridgate.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"lib/gridgate/firmware", "units/gridgate.service.d", "units/test.target.wants"} {
		if err := os.MkdirAll(filepath.Join(s.dir, d), 0o755); err != nil { //nolint:gosec // as on a gateway
			t.Fatal(err)
		}
	}
	copyFile(t, program, filepath.Join(s.dir, "gridgate"))
	as(t, "cp", "-a", "/etc", filepath.Join(s.dir, "etc"))
	as(t, "sh", "-c", `cd "$1" && echo gridgate:x:64999:64999::/var/lib/gridgate:/bin/false >>passwd && echo gridgate:x:64999: >>group && mkdir -p gridgate`, "sh", filepath.Join(s.dir, "etc"))
	own := filepath.Join(s.dir, "gridgate.yaml")
	for path, text := range map[string]string{
		own: "version: 1\nsite: here\ngateway: gw\nuplink: {broker: \"tcp://127.0.0.1:9\"}\nmeters: []\n",
		filepath.Join(s.dir, "units/gridgate.service"): strings.ReplaceAll(string(unit), "/usr/bin/gridgate", "/usr/local/bin/gridgate"),
		filepath.Join(s.dir, "units/test.target"):      "[Unit]\nDefaultDependencies=no\nWants=gridgate.service\n",
		// No journal here, no other units, and less patience.
		filepath.Join(s.dir, "units/gridgate.service.d/test.conf"): "[Unit]\nDefaultDependencies=no\n[Service]\nStandardError=append:/var/lib/log\nWatchdogSec=10s\nTimeoutStartSec=30s\nRestartSec=100ms\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil { //nolint:gosec // as on a gateway
			t.Fatal(err)
		}
	}
	as(t, "cp", own, filepath.Join(s.dir, "etc/gridgate/gridgate.yaml"))
	return s
}

func unifiedCgroup(t *testing.T) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1]
		}
	}
	t.Fatal("no cgroup2 is mounted, which systemd needs: mount -t cgroup2 none /sys/fs/cgroup/unified")
	return ""
}

// boot boots it; the test's end kills all of it.
func (s *service) boot() {
	s.t.Helper()
	line := []string{"sh", "-c", bootService, "sh", s.cgroup, s.dir}
	if os.Geteuid() != 0 {
		line = append([]string{"sudo", "-n"}, line...)
	}
	p := proctest.Start(s.t, nil, line[0], line[1:]...)
	s.t.Cleanup(func() {
		if pid, err := os.ReadFile(filepath.Join(s.dir, "pid")); err == nil {
			_, _ = asError("kill", "-KILL", strings.TrimSpace(string(pid)))
			p.Wait()
		}
		// What was in it ends a moment later than what it was started by.
		out, err := asError("timeout", "60", "sh", "-c", `until [ ! -d "$1" ]; do find "$1" -depth -type d -exec rmdir {} \; 2>/dev/null; sleep 0.1; done`, "sh", s.cgroup)
		if err != nil {
			s.t.Errorf("the cgroup %s is not gone: %v: %s", s.cgroup, err, out)
		}
		as(s.t, "rm", "-rf", filepath.Join(s.dir, "etc"), filepath.Join(s.dir, "lib"))
		if s.t.Failed() {
			s.t.Logf("systemd: %s", p.Output())
		}
	})
}

func (s *service) log() string {
	out, _ := asError("cat", filepath.Join(s.dir, "lib/log")) // not there yet
	return out
}

// main gives the process of the service, and its program.
func (s *service) main() (pid, program string) {
	procs, err := os.ReadFile(filepath.Join(s.cgroup, "system.slice/gridgate.service/cgroup.procs"))
	if fields := strings.Fields(string(procs)); err == nil && len(fields) == 1 {
		program, err := asError("readlink", "/proc/"+fields[0]+"/exe")
		if err == nil {
			return fields[0], strings.TrimSpace(program)
		}
	}
	return "", ""
}

// next waits for a process other than before that runs a slot's agent, and gives its
// slot.
func (s *service) next(before string) (pid, slot string) {
	s.t.Helper()
	defer func() {
		if s.t.Failed() {
			s.t.Logf("the service says: %s", s.log())
		}
	}()
	proctest.Until(s.t, "the next agent runs", func() bool {
		n := strings.Count(s.log(), runsLine)
		if n <= s.starts {
			return false
		}
		var program string
		pid, program = s.main()
		slot = filepath.Base(filepath.Dir(program))
		if pid == "" || pid == before || !strings.HasPrefix(program, slotsDir) {
			return false
		}
		s.starts = n
		return true
	})
	return pid, slot
}

const runsLine = `"msg":"gridgate runs"`

const slotsDir = "/var/lib/gridgate/firmware/slots"

// fillSlots installs a program, confirmed or on trial.
func fillSlots(t *testing.T, dir, running, program string, confirmed bool) {
	t.Helper()
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	slots := update.NewLinkSlots(dir, running, func() {})
	if err := slots.Install(t.Context(), []update.Staged{{Name: "gridgate", Path: program, Size: int64(len(data)), SHA256: sha256.Sum256(data)}}); err != nil {
		t.Fatal(err)
	}
	if err := slots.Switch(); err != nil {
		t.Fatal(err)
	}
	if confirmed {
		state, err := slots.State()
		if err != nil {
			t.Fatal(err)
		}
		if err := update.NewLinkSlots(dir, state.OnTrial, func() {}).Confirm(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTrialUnderSystemd: the unit, as confined as it is, lets a slot's program run; one
// on trial that hangs is ended by the watchdog, each time a start is counted, and
// after the last the confirmed one runs.
func TestTrialUnderSystemd(t *testing.T) {
	t.Parallel()
	program := filepath.Join(proctest.Build(t, "gridgate"), "gridgate")
	s := startService(t, program)
	slots := filepath.Join(s.dir, "lib/gridgate/firmware/slots")
	fillSlots(t, slots, "", program, true)
	fillSlots(t, slots, "a", program, false)
	s.boot()
	pid, slot := s.next("")
	hung := 0
	for ; slot == "b" && hung < 10; pid, slot = s.next(pid) {
		as(t, "kill", "-STOP", pid) // it hangs
		hung++
	}
	if n := strings.Count(s.log(), `"slot":"b","as":"trial"`); n != 3 || hung == 0 || slot != "a" {
		t.Errorf("the trial was started %d times, it hung %d times, and then %s runs: %s", n, hung, slot, s.log())
	}
	as(t, "kill", "-KILL", pid)
	if pid, slot = s.next(pid); slot != "a" {
		t.Errorf("killed, and then %s runs", slot)
	}
	status := strings.Split(as(t, "cat", "/proc/"+pid+"/status"), "\n")
	for _, want := range []string{"Uid:\t64999\t64999\t64999\t64999", "NoNewPrivs:\t1", "CapEff:\t0000000002000000"} {
		if !slices.Contains(status, want) {
			t.Errorf("no %q in %q", want, status)
		}
	}
}
