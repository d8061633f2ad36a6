//go:build !failpoints

package agent

func failAt(string) {}
