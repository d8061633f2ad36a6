package security

import (
	"errors"
	"testing"
)

var errPower = errors.New("power cut")

// disk is a Store over a disk that forgets what was not written when the power
// goes. cut says in how many steps that is; at 0 it never does.
type disk struct {
	written uint64 // what is on the disk
	cut     int
	// late has it write after use: the mistake that the test must find.
	late    bool
	pending uint64
}

func (d *disk) step() error {
	if d.cut > 0 {
		if d.cut--; d.cut == 0 {
			return errPower
		}
	}
	return nil
}

func (d *disk) Reserve(_ Title, _ KeyID, n uint32) (uint32, error) {
	if err := d.step(); err != nil { // before it is written
		return 0, err
	}
	if d.late {
		d.written = max(d.written, d.pending) // what the last call gave away
		first := d.written
		d.pending = first + uint64(n)
		return uint32(first), nil
	}
	first := d.written
	d.written += uint64(n)
	if err := d.step(); err != nil { // written, and nobody heard of it
		return 0, err
	}
	return uint32(first), nil
}

func (d *disk) Raise(_ Title, _ KeyID, next uint32) error {
	if err := d.step(); err != nil {
		return err
	}
	d.written = max(d.written, uint64(next))
	return d.step()
}

// runUntilCut uses counters until the power goes, with a re-reading now and
// then, and notes each in used. It gives the counters that were used twice.
func runUntilCut(t *testing.T, d *disk, used map[uint32]bool) (twice int) {
	t.Helper()
	c := NewCounter(d, Title{1}, key(t, ek16), 4)
	for i := range 30 {
		if d.step() != nil { // between two uses
			return twice
		}
		n, err := c.Next()
		if errors.Is(err, errPower) {
			return twice
		}
		if err != nil {
			t.Fatal(err)
		}
		if used[n] {
			twice++
		}
		used[n] = true
		if i%11 == 10 {
			if err := c.Resync(n + 9); errors.Is(err, errPower) {
				return twice
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	return twice
}

// TestNoCounterTwice cuts the power at every step, twice in a row, and looks
// for a counter that is used again. A store that writes after use is the
// control: it is found out.
func TestNoCounterTwice(t *testing.T) {
	t.Parallel()
	for _, late := range []bool{false, true} {
		found := 0
		for first := 1; first <= 60; first++ {
			for second := 1; second <= 20; second++ {
				d, used := &disk{late: late}, map[uint32]bool{}
				for _, cut := range []int{first, second, 0} {
					d.cut, d.pending = cut, 0
					found += runUntilCut(t, d, used)
				}
			}
		}
		if !late && found != 0 {
			t.Errorf("%d counters used twice", found)
		}
		if late && found == 0 {
			t.Error("a store that writes after use was not found out")
		}
	}
}

func TestCounterSteps(t *testing.T) {
	t.Parallel()
	d := &disk{}
	c := NewCounter(d, Title{1}, key(t, ek16), 4)
	for want := range uint32(10) {
		if n, err := c.Next(); err != nil || n != want {
			t.Fatalf("%d, %v, want %d", n, err, want)
		}
		if d.written <= uint64(want) || d.written > uint64(want)+4 {
			t.Errorf("at %d the disk has %d", want, d.written)
		}
	}
	// After a crash what was reserved is given up.
	c = NewCounter(d, Title{1}, key(t, ek16), 4)
	if n, err := c.Next(); err != nil || n != 12 {
		t.Errorf("after a crash %d, %v, want 12", n, err)
	}
	// One step by default.
	if _, err := NewCounter(d, Title{1}, key(t, ek16), 0).Next(); err != nil || d.written != 16+DefaultStep {
		t.Errorf("the disk has %d, %v", d.written, err)
	}
}

func TestResync(t *testing.T) {
	t.Parallel()
	var jump *JumpError
	for name, c := range map[string]struct {
		read uint32
		want uint32
		jump bool
	}{
		"behind":           {3, 11, false},
		"level":            {10, 11, false},
		"one ahead":        {11, 12, false},
		"within the step":  {13, 14, false},
		"beyond the step":  {40, 41, false},
		"the most":         {11 + MaxJump - 1, 11 + MaxJump, false},
		"one over":         {11 + MaxJump, 11, true},
		"as far as it can": {lastCounter, 11, true},
	} {
		var m Memory
		counter := NewCounter(&m, Title{1}, key(t, ek16), 8)
		if err := counter.Anchor(10); err != nil {
			t.Fatal(err)
		}
		if n, err := counter.Next(); n != 10 || err != nil {
			t.Fatal(n, err)
		}
		err := counter.Resync(c.read)
		if errors.As(err, &jump) != c.jump || !c.jump && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if c.jump && (jump.Next != 11 || jump.Read != c.read) {
			t.Errorf("%s: %+v", name, jump)
		}
		if n, err := counter.Next(); err != nil || n != c.want {
			t.Errorf("%s: next %d, %v, want %d", name, n, err, c.want)
		}
		// What was jumped over stays so for whoever comes after a crash.
		if n, err := NewCounter(&m, Title{1}, key(t, ek16), 8).Next(); err != nil || n <= c.want {
			t.Errorf("%s: after a crash %d, %v", name, n, err)
		}
	}
}

func TestAnchor(t *testing.T) {
	t.Parallel()
	var m Memory
	c := NewCounter(&m, Title{1}, key(t, ek16), 2)
	if fresh, err := c.Fresh(); !fresh || err != nil {
		t.Errorf("fresh %v, %v", fresh, err)
	}
	if err := c.Anchor(1 << 30); err != nil {
		t.Error(err)
	}
	if n, err := c.Next(); n != 1<<30 || err != nil {
		t.Errorf("anchored at %d, %v", n, err)
	}
	if err := c.Anchor(5); err != nil {
		t.Error(err)
	}
	if n, err := c.Next(); n != 1<<30+1 || err != nil {
		t.Errorf("anchored back to %d, %v", n, err)
	}
	if fresh, err := NewCounter(&m, Title{1}, key(t, ek16), 2).Fresh(); fresh || err != nil {
		t.Errorf("fresh after use: %v, %v", fresh, err)
	}
	// Another key, another title: another counter.
	for _, c := range []*Counter{NewCounter(&m, Title{1}, key(t, other), 2), NewCounter(&m, Title{2}, key(t, ek16), 2)} {
		if n, err := c.Next(); n != 0 || err != nil {
			t.Errorf("another counter begins at %d, %v", n, err)
		}
	}
}

func TestExhausted(t *testing.T) {
	t.Parallel()
	var m Memory
	c := NewCounter(&m, Title{1}, key(t, ek16), 2)
	if err := c.Anchor(lastCounter - 2); err != nil {
		t.Fatal(err)
	}
	for want := uint32(lastCounter - 2); want < lastCounter; want++ {
		if n, err := c.Next(); n != want || err != nil {
			t.Errorf("%d, %v, want %d", n, err, want)
		}
	}
	if n, err := c.Next(); !errors.Is(err, ErrExhausted) {
		t.Errorf("after the last %d, %v", n, err)
	}
}

// TestStoreGoesBack: a store that was put back from a backup is found out
// while the process lives.
func TestStoreGoesBack(t *testing.T) {
	t.Parallel()
	d := &disk{written: 100}
	c := NewCounter(d, Title{1}, key(t, ek16), 1)
	if _, err := c.Next(); err != nil {
		t.Fatal(err)
	}
	d.written = 100
	if n, err := c.Next(); !errors.Is(err, errBackwards) {
		t.Errorf("%d, %v", n, err)
	}
}

// TestTwoCounters: two that share a store never draw the same.
func TestTwoCounters(t *testing.T) {
	t.Parallel()
	var m Memory
	a, b := NewCounter(&m, Title{1}, key(t, ek16), 3), NewCounter(&m, Title{1}, key(t, ek16), 5)
	used := map[uint32]bool{}
	for i := range 100 {
		c := a
		if i%3 == 0 {
			c = b
		}
		n, err := c.Next()
		if err != nil || used[n] {
			t.Fatalf("%d again, %v", n, err)
		}
		used[n] = true
	}
}

// TestLeaps: who says again and again that we are behind, though the meter never
// takes what we send then, gets us no further than once: else the key is used up.
func TestLeaps(t *testing.T) {
	t.Parallel()
	var m Memory
	c := NewCounter(&m, Title{1}, key(t, ek16), 8)
	next := func() uint32 {
		t.Helper()
		n, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	var jump *JumpError
	leap := func() error { return c.Resync(next() + MaxJump/2) }
	for range 10 {
		if err := leap(); err != nil && !errors.As(err, &jump) {
			t.Fatal(err)
		}
	}
	if n := next(); jump == nil || n > MaxJump+100 {
		t.Errorf("at %d, %v", n, jump)
	}
	c.Took()
	before := next()
	if err := leap(); err != nil || next() < before+MaxJump/2 {
		t.Errorf("after the meter took one: %v", err)
	}
	_ = leap()
	if err := leap(); !errors.As(err, &jump) || uint64(jump.Read)+1-uint64(jump.Next) <= MaxJump {
		t.Errorf("%v", err)
	}
	if err := m.Raise(Title{1}, c.key, 10*MaxJump); err != nil { // a person has decided
		t.Fatal(err)
	}
	if err := c.Resync(10*MaxJump + 5); err != nil || next() != 10*MaxJump+6 {
		t.Errorf("after a person decided: %v", err)
	}
}
