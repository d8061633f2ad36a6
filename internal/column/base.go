package column

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
)

// Base is the last two values of series, for the next body to be foretold by.
// Series go by the numbers of one Dict, which may grow. The zero value is empty.
//
// It is a table of its own, since it is asked for each series of a body up to
// three times: a map takes twice as long.
type Base struct {
	keys   []uint32 // by place
	pasts  []past
	index  []uint32 // by hash: the place and 1, the next ones when it is taken; 0 for none
	factor uint64   // of the hash: odd and random, so that nobody can choose keys that meet
	shift  uint8    // of the hash: what is left are the places of index
}

// past is what a series had last, and the one before where there are two.
type past struct {
	n          uint8
	last, prev uint64 // bits of values
}

// Key names a series: the number of its channel, times 65536, and of its meter.
type Key uint32

// Add makes bits the last value of a series.
func (b *Base) Add(k Key, bits uint64) {
	p := &b.pasts[b.place(uint32(k))]
	*p = past{n: min(p.n+1, 2), last: bits, prev: p.last}
}

// Clear empties it, and keeps its memory.
func (b *Base) Clear() {
	b.keys, b.pasts = b.keys[:0], b.pasts[:0]
	clear(b.index)
}

// Len is how many series it has.
func (b *Base) Len() int { return len(b.keys) }

// find gives the place of a series, or -1 and where in index it belongs.
func (b *Base) find(k uint32) (place, at int) {
	if len(b.index) == 0 {
		return -1, 0
	}
	at = int(uint64(k) * b.factor >> b.shift)
	for ; b.index[at] != 0; at = (at + 1) & (len(b.index) - 1) {
		if place := int(b.index[at] - 1); b.keys[place] == k {
			return place, at
		}
	}
	return -1, at
}

// place gives the place of a series, a new one when it has none.
func (b *Base) place(k uint32) int {
	place, at := b.find(k)
	if place >= 0 {
		return place
	}
	if 2*len(b.keys) >= len(b.index) {
		b.grow()
		_, at = b.find(k)
	}
	b.keys, b.pasts = append(b.keys, k), append(b.pasts, past{})
	b.index[at] = uint32(len(b.keys))
	return len(b.keys) - 1
}

func (b *Base) grow() {
	if b.factor == 0 {
		b.factor = rand.Uint64() | 1
	}
	b.index = make([]uint32, max(64, 2*len(b.index)))
	b.shift = uint8(64 - bits.TrailingZeros(uint(len(b.index))))
	for i, k := range b.keys {
		_, at := b.find(k)
		b.index[at] = uint32(i + 1)
	}
}

// State is what bodies of one stream have beside their bytes.
type State struct {
	// Base foretells the first numbers of series; nil for a body that stands alone.
	Base *Base
	// Keys are the series of the rows that were written or read last, in their
	// order.
	Keys []Key
	// Check is a CRC-32 (IEEE) of what was taken from Base by the body written
	// or read last: of each series in column order that Base has, the bits of
	// its last value and of the one before (0 where there is none), eight bytes
	// each, little endian.
	Check uint32
}

// past gives what a series had.
func (s *State) past(k uint32) past {
	if s == nil || s.Base == nil {
		return past{}
	}
	if place, _ := s.Base.find(k); place >= 0 {
		return s.Base.pasts[place]
	}
	return past{}
}

// appendCheck appends what Check is of.
func (p past) appendCheck(b []byte) []byte {
	if p.n == 0 {
		return b
	}
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, p.last), p.prev)
}
