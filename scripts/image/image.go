package main

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

//go:embed boot.cmd
var bootScript string

// epoch is the time of every file in an image, in seconds since 1970: after
// Debian 12 and before anybody's certificate.
const epoch = "1700000000"

const mib = 1 << 20

// build is one image in the making.
type build struct {
	board board
	top   string // of the source tree
	cache string // what Debian gave, kept
	work  string // a folder of its own, which goes
	out   string
	data  int // MiB of the data partition
	init  string
	agent string

	slotDir string // where a slot's files go too; empty: nowhere
}

// slot makes the files of a slot and gives them by name.
func (b *build) slot() (map[string]string, error) {
	d := debian{arch: b.board.deb, cache: b.cache}
	kernel, err := d.unpack("linux-image-" + kernelABI + "-" + b.board.kernel)
	if err != nil {
		return nil, err
	}
	fsck, err := d.unpack("e2fsck-static")
	if err != nil {
		return nil, err
	}
	release := kernelABI + "-" + b.board.kernel
	files := map[string]string{
		"vmlinuz": filepath.Join(kernel, "boot/vmlinuz-"+release), "gridgate": b.agent, "initrd.zst": filepath.Join(b.work, "initrd.zst"),
	}
	if b.board.dtb != "" {
		files["board.dtb"] = filepath.Join(kernel, "usr/lib/linux-image-"+release, b.board.dtb)
	}
	return files, b.initrd(filepath.Join(kernel, "lib/modules", release), filepath.Join(fsck, "sbin/e2fsck.static"))
}

// initrd makes what the kernel unpacks into memory: init, the modules and what
// tells when to load which, and the checker of /data.
func (b *build) initrd(moduleDir, fsck string) error {
	m, err := readModules(moduleDir)
	if err != nil {
		return err
	}
	first, err := m.closure(append(common(), b.board.boot...))
	if err != nil {
		return err
	}
	all, err := m.closure(append(first, byHardware()...))
	if err != nil {
		return err
	}
	table, err := m.table(all)
	if err != nil {
		return err
	}
	a := &archive{}
	a.folders("dev", "proc", "sys", "run", "tmp", "boot", "slot", "data", "etc", "sbin", "lib", "lib/modules", "lib/slots", "var", "var/lib")
	a.entry("dev/console", modeDevice, 5, 1, nil)
	a.entry("etc/board", modeFile, 0, 0, []byte(b.board.name))
	for _, slot := range []string{"a", "b"} {
		seed, err := b.seed(slot)
		if err != nil {
			return err
		}
		a.entry("lib/slots/"+slot, modeFile, 0, 0, seed)
	}
	a.entry("lib/modules/first", modeFile, 0, 0, []byte(strings.Join(first, "\n")+"\n"))
	a.entry("lib/modules/table", modeFile, 0, 0, []byte(table))
	for _, n := range all {
		if err := a.file("lib/modules/"+n+".ko", modeFile, m.path[n]); err != nil {
			return err
		}
	}
	for name, path := range map[string]string{"init": b.init} {
		if err := a.file(name, modeRun, path); err != nil {
			return err
		}
	}
	if err := a.file("sbin/e2fsck", modeRun, fsck); err != nil {
		return err
	}
	if err := a.file("etc/gridgate.yaml", modeFile, filepath.Join(b.top, "configs/package/gridgate.yaml")); err != nil {
		return err
	}
	a.end()
	cpio := filepath.Join(b.work, "initrd")
	if err := os.WriteFile(cpio, a.Bytes(), 0o600); err != nil {
		return err
	}
	return run("zstd", "-q", "-19", "-T1", "--no-check", cpio, "-o", cpio+".zst")
}

// script makes U-Boot's script for the board.
func (b *build) script() (string, error) {
	start := "booti"
	if b.board.bin == "armv7" {
		start = "bootz"
	}
	var consoles []string
	for _, c := range b.board.console {
		consoles = append(consoles, "console="+c)
	}
	text := strings.NewReplacer("@CONSOLE@", strings.Join(consoles, " "), "@DTB@", b.board.dtb, "@START@", start).Replace(bootScript)
	src, out := filepath.Join(b.work, "boot.cmd"), filepath.Join(b.work, "boot.scr")
	if err := os.WriteFile(src, []byte(text), 0o600); err != nil {
		return "", err
	}
	return out, run("mkimage", "-A", "arm", "-T", "script", "-C", "none", "-n", "gridgate", "-d", src, out)
}

// fat makes a FAT file system with files in it, by their paths there.
func (b *build) fat(name, label string, id, size int, files map[string]string) (string, error) {
	path := filepath.Join(b.work, name)
	if err := sparse(path, size); err != nil {
		return "", err
	}
	if err := run("mkfs.vfat", "--invariant", "-F", "32", "-s", "1", "-n", label, "-i", fmt.Sprintf("%08x", id), path); err != nil {
		return "", err
	}
	for _, dst := range sorted(files) {
		if dir := filepath.Dir(dst); dir != "." {
			// The same folder again is no error that matters: the copy says what is wrong.
			_ = run("mmd", "-i", path, "-D", "s", "::"+dir)
		}
		own := filepath.Join(b.work, "file")
		if err := copyAt(files[dst], own); err != nil {
			return "", err
		}
		if err := run("mcopy", "-m", "-o", "-i", path, own, "::"+dst); err != nil {
			return "", err
		}
	}
	return path, nil
}

// ext4 makes the data partition.
func (b *build) ext4() (string, error) {
	path := filepath.Join(b.work, "data")
	if err := sparse(path, b.data); err != nil {
		return "", err
	}
	const id = "67726964-6761-7465-8000-000000000004"
	return path, run("mkfs.ext4", "-q", "-F", "-L", "gwdata", "-U", id, "-E", "hash_seed="+id+",lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0", path)
}

// Sizes of partitions in MiB: the first has the factory slot too.
const (
	bootSize = 96
	slotSize = 64
	gap      = 4 // before the first: boot loaders stand there
)

// assemble makes the image of its partitions.
func (b *build) assemble() error {
	files, err := b.slot()
	if err != nil {
		return err
	}
	if err := b.keepSlot(files); err != nil {
		return err
	}
	script, err := b.script()
	if err != nil {
		return err
	}
	boot := map[string]string{"boot.scr": script, "README.txt": filepath.Join(b.top, "scripts/image/README.txt")}
	for name, path := range files {
		boot["factory/"+name] = path
	}
	type part struct {
		path string
		size int
	}
	var parts [4]part
	if parts[0].path, err = b.fat("boot", "GWBOOT", 0x67770001, bootSize, boot); err != nil {
		return err
	}
	if parts[1].path, err = b.slotFAT("a", files); err != nil {
		return err
	}
	if parts[2].path, err = b.slotFAT("b", nil); err != nil {
		return err
	}
	if parts[3].path, err = b.ext4(); err != nil {
		return err
	}
	for i, size := range []int{bootSize, slotSize, slotSize, b.data} {
		parts[i].size = size
	}
	if err := sparse(b.out, gap+bootSize+2*slotSize+b.data+1); err != nil {
		return err
	}
	if err := b.partition(); err != nil {
		return err
	}
	at := gap
	for _, p := range parts {
		if err := b.place(p.path, at*mib); err != nil {
			return err
		}
		at += p.size
	}
	if b.board.uboot == "" {
		return nil
	}
	loader, err := debian{arch: b.board.deb, cache: b.cache}.unpack(b.board.loader)
	if err != nil {
		return err
	}
	return b.place(filepath.Join(loader, b.board.uboot), 8<<10)
}

// place copies a file into the image, leaving holes where it has none.
func (b *build) place(path string, at int) error {
	return run("dd", "if="+path, "of="+b.out, "bs=4096", fmt.Sprintf("seek=%d", at/4096), "conv=notrunc,sparse", "status=none")
}
