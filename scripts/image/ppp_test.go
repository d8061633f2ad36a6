package main

import (
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gridgate/internal/proctest"
)

// pppdPackages have pppd and the libraries that it is linked with.
func pppdPackages() []string {
	return []string{
		"ppp", "libc6", "libcrypt1", "libpam0g", "libpcap0.8", "libssl3", "libsystemd0", "libaudit1", "libcap-ng0", "libdbus-1-3",
		"libcap2", "libgcrypt20", "libgpg-error0", "liblzma5", "libzstd1", "liblz4-1", "libgcc-s1",
	}
}

// TestAgainstPppd: the tests of package ppp that are an emulated machine's first
// process, where Debian's pppd is the other end.
func TestAgainstPppd(t *testing.T) {
	t.Parallel()
	againstPppd(t, armv7(), "^TestGuest")
}

func againstPppd(t *testing.T, m machine, tests string) {
	t.Helper()
	b, err := boardOf(m.board)
	if err != nil {
		t.Fatal(err)
	}
	cache, err := filepath.Abs("../../bin/image")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	kernel, initrd := guest(t, m, debian{arch: b.deb, cache: cache}, b, dir)
	q := []string{m.qemu[0]}
	for i := 1; i+1 < len(m.qemu); i += 2 {
		if m.qemu[i] != "-bios" {
			q = append(q, m.qemu[i], m.qemu[i+1])
		}
	}
	p := proctest.Start(t, nil, q[0], append(q[1:], "-m", "256", "-smp", "2", "-nographic", "-monitor", "none", "-serial", "stdio", "-nic", "none", "-no-reboot",
		"-kernel", kernel, "-initrd", initrd, "-append", "console=ttyAMA0 quiet panic=-1 -- -test.v -test.timeout=0 -test.run="+tests)...)
	within(t, 10*time.Minute, "the emulated machine to be done", p.Ended)
	if out := p.Output(); !strings.Contains(out, "guest: exit 0") || !strings.Contains(out, "--- PASS") || strings.Contains(out, "--- SKIP") {
		t.Errorf("the emulated machine:\n%s", out)
	}
}

// guest makes what the machine starts with.
func guest(t *testing.T, m machine, d debian, b board, dir string) (kernel, initrd string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	release := kernelABI + "-" + b.kernel
	root, err := d.unpack("linux-image-" + release)
	check(err)
	init := filepath.Join(dir, "guest")
	c := exec.Command("go", "test", "-c", "-tags", "guest", "-trimpath", "-ldflags", "-s -w", "-o", init, "./ppp")
	c.Env = append(os.Environ(), append(m.env, "GOOS=linux", "CGO_ENABLED=0")...)
	if text, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	all, err := readModules(filepath.Join(root, "lib/modules", release))
	check(err)
	names, err := all.closure([]string{"virtio_mmio", "virtio_net", "ppp_async"})
	check(err)
	a := &archive{}
	a.folders("dev", "proc", "sys", "run", "tmp", "etc", "etc/ppp", "sbin", "lib", "lib/modules", "var", "var/run", "var/lock")
	a.entry("dev/console", modeDevice, 5, 1, nil)
	a.entry("etc/ppp/options", modeFile, 0, 0, nil)
	a.entry("lib/modules/first", modeFile, 0, 0, []byte(strings.Join(names, "\n")))
	for _, n := range names {
		check(a.file("lib/modules/"+n+".ko", modeFile, all.path[n]))
	}
	check(a.file("init", modeRun, init))
	check(addPppd(a, d))
	a.end()
	initrd = filepath.Join(dir, "initrd")
	check(os.WriteFile(initrd, a.Bytes(), 0o600))
	return filepath.Join(root, "boot/vmlinuz-"+release), initrd
}

// addPppd puts pppd into an archive, with what it is linked with.
func addPppd(a *archive, d debian) error {
	files := map[string]string{}
	for _, pkg := range pppdPackages() {
		root, err := d.unpack(pkg)
		if err != nil {
			return err
		}
		err = filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() && strings.Contains(e.Name(), ".so") || e != nil && e.Name() == "pppd" && !e.IsDir() {
				files[e.Name()] = p
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	done := map[string]bool{}
	var add func(name string) error
	add = func(name string) error {
		if done[name] {
			return nil
		}
		done[name] = true
		path, ok := files[name]
		if !ok {
			return fmt.Errorf("no package has %s", name)
		}
		dir := "lib/"
		if name == "pppd" {
			dir = "sbin/"
		}
		if err := a.file(dir+name, modeRun, path); err != nil {
			return err
		}
		f, err := elf.Open(path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		libs, err := f.ImportedLibraries()
		if err != nil {
			return err
		}
		for _, l := range libs {
			if err := add(l); err != nil {
				return err
			}
		}
		return f.Close()
	}
	return add("pppd")
}
