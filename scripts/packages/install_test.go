package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// prepared is what packages are made of, but for the programs.
func prepared(t *testing.T, version string) job {
	t.Helper()
	in := t.TempDir()
	for _, name := range []string{"gridgate.bash", "gridgate.1.gz"} {
		if err := os.WriteFile(filepath.Join(in, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return job{version: version, date: time.Unix(1795362000, 0).UTC(), in: in, shared: in, top: "../..", out: t.TempDir()}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
}

// TestTheSameBytes: made twice in different folders, one hash each. What is in the
// programs does not matter here; that they are alike is scripts/build.sh's promise.
func TestTheSameBytes(t *testing.T) {
	t.Parallel()
	made := func() string {
		j := prepared(t, "0.0.0+1.a")
		for _, a := range arches() {
			if err := os.MkdirAll(filepath.Join(j.in, a.bin), 0o750); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(j.binary(a), bytes.Repeat([]byte(a.bin), 10_000), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := j.run(); err != nil {
			t.Fatal(err)
		}
		return j.out
	}
	first, second := made(), made()
	names, err := os.ReadDir(first)
	if err != nil {
		t.Fatal(err)
	}
	if len(names) != 9 {
		t.Errorf("%d files, want three kinds for three architectures", len(names))
	}
	for _, n := range names {
		if a, b := sum(t, filepath.Join(first, n.Name())), sum(t, filepath.Join(second, n.Name())); a != b {
			t.Errorf("%s: %x and %x", n.Name(), a, b)
		}
	}
}

func sum(t *testing.T, path string) [32]byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(data)
}

// as runs a command as root, which a root of Debian's wants.
func as(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := asError(name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func asError(name string, args ...string) (string, error) {
	line := append([]string{name}, args...)
	if os.Geteuid() != 0 {
		line = append([]string{"sudo", "-n"}, line...)
	}
	out, err := exec.Command(line[0], line[1:]...).CombinedOutput() //nolint:gosec // of this test
	return string(out), err
}

// debian makes a root of Debian's with nothing but the essential packages.
func debian(t *testing.T) string {
	t.Helper()
	root, err := os.MkdirTemp("", "gridgate-root-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { as(t, "rm", "-rf", root) })
	as(t, "mmdebstrap", "--quiet", "--variant=minbase", "bookworm", root)
	as(t, "mount", "-t", "proc", "proc", filepath.Join(root, "proc"))
	t.Cleanup(func() { as(t, "umount", filepath.Join(root, "proc")) })
	return root
}

func only(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %v %v", pattern, found, err)
	}
	return found[0]
}

// site is an installed gateway, its meters and its broker.
type site struct {
	t     *testing.T
	root  string
	bin   string
	mosq  *mqtttest.Broker
	agent *proctest.Process
}

// start starts the agent as its unit does: as its user, in its root.
func (s *site) start() {
	s.t.Helper()
	s.agent = proctest.Start(s.t, s.environment(), "chroot", s.root, "setpriv", "--reuid", "gridgate", "--regid", "gridgate", "--init-groups",
		"/usr/bin/gridgate", "run")
	s.agent.Await("gridgate runs")
}

// environment is what the installed unit gives to the service.
func (s *site) environment() (env []string) {
	s.t.Helper()
	unit := as(s.t, "cat", filepath.Join(s.root, "lib/systemd/system/gridgate.service"))
	for line := range strings.Lines(unit) {
		if e, ok := strings.CutPrefix(line, "Environment="); ok {
			env = append(env, strings.TrimSpace(e))
		}
	}
	return env
}

// runs checks which program runs.
func (s *site) runs(program, version string) {
	s.t.Helper()
	exe := strings.TrimSpace(as(s.t, "readlink", fmt.Sprintf("/proc/%d/exe", s.agent.PID())))
	if exe != s.root+program || !strings.Contains(s.agent.Output(), `"version":"`+version+`"`) {
		s.t.Errorf("%s runs, want %s, version %s: %s", exe, program, version, s.agent.Output())
	}
}

// versioned builds gridgate, which says that it is of a version.
func (s *site) versioned(version string) string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "gridgate")
	out, err := exec.CommandContext(s.t.Context(), "go", "build", "-C", "../..", "-buildvcs=false", "-tags", "nethttpomithttp2", "-ldflags", "-X main.version="+version, "-o", path, "./cmd/gridgate").CombinedOutput()
	if err != nil {
		s.t.Fatalf("%v: %s", err, out)
	}
	return path
}

// update has an update behind it: the slot a confirmed, and b on trial.
func (s *site) update(confirmed, trial string) {
	s.t.Helper()
	dir := filepath.Join(s.t.TempDir(), "slots")
	fillSlots(s.t, dir, "", confirmed, true)
	fillSlots(s.t, dir, "a", trial, false)
	to := filepath.Join(s.root, "var/lib/gridgate/firmware")
	as(s.t, "mkdir", to)
	as(s.t, "cp", "-a", dir, to)
	as(s.t, "chown", "-hR", s.owner()+":"+s.owner(), to)
}

func (s *site) install(version, program string) {
	s.t.Helper()
	j := prepared(s.t, version)
	native := arch{bin: "native", deb: strings.TrimSpace(as(s.t, "dpkg", "--print-architecture"))}
	if err := os.Mkdir(filepath.Join(j.in, native.bin), 0o750); err != nil {
		s.t.Fatal(err)
	}
	copyFile(s.t, program, j.binary(native))
	if err := j.pack("deb", j.debian(native)); err != nil {
		s.t.Fatal(err)
	}
	as(s.t, "cp", only(s.t, filepath.Join(j.out, "*.deb")), filepath.Join(s.root, "gridgate.deb"))
	as(s.t, "chroot", s.root, "dpkg", "-i", "/gridgate.deb")
}

// TestInstalledAndUpgraded: installed in a root of Debian's, run as its user,
// upgraded with a backlog in its buffer: nothing is lost, the configuration
// stays, and a purge keeps what must be kept.
func TestInstalledAndUpgraded(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "gridgate", "gridfog", "metersim")
	s := &site{t: t, root: debian(t), bin: bin, mosq: mqtttest.Mosquitto(t, mqtttest.Config{})}
	s.install("0.0.0+1.a", s.versioned("v1"))
	if out := as(t, "chroot", s.root, "/usr/bin/gridgate", "check", "-config", "/etc/gridgate/gridgate.yaml"); !strings.Contains(out, "ok") {
		t.Errorf("the configuration that is brought along: %s", out)
	}
	port := proctest.FreePorts(t, 2)
	sim := proctest.Start(t, nil, filepath.Join(bin, "metersim"), "dlms", "-listen", fmt.Sprintf("127.0.0.1:%d", port))
	sim.Await("GRG000001")
	config := fmt.Sprintf(`version: 1
site: zone3
gateway: gw1
control: {socket: /run/gridgate/control.sock}
intake: {window: 0s}
uplink: {broker: "tcp://%s", start_jitter: 0s}
groups: {now: {lane: instant, every: 1s, channels: [1-0:1.8.0]}}
meters: [{id: m, groups: [now], url: "dlms+wrapper://127.0.0.1:%d?client=16"}]
`, s.mosq.Address, port)
	s.write("/etc/gridgate/gridgate.yaml", config)
	as(t, "install", "-d", "-o", s.owner(), filepath.Join(s.root, "run/gridgate"))
	watch := s.watch()
	s.start()
	s.runs("/usr/bin/gridgate", "v1")
	proctest.Until(t, "rows at the fog", func() bool { return newest(watch) > 5 })
	s.agent.Stop()
	// Updated since, and updating again, when a package is installed that is older.
	newer := s.versioned("v3")
	s.update(newer, newer)
	s.start()
	s.runs("/var/lib/gridgate/firmware/slots/b/gridgate", "v3")
	s.agent.Stop()
	as(t, "rm", filepath.Join(s.root, "var/lib/gridgate/firmware/slots/trial"))
	s.start()
	s.runs("/var/lib/gridgate/firmware/slots/a/gridgate", "v3")
	as(t, "ln", "-s", "b", filepath.Join(s.root, "var/lib/gridgate/firmware/slots/trial"))
	s.mosq.Stop()
	before, _ := s.rows()
	proctest.Until(t, "a backlog", func() bool { n, _ := s.rows(); return n > before+10 })
	s.agent.Kill()
	s.install("0.0.0+2.b", s.versioned("v2"))
	for path, gone := range map[string]bool{"current": true, "trial": true, "tries": false, "a/gridgate": false, "b/slot.json": false} {
		if s.missing("var/lib/gridgate/firmware/slots/"+path) != gone {
			t.Errorf("after the upgrade: slots/%s: gone is not %v", path, gone)
		}
	}
	if got := as(t, "cat", filepath.Join(s.root, "etc/gridgate/gridgate.yaml")); got != config {
		t.Errorf("the upgrade changed the configuration:\n%s", got)
	}
	kept, acked := s.rows()
	if kept < before+10 {
		t.Errorf("%d rows after the upgrade, over %d before", kept, before+10)
	}
	watch.Kill()
	s.mosq.Start()
	watch = s.watch() // sees nothing but the backlog and what is new
	s.start()
	s.runs("/usr/bin/gridgate", "v2")
	proctest.Until(t, "the backlog at the fog", func() bool { return newest(watch) > kept+3 })
	if code := s.agent.Stop(); code != 0 {
		t.Errorf("exit code %d: %s", code, s.agent.Output())
	}
	watch.Stop()
	out := watch.Output()
	delivered, missing := 0, -1
	if i := strings.LastIndex(out, "delivered "); i >= 0 {
		_, _ = fmt.Sscanf(out[i:], "delivered %d rows", &delivered)
		_, _ = fmt.Sscanf(out[strings.LastIndex(out, "gateways: ")+len("gateways: "):], "%d missing", &missing)
	}
	if delivered < kept-acked+3 || missing != 0 {
		t.Errorf("%d rows delivered, %d missing; rows %d to %d were kept", delivered, missing, acked+1, kept)
	}
	out = as(t, "chroot", s.root, "dpkg", "--purge", "gridgate")
	if !strings.Contains(out, "is kept") || s.missing("var/lib/gridgate/buffer") || s.missing("var/lib/gridgate/firmware/slots/a/gridgate") {
		t.Errorf("after a purge: %s", out)
	}
	if !s.missing("usr/bin/gridgate") || !s.missing("etc/gridgate/gridgate.yaml") {
		t.Error("a purge left the program or its configuration")
	}
}

// newest gives the highest sequence number that a watcher has shown.
func newest(watch *proctest.Process) int {
	n := 0
	for line := range strings.Lines(watch.Output()) {
		if _, after, ok := strings.Cut(line, `"sequence":`); ok {
			_, _ = fmt.Sscanf(after, "%d", &n) // a line that is still being written has none
		}
	}
	return n
}

func (s *site) missing(path string) bool {
	_, err := asError("test", "-e", filepath.Join(s.root, path))
	return err != nil
}

func (s *site) owner() string {
	return strings.TrimSpace(as(s.t, "chroot", s.root, "id", "-u", "gridgate"))
}

func (s *site) write(path, content string) {
	s.t.Helper()
	own := filepath.Join(s.t.TempDir(), "content")
	if err := os.WriteFile(own, []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
	as(s.t, "cp", "--no-preserve=all", own, filepath.Join(s.root, path))
}

func (s *site) watch() *proctest.Process {
	s.t.Helper()
	p := proctest.Start(s.t, nil, filepath.Join(s.bin, "gridfog"), "watch", "-broker", "tcp://"+s.mosq.Address, "-json")
	p.Await("connected")
	return p
}

// rows gives how many rows were ever stored, and how many the broker has.
func (s *site) rows() (last, acked int) {
	s.t.Helper()
	out := as(s.t, "chroot", s.root, "/usr/bin/gridgate", "buffer", "stat", "-json")
	for line := range bytes.Lines([]byte(out)) {
		var lane struct {
			Lane  string `json:"lane"`
			Last  int    `json:"last"`
			Acked int    `json:"acked"`
		}
		if err := json.Unmarshal(line, &lane); err != nil {
			s.t.Fatalf("%v in %s", err, line)
		}
		if lane.Lane == "instant" {
			return lane.Last, lane.Acked
		}
	}
	s.t.Fatalf("no instant lane in %s", out)
	return 0, 0
}
