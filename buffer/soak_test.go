//go:build soak

package buffer_test

import "testing"

func TestSoakPowerCut(t *testing.T) { cutWork(t, 1000, false) }

func TestSoakKilled(t *testing.T) { killAgain(t, 200) }

func TestSoakDamageStorm(t *testing.T) { storm(t, 16<<20, 2000) }

func TestSoakDuring(t *testing.T) {
	for name, op := range operations(t) {
		t.Run(name, func(t *testing.T) {
			op.cut(t, 200)
			op.kill(t, 50)
		})
	}
}
