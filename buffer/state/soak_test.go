//go:build soak

package state

import "testing"

func TestSoakPowerCut(t *testing.T) { cutStates(t, 1000, false) }
