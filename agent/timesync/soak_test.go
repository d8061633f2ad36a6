//go:build soak

package timesync_test

import "testing"

// TestSoakMonths is a month of a thousand gateways.
func TestSoakMonths(t *testing.T) {
	for seed := range uint64(1000) {
		t.Run("", func(t *testing.T) { simulate(t, func(t *testing.T) { fate(t, 1000+seed) }) })
	}
}
