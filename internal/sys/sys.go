// Package sys asks the Linux kernel what the standard library does not tell:
// which boot this is, how long it has run, and how good its clock is.
package sys

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// BootID gives the kernel's random name of this boot (proc(5), random/boot_id).
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// Uptime gives the time since boot, suspended time included (CLOCK_BOOTTIME).
// It never steps.
func Uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // Linux has had this clock since 2.6.39
	}
	return time.Duration(ts.Nano())
}

// Resident gives the anonymous memory of this process that is in RAM, and the
// machine's RAM, in octets; 0 where the kernel does not tell (proc(5)).
func Resident() (anonymous, ram int64) {
	return kilobytes("/proc/self/status", "RssAnon:"), kilobytes("/proc/meminfo", "MemTotal:")
}

// kilobytes gives, in octets, what stands behind name in a file of proc(5).
func kilobytes(path, name string) int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 53)
			if err != nil {
				return 0
			}
			return n << 10
		}
	}
	return 0
}

// ClockError gives the largest error of the wall clock as the kernel knows it
// from whoever disciplines it (adjtimex(2), maxerror). ok is false when nobody
// does.
func ClockError() (bound time.Duration, ok bool) {
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	if err != nil || state == unix.TIME_ERROR || tx.Status&unix.STA_UNSYNC != 0 {
		return 0, false
	}
	return min(time.Duration(tx.Maxerror)*time.Microsecond, math.MaxUint32*time.Millisecond), true
}
