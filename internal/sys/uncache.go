package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// Uncache has the next reads of a file that is synced come from the disk, and not
// from memory, where the kernel does as it is told (posix_fadvise(2)).
func Uncache(f *os.File) {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) //nolint:gosec // a file descriptor is small
}
