package column

import "encoding/binary"

// Base is the last two values of series, for the next body to be foretold by.
// Series go by the numbers of one Dict, which may grow. The zero value is empty.
type Base struct {
	series map[uint32]past // by Key
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
	if b.series == nil {
		b.series = map[uint32]past{}
	}
	p := b.series[uint32(k)]
	b.series[uint32(k)] = past{n: min(p.n+1, 2), last: bits, prev: p.last}
}

// Len is how many series it has.
func (b *Base) Len() int { return len(b.series) }

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
	return s.Base.series[k]
}

// appendCheck appends what Check is of.
func (p past) appendCheck(b []byte) []byte {
	if p.n == 0 {
		return b
	}
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, p.last), p.prev)
}
