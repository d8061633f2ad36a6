//go:build !failpoint

package agent

func failpoint(string) {}
