package batch

import (
	"fmt"
	"slices"

	"gridgate/internal/column"
)

// UnknownBaseError says that a batch is a delta against rows that are not known
// here: those numbered from Since through Through. Nothing of it was decoded;
// Header, Runs and Holes are valid with it. Unless you have the numbers of Runs
// already, ask the gateway to send them again: they come in batches that stand
// alone, and so does what follows them.
type UnknownBaseError struct{ Since, Through uint64 }

func (e *UnknownBaseError) Error() string {
	return fmt.Sprintf("a delta against the rows %d to %d, which are not all known", e.Since, e.Through)
}

// What a Decoder remembers at most beside its base.
const (
	maxSeen    = 4 * MaxRows
	maxCovered = 1024
)

// Decoder reads the batches of one lane of one gateway, also those in delta
// mode; see Encoder. It reuses its memory: a Span and what is in it, but for
// texts, is valid until the next call. The zero value is ready. It is not safe
// for concurrent use.
//
// It may be given batches in any order and more than once, and of some never:
// a batch is decoded to what was written, or is an error. A batch of another
// stream makes it forget all, so that it needs the next key frame. It takes up to
// 5 MB in delta mode. Decoders reads any number of lanes.
type Decoder struct {
	memory
	span  Span
	state column.State
}

// memory is what a Decoder knows of its stream.
type memory struct {
	stream    Header
	catalogue *Catalogue // the largest
	since     uint64
	through   uint64
	base      *column.Base
	seen      []pending // rows above through
	covered   []Run     // numbers above through that were in runs and holes; rising, apart
}

// Parse is like the function Parse, for batches in delta mode too.
func (d *Decoder) Parse(b []byte, find func(Hash) *Catalogue) (Header, Span, error) {
	e, err := d.open(b)
	if err != nil {
		return Header{}, Span{}, err
	}
	return d.read(&e, find)
}

// open reads all of a batch but its rows.
func (d *Decoder) open(b []byte) (envelope, error) {
	e := envelope{header: d.stream, span: Span{Runs: d.span.Runs[:0], Holes: d.span.Holes[:0]}}
	err := e.parse(b)
	d.span.Runs, d.span.Holes = e.span.Runs, e.span.Holes
	if err != nil {
		return envelope{}, fmt.Errorf("batch: %w", err)
	}
	return e, nil
}

// read reads the rows.
func (d *Decoder) read(e *envelope, find func(Hash) *Catalogue) (Header, Span, error) {
	c := d.follow(e.header, find)
	if c == nil && e.body != nil {
		return e.header, Span{}, fmt.Errorf("batch: %w", &UnknownCatalogueError{e.header.Catalogue})
	}
	d.state.Base = nil
	if e.delta.since > 0 {
		if !d.move(e.delta) {
			return e.header, e.span, fmt.Errorf("batch: %w", &UnknownBaseError{e.delta.since, e.delta.through})
		}
		d.state.Base = d.base
	}
	if err := e.rows(d.span.Rows[:0], c, &d.state); err != nil {
		return e.header, e.span, fmt.Errorf("batch: %w", err)
	}
	if e.span.Rows != nil {
		d.span.Rows = e.span.Rows
	}
	if e.delta.kept {
		d.learn(&e.span)
	}
	return e.header, e.span, nil
}

// follow finds the catalogue of a batch, and forgets what another stream or
// another catalogue said.
func (d *memory) follow(h Header, find func(Hash) *Catalogue) *Catalogue {
	was := d.stream
	was.Catalogue = h.Catalogue
	if was != h {
		d.forget()
		d.catalogue = nil
	}
	d.stream = h
	if d.catalogue != nil && d.catalogue.Hash() == h.Catalogue {
		return d.catalogue
	}
	c := find(h.Catalogue)
	switch {
	case c == nil || d.catalogue != nil && d.catalogue.grewFrom(c):
	case d.catalogue == nil || c.grewFrom(d.catalogue):
		d.catalogue = c
	default:
		d.forget()
		d.catalogue = c
	}
	return c
}

func (d *memory) forget() {
	d.since, d.through, d.seen, d.covered = 0, 0, d.seen[:0], d.covered[:0]
}

// move makes the base that of a delta, if it can.
func (d *memory) move(to delta) bool {
	if d.base != nil && d.since == to.since && d.through == to.through {
		return true
	}
	on := d.base != nil && d.since == to.since && d.through < to.through
	from := to.since
	if on {
		from = d.through + 1
	}
	if !slices.ContainsFunc(d.covered, func(r Run) bool { return r.First <= from && to.through < r.First+r.Count }) {
		return false
	}
	if !on {
		d.base, d.since = cleared(d.base), to.since
	}
	slices.SortStableFunc(d.seen, func(a, b pending) int {
		switch {
		case a.number < b.number:
			return -1
		case a.number > b.number:
			return 1
		}
		return 0
	})
	d.through = to.through
	rest, last := d.seen[:0], uint64(0)
	for _, p := range d.seen {
		switch {
		case p.number > to.through:
			rest = append(rest, p)
		case p.number >= from && p.number != last:
			d.base.Add(p.key, p.bits)
		}
		last = p.number
	}
	d.seen = rest
	d.cover(1, to.through)
	if r := &d.covered[0]; r.Count > to.through {
		r.First, r.Count = to.through+1, r.Count-to.through
	} else {
		d.covered = d.covered[1:]
	}
	if d.base.Len() > maxSeries {
		d.forget()
		return false
	}
	return true
}

// learn keeps what a batch had.
func (d *Decoder) learn(s *Span) {
	row := 0
	for _, r := range s.Runs {
		for n := r.First; n < r.First+r.Count; n++ {
			if n > d.through {
				d.seen = append(d.seen, pending{n, s.Rows[row].Value.Bits, d.state.Keys[row]})
			}
			row++
		}
		d.cover(r.First, r.First+r.Count-1)
	}
	for _, h := range s.Holes {
		d.cover(h.First, h.Last)
	}
	if len(d.seen) > maxSeen || len(d.covered) > maxCovered {
		d.seen, d.covered = d.seen[:0], d.covered[:0]
	}
}

// cover says that all numbers from first to last were in runs or holes.
func (d *memory) cover(first, last uint64) {
	i, _ := slices.BinarySearchFunc(d.covered, first, func(r Run, first uint64) int {
		if r.First+r.Count < first { // not even beside it
			return -1
		}
		return 1
	})
	j := i
	for ; j < len(d.covered) && d.covered[j].First <= last+1; j++ {
		first = min(first, d.covered[j].First)
		last = max(last, d.covered[j].First+d.covered[j].Count-1)
	}
	d.covered = slices.Replace(d.covered, i, j, Run{First: first, Count: last - first + 1})
}
