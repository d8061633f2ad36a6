//go:build failpoints

package agent

import (
	"os"
	"syscall"
)

// failAt ends the process at the step of a command that GRIDGATE_FAIL_AT
// names: a program of these tests only, see commandkill_test.go.
func failAt(step string) {
	if step == os.Getenv("GRIDGATE_FAIL_AT") {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until it is delivered
	}
}
