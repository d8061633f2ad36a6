package modbus

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// visits gives how many requests each of n visits took, and checks that all
// registers but the missing ones are read right each time.
func visits(t *testing.T, m *Meter, g *rig, n, missing int) []int {
	t.Helper()
	var asked []int
	for range n {
		before := len(g.asked())
		got, err := m.Visit(t.Context(), ask())
		right, wrong := count(m.cfg.Model, got.Rows)
		if err != nil || wrong > 0 || right != len(m.cfg.Model.Registers)-missing || len(got.Failures) != missing {
			t.Fatalf("%d right, %d wrong, %v, %v", right, wrong, got.Failures, err)
		}
		asked = append(asked, len(g.asked())-before)
	}
	return asked
}

// What a meter refuses is found, and then asked for no more, until a day has
// passed: the requests become the fewest that the meter allows.
func TestRefusalsAreLearntForADay(t *testing.T) {
	t.Parallel()
	across := func(hole uint16) func(uint8, uint16, uint16) bool {
		return func(_ uint8, at, n uint16) bool { return at <= hole && at+n > hole }
	}
	row := []uint16{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	for _, c := range []struct {
		name    string
		regs    []uint16
		refuse  func(function uint8, address, count uint16) bool
		missing int
		least   int // requests of a visit, once all is learnt
	}{
		{"nothing", row, nil, 0, 1},
		{"a register in the middle", row, across(5), 1, 2},
		{"the first one", row, across(1), 1, 1},
		{"the last one", row, across(12), 1, 1},
		{"two beside one another", row, func(_ uint8, at, n uint16) bool { return at <= 7 && at+n > 6 }, 2, 2},
		{"a hole that is not in the middle", []uint16{1, 2, 4, 5, 6, 7, 8, 9}, across(3), 0, 2},
		{"one hole of two", []uint16{1, 2, 4, 5, 6, 7, 9, 10}, across(3), 0, 2},
		{"both holes", []uint16{1, 2, 4, 5, 6, 7, 9, 10}, func(f uint8, at, n uint16) bool { return across(3)(f, at, n) || across(8)(f, at, n) }, 0, 3},
		{"reads longer than five", row, func(_ uint8, _, n uint16) bool { return n > 6 }, 0, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := &rig{refuse: c.refuse}
				m := simulated(t, g, Config{Model: modelOf(c.regs...), Settings: settings})
				asked := visits(t, m, g, 5, c.missing)
				if asked[4] != c.least {
					t.Errorf("%v requests in the visits, want %d in the end", asked, c.least)
				}
				g.mu.Lock()
				g.refuse = nil // new firmware
				g.mu.Unlock()
				idle(relearn)
				if asked := visits(t, m, g, 1, 0); asked[0] != 1 {
					t.Errorf("a day later %v requests", asked)
				}
			})
		})
	}
}

// A meter that refuses everything is not remembered by that: what it says may
// be about the gateway before it, or its start.
func TestAMeterThatRefusesAllIsAskedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &rig{refuse: func(uint8, uint16, uint16) bool { return true }}
		m := simulated(t, g, Config{Model: modelOf(1, 2, 3), Settings: settings})
		got, err := m.Visit(t.Context(), ask())
		if err != nil || len(got.Failures) != 3 || len(got.Rows) != 0 {
			t.Fatalf("%v, %v", got, err)
		}
		g.mu.Lock()
		g.refuse = nil
		g.mu.Unlock()
		if asked := visits(t, m, g, 2, 0); asked[1] != 1 {
			t.Errorf("%v requests", asked)
		}
	})
}

// The failure of a register says which meter, and where the map names it.
func TestARefusedRegisterIsNamed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &rig{refuse: func(_ uint8, at, n uint16) bool { return at <= 0x48 && at+n > 0x48 }}
		model := modelOf(0x40, 0x48)
		model.File, model.Registers[1].Line = "models/acme.yaml", 23
		m := simulated(t, g, Config{Model: model, Settings: settings})
		for range 3 {
			got, err := m.Visit(t.Context(), ask())
			if err != nil || len(got.Failures) != 1 {
				t.Fatalf("%v, %v", got.Failures, err)
			}
			text := got.Failures[0].Error()
			want := "models/acme.yaml:23: meter m: register 0x0048: line wire: unit 1: read 1 registers at 0x0048 by function 4: the meter refuses: illegal data address (exception 2)"
			if !strings.HasSuffix(text, want) {
				t.Errorf("got %s\nwant %s", text, want)
			}
		}
		if asked := g.asked(); !slices.Equal(asked[len(asked)-2:], []shape{{4, 1}, {4, 1}}) {
			t.Errorf("asked %v", asked)
		}
		idle(time.Minute)
	})
}
