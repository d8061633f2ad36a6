package modbus

import (
	"cmp"
	"slices"

	"gridgate/internal/sortby"
)

// block is one request: registers of one function that lie in one stretch.
type block struct {
	function uint8
	address  uint16
	count    uint16
	regs     []*Register // by address
	cause    cut         // where the request was cut that this one is a part of; zero for none
}

// cut is a border that requests do not reach across: before this address.
type cut struct {
	function uint8
	address  uint16
}

// plan puts regs into as few requests as the model and the cuts allow. Every
// register is in exactly one block. A register longer than the model's MaxRegs
// stands alone.
func plan(regs []*Register, m *Model, cuts map[cut]bool) []block {
	most := m.MaxRegs
	if most <= 0 || most > maxRegs {
		most = maxRegs
	}
	regs = slices.Clone(regs)
	sortby.Stable(regs, func(a, b *Register) int {
		return cmp.Or(cmp.Compare(a.Function, b.Function), cmp.Compare(a.Address, b.Address))
	})
	var blocks []block
	for _, r := range regs {
		if n := len(blocks) - 1; n >= 0 && blocks[n].takes(r, most, m.Holes) && !blocks[n].crosses(r, cuts) {
			blocks[n].add(r)
			continue
		}
		blocks = append(blocks, block{function: r.Function, address: r.Address, count: r.Len(), regs: []*Register{r}})
	}
	return blocks
}

func (b *block) end() int { return int(b.address) + int(b.count) }

func (b *block) takes(r *Register, most int, holes bool) bool {
	return b.function == r.Function && max(r.end(), b.end())-int(b.address) <= most && (holes || int(r.Address) <= b.end())
}

// crosses says that b with r would reach across a cut.
func (b *block) crosses(r *Register, cuts map[cut]bool) bool {
	end := max(r.end(), b.end())
	for c := range cuts {
		if c.function == b.function && b.address < c.address && int(c.address) < end {
			return true
		}
	}
	return false
}

func (b *block) add(r *Register) {
	b.count = uint16(max(r.end(), b.end()) - int(b.address))
	b.regs = append(b.regs, r)
}

// split parts a block that the meter refused, and remembers where. ok is false
// for a block of one register, or of registers that share an address.
func (b *block) split(m *Model, cuts map[cut]bool) (parts []block, ok bool) {
	borders := b.borders()
	if len(borders) == 0 {
		return nil, false
	}
	c := cut{b.function, b.regs[borders[0]].Address}
	cuts[c] = true
	parts = plan(b.regs, m, cuts)
	for i := range parts {
		parts[i].cause = c
	}
	return parts, true
}

// borders lists the registers before which the block can be parted, the one
// nearest to the middle first.
func (b *block) borders() []int {
	var order []int
	for i, r := range b.regs {
		if i > 0 && r.Address != b.regs[i-1].Address {
			order = append(order, i)
		}
	}
	n := len(b.regs)
	sortby.Stable(order, func(x, y int) int {
		return cmp.Compare(max(2*x-n, n-2*x), max(2*y-n, n-2*y))
	})
	return order
}

// others lists quantities that differ from the block's own, in the order in
// which the meter may answer them at the block's address: whole registers
// first. They are many, so that a meter which never answers can be asked for
// another one each time.
func (b *block) others() []uint16 {
	counts := make([]uint16, 0, len(b.regs)+int(b.count)+8)
	for _, r := range b.regs {
		counts = append(counts, uint16(r.end()-int(b.address)))
	}
	for n := int(b.count) - 1; n > 0; n-- {
		counts = append(counts, uint16(n))
	}
	for n := int(b.count) + 1; n <= min(int(b.count)+8, maxRegs, 1<<16-int(b.address)); n++ {
		counts = append(counts, uint16(n))
	}
	return slices.DeleteFunc(counts, func(n uint16) bool { return n == b.count })
}

// bytes gives the part of the block's answer that is r's.
func (b *block) bytes(r *Register, answer []byte) []byte {
	at := 2 * (int(r.Address) - int(b.address))
	return answer[at : at+2*int(r.Len())]
}
