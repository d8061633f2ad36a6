//go:build !race

package batch

import (
	"runtime"
	"slices"
	"testing"

	"gridgate/internal/column/columntest"
)

const raceDetector = false

// TestSteadyStateAllocates is not parallel: it counts what the process
// allocates. The race detector allocates too, so that it is not there.
func TestSteadyStateAllocates(t *testing.T) {
	for name, load := range loads() {
		all, c, e := spans(load.meters/10+1, load.rows), NewCatalogue(), NewEncoder(load.keyEvery)
		c.Add(all[0].Rows)
		h, dst, i := instant(), []byte(nil), 0
		var batches [][]byte
		encode := func() {
			var err error
			if dst, err = e.Append(dst[:0], h, all[i], c); err != nil {
				t.Fatal(err)
			}
			e.Confirmed(h.Epoch, all[i].Last)
			i++
		}
		for range 4 {
			encode()
			batches = append(batches, slices.Clone(dst))
		}
		if n := testing.AllocsPerRun(3, encode); n > 1 {
			t.Errorf("%s: encoding allocates %v times", name, n)
		}
		var d Decoder
		find, k := known(c), 0
		decode := func() {
			if _, _, err := d.Parse(batches[k%len(batches)], find); err != nil {
				t.Fatal(err)
			}
			k++
		}
		for range 4 {
			decode()
		}
		d.forget()
		decode()
		if n := testing.AllocsPerRun(2, decode); n > 1 {
			t.Errorf("%s: decoding allocates %v times", name, n)
		}
	}
}

// TestMemoryOfDeltaMode holds an Encoder and a Decoder of 1,000 meters with 11
// values each to what their comments say. It is not parallel: it looks at the heap.
func TestMemoryOfDeltaMode(t *testing.T) {
	heap := func() float64 {
		runtime.GC()
		runtime.GC() // pools are emptied by the second
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / 1e6
	}
	all, c := spans(1000, (*columntest.Walk).Round), NewCatalogue()
	c.Add(all[0].Rows)
	c.Hash()
	var batches [][]byte
	e := NewEncoder(DefaultKeyEvery)
	for _, s := range all {
		b, err := e.Append(nil, instant(), s, c)
		if err != nil {
			t.Fatal(err)
		}
		batches = append(batches, b)
		if s.Last != all[len(all)-1].Last {
			e.Confirmed(header().Epoch, s.Last)
		}
	}
	with := heap()
	*e = Encoder{}
	without := heap()
	encoder := with - without
	d := &Decoders{}
	for _, b := range batches {
		if _, _, err := d.Parse(b, known(c)); err != nil {
			t.Fatal(err)
		}
	}
	with = heap()
	d.d.span = Span{} // is shared by all streams
	stream := heap() - without
	runtime.KeepAlive(d)
	t.Logf("an Encoder takes %.2f MB, Decoders %.2f MB of which a stream %.2f MB", encoder, with-without, stream)
	if encoder > 3 || stream > 5 {
		t.Errorf("an Encoder takes %.2f MB, a stream at the fog %.2f MB", encoder, stream)
	}
}
