//go:build soak

package hdlc

import "testing"

// TestSoakTorture is TestTorture at full length.
func TestSoakTorture(t *testing.T) {
	t.Parallel()
	torture(t, 1_000_000)
}
