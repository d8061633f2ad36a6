package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gridgate/agent/status"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/security"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// unwritable is a directory that takes no files until mend is called.
type unwritable struct {
	name string
	as   int // the user of the agent; 0 is who runs the test
	make func(t *testing.T, dir string) (mend func())
}

// mountTmpfs mounts a file system in memory until the test ends.
func mountTmpfs(t *testing.T, dir, size string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0777,size="+size); err != nil {
		t.Fatalf("mount: %v: it needs root", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
}

func unwritables() []unwritable {
	return []unwritable{
		{"read-only", 0, func(t *testing.T, dir string) func() {
			mountTmpfs(t, dir, "16m")
			remount := func(flags uintptr) {
				if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|flags, ""); err != nil {
					t.Error(err)
				}
			}
			remount(syscall.MS_RDONLY)
			return func() { remount(0) }
		}},
		{"no room", 0, func(t *testing.T, dir string) func() {
			mountTmpfs(t, dir, "16m")
			ballast := filepath.Join(dir, "ballast")
			f, err := os.Create(ballast)
			if err != nil {
				t.Fatal(err)
			}
			for page := make([]byte, 4096); err == nil; {
				_, err = f.Write(page)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			return func() {
				if err := os.Remove(ballast); err != nil {
					t.Error(err)
				}
			}
		}},
		{"no permission", 65534, func(t *testing.T, dir string) func() {
			if err := os.Chmod(dir, 0o555); err != nil {
				t.Fatal(err)
			}
			return func() {
				if err := os.Chmod(dir, 0o777); err != nil {
					t.Error(err)
				}
			}
		}},
	}
}

// TestRunsOnADiskThatTakesNothing starts the agent on a disk that cannot be
// written: it reads meters, but for the one that needs a counter, tells why, and
// stores and sends everything once the disk can be written.
func TestRunsOnADiskThatTakesNothing(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "gridgate")
	if err := os.Chmod(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, u := range unwritables() {
		t.Run(u.name, func(t *testing.T) {
			t.Parallel()
			testUnwritable(t, bin, u)
		})
	}
}

func testUnwritable(t *testing.T, bin string, u unwritable) {
	root, err := os.MkdirTemp("", "gg") // t.TempDir is too long for a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	data, run := filepath.Join(root, "data"), filepath.Join(root, "run")
	for _, dir := range []string{root, data, run} {
		_ = os.Mkdir(dir, 0o777)
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	mend := u.make(t, data)

	serve := func(serial string, login map[uint16]dlmstest.Login) string {
		return serveMeter(t, dlmstest.Options{
			Objects: []dlmstest.Object{
				dlmstest.Data(code(t, "0-0:96.1.0"), dlmstest.Fixed(axdr.OctetString(serial))),
				dlmstest.Register(code(t, "1-0:1.8.0"), -1, 30, dlmstest.Fixed(axdr.DoubleLongUnsigned(5))),
			},
			Clients: login,
			Security: dlmstest.Security{
				Title: security.Title([]byte("ABCDEFGH")),
				Keys:  security.Keys{Encryption: testKey(t, 0), Authentication: testKey(t, 0xD0)},
			},
		})
	}
	open := serve("S1", map[uint16]dlmstest.Login{16: {}})
	password := serve("S2", map[uint16]dlmstest.Login{16: {}, 17: {Mechanism: 1, Secret: "12345678"}})
	ciphered := serve("S3", map[uint16]dlmstest.Login{16: {}, 1: {Mechanism: 5, Policy: security.AuthenticatedEncrypted}})
	broker := mqtttest.Mosquitto(t, mqtttest.Config{})
	socket, config := filepath.Join(run, "c.sock"), filepath.Join(root, "c.yaml")
	text := fmt.Sprintf(`version: 1
site: s
gateway: g
time_zone: UTC
buffer: {path: %s}
control: {socket: %s}
intake: {window: 1s}
uplink: {broker: "tcp://%s", start_jitter: 0s}
groups: {now: {lane: instant, every: 1s, channels: ["1-0:1.8.0"]}}
meters:
  - {id: open, serial: S1, groups: [now], url: "dlms+wrapper://%s?client=16"}
  - {id: password, serial: S2, groups: [now], url: "dlms+wrapper://%s?client=17&auth=lls&password=env:PW"}
  - {id: ciphered, serial: S3, groups: [now],
     url: "dlms+wrapper://%s?client=1&auth=gmac&security=authenc&title=4752470000000001&ek=env:EK&ak=env:AK"}
`, data, socket, strings.TrimPrefix(broker.Address, "tcp://"), open, password, ciphered)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	env := []string{"PW=12345678", "EK=" + testEK, "AK=" + testAK}
	path, args := filepath.Join(bin, "gridgate"), []string{"run", "-config", config}
	if u.as != 0 && os.Getuid() == 0 { // root may write everywhere
		path, args = "setpriv", append([]string{fmt.Sprintf("--reuid=%d", u.as), "--clear-groups", path}, args...)
	}
	agent := proctest.Start(t, env, path, args...)
	agent.Await("gridgate runs")

	ask := func() (r status.Report, ok bool) {
		r, err := status.Ask(t.Context(), socket)
		return r, err == nil && len(r.Meters) == 3
	}
	var before status.Report
	proctest.Until(t, "two meters are read while nothing can be stored", func() bool {
		r, ok := ask()
		before = r
		return ok && r.Meters[0].State == "ok" && r.Meters[1].State == "ok" && r.Meters[0].Rows >= 3 && r.Meters[1].Rows >= 3 &&
			r.Meters[2].Error != "" && r.Intake.Failed > 0
	})
	if !strings.Contains(before.Meters[2].Error, "cannot be written") || before.Meters[2].Rows > 0 {
		t.Errorf("the meter that needs counters: %d rows, %q", before.Meters[2].Rows, before.Meters[2].Error)
	}
	notes := strings.Join(before.Notes, "\n")
	if !strings.Contains(notes, "buffer: not open") || !strings.Contains(notes, "state: not open") || before.Intake.Waiting == 0 || before.Intake.Stored > 0 {
		t.Errorf("notes %q, %+v", notes, before.Intake)
	}
	if before.Epoch != "0000000000000000" {
		t.Errorf("epoch %s without a buffer", before.Epoch)
	}

	mend()
	proctest.Until(t, "all is stored and sent", func() bool {
		r, ok := ask()
		return ok && r.Meters[2].State == "ok" && r.Meters[2].Rows > 0 && r.Uplink.Rows > before.Intake.Read && len(r.Notes) == 0
	})
	after, _ := ask()
	if after.Intake.Dropped > 0 || after.Lanes[0].Last < 2 {
		t.Errorf("%d rows dropped, %d alarms", after.Intake.Dropped, after.Lanes[0].Last)
	}
	if code := agent.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	out := agent.Output()
	if strings.Contains(out, "panic") {
		t.Error("it panicked")
	}
}
