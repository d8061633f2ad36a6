//go:build soak

package modbus

import "testing"

// TestSoakTorture is TestTorture at full length.
func TestSoakTorture(t *testing.T) {
	t.Parallel()
	tortured(t, 1_000_000)
}
