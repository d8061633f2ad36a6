package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestProvisionedByTheUtility: a folder that the utility signed is taken over by
// gridgate itself; one that was changed since is not, and the console says so.
func TestProvisionedByTheUtility(t *testing.T) {
	t.Parallel()
	s := newSite(t, armv7())
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("pass", []byte("of the test"))
	write("gw1.yaml", []byte(s.config()))
	gridfog := func(args ...string) []byte {
		t.Helper()
		c := exec.Command(filepath.Join(s.bin, "gridfog"), args...) //nolint:gosec // ours
		c.Dir = dir
		out, err := c.Output()
		if err != nil {
			t.Fatalf("gridfog %q: %v", args, err)
		}
		return out
	}
	for _, key := range []string{"root", "config"} {
		gridfog("keygen", "-password-file", "pass", key)
	}
	write("trust.yaml", gridfog("trust", "-version", "1", "-threshold", "1", "-root", "root.pub", "-config", "config.pub"))
	gridfog("sign", "-key", "root.key", "-password-file", "pass", "-out", "trust", "trust.yaml")
	gridfog("sign", "-key", "config.key", "-password-file", "pass", "-config", "zone3/gw1", "-version", "1", "-out", "configuration", "gw1.yaml")
	good, err := os.ReadFile(filepath.Join(dir, "configuration"))
	if err != nil {
		t.Fatal(err)
	}
	boot := partitionOf(s.card, "boot")
	s.tool("mdel", "-i", boot, "::provision/gridgate.yaml")
	s.tool("mcopy", "-i", boot, filepath.Join(dir, "trust"), "::provision/trust")
	changed := write("changed", bytes.Replace(good, []byte("client=16"), []byte("client=32"), 1))
	s.tool("mcopy", "-i", boot, changed, "::provision/configuration")
	q := s.boot()
	s.says(q, `"site":"unset"`)
	s.says(q, "PROVISIONING HAS NOT WORKED")
	q.Kill()

	s.tool("mcopy", "-o", "-i", boot, filepath.Join(dir, "configuration"), "::provision/configuration")
	q = s.boot()
	within(t, 10*time.Minute, "a reading at the broker", s.reads)
	s.says(q, "provision/ was taken over")
}
