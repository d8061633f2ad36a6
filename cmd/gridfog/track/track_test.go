package track

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"gridgate/agent/batch"
)

func TestSet(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var s set
		model := map[uint64]bool{}
		for range rapid.IntRange(0, 20).Draw(rt, "adds") {
			first := rapid.Uint64Range(0, 30).Draw(rt, "first")
			last := first + rapid.Uint64Range(0, 5).Draw(rt, "more")
			s.add(first, last)
			for n := first; n <= last; n++ {
				model[n] = true
			}
		}
		for i := 1; i < len(s); i++ {
			if s[i].first <= s[i-1].last+1 {
				rt.Fatalf("stretches touch: %v", s)
			}
		}
		low := rapid.Uint64Range(0, 30).Draw(rt, "low")
		high := low + rapid.Uint64Range(0, 20).Draw(rt, "span")
		var in, out uint64
		for n := uint64(0); n < 60; n++ {
			if s.has(n) != model[n] {
				rt.Fatalf("%d: %v, %v", n, s.has(n), s)
			}
			if n >= low && n <= high {
				if model[n] {
					in++
				} else {
					out++
				}
			}
		}
		gaps := s.gaps(low, high)
		if s.count(low, high) != in || gaps.count(0, math.MaxUint64) != out {
			rt.Fatalf("%v from %d to %d: %d in, gaps %v; want %d and %d", s, low, high, s.count(low, high), gaps, in, out)
		}
	})
	var s set
	s.add(math.MaxUint64, math.MaxUint64)
	s.add(1, math.MaxUint64)
	if len(s) != 1 || !s.has(1) || s.has(0) || len(s.gaps(1, math.MaxUint64)) != 0 {
		t.Error(s)
	}
}

func header() batch.Header {
	return batch.Header{Site: "north", Gateway: "gw-1", Epoch: 7, Lane: batch.Instant}
}

// span is rows with the numbers first to last; the row follows from the number.
func span(first, last uint64, holes ...batch.Hole) batch.Span {
	s := batch.Span{Lane: batch.Instant, Holes: holes, Last: last}
	for n := first; n <= last; n++ {
		s.Rows = append(s.Rows, batch.Row{Meter: "m", Channel: "x", Value: batch.Value{Kind: batch.Uint, Bits: n}, Lane: batch.Instant})
	}
	if len(s.Rows) > 0 {
		s.Runs = []batch.Run{{First: first, Count: last - first + 1}}
	}
	for _, h := range holes {
		s.Last = max(s.Last, h.Last)
	}
	return s
}

func TestTracker(t *testing.T) {
	t.Parallel()
	other := span(3, 3)
	other.Rows[0].Quality = batch.Test
	for name, c := range map[string]struct {
		spans []batch.Span
		want  Totals // Batches is filled in
	}{
		"in order":          {[]batch.Span{span(1, 5), span(6, 9)}, Totals{Delivered: 9}},
		"twice":             {[]batch.Span{span(1, 5), span(3, 9)}, Totals{Delivered: 9, Duplicates: 3}},
		"gap":               {[]batch.Span{span(1, 5), span(8, 9)}, Totals{Delivered: 7, Missing: 2}},
		"gap at the start":  {[]batch.Span{span(3, 5)}, Totals{Delivered: 3, Missing: 2}},
		"late":              {[]batch.Span{span(1, 5), span(8, 9), span(6, 7)}, Totals{Delivered: 9, OutOfOrder: 2}},
		"declared":          {[]batch.Span{span(1, 5), span(8, 9, batch.Hole{First: 6, Last: 7, Count: 2})}, Totals{Delivered: 7}},
		"declared in part":  {[]batch.Span{span(1, 5), span(8, 9, batch.Hole{First: 6, Last: 6, Count: 2})}, Totals{Delivered: 7, Missing: 1}},
		"declared too much": {[]batch.Span{span(1, 5), {Lane: batch.Instant, Holes: []batch.Hole{{First: 4, Last: 6}}, Last: 6}}, Totals{Delivered: 5}},
		"missing behind":    {[]batch.Span{span(1, 5), {Lane: batch.Instant, Holes: []batch.Hole{{First: 9, Last: 9}}, Last: 9}}, Totals{Delivered: 5, Missing: 3}},
		"conflict":          {[]batch.Span{span(1, 5), other}, Totals{Delivered: 5, Conflicts: 1}},
	} {
		tr := New(Options{FromStart: true})
		conflicts := 0
		for _, s := range c.spans {
			_, bad := tr.Add(header(), s)
			conflicts += len(bad)
		}
		c.want.Batches = uint64(len(c.spans))
		if got := tr.Totals(); got != c.want || uint64(conflicts) != c.want.Conflicts {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestStreamsAreApart(t *testing.T) {
	t.Parallel()
	tr := New(Options{})
	h := header()
	tr.Add(h, span(5, 6))
	h.Epoch++
	tr.Add(h, span(5, 8))
	h.Gateway = "gw-2"
	tr.Add(h, span(5, 5, batch.Hole{First: 6, Last: 9, Count: 40}))
	sum := tr.Summary()
	if sum.Delivered != 7 || sum.Duplicates+sum.Missing+sum.Conflicts != 0 || tr.Gateways() != 2 || len(sum.Lanes) != 3 {
		t.Errorf("%+v", sum)
	}
	want := Lane{Site: "north", Gateway: "gw-2", Epoch: "0000000000000008", Lane: "instant", First: 5, Last: 9, Rows: 1, Holes: 4, Lost: 40}
	if sum.Lanes[2] != want {
		t.Errorf("%+v, want %+v", sum.Lanes[2], want)
	}
	b, err := json.Marshal(sum)
	if err != nil || !strings.HasPrefix(string(b), `{"lanes":[{"site":"north","gateway":"gw-1","epoch":"0000000000000007","lane":"instant","first":5,"last":6,"rows":2,"missing":0,`) ||
		!strings.HasSuffix(string(b), `"delivered":7,"duplicates":0,"missing":0,"conflicts":0,"out_of_order":0,"batches":3,"undecoded":0}`) {
		t.Errorf("%s, %v", b, err)
	}
}

func TestMemoryOfRowsIsBounded(t *testing.T) {
	t.Parallel()
	tr := New(Options{Remember: 10})
	for n := uint64(1); n <= 100; n++ {
		tr.Add(header(), span(n, n))
	}
	for _, s := range tr.streams {
		if len(s.hashes) != 10 || len(s.ring) != 10 {
			t.Errorf("%d hashes, %d in the ring", len(s.hashes), len(s.ring))
		}
	}
	changed := span(91, 91)
	changed.Rows[0].Value.Bits = 0
	forgotten := span(90, 90)
	forgotten.Rows[0].Value.Bits = 0
	tr.Add(header(), changed)
	tr.Add(header(), forgotten)
	if got := tr.Totals(); got.Conflicts != 1 || got.Duplicates != 1 {
		t.Errorf("%+v", got)
	}
}

func TestReceiverWaitsForTheCatalogue(t *testing.T) {
	t.Parallel()
	c := batch.NewCatalogue()
	s := span(1, 3)
	c.Add(s.Rows)
	payload, err := batch.Append(nil, header(), s, c)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := c.AppendBinary(nil)
	r := NewReceiver(New(Options{FromStart: true}))
	take := func(topic string, payload []byte, want int, wantErr string) {
		t.Helper()
		got, err := r.Take(topic, payload)
		if len(got) != want || (err == nil) != (wantErr == "") || err != nil && !strings.Contains(err.Error(), wantErr) {
			t.Errorf("%s: %d rows, %v; want %d and %q", topic, len(got), err, want, wantErr)
		}
	}
	take("gridgate/1/site-4/gw-17/up/firmware", []byte(`{"slot":"a"}`), 0, "") // is not for it, and nothing is wrong with it
	if got := r.Tracker.Totals(); got.Undecoded != 0 {
		t.Errorf("%+v", got)
	}
	const up = "gridgate/1/north/gw-1/up/"
	catalogue := up + "catalog/" + c.Hash().String()
	take(up+"state", []byte(`{"state":"online"}`), 0, "")
	take(up+"readings/instant", payload, 0, "")
	if r.Waiting() != 1 || r.Summary().Undecoded != 1 || r.Online() != 1 {
		t.Errorf("%d wait, %d online, %+v", r.Waiting(), r.Online(), r.Summary())
	}
	take("gridgate/1/north/gw-2/up/readings/instant", payload, 0, "a batch of north/gw-1, lane instant, under another name")
	take(up+"readings/alarm", payload, 0, "under another name")
	clear(payload[len(payload)-1:]) // the receiver keeps a copy
	take(up+"catalog/0123456789abcdef", raw, 0, "catalogue is "+c.Hash().String())
	take(catalogue, raw, 3, "")
	take(catalogue, nil, 0, "")
	take(up+"readings/instant", []byte("no batch"), 0, "corrupt")
	take(up+"audit", []byte("?"), 0, "")
	take("gridgate/1/NORTH/gw-1/up/state", []byte("?"), 0, "id")
	bad := span(2, 2)
	bad.Rows[0].Quality = batch.Test
	c.Add(bad.Rows)
	payload, _ = batch.Append(nil, header(), bad, c)
	take(up+"readings/instant", payload, 0, "number 2 came before with another row")
	if got := r.Summary(); r.Waiting() != 0 || got.Delivered != 3 || got.Undecoded != 5 || got.Conflicts != 1 {
		t.Errorf("%+v", got)
	}
}

func TestWhatWaitsIsBounded(t *testing.T) {
	t.Parallel()
	r := NewReceiver(New(Options{}))
	c := batch.NewCatalogue()
	for i := range maxWaiting + 5 {
		s := span(1, 1)
		s.Rows[0].Meter = batch.ID(fmt.Sprint(i % 10))
		c.Add(s.Rows)
		b, err := batch.Append(nil, header(), s, c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Take("gridgate/1/north/gw-1/up/readings/instant", b); err != nil {
			t.Fatal(err)
		}
	}
	if r.Waiting() != maxWaiting || r.Tracker.Totals().Undecoded != 5 {
		t.Errorf("%d wait, %+v", r.Waiting(), r.Tracker.Totals())
	}
}

func TestReadingAsJSON(t *testing.T) {
	t.Parallel()
	fresh, _ := New(Options{}).Add(header(), span(4, 4))
	const want = `{"meter":"m","serial":"","channel":"x","time":"1970-01-01T00:00:00.000Z","value":4,"unit":"","quality":"good","lane":"instant","sequence":4,"site":"north","gateway":"gw-1"}`
	if got := string(fresh[0].AppendJSON(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
