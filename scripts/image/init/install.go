package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"gridgate/scripts/image/fat"
)

// slotFile is a file that goes into a slot.
type slotFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // hexadecimal
	Path   string `json:"path"`
}

// What a slot may hold.
const (
	maxFiles    = 16
	maxFile     = 64 << 20
	maxSlot     = 60 << 20
	otherFolder = "/run/other" // where the slot that is written is mounted
	fatOptions  = "codepage=437,iocharset=ascii,errors=remount-ro"
)

// A name that ends in a dot would lose it on a FAT.
var slotName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,30}[a-z0-9_-])?$`)

// install writes files to the slot that does not run, and reads them back. Before
// its first octet is written that slot has no tries any more, so that whatever
// happens on the way, nothing half written is started.
func (s *slots) install(files []slotFile) error {
	if err := s.mayInstall(); err != nil {
		return err
	}
	other := otherOf(s.running)
	seed, err := seedOf(filepath.Join(s.seeds, other))
	if err != nil {
		return err
	}
	if err := s.check(files, seed.Room()); err != nil {
		return err
	}
	dev := s.parts[other]
	if dev == "" {
		return fmt.Errorf("there is no partition of slot %s", other)
	}
	s.installed = false
	if err := s.change(func(t *tries) error { t.left[other] = 0; return nil }); err != nil {
		return err
	}
	if err := seed.Format(dev); err != nil {
		return fmt.Errorf("slot %s: %w", other, err)
	}
	if err := fill(s, dev, files); err != nil {
		return fmt.Errorf("slot %s: %w", other, err)
	}
	if err := compare(dev, files); err != nil {
		return fmt.Errorf("slot %s does not read as it was written: %w", other, err)
	}
	s.installed = true
	log.Printf("slot %s was written: %d files", other, len(files))
	return nil
}

// check says what is wrong with a list of files, before anything is written.
func (s *slots) check(files []slotFile, room int64) error {
	if len(files) > maxFiles {
		return fmt.Errorf("%d files; a slot has at most %d", len(files), maxFiles)
	}
	must := []string{"gridgate", "vmlinuz", "initrd.zst"}
	if _, err := os.Stat(filepath.Join(s.dir, "board.dtb")); err == nil {
		must = append(must, "board.dtb")
	}
	total := int64(0)
	for i, f := range files {
		switch {
		case !slotName.MatchString(f.Name):
			return fmt.Errorf("file %d: name %.40q", i+1, f.Name)
		case slices.ContainsFunc(files[:i], func(o slotFile) bool { return o.Name == f.Name }):
			return fmt.Errorf("%s: is there twice", f.Name)
		case f.Size <= 0 || f.Size > maxFile:
			return fmt.Errorf("%s: %d octets", f.Name, f.Size)
		}
		if b, err := hex.DecodeString(f.SHA256); err != nil || len(b) != sha256.Size {
			return fmt.Errorf("%s: sha256 %.70q", f.Name, f.SHA256)
		}
		file, err := s.open(f)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		_ = file.Close() // it was only looked at
		must = slices.DeleteFunc(must, func(name string) bool { return name == f.Name })
		total += (f.Size + fat.Sector - 1) / fat.Sector * fat.Sector
	}
	if len(must) > 0 {
		return fmt.Errorf("the board starts nothing without %s", strings.Join(must, ", "))
	}
	if total > min(maxSlot, room) {
		return fmt.Errorf("%d octets; a slot holds %d", total, min(maxSlot, room))
	}
	return nil
}

// open opens a file that gridgate named: a plain one of its data or of the slot
// that runs.
func (s *slots) open(f slotFile) (*os.File, error) {
	path, err := filepath.EvalSymlinks(f.Path)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(s.roots, func(root string) bool { return strings.HasPrefix(path, root+"/") }) {
		return nil, fmt.Errorf("%s: is not below %s", f.Path, strings.Join(s.roots, " or "))
	}
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	switch stat, err := file.Stat(); {
	case err != nil:
		return nil, errors.Join(err, file.Close())
	case !stat.Mode().IsRegular():
		return nil, errors.Join(fmt.Errorf("%s: is no plain file", f.Path), file.Close())
	case stat.Size() != f.Size:
		return nil, errors.Join(fmt.Errorf("%s: has %d octets; want %d", f.Path, stat.Size(), f.Size), file.Close())
	}
	// A folder on the way may have become a link since.
	if now, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", file.Fd())); err != nil || now != path {
		return nil, errors.Join(fmt.Errorf("%s: has moved", f.Path), err, file.Close())
	}
	return file, nil
}

// fill copies the files to an empty slot; all is on the flash when it gives nil.
func fill(s *slots, dev string, files []slotFile) error {
	return mounted(dev, 0, func(dir string) error {
		for i, f := range files {
			beforeFile(s, i)
			if err := s.copy(f, filepath.Join(dir, f.Name)); err != nil {
				return fmt.Errorf("%s: %w", f.Name, err)
			}
		}
		d, err := os.Open(dir)
		if err != nil {
			return err
		}
		return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
	})
}

func (s *slots) copy(f slotFile, to string) error {
	from, err := s.open(f)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }() // it was only read
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, h), io.LimitReader(from, f.Size))
	if err := errors.Join(err, out.Sync(), out.Close()); err != nil {
		return err
	}
	return f.is(h.Sum(nil))
}

func (f slotFile) is(sum []byte) error {
	if got := hex.EncodeToString(sum); !strings.EqualFold(got, f.SHA256) {
		return fmt.Errorf("its SHA-256 is %s; want %s", got, f.SHA256)
	}
	return nil
}

// compare reads a slot as the next start would: from the flash, and not from what
// the kernel remembers.
func compare(dev string, files []slotFile) error {
	if err := forget(dev); err != nil {
		return err
	}
	return mounted(dev, unix.MS_RDONLY, func(dir string) error {
		there, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		if len(there) != len(files) {
			return fmt.Errorf("it has %d files; want %d", len(there), len(files))
		}
		for _, f := range files {
			sum, err := sumOf(filepath.Join(dir, f.Name))
			if err == nil {
				err = f.is(sum)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", f.Name, err)
			}
		}
		return nil
	})
}

func sumOf(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	h := sha256.New()
	_, err = io.Copy(h, f)
	return h.Sum(nil), err
}

// forget drops what the kernel holds of a device.
func forget(dev string) error {
	f, err := os.Open(dev)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	if err := f.Sync(); err != nil { // the card's own memory too
		return err
	}
	if _, _, no := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKFLSBUF, 0); no != 0 {
		return fmt.Errorf("%s: %w", dev, no)
	}
	return nil
}

// mounted does something while the other slot is mounted.
func mounted(dev string, flags uintptr, do func(dir string) error) error {
	if err := os.MkdirAll(otherFolder, 0o700); err != nil {
		return err
	}
	if err := unix.Mount(dev, otherFolder, "vfat", flags|unix.MS_NOATIME|unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, fatOptions+",umask=0077"); err != nil {
		return fmt.Errorf("mount %s: %w", dev, err)
	}
	err := do(otherFolder)
	if e := unix.Unmount(otherFolder, 0); e != nil {
		err = errors.Join(err, fmt.Errorf("unmount %s: %w", dev, e))
	}
	return err
}

// seedOf reads what an empty file system of a slot begins with.
func seedOf(file string) (*fat.Seed, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return fat.Parse(b)
}
