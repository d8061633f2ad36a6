//go:build soak

package agent

import "testing"

func TestSoakKilledAtEveryStep(t *testing.T) { killedAtEveryStep(t, 20) }

func TestSoakPowerCutAmidOrders(t *testing.T) { powerCutAmidOrders(t, 3000) }

func TestSoakKilledAtEveryStepOfACommand(t *testing.T) { killedAtEveryStepOfACommand(t, 20) }

func TestSoakCommandsThroughPowerCuts(t *testing.T) { cutCommandsAt(t, 1200, false) }
