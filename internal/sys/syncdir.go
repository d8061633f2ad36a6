package sys

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// SyncDir makes what was made, moved and removed in a directory durable. File
// systems that cannot say so (EINVAL) are taken at their word.
func SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}

// MakeDir makes a directory where it is not there, and has its name on the disk
// when it returns. What it is in has to be there.
func MakeDir(path string, perm os.FileMode) error {
	if err := os.Mkdir(path, perm); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return SyncDir(filepath.Dir(path)) // also when it was there: a kill may have come before this
}
