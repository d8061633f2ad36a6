package sys

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Use is what this process and its machine use, in octets; 0 where the kernel
// does not tell (proc(5)).
type Use struct {
	Resident  int64 // of this process
	Anonymous int64 // of that, what is not a file's
	Available int64 // memory of the machine that could be had
	Written   int64 // to storage, by this process, since it began
}

// Usage asks what is used.
func Usage() Use {
	return Use{
		Resident:  kilobytes("/proc/self/status", "VmRSS:"),
		Anonymous: kilobytes("/proc/self/status", "RssAnon:"),
		Available: kilobytes("/proc/meminfo", "MemAvailable:"),
		Written:   written(),
	}
}

// written gives what this process had written to storage.
func written() int64 {
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			return n
		}
	}
	return 0
}

// Room gives how large the file system of path is, and what of it who is not root
// may still take, in octets.
func Room(path string) (total, free int64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, 0, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	size := int64(s.Bsize) //nolint:unconvert // it has 32 bits on ARM
	return int64(s.Blocks) * size, int64(s.Bavail) * size, nil
}
