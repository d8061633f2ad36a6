package modbus

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// at makes registers; a negative address is one of function 3.
func at(typ Type, addresses ...int) []*Register {
	var regs []*Register
	for _, a := range addresses {
		r := &Register{Function: 4, Type: typ, Address: uint16(a)}
		if a < 0 {
			r.Function, r.Address = 3, uint16(-a)
		}
		regs = append(regs, r)
	}
	return regs
}

func show(blocks []block) string {
	s := ""
	for _, b := range blocks {
		s += fmt.Sprintf("%d:%d+%d ", b.function, b.address, b.count)
	}
	return s
}

func TestPlan(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		m    Model
		regs []*Register
		want string
	}{
		{"none", Model{}, nil, ""},
		{"in one", Model{MaxRegs: 40, Holes: true}, at(F32, 0, 2, 4, 30), "4:0+32 "},
		{"not beyond what the meter gives", Model{MaxRegs: 10, Holes: true}, at(F32, 0, 2, 8, 10), "4:0+10 4:10+2 "},
		{"holes forbidden", Model{MaxRegs: 40}, at(F32, 0, 2, 6, 8), "4:0+4 4:6+4 "},
		{"by function", Model{Holes: true}, at(U16, -1, 1, -2, 2), "3:1+2 4:1+2 "},
		{"in any order", Model{Holes: true}, at(U16, 9, 3, 6), "4:3+7 "},
		{"overlapping", Model{}, append(at(U64, 0), at(U16, 1)...), "4:0+4 "},
		{"the last registers", Model{Holes: true}, at(U16, 65535, 65500), "4:65500+36 "},
		{"never more than the standard allows", Model{MaxRegs: 500, Holes: true}, at(U16, 0, 124, 125), "4:0+125 4:125+1 "},
	} {
		if got := show(plan(c.regs, &c.m, nil)); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

func TestSplitIsRemembered(t *testing.T) {
	t.Parallel()
	m := &Model{Holes: true}
	cuts := map[cut]bool{}
	regs := at(F32, 0, 2, 4, 6)
	halves, ok := plan(regs, m, cuts)[0].split(m, cuts)
	if got := show(halves); !ok || got != "4:0+4 4:4+4 " {
		t.Fatalf("got %s", got)
	}
	if got := show(plan(regs, m, cuts)); got != "4:0+4 4:4+4 " {
		t.Errorf("the next plan is %s", got)
	}
	if _, ok := plan(regs[:1], m, cuts)[0].split(m, cuts); ok {
		t.Error("one register was split")
	}
	same := append(at(U32, 0), at(F32, 0)...)
	if _, ok := plan(same, m, cuts)[0].split(m, cuts); ok {
		t.Error("two readings of one register were split")
	}
}

// Every register is in exactly one block, in its place; no block is longer
// than allowed; splitting ends.
func TestPlanHoldsEveryRegister(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := &Model{MaxRegs: rapid.IntRange(4, 130).Draw(t, "max"), Holes: rapid.Bool().Draw(t, "holes")}
		var regs []*Register
		for range rapid.IntRange(1, 30).Draw(t, "n") {
			regs = append(regs, &Register{
				Function: uint8(rapid.IntRange(3, 4).Draw(t, "function")),
				Type:     rapid.SampledFrom([]Type{U16, F32, U64}).Draw(t, "type"),
				Address:  uint16(rapid.IntRange(0, 300).Draw(t, "address")),
			})
		}
		cuts := map[cut]bool{}
		todo, rounds := plan(regs, m, cuts), 0
		for len(todo) > 0 {
			seen := 0
			for _, b := range todo {
				seen += len(b.regs)
				if int(b.count) > min(m.MaxRegs, maxRegs) {
					t.Fatalf("block of %d", b.count)
				}
				answer := make([]byte, 2*b.count)
				for _, r := range b.regs {
					if len(b.bytes(r, answer)) != 2*int(r.Len()) {
						t.Fatal("wrong bytes")
					}
				}
				if counts := b.others(); slices.Contains(counts, b.count) || len(counts) < 8 {
					t.Fatalf("others of %d: %v", b.count, counts)
				}
			}
			if rounds == 0 && seen != len(regs) {
				t.Fatalf("%d of %d registers", seen, len(regs))
			}
			if rounds++; rounds > 2*len(regs) {
				t.Fatal("splitting does not end")
			}
			var next []block
			for _, b := range todo {
				if halves, ok := b.split(m, cuts); ok {
					next = append(next, halves...)
				}
			}
			todo = next
		}
	})
}
