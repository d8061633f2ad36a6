package batch

import (
	"errors"
	"fmt"
	"math"

	"gridgate/internal/column"
	"gridgate/internal/meter"
	"gridgate/internal/wire"
)

// Parse reads a batch that stands alone. find gives the catalogue with that
// hash, or nil; then the error is an UnknownCatalogueError, and the header is
// valid with it. A batch in delta mode is an UnknownBaseError: see Decoder. A batch
// of another format is a FormatError; what is no batch at all is an ErrCorrupt. The
// span shares names with the catalogue and nothing with b. Fields that are not
// known are skipped.
func Parse(b []byte, find func(Hash) *Catalogue) (Header, Span, error) {
	return (&Decoder{}).Parse(b, find)
}

// ParseHeader reads the header of a batch, in delta mode or not: whose Decoder is
// to parse it.
func ParseHeader(b []byte) (Header, error) {
	var e envelope
	if err := e.parse(b); err != nil {
		return Header{}, fmt.Errorf("batch: %w", err)
	}
	return e.header, nil
}

// envelope is a batch whose rows are still in their body, which aliases the
// input.
type envelope struct {
	header Header
	span   Span
	body   []byte
	delta  delta
	check  uint64
}

// parse reads all of a batch but its rows.
func (e *envelope) parse(b []byte) (err error) {
	var format, seen uint64
	last := e.header
	e.header = Header{}
	for rest := b; len(rest) > 0 && err == nil; {
		var f wire.Field
		if f, rest, err = wire.Next(rest); err != nil {
			break
		}
		if f.Num <= numKept {
			if f.Num != numHoles && seen&(1<<f.Num) != 0 {
				err = fmt.Errorf("field %d is given twice", f.Num)
				break
			}
			seen |= 1 << f.Num
		}
		switch f.Num {
		case numFormat:
			format, err = f.Uint(math.MaxUint64)
			if err == nil && format > 0 && format != Format {
				return &FormatError{format, Format}
			}
		case numRuns:
			err = e.runs(f)
		case numHoles:
			var hole Hole
			hole, err = parseHole(f)
			e.span.Holes = append(e.span.Holes, hole)
		case numRows:
			e.body, err = f.Data, f.Want(wire.Bytes)
		case numSince:
			e.delta.since, err = f.Uint(math.MaxUint64)
		case numThrough:
			e.delta.through, err = f.Uint(math.MaxUint64)
		case numCheck:
			e.check, err = f.Uint(math.MaxUint32)
		case numKept:
			var kept uint64
			kept, err = f.Uint(1)
			e.delta.kept = kept == 1
		default:
			err = e.header.field(f, &last)
		}
	}
	if err == nil && format == 0 {
		err = errors.New("no format")
	}
	if err == nil {
		err = e.header.check(seen)
	}
	if d := e.delta; err == nil && (d.since > d.through || d.since == 0 && d.through > 0) {
		err = fmt.Errorf("a delta against the rows %d to %d", d.since, d.through)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	e.span.Lane = e.header.Lane
	if e.span.Last, err = checkNumbers(&e.span); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}

// rows reads the rows and appends them to dst.
func (e *envelope) rows(dst []Row, c *Catalogue, s *column.State) (err error) {
	var rows []Row
	if e.body != nil {
		if rows, err = column.ParseKnownRows(dst, e.body, c.dict, s); err != nil {
			return err
		}
		for i := range rows {
			rows[i].Lane = e.header.Lane
		}
	}
	if s.Base != nil && uint64(s.Check) != e.check {
		return &UnknownBaseError{e.delta.since, e.delta.through}
	}
	if n := countNumbers(&e.span); n != uint64(len(rows)) {
		return fmt.Errorf("%w: %d rows have %d numbers", ErrCorrupt, len(rows), n)
	}
	e.span.Rows = rows
	return nil
}

// field reads a field of the header; what is as in last shares its text.
func (h *Header) field(f wire.Field, last *Header) (err error) {
	var v uint64
	switch f.Num {
	case numSite:
		h.Site, err = text(f, last.Site)
	case numGateway:
		h.Gateway, err = text(f, last.Gateway)
	case numEpoch:
		h.Epoch, err = f.Value, f.Want(wire.Fixed)
	case numLane:
		v, err = f.Uint(uint64(meter.Instant))
		h.Lane = Lane(v)
	case numCatalogue:
		if err = f.Want(wire.Bytes); err == nil && len(f.Data) != len(h.Catalogue) {
			err = fmt.Errorf("a catalogue's hash of %d bytes", len(f.Data))
		}
		copy(h.Catalogue[:], f.Data)
	}
	return err
}

func text(f wire.Field, last string) (string, error) {
	if f.Type == wire.Bytes && string(f.Data) == last {
		return last, nil
	}
	return f.Text(64)
}

func (h *Header) check(seen uint64) error {
	if _, err := meter.ParseID(h.Site); err != nil {
		return fmt.Errorf("site: %w", err)
	}
	if _, err := meter.ParseID(h.Gateway); err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	if seen&(1<<numEpoch) == 0 || seen&(1<<numCatalogue) == 0 {
		return errors.New("no epoch or no catalogue")
	}
	return nil
}

func (e *envelope) runs(f wire.Field) error {
	if err := f.Want(wire.Bytes); err != nil {
		return err
	}
	next := uint64(1)
	for b := f.Data; len(b) > 0; {
		gap, rest, err := wire.ReadVarint(b)
		if err != nil {
			return fmt.Errorf("runs: %w", err)
		}
		count, rest, err := wire.ReadVarint(rest)
		if err != nil {
			return fmt.Errorf("runs: %w", err)
		}
		if gap > math.MaxUint64-next || count > math.MaxUint64-next-gap {
			return errors.New("runs: numbers of more than 64 bits")
		}
		e.span.Runs = append(e.span.Runs, Run{First: next + gap, Count: count})
		next, b = next+gap+count, rest
	}
	return nil
}

func parseHole(f wire.Field) (Hole, error) {
	var h Hole
	var more uint64
	err := f.Want(wire.Bytes)
	for rest := f.Data; len(rest) > 0 && err == nil; {
		var in wire.Field
		if in, rest, err = wire.Next(rest); err != nil {
			break
		}
		var v uint64
		switch in.Num {
		case holeFirst:
			h.First, err = in.Uint(math.MaxUint64)
		case holeMore:
			more, err = in.Uint(math.MaxUint64)
		case holeReason:
			v, err = in.Uint(math.MaxUint8)
			h.Reason = Reason(v)
		case holeCount:
			h.Count, err = in.Uint(math.MaxUint64)
		}
	}
	if err == nil && (h.First == 0 || more > math.MaxUint64-h.First) {
		err = fmt.Errorf("from %d and %d more", h.First, more)
	}
	if err != nil {
		return Hole{}, fmt.Errorf("hole: %w", err)
	}
	h.Last = h.First + more
	return h, nil
}
