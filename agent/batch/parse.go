package batch

import (
	"errors"
	"fmt"
	"math"

	"gridgate/internal/column"
	"gridgate/internal/meter"
	"gridgate/internal/wire"
)

// Parse reads a batch. find gives the catalogue with that hash, or nil; then
// the error is an UnknownCatalogueError, and the header is valid with it. A
// batch of a newer format is a FormatError; what is no batch at all is an
// ErrCorrupt. The span shares names with the catalogue and nothing with b. Fields
// that are not known are skipped.
func Parse(b []byte, find func(Hash) *Catalogue) (Header, Span, error) {
	h, span, body, err := parseEnvelope(b)
	if err != nil {
		return Header{}, Span{}, fmt.Errorf("batch: %w", err)
	}
	if body != nil {
		c := find(h.Catalogue)
		if c == nil {
			return h, Span{}, fmt.Errorf("batch: %w", &UnknownCatalogueError{h.Catalogue})
		}
		if span.Rows, err = column.ParseRows(body, c.dict); err != nil {
			return h, Span{}, fmt.Errorf("batch: %w", err)
		}
		for i := range span.Rows {
			span.Rows[i].Lane = h.Lane
		}
	}
	if span.Last, err = checkNumbers(span); err != nil {
		return h, Span{}, fmt.Errorf("batch: %w: %w", ErrCorrupt, err)
	}
	return h, span, nil
}

// parseEnvelope reads all of a batch but its rows, which body aliases.
func parseEnvelope(b []byte) (h Header, span Span, body []byte, err error) {
	var format, seen uint64
	for rest := b; len(rest) > 0 && err == nil; {
		var f wire.Field
		if f, rest, err = wire.Next(rest); err != nil {
			break
		}
		if f.Num <= numRows {
			if f.Num != numHoles && seen&(1<<f.Num) != 0 {
				err = fmt.Errorf("field %d is given twice", f.Num)
				break
			}
			seen |= 1 << f.Num
		}
		switch f.Num {
		case numFormat:
			format, err = f.Uint(math.MaxUint64)
			if err == nil && format > Format {
				return h, span, nil, &FormatError{format}
			}
		case numRuns:
			span.Runs, err = parseRuns(f)
		case numHoles:
			var hole Hole
			hole, err = parseHole(f)
			span.Holes = append(span.Holes, hole)
		case numRows:
			body, err = f.Data, f.Want(wire.Bytes)
		default:
			err = h.field(f)
		}
	}
	if err == nil && format == 0 {
		err = errors.New("no format")
	}
	if err == nil {
		err = h.check(seen)
	}
	if err != nil {
		return h, span, nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	span.Lane = h.Lane
	return h, span, body, nil
}

// field reads a field of the header.
func (h *Header) field(f wire.Field) (err error) {
	var v uint64
	switch f.Num {
	case numSite:
		h.Site, err = f.Text(64)
	case numGateway:
		h.Gateway, err = f.Text(64)
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

func parseRuns(f wire.Field) ([]Run, error) {
	if err := f.Want(wire.Bytes); err != nil {
		return nil, err
	}
	var runs []Run
	next := uint64(1)
	for b := f.Data; len(b) > 0; {
		gap, rest, err := wire.ReadVarint(b)
		if err != nil {
			return nil, fmt.Errorf("runs: %w", err)
		}
		count, rest, err := wire.ReadVarint(rest)
		if err != nil {
			return nil, fmt.Errorf("runs: %w", err)
		}
		if gap > math.MaxUint64-next || count > math.MaxUint64-next-gap {
			return nil, errors.New("runs: numbers of more than 64 bits")
		}
		runs = append(runs, Run{First: next + gap, Count: count})
		next, b = next+gap+count, rest
	}
	return runs, nil
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
