package sys

import (
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

// MemoryLimit gives how much memory, in octets, this process can have: the
// machine's, the limits of its control groups (systemd's MemoryMax), and
// GOMEMLIMIT, whichever is least; 0 where nobody knows.
func MemoryLimit() int64 {
	_, least := Resident()
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err == nil {
		least = lower(least, groupLimit("/sys/fs/cgroup", string(groups)))
	}
	if limit := debug.SetMemoryLimit(-1); limit != math.MaxInt64 { // -1 only asks
		least = lower(least, limit)
	}
	return least
}

// lower gives the lower limit; 0 is none.
func lower(a, b int64) int64 {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// groupLimit gives the lowest limit of control groups (cgroups(7)) and of those
// that they are in, 0 where there is none. groups is what proc tells of them, a
// line each: number, controllers, path.
func groupLimit(root, groups string) (least int64) {
	for line := range strings.Lines(groups) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) < 3 {
			continue
		}
		dir, name := root, "memory.max"
		switch fields[1] {
		case "": // version 2
		case "memory":
			dir, name = filepath.Join(root, "memory"), "memory.limit_in_bytes"
		default:
			continue
		}
		for path := filepath.Clean("/" + fields[2]); ; path = filepath.Dir(path) {
			b, err := os.ReadFile(filepath.Join(dir, path, name))
			if err == nil {
				n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64) // "max" is no number
				if err == nil && n > 0 && n < math.MaxInt64/2 {                  // version 1 writes a very high one for none
					least = lower(least, n)
				}
			}
			if path == "/" {
				break
			}
		}
	}
	return least
}
