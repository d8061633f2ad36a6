package fat

import (
	"bytes"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const size = 64 << 20

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput() //nolint:gosec // files of the test
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

func empty(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	tool(t, "mkfs.vfat", "--invariant", "-F", "32", "-s", "1", "-n", "GWB", "-i", "67770003", path)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What was full of files, or of garbage, is as mkfs.vfat makes it, and takes files.
func TestFormat(t *testing.T) {
	t.Parallel()
	fresh := empty(t)
	text, err := Make(fresh)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	dev := filepath.Join(t.TempDir(), "part")
	garbage := make([]byte, size+Sector)
	if _, err := rand.Read(garbage); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dev, garbage, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Format(dev); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(dev)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[:s.zero*Sector], fresh[:s.zero*Sector]) || !bytes.Equal(got[s.zero*Sector:], garbage[s.zero*Sector:]) {
		t.Error("it is not as mkfs.vfat makes it, or more was written")
	}
	if err := os.Truncate(dev, size); err != nil {
		t.Fatal(err)
	}
	tool(t, "fsck.vfat", "-n", dev)
	full := filepath.Join(t.TempDir(), "full")
	if err := os.WriteFile(full, garbage[:s.Room()], 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "mcopy", "-i", dev, full, "::initrd.zst")
	tool(t, "fsck.vfat", "-n", dev)
	if out := tool(t, "mdir", "-b", "-i", dev); strings.TrimSpace(out) != "::/initrd.zst" {
		t.Errorf("mdir says %s", out)
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	fresh := empty(t)
	for what, b := range map[string][]byte{"nothing": nil, "no FAT": make([]byte, size), "half": fresh[:size/2], "odd": fresh[:size-1]} {
		if _, err := Make(b); err == nil {
			t.Errorf("Make takes %s", what)
		}
	}
	full := bytes.Clone(fresh)
	full[size-1] = 1
	if _, err := Make(full); err == nil {
		t.Error("Make takes one with files")
	}
	text, err := Make(fresh)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(text) {
		s, err := Parse(text[:n])
		if err == nil && (n-8)%(4+Sector) != 0 || err == nil && s.sectors[0] == nil {
			t.Fatalf("Parse takes %d octets of it", n)
		}
	}
	s, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	small := filepath.Join(t.TempDir(), "small")
	if err := os.WriteFile(small, fresh[:size/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Format(small); err == nil {
		t.Error("a partition that is too small is formatted")
	}
	if now, err := os.ReadFile(small); err != nil || !bytes.Equal(now, fresh[:size/2]) {
		t.Error("what was refused was written to")
	}
}
