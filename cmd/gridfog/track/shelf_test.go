package track

import (
	"fmt"
	"testing"

	"gridgate/agent/batch"
)

// TestCataloguesAreBounded: what was used least recently gives way, by number and
// by size.
func TestCataloguesAreBounded(t *testing.T) {
	t.Parallel()
	var all []*batch.Catalogue
	for i := range 6 {
		c := batch.NewCatalogue()
		c.Add([]batch.Row{{Meter: batch.ID(fmt.Sprintf("m%d", i)), Channel: "1-0:1.8.0*255/3:2"}})
		all = append(all, c)
	}
	s := newShelf(3, 100)
	for _, c := range all[:3] {
		s.put(c, 10)
	}
	s.put(all[1], 10) // it is there already
	if s.get(all[0].Hash()) != all[0] {
		t.Error("it is gone")
	}
	s.put(all[3], 10) // 1 and 0 were used since 2 was put
	for i, there := range []bool{true, true, false, true} {
		if (s.get(all[i].Hash()) != nil) != there {
			t.Errorf("catalogue %d is there: %v", i, !there)
		}
	}
	s.put(all[4], 95)
	if len(s.by) != 1 || s.bytes != 95 || s.get(all[4].Hash()) == nil {
		t.Errorf("%d are there with %d bytes", len(s.by), s.bytes)
	}
	s.put(all[5], 1000) // the only one stays, however long
	if len(s.by) != 1 || s.bytes != 1000 || s.get(all[5].Hash()) == nil {
		t.Errorf("%d are there with %d bytes", len(s.by), s.bytes)
	}
	r := NewReceiver(New(Options{}))
	for _, c := range all {
		r.Know(c)
	}
	if len(r.catalogues.by) != 6 {
		t.Errorf("%d of 6 are known", len(r.catalogues.by))
	}
}
