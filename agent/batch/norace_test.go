//go:build !race

package batch

import (
	"slices"
	"testing"
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
