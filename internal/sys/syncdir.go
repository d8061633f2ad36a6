package sys

import (
	"errors"
	"os"
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
