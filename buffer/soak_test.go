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

func TestSoakFlashOutage(t *testing.T) { //nolint:paralleltest // without root it counts what the process writes
	r := measureOutage(t, newFlash(t), siteOptions(), warmDays, 7)
	r.judge(t)
	t.Logf("%+v: %.2f for an octet of chunk", r, float64(r.all)/float64(r.chunks))
}
