package batch

import "gridgate/internal/column"

// What an Encoder in delta mode remembers at most: rows that the fog has not
// confirmed, and series. With more it begins anew with batches that stand alone.
const (
	maxUnconfirmed = 2 * MaxRows
	maxSeries      = 2 * MaxRows
	// defaultStride is how many rows more are confirmed when what batches are a
	// delta against moves on though not all that was written against it is.
	defaultStride = MaxRows / 4
)

// DefaultKeyEvery is a key frame a day where a quarter of an hour makes a round.
const DefaultKeyEvery = 96

// Encoder writes the batches of one lane. In delta mode it writes them against
// the last values that the fog has confirmed to have stored; that needs a fog
// that confirms, and says so with Confirmed.
//
// A batch in delta mode names what it is a delta against: of each series the
// last value, and the one before, among the rows numbered from since through
// through, all of which the fog has confirmed. So the meaning of a batch hangs
// on rows alone, not on how they were cut into batches nor on what came twice or
// in another order. Batches that stand alone, the key frames, come first, after
// Restart, where numbers were left out, when the catalogue starts anew, when
// more is unconfirmed than fits, for what is sent again, and every so often.
//
// What is named is moved forward when the fog has confirmed all that was written
// against it, and in a long drain, where that never comes, now and then: a Decoder
// keeps one state, and what was written against the one before comes first.
//
// An Encoder does the same for the same calls. It takes up to 3 MB in delta mode
// (32,768 series and unconfirmed rows), and is not safe for concurrent use.
type Encoder struct {
	keyEvery int
	stride   uint64
	w        writer

	dict      *column.Dict
	epoch     uint64
	since     uint64 // the first number that counts; 0 before there is one
	through   uint64 // the last that base has; 0 without a base
	base      *column.Base
	spare     *column.Base // the memory of the one before
	moves     int          // how often through was moved since the last key frame
	pending   []pending
	to        uint64 // the highest number seen since since
	against   uint64 // the highest number written against base
	confirmed uint64
}

// pending is a row that counts and is not in a base yet.
type pending struct {
	number, bits uint64
	key          column.Key
}

// NewEncoder gives an Encoder of a lane. With keyEvery 0 all batches stand
// alone; otherwise it is in delta mode, and moves what batches are a delta
// against so many times before the next key frame.
func NewEncoder(keyEvery int) *Encoder { return &Encoder{keyEvery: keyEvery, stride: defaultStride} }

// Confirmed says that the fog has stored all of an epoch up to a number. Numbers
// below the highest said are ignored.
func (e *Encoder) Confirmed(epoch, through uint64) {
	if epoch != e.epoch {
		e.begin(epoch)
	}
	e.confirmed = max(e.confirmed, through)
}

// Restart makes the next batches stand alone: the fog has lost what they are a
// delta against.
func (e *Encoder) Restart() {
	if e.base != nil {
		e.spare = e.base
	}
	e.since, e.through, e.base, e.moves, e.pending = 0, 0, nil, 0, e.pending[:0]
}

func (e *Encoder) begin(epoch uint64) {
	e.Restart()
	e.epoch, e.to, e.against, e.confirmed = epoch, 0, 0, 0
}

// Append is like the function Append. Spans should follow one another; one that
// has been confirmed already stands alone.
func (e *Encoder) Append(dst []byte, h Header, span Span, c *Catalogue) ([]byte, error) {
	if h.Epoch != e.epoch {
		e.begin(h.Epoch)
	}
	if e.keyEvery == 0 || span.Last <= e.confirmed {
		return e.AppendAlone(dst, h, span, c)
	}
	if c.dict != e.dict {
		e.Restart()
		e.dict = c.dict
	}
	e.move()
	first := firstNumber(&span)
	if e.since > 0 && (first > e.to+1 || first < e.since || first <= e.through) {
		e.Restart()
	}
	if e.since == 0 {
		e.since, e.to = first, first-1
	}
	d := delta{kept: true}
	if e.through > 0 {
		d.since, d.through = e.since, e.through
	}
	e.w.state.Base = e.base
	dst, err := e.w.append(dst, h, span, c, d)
	e.w.state.Base = nil
	if err != nil {
		return nil, err
	}
	if d.since > 0 {
		e.against = max(e.against, span.Last)
	}
	e.remember(&span)
	return dst, nil
}

// AppendAlone is Append for a span that is sent again, because the fog asks for
// it: the batch stands alone, and what comes is a delta against what it was
// before. A fog that lacks rows from Since on can follow after a Restart only.
func (e *Encoder) AppendAlone(dst []byte, h Header, span Span, c *Catalogue) ([]byte, error) {
	return e.w.append(dst, h, span, c, delta{kept: e.keyEvery > 0})
}

// Since is the first number that the batches to come may hang on; 0 when the
// next stands alone.
func (e *Encoder) Since() uint64 { return e.since }

// move makes what the fog has confirmed the base of what comes.
func (e *Encoder) move() {
	if e.since == 0 || e.confirmed < e.since || e.confirmed <= e.through || e.confirmed > e.to {
		return
	}
	if e.confirmed < e.against && e.confirmed-e.through < e.stride {
		return
	}
	if e.moves >= e.keyEvery {
		e.Restart()
		return
	}
	if e.base == nil {
		e.base, e.spare = cleared(e.spare), nil
	}
	rest := e.pending[:0]
	for _, p := range e.pending {
		if p.number <= e.confirmed {
			e.base.Add(p.key, p.bits)
		} else {
			rest = append(rest, p)
		}
	}
	e.pending, e.through, e.moves = rest, e.confirmed, e.moves+1
	if e.base.Len() > maxSeries {
		e.Restart()
	}
}

// cleared gives an empty base in the memory of another, which may be nil.
func cleared(b *column.Base) *column.Base {
	if b == nil {
		return &column.Base{}
	}
	b.Clear()
	return b
}

// remember keeps the rows that were written just now.
func (e *Encoder) remember(span *Span) {
	if len(e.pending)+len(span.Rows) > maxUnconfirmed {
		e.Restart()
		return
	}
	row := 0
	for _, r := range span.Runs {
		for n := r.First; n < r.First+r.Count; n++ {
			if n > e.to { // not cut another time
				e.pending = append(e.pending, pending{n, span.Rows[row].Value.Bits, e.w.state.Keys[row]})
			}
			row++
		}
	}
	e.to = max(e.to, span.Last)
}

// firstNumber gives the lowest number of a span that has one; 0 otherwise.
func firstNumber(s *Span) uint64 {
	switch {
	case len(s.Runs) > 0 && (len(s.Holes) == 0 || s.Runs[0].First < s.Holes[0].First):
		return s.Runs[0].First
	case len(s.Holes) > 0:
		return s.Holes[0].First
	}
	return 0
}
