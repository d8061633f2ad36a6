package cosem

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"gridgate/dlms/dlmstest"
	"gridgate/internal/meter"
)

const firmware = "this is what the maker says a meter should run, in blocks of seven."

func newImageActor(t *testing.T, o dlmstest.ImageOptions) (a actor, activated func() string) {
	t.Helper()
	var got string
	o.Activated = func(name string, octets []byte) { got = name + ": " + string(octets) }
	a = newActor(t, actorOptions{mode: 4, objects: []dlmstest.Object{dlmstest.ImageTransferWith(obisOf("0-0:44.0.0"), 7, o)}})
	return a, func() string { return got }
}

func imageOf(begun bool) meter.Image {
	return meter.Image{
		Identifier: "FW", Size: uint32(len(firmware)), Octets: bytes.NewReader([]byte(firmware)), Begun: begun, Activate: true,
	}
}

// countingBlocks says how many blocks and initiations are in requests.
func countingBlocks(a actor, hangUp func(n int, request []byte) bool) (blocks, begins func() int) {
	var seen [3]int
	n := 0
	a.spoil(func(request, frame []byte) []byte {
		if request[0] == 0xC3 && request[4] == 0x12 && request[11] <= 2 {
			seen[request[11]]++
		}
		if n++; hangUp != nil && hangUp(n, request) {
			go a.rig.hangUp()
			return nil
		}
		return frame
	})
	count := func(id int) func() int {
		return func() int {
			a.rig.mu.Lock()
			defer a.rig.mu.Unlock()
			return seen[id]
		}
	}
	return count(2), count(1)
}

const imageBlocks = (len(firmware) + 6) / 7

// TestImageInterrupted loses an answer at every request of a transfer, and goes
// on in the next visit: no block is sent twice but the one whose answer was lost.
func TestImageInterrupted(t *testing.T) {
	t.Parallel()
	for turn := 3; turn <= 40; turn++ {
		t.Run(fmt.Sprint(turn), func(t *testing.T) {
			t.Parallel()
			a, activated := newImageActor(t, dlmstest.ImageOptions{})
			activation := false
			blocks, begins := countingBlocks(a, func(n int, request []byte) bool {
				if n == turn {
					activation = request[0] == 0xC3 && request[4] == 0x12 && request[11] == 4
				}
				return n == turn
			})
			begun, visits := false, 0
			var o meter.Outcome
			for o.Result == meter.NotTried || o.Result == meter.Pending {
				if visits++; visits > 4 {
					t.Fatalf("%d visits: %v (%v)", visits, o.Result, o.Err)
				}
				o, _ = a.order(t, imageOf(begun))
				begun = o.Begun
			}
			a.rig.mu.Lock()
			lost := activation
			a.rig.mu.Unlock()
			want := meter.Done
			if lost {
				want = meter.Unknown
			}
			if o.Result != want || activated() != "FW: "+firmware {
				t.Errorf("%v (%v), want %v; activated %q", o.Result, o.Err, want, activated())
			}
			if lost && value(o.After, "image") != "activated" {
				t.Errorf("read back: %v", o.After)
			}
			if n := blocks(); n > imageBlocks+1 || begins() > 2 || begins() == 2 && n != imageBlocks {
				t.Errorf("%d blocks of %d, begun %d times", n, imageBlocks, begins())
			}
		})
	}
}

// TestImageBudget has a transfer that takes many visits.
func TestImageBudget(t *testing.T) {
	t.Parallel()
	a, activated := newImageActor(t, dlmstest.ImageOptions{Looks: 2})
	blocks, begins := countingBlocks(a, func(int, []byte) bool { a.clock.turn(100 * time.Millisecond); return false })
	begun, reached := false, uint32(0)
	visits := 0
	for ; ; visits++ {
		act := imageOf(begun)
		act.Budget = 100 * time.Millisecond
		o, err := a.order(t, act)
		if err != nil || o.Result != meter.Pending && o.Result != meter.Done || o.Reached < reached || o.All != uint32(len(firmware)) {
			t.Fatalf("%v (%v), %d of %d; %v", o.Result, o.Err, o.Reached, o.All, err)
		}
		begun, reached = o.Begun, o.Reached
		if o.Result == meter.Done {
			break
		}
	}
	if visits < 3 || blocks() != imageBlocks || begins() != 1 || activated() != "FW: "+firmware {
		t.Errorf("%d visits, %d blocks, begun %d times: %q", visits, blocks(), begins(), activated())
	}
}

// TestImageLost has a meter that loses blocks which it said it took.
func TestImageLost(t *testing.T) {
	t.Parallel()
	lost := map[uint32]int{}
	a, activated := newImageActor(t, dlmstest.ImageOptions{Lose: func(n uint32) bool {
		lost[n]++
		return lost[n] == 1 && n%3 == 1
	}})
	if o, err := a.order(t, imageOf(false)); err != nil || o.Result != meter.Done || activated() != "FW: "+firmware {
		t.Errorf("%v (%v), %v: %q", o.Result, o.Err, err, activated())
	}
	never, _ := newImageActor(t, dlmstest.ImageOptions{Lose: func(n uint32) bool { return n == 2 }})
	if o, err := never.order(t, imageOf(false)); err != nil || o.Result != meter.Failed {
		t.Errorf("a block that never comes: %v (%v), %v", o.Result, o.Err, err)
	}
}

// TestImageWrong has a meter that finds the image wrong, at once or after a while.
func TestImageWrong(t *testing.T) {
	t.Parallel()
	for _, looks := range []int{0, 2} {
		a, activated := newImageActor(t, dlmstest.ImageOptions{Looks: looks, Wrong: func([]byte) bool { return true }})
		o, err := a.order(t, imageOf(false))
		for o.Result == meter.Pending {
			o, err = a.order(t, imageOf(true))
		}
		if err != nil || o.Result != meter.Failed || activated() != "" {
			t.Errorf("%d looks: %v (%v), %v", looks, o.Result, o.Err, err)
		}
	}
}
