// Package sys asks the Linux kernel what the standard library does not tell:
// which boot this is, how long it has run, and how good its clock is.
package sys

import (
	"fmt"
	"math"
	"os"
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
