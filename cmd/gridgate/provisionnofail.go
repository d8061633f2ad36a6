//go:build !failpoints

package main

// provisionCut does nothing: see provisionfail.go.
func provisionCut(func(string) string) func(string) { return func(string) {} }
