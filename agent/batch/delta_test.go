package batch

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"gridgate/internal/column/columntest"
	"gridgate/internal/meter"
)

// lane numbers the rows of an instant lane.
type lane struct{ next uint64 }

func (l *lane) span(rows []Row) Span {
	if l.next == 0 {
		l.next = 1
	}
	s := Span{Lane: Instant, Rows: rows, Runs: []Run{{First: l.next, Count: uint64(len(rows))}}}
	l.next += uint64(len(rows))
	s.Last = l.next - 1
	return s
}

func instant() Header {
	h := header()
	h.Lane = Instant
	return h
}

func mustEncode(t testing.TB, e *Encoder, s Span, c *Catalogue) []byte {
	t.Helper()
	c.Add(s.Rows)
	b, err := e.Append(nil, instant(), s, c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func copySpan(s Span) Span {
	s.Rows, s.Runs, s.Holes = slices.Clone(s.Rows), slices.Clone(s.Runs), slices.Clone(s.Holes)
	return s
}

func TestDeltaMode(t *testing.T) {
	t.Parallel()
	w := columntest.NewWalk(1, 50, columntest.Int)
	e, c, l, d := NewEncoder(3), NewCatalogue(), lane{}, Decoder{}
	var sizes []int
	for range 9 {
		s := l.span(w.Round())
		b := mustEncode(t, e, s, c)
		sizes = append(sizes, len(b))
		_, got, err := d.Parse(b, known(c))
		if err != nil || !cmp.Equal(s, got) {
			t.Fatalf("%v\n%s", err, cmp.Diff(s, got))
		}
		e.Confirmed(header().Epoch, s.Last)
	}
	for i, n := range sizes {
		if key := i%4 == 0; key != (n > sizes[0]*9/10) {
			t.Errorf("batch %d: %d bytes of %v: a key frame should come every fourth", i, n, sizes)
		}
	}
}

// TestLostBase tells what happens when the fog has lost what a batch is a delta
// against.
func TestLostBase(t *testing.T) {
	t.Parallel()
	w := columntest.NewWalk(1, 20, columntest.Int)
	e, c, l := NewEncoder(DefaultKeyEvery), NewCatalogue(), lane{}
	first := l.span(w.Round())
	key := mustEncode(t, e, first, c)
	e.Confirmed(header().Epoch, first.Last)
	second := l.span(w.Round())
	against := mustEncode(t, e, second, c)

	var d Decoder // of a fog that began anew
	h, got, err := d.Parse(against, known(c))
	var unknown *UnknownBaseError
	if !errors.As(err, &unknown) || *unknown != (UnknownBaseError{1, 220}) || h.Gateway != "gw-7" || !cmp.Equal(got.Runs, second.Runs) || got.Rows != nil {
		t.Fatalf("%v, %+v, %+v", err, h, got)
	}
	if h, err := ParseHeader(against); err != nil || h.Gateway != "gw-7" || h.Lane != Instant {
		t.Errorf("its header: %+v, %v", h, err)
	}
	if _, _, err := Parse(against, known(c)); !errors.As(err, &unknown) {
		t.Errorf("a reader that keeps nothing: %v", err)
	}
	// It asks for the numbers, and they come in a batch that stands alone.
	e.Restart()
	again := mustEncode(t, e, second, c)
	if _, got, err = d.Parse(again, known(c)); err != nil || !cmp.Equal(second, got) {
		t.Fatal(err)
	}
	e.Confirmed(header().Epoch, second.Last)
	third := l.span(w.Round())
	b := mustEncode(t, e, third, c)
	if _, got, err = d.Parse(b, known(c)); err != nil || !cmp.Equal(third, got) {
		t.Errorf("the delta after it: %v", err)
	}
	if len(b) > len(key)*9/10 {
		t.Errorf("%d bytes after a key frame of %d: no delta", len(b), len(key))
	}
	// What is confirmed and sent again stands alone too.
	if _, got, err = Parse(mustEncode(t, e, first, c), known(c)); err != nil || !cmp.Equal(first, got) {
		t.Errorf("sent again: %v", err)
	}
	if _, got, err = d.Parse(b, known(c)); err != nil || !cmp.Equal(third, got) {
		t.Errorf("the delta a second time: %v", err)
	}
}

// TestAnotherBaseIsNoticed forges what a batch says it is against.
func TestAnotherBaseIsNoticed(t *testing.T) {
	t.Parallel()
	w := columntest.NewWalk(1, 5, columntest.Int)
	e, c, l, d := NewEncoder(9), NewCatalogue(), lane{}, Decoder{}
	first := l.span(w.Round())
	mustEncode(t, e, first, c)
	e.Confirmed(header().Epoch, first.Last)
	other := copySpan(first)
	other.Rows[7].Value.Bits++
	h := instant()
	forged, err := NewEncoder(9).Append(nil, h, other, c)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.Parse(forged, known(c)); err != nil {
		t.Fatal(err)
	}
	var unknown *UnknownBaseError
	if _, got, err := d.Parse(mustEncode(t, e, l.span(w.Round()), c), known(c)); !errors.As(err, &unknown) || got.Rows != nil {
		t.Errorf("%v, %d rows", err, len(got.Rows))
	}
}

// TestLossNeverGivesWrongValues is a gateway and a fog with batches that are
// lost, doubled and late between them, and both starting anew at times: each
// batch that is decoded is what was written, and the fog has every row in the end.
func TestLossNeverGivesWrongValues(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		e, c := NewEncoder(rapid.IntRange(1, 4).Draw(rt, "key every")), NewCatalogue()
		e.stride = rapid.SampledFrom([]uint64{1, 20, defaultStride}).Draw(rt, "stride")
		var d Decoder
		var rows []Row // by number, from 1 on; holes have no meter
		stored := map[uint64]Row{}
		holes := map[uint64]bool{}
		confirmed := uint64(0)
		var wire [][]byte
		hashes := map[Hash]*Catalogue{}
		find := func(h Hash) *Catalogue { return hashes[h] }
		span := func(first, last uint64) Span {
			s := Span{Lane: Instant, Last: last}
			for n := first; n <= last; n++ {
				r := rows[n-1]
				if r.Meter == "" {
					s.Holes = append(s.Holes, Hole{First: n, Last: n, Reason: Quota})
					continue
				}
				if k := len(s.Runs); k > 0 && s.Runs[k-1].First+s.Runs[k-1].Count == n {
					s.Runs[k-1].Count++
				} else {
					s.Runs = append(s.Runs, Run{First: n, Count: 1})
				}
				s.Rows = append(s.Rows, r)
			}
			return s
		}
		send := func(first, last uint64) {
			s := span(first, last)
			c.Add(s.Rows)
			raw, _ := c.AppendBinary(nil)
			if hashes[c.Hash()] == nil {
				back, err := ParseCatalogue(raw)
				if err != nil {
					rt.Fatal(err)
				}
				hashes[c.Hash()] = back
			}
			b, err := e.Append(nil, instant(), s, c)
			if err != nil {
				rt.Fatal(err)
			}
			wire = append(wire, b)
		}
		receive := func(b []byte) {
			_, s, err := d.Parse(b, find)
			var unknown *UnknownBaseError
			if err != nil && !errors.As(err, &unknown) {
				rt.Fatal(err)
			}
			if err != nil {
				if len(s.Rows) > 0 || len(s.Runs) == 0 {
					rt.Fatalf("%v: %+v", err, s)
				}
				return // the fog lacks the numbers of s.Runs and knows it
			}
			i := 0
			for _, r := range s.Runs {
				for n := r.First; n < r.First+r.Count; n++ {
					if s.Rows[i] != rows[n-1] {
						rt.Fatalf("number %d is %+v, want %+v", n, s.Rows[i], rows[n-1])
					}
					stored[n] = s.Rows[i]
					i++
				}
			}
			for _, h := range s.Holes {
				for n := h.First; n <= h.Last; n++ {
					holes[n] = true
				}
			}
		}
		has := func(n uint64) bool { _, ok := stored[n]; return ok || holes[n] }
		sent := uint64(0)
		newRow := func() Row {
			bits := rapid.OneOf(rapid.Uint64Range(1000, 1100), rapid.SampledFrom([]uint64{
				0, math.MaxUint64, uint64(math.Float32bits(230.1)), uint64(math.Float32bits(230.2)), math.Float64bits(math.NaN()), math.Float64bits(0.1),
			})).Draw(rt, "bits")
			return Row{
				Meter: ID(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "meter")), Channel: Channel(rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "channel")),
				Value: Value{Kind: rapid.SampledFrom([]Kind{Int, Float32, Float64}).Draw(rt, "kind"), Bits: bits}, Lane: Instant,
			}
		}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"rows", "rows", "deliver", "deliver", "deliver", "lose", "double", "confirm", "confirm", "reconnect", "gateway", "fog", "resend"}).Draw(rt, "what") {
			case "rows":
				for range rapid.IntRange(1, 30).Draw(rt, "rows") {
					if rapid.IntRange(0, 9).Draw(rt, "hole") == 0 {
						rows = append(rows, Row{})
					} else {
						rows = append(rows, newRow())
					}
				}
				send(sent+1, uint64(len(rows)))
				sent = uint64(len(rows))
			case "deliver":
				if len(wire) > 0 {
					i := rapid.IntRange(0, min(2, len(wire)-1)).Draw(rt, "which")
					receive(wire[i])
					wire = slices.Delete(wire, i, i+1)
				}
			case "lose":
				if len(wire) > 0 {
					wire = wire[1:]
				}
			case "double":
				if len(wire) > 0 {
					receive(wire[0])
				}
			case "confirm":
				for has(confirmed + 1) {
					confirmed++
				}
				e.Confirmed(header().Epoch, confirmed)
			case "reconnect": // what is not confirmed is cut anew
				sent = confirmed
				for sent < uint64(len(rows)) {
					to := min(uint64(len(rows)), sent+uint64(rapid.IntRange(1, 20).Draw(rt, "cut")))
					send(sent+1, to)
					sent = to
				}
			case "gateway":
				e = NewEncoder(2)
				c = NewCatalogue()
			case "fog":
				d = Decoder{}
			case "resend":
				if confirmed > 0 {
					first := rapid.Uint64Range(1, confirmed).Draw(rt, "first")
					send(first, rapid.Uint64Range(first, confirmed).Draw(rt, "last"))
				}
			}
		}
		// The link holds at last: the fog gets all that it lacks.
		wire = nil
		e.Restart()
		for confirmed < uint64(len(rows)) {
			send(confirmed+1, min(uint64(len(rows)), confirmed+25))
			receive(wire[len(wire)-1])
			if !has(confirmed + 1) {
				rt.Fatalf("number %d came in a key frame and is not there", confirmed+1)
			}
			for has(confirmed + 1) {
				confirmed++
			}
		}
	})
}

// TestEncoderIsBounded leaves everything unconfirmed.
func TestEncoderIsBounded(t *testing.T) {
	t.Parallel()
	e, c, l := NewEncoder(9), NewCatalogue(), lane{}
	for i := range 20 {
		rows := make([]Row, 10_000)
		for k := range rows {
			rows[k] = Row{Meter: ID(fmt.Sprint("m", k)), Channel: "x", Value: Value{Kind: Int, Bits: uint64(i * k)}, Lane: Instant}
		}
		s := l.span(rows)
		mustEncode(t, e, s, c)
		if len(e.pending) > maxUnconfirmed {
			t.Fatalf("%d rows unconfirmed", len(e.pending))
		}
		if i == 10 {
			e.Confirmed(header().Epoch, s.Last)
		}
	}
}

// TestDecoderIsBounded gives it batches that never are a base, with gaps.
func TestDecoderIsBounded(t *testing.T) {
	t.Parallel()
	c, e := NewCatalogue(), NewEncoder(9)
	var d Decoder
	for i := range 3000 {
		rows := make([]Row, 40)
		for k := range rows {
			rows[k] = Row{Meter: "m", Channel: "x", Value: meter.IntValue(int64(k), 0), Lane: Instant}
		}
		c.Add(rows)
		s := Span{Lane: Instant, Rows: rows, Runs: []Run{{First: uint64(1 + 50*i), Count: 40}}, Last: uint64(40 + 50*i)}
		b, err := e.Append(nil, instant(), s, c)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := d.Parse(b, known(c)); err != nil {
			t.Fatal(err)
		}
		if len(d.seen) > maxSeen || len(d.covered) > maxCovered {
			t.Fatalf("%d rows, %d stretches", len(d.seen), len(d.covered))
		}
	}
}

// FuzzDecoder takes any bytes for a catalogue and some batches of one stream. What
// a Decoder reads, in delta mode or not, can be written again as the same.
func FuzzDecoder(f *testing.F) {
	w, e, c, l := columntest.NewWalk(seed, 3, columntest.Int), NewEncoder(9), NewCatalogue(), lane{}
	var batches [3][]byte
	for i := range batches {
		s := l.span(w.Round())
		batches[i] = mustEncode(f, e, s, c)
		e.Confirmed(header().Epoch, s.Last)
	}
	raw, err := c.AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw, batches[0], batches[1], batches[2])
	f.Add(raw, batches[1], batches[0], batches[1])
	f.Fuzz(func(t *testing.T, raw, b0, b1, b2 []byte) {
		c, err := ParseCatalogue(raw)
		if err != nil {
			return
		}
		var d Decoder
		for _, b := range [][]byte{b0, b1, b2} {
			h, s, err := d.Parse(b, func(Hash) *Catalogue { return c })
			if err != nil {
				continue
			}
			again := NewCatalogue()
			again.Add(s.Rows)
			b2, err := Append(nil, h, s, again)
			if err != nil {
				t.Fatalf("what was read cannot be written: %v", err)
			}
			if _, s2, err := Parse(b2, known(again)); err != nil || !slices.Equal(s.Rows, s2.Rows) {
				t.Fatalf("%v\n%s", err, cmp.Diff(s, s2))
			}
		}
	})
}

// isDelta says whether a batch is a delta.
func isDelta(t testing.TB, b []byte) bool {
	t.Helper()
	var e envelope
	if err := e.parse(b); err != nil {
		t.Fatal(err)
	}
	return e.delta.since > 0
}

// TestUnderWay has several batches under way at once.
func TestUnderWay(t *testing.T) {
	t.Parallel()
	w := columntest.NewWalk(seed, 5, columntest.Int)
	e, c, l, d := NewEncoder(DefaultKeyEvery), NewCatalogue(), lane{}, Decoder{}
	var batches [][]byte
	var written []Span
	write := func(delta bool) {
		t.Helper()
		s := l.span(w.Round())
		b := mustEncode(t, e, s, c)
		if isDelta(t, b) != delta {
			t.Fatalf("batch %d is a delta: %v", len(batches), !delta)
		}
		batches, written = append(batches, b), append(written, s)
	}
	read := func(i int) {
		t.Helper()
		if _, got, err := d.Parse(batches[i], known(c)); err != nil || !cmp.Equal(written[i], got) {
			t.Fatalf("batch %d: %v", i, err)
		}
	}
	confirm := func(i int) { e.Confirmed(header().Epoch, written[i].Last) }
	write(false)
	read(0)
	e.Restart() // what came before does not count
	write(false)
	read(1)
	confirm(1)
	write(true)
	write(true)
	read(2)
	confirm(2)
	write(true) // still against batch 1, since batch 3 is
	read(4)
	read(3)
	confirm(4)
	if b := mustEncode(t, e, written[2], c); isDelta(t, b) {
		t.Error("what is sent again is a delta")
	}
	write(true) // all the same
	read(5)
	// Cut anew after a lost connection, across what was written already.
	again := Span{
		Lane: Instant, Rows: written[5].Rows[10:],
		Runs: []Run{{First: written[5].Runs[0].First + 10, Count: uint64(len(written[5].Rows) - 10)}}, Last: written[5].Last,
	}
	if b := mustEncode(t, e, again, c); !isDelta(t, b) {
		t.Error("what was cut anew is no delta")
	}
	confirm(5)
	write(true)
	read(6)
	confirm(6)
	l.next += 10 // nobody says what became of these numbers
	write(false)
	read(7)
}
