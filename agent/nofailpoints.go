//go:build !failpoints

package agent

// failpoint does nothing: see failpoints.go.
func failpoint(func(string) string) func(string) { return func(string) {} }
