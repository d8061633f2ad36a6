package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"gridgate/internal/sys"
)

// provisionMost is the size of a file that provisioning reads, in octets.
const provisionMost = 1 << 20

// readPlain reads a regular file of a bounded size.
func readPlain(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: no file, want one", path)
	case info.Size() > provisionMost:
		return nil, fmt.Errorf("%s: %d octets; at most %d are read", path, info.Size(), provisionMost)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, provisionMost))
	return data, errors.Join(err, f.Close())
}

// fileHolds says whether a file holds just that.
func fileHolds(path string, data []byte) bool {
	old, err := readPlain(path)
	return err == nil && bytes.Equal(old, data)
}

// put makes a file hold data, or leaves the one that there was: after a cut it is
// either. changed says that it was another one before.
func (p *provision) put(path string, data []byte, mode os.FileMode) (changed bool, err error) {
	dir := filepath.Dir(path)
	if fileHolds(path, data) {
		return false, sys.SyncDir(dir) // a cut may have come before this
	}
	if err := p.makeDir(dir); err != nil {
		return false, err
	}
	fresh := filepath.Join(dir, "."+filepath.Base(path)+".new")
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	f, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode) // follows no link
	if err != nil {
		return false, err
	}
	err = p.own(f, dir)
	if err == nil {
		err = f.Chmod(mode) // whatever the umask
	}
	if err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(fresh)
		return false, err
	}
	p.at("written " + filepath.Base(path))
	if err := os.Rename(fresh, path); err != nil {
		return false, err
	}
	return true, sys.SyncDir(dir)
}

// makeDir makes a folder, and those above it, durably.
func (p *provision) makeDir(path string) error {
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return fmt.Errorf("%s: no folder", path)
	} else if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	above := filepath.Dir(path)
	if above == path {
		return fmt.Errorf("%s: there is no such folder", path)
	}
	if err := p.makeDir(above); err != nil {
		return err
	}
	mode := os.FileMode(0o755)
	if path == p.buffer || filepath.Dir(path) == p.buffer {
		mode = 0o700
	}
	if err := sys.MakeDir(path, mode); err != nil {
		return err
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(p.own(d, above), d.Close())
}

// own gives what root makes to whom the folder belongs that it is in: below the
// state of the service that is the service's user.
func (p *provision) own(f *os.File, above string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(above)
	if err != nil {
		return err
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok && s.Uid != 0 {
		return f.Chown(int(s.Uid), int(s.Gid))
	}
	return nil
}

// lock keeps a second run away until done.
func (p *provision) lock() (done func(), err error) {
	if err := p.makeDir(p.dir()); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(p.dir(), "lock"), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = p.own(f, p.dir())
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = errors.New("another gridgate provision runs; wait for its end")
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}
