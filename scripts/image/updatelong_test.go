//go:build soak

package main

import (
	"strconv"
	"testing"
	"time"
)

// TestSoakUpdates: firmware that ends at once, that reads no meters, and then one
// that is whole again: kernel, initrd and gridgate, on the other processor.
func TestSoakUpdates(t *testing.T) {
	u := newUtility(t, arm64(), 2_000_000)
	q := u.boot()
	within(t, 10*time.Minute, "a reading at the broker", u.reads)
	u.send(u.slot("exits", map[string]string{"gridgate": u.bad("bad-exits", exits)}), "2.0.0")
	u.ends(q, "reverted", "", "a")
	u.send(u.slot("blind", map[string]string{"gridgate": u.bad("bad-blind", u.without(strconv.Itoa(u.meter))), "real": u.gridgate("2.0.1")}), "2.0.1")
	u.ends(q, "reverted", "0 of 1 meters read, 1 of 1 did before", "a")
	u.send(u.slot("next", map[string]string{"gridgate": u.gridgate("2.0.2")}), "2.0.2")
	u.ends(q, "kept", "", "b")
	u.whole()
}
