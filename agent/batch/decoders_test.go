package batch

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gridgate/internal/column/columntest"
)

// TestDecoders mixes the streams of gateways in and out of delta mode, more than
// are remembered.
func TestDecoders(t *testing.T) {
	t.Parallel()
	const gateways = 4
	d := Decoders{Limit: 3}
	var all [gateways]struct {
		e *Encoder
		c *Catalogue
		l lane
		w *columntest.Walk
	}
	for i := range all {
		g := &all[i]
		g.e, g.c, g.w = NewEncoder(9*min(i, 1)), NewCatalogue(), columntest.NewWalk(uint64(i), 5, columntest.Int)
	}
	send := func(i int) error {
		g, h := &all[i], instant()
		h.Gateway = fmt.Sprint("gw-", i)
		s := g.l.span(g.w.Round())
		g.c.Add(s.Rows)
		b, err := g.e.Append(nil, h, s, g.c)
		if err != nil {
			t.Fatal(err)
		}
		back, got, err := d.Parse(b, known(g.c))
		if err == nil && (back.Gateway != h.Gateway || !cmp.Equal(s, got)) {
			t.Fatalf("gateway %d: %s", i, cmp.Diff(s, got))
		}
		g.e.Confirmed(h.Epoch, s.Last)
		return err
	}
	for round := range 5 {
		for i := range all {
			if err := send(i); err != nil {
				t.Fatalf("round %d, gateway %d: %v", round, i, err)
			}
		}
	}
	if len(d.streams) != 3 || len(d.others.seen) != 0 {
		t.Errorf("%d streams, %d rows of the one that is not in delta mode", len(d.streams), len(d.others.seen))
	}
	d.Limit = 2
	d.stream(streamName{"site", "gw-9", Instant})
	var unknown *UnknownBaseError
	if err := send(1); !errors.As(err, &unknown) {
		t.Errorf("the one that was silent longest: %v", err)
	}
}
