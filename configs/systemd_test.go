package configs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The service is as confined as it can be that sets the clock and has serial ports,
// and says nothing that systemd does not know.
func TestSystemdUnit(t *testing.T) {
	t.Parallel()
	unit, err := os.ReadFile("systemd/gridgate.service")
	if err != nil {
		t.Fatal(err)
	}
	analyze := func(unit string, args ...string) (string, error) {
		dir := t.TempDir()
		path := filepath.Join(dir, "gridgate.service")
		if err := os.WriteFile(path, []byte(unit), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", append(args, path)...).CombinedOutput()
		return string(out), err
	}
	// At most 2.0, which the threshold takes in tenths.
	security := []string{"security", "--offline=true", "--threshold=20", "--no-pager"}
	if out, err := analyze(string(unit), security...); err != nil || !strings.Contains(out, "Overall exposure level") {
		t.Errorf("%v (scripts/setup.sh installs systemd): %s", err, out[max(0, len(out)-2000):])
	}
	open := strings.ReplaceAll(string(unit), "CapabilityBoundingSet=CAP_SYS_TIME", "")
	if out, err := analyze(open, security...); err == nil {
		t.Errorf("a unit with all capabilities passes: %s", out[max(0, len(out)-2000):])
	}
	program, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	here := strings.ReplaceAll(string(unit), "/usr/bin/gridgate", program)
	if out, err := analyze(here, "verify", "--man=no"); err != nil || strings.Contains(out, "gridgate.service") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := analyze(strings.ReplaceAll(here, "WatchdogSec=5min", "WatchdogSec=5 moons"), "verify", "--man=no"); err == nil && !strings.Contains(out, "gridgate.service") {
		t.Errorf("a mistake is not found: %s", out)
	}
}
