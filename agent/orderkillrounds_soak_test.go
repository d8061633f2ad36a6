//go:build soak

package agent

import "testing"

func TestSoakKilledAtEveryStep(t *testing.T) { killedAtEveryStep(t, 20) }

func TestSoakPowerCutAmidOrders(t *testing.T) { powerCutAmidOrders(t, 3000) }
