//go:build !race

package buffer_test

// raced says that the race detector makes everything slow.
const raced = false
