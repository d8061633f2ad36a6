// Package batch is the wire format of readings between gateway and fog. It is
// pure, so that a fog written in Go may import it; others find the same in
// batch.proto and docs/formats.md.
//
// A batch is a protobuf message:
//
//	Batch  1 format     2
//	       2 site       3 gateway
//	       4 epoch      eight bytes: the store that numbered the rows
//	       5 lane
//	       6 catalogue  eight bytes: Hash of the catalogue that the rows need
//	       7 runs       packed pairs: numbers left out since the last run, numbers in this run
//	       8 holes      repeated Hole
//	       9 rows       Body (gridgate/internal/column), absent when there are none
//	       10 since 11 through 12 check 13 kept   in delta mode: see Encoder
//	Hole   1 first  2 more (last less first)  3 reason  4 count
//
// The n-th row has the n-th number of the runs. Lane by lane the numbers of an
// epoch rise by one from 1 on, and each is either in a run or in a hole of some
// batch: a number that is in neither is missing. The same number may come twice
// and then has the same row.
package batch

import (
	"errors"
	"fmt"
	"math"

	"gridgate/internal/column"
	"gridgate/internal/meter"
	"gridgate/internal/wire"
)

// Format is the version of the format that this package writes, and the only
// one that it reads of batches.
const Format = 2

// MaxRows is how many rows a batch may have.
const MaxRows = column.MaxRows

// Header says whose rows a batch has.
type Header struct {
	Site    string
	Gateway string
	// Epoch names the store that numbered the rows: a number means something
	// within its epoch only.
	Epoch uint64
	Lane  Lane
	// Catalogue is the catalogue that the rows need. Append sets it by itself.
	Catalogue Hash
}

// The errors that callers decide on.
var (
	// ErrCorrupt says that something is no batch or no catalogue.
	ErrCorrupt = column.ErrCorrupt
	// ErrNotInCatalogue says that a row is of a meter or channel that has not
	// been added to the catalogue.
	ErrNotInCatalogue = column.ErrNotInDict
	// ErrTooManyRows says that a span has more rows than MaxRows.
	ErrTooManyRows = column.ErrTooMany
)

// UnknownCatalogueError says that a batch cannot be decoded before its
// catalogue is there. Parse gives the header with it.
type UnknownCatalogueError struct{ Hash Hash }

func (e *UnknownCatalogueError) Error() string {
	return fmt.Sprintf("catalogue %s is not known", e.Hash)
}

// FormatError says that a batch or catalogue is of another format than this
// package reads.
type FormatError struct{ Format, Reads uint64 }

func (e *FormatError) Error() string {
	if e.Format < e.Reads {
		return fmt.Sprintf("format %d is older than this program reads, which is %d: update the gateway that sent it", e.Format, e.Reads)
	}
	return fmt.Sprintf("format %d is newer than this program reads, which is %d: update it", e.Format, e.Reads)
}

// The field numbers of a batch and of a hole.
const (
	numFormat = iota + 1
	numSite
	numGateway
	numEpoch
	numLane
	numCatalogue
	numRuns
	numHoles
	numRows
	numSince
	numThrough
	numCheck
	numKept
)

const (
	holeFirst = iota + 1
	holeMore
	holeReason
	holeCount
)

// Append appends the batch of a span to dst: one that stands alone. c must have
// been given the rows with Add, and should have been published since. h.Lane must
// be the lane of the span and its rows.
func Append(dst []byte, h Header, span Span, c *Catalogue) ([]byte, error) {
	return (&writer{}).append(dst, h, span, c, delta{})
}

// delta is what a batch is a delta against: the last values among the rows from
// number since through number through; since is 0 for a batch that stands alone.
// With kept its rows may be what later batches are a delta against.
type delta struct {
	since, through uint64
	kept           bool
}

// writer is the memory to write batches in.
type writer struct {
	small, body []byte
	state       column.State
}

func (w *writer) append(dst []byte, h Header, span Span, c *Catalogue, d delta) ([]byte, error) {
	if err := check(h, span); err != nil {
		return nil, fmt.Errorf("batch of lane %s: %w", h.Lane, err)
	}
	var err error
	if w.body, err = column.AppendKnownRows(w.body[:0], span.Rows, c.dict, &w.state); err != nil {
		return nil, fmt.Errorf("batch of lane %s: %w", h.Lane, err)
	}
	hash := c.Hash()
	dst = wire.AppendUint(dst, numFormat, Format)
	dst = wire.AppendBytes(dst, numSite, h.Site)
	dst = wire.AppendBytes(dst, numGateway, h.Gateway)
	dst = wire.AppendFixed(dst, numEpoch, h.Epoch)
	dst = wire.AppendUint(dst, numLane, uint64(h.Lane))
	dst = wire.AppendBytes(dst, numCatalogue, hash[:])
	w.small = w.small[:0]
	next := uint64(1)
	for _, r := range span.Runs {
		w.small = wire.AppendVarint(w.small, r.First-next)
		w.small = wire.AppendVarint(w.small, r.Count)
		next = r.First + r.Count
	}
	dst = wire.AppendBytes(dst, numRuns, w.small)
	for _, hole := range span.Holes {
		w.small = wire.AppendUint(w.small[:0], holeFirst, hole.First)
		w.small = wire.AppendUint(w.small, holeMore, hole.Last-hole.First)
		w.small = wire.AppendUint(w.small, holeReason, uint64(hole.Reason))
		w.small = wire.AppendUint(w.small, holeCount, hole.Count)
		dst = wire.AppendMessage(dst, numHoles, w.small)
	}
	if len(span.Rows) > 0 {
		dst = wire.AppendBytes(dst, numRows, w.body)
		if d.since > 0 {
			dst = wire.AppendUint(dst, numSince, d.since)
			dst = wire.AppendUint(dst, numThrough, d.through)
			dst = wire.AppendUint(dst, numCheck, uint64(w.state.Check))
		}
	}
	if d.kept {
		dst = wire.AppendUint(dst, numKept, 1)
	}
	return dst, nil
}

// check says whether a span is one that can be read back the same.
func check(h Header, span Span) error {
	if _, err := meter.ParseID(h.Site); err != nil {
		return fmt.Errorf("site: %w", err)
	}
	if _, err := meter.ParseID(h.Gateway); err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	if !h.Lane.Valid() || span.Lane != h.Lane {
		return fmt.Errorf("the span is of lane %s", span.Lane)
	}
	for i := range span.Rows {
		if lane := span.Rows[i].Lane; lane != h.Lane {
			return fmt.Errorf("row %d is of lane %s", i, lane)
		}
	}
	last, err := checkNumbers(&span)
	if n := countNumbers(&span); err == nil && n != uint64(len(span.Rows)) {
		err = fmt.Errorf("%d rows have %d numbers", len(span.Rows), n)
	}
	if err == nil && last != span.Last {
		err = fmt.Errorf("runs and holes end at %d, the span at %d", last, span.Last)
	}
	return err
}

// countNumbers counts the numbers in runs.
func countNumbers(span *Span) (n uint64) {
	for _, r := range span.Runs {
		n += r.Count
	}
	return n
}

// checkNumbers says whether runs and holes rise and lie apart, and gives the
// highest number. There must be one at least.
func checkNumbers(span *Span) (highest uint64, err error) {
	runs, holes := span.Runs, span.Holes
	if len(runs) == 0 && len(holes) == 0 {
		return 0, errors.New("neither rows nor holes")
	}
	for len(runs) > 0 || len(holes) > 0 {
		var first, last uint64
		if len(holes) == 0 || len(runs) > 0 && runs[0].First < holes[0].First {
			r := runs[0]
			if r.Count == 0 || r.Count > MaxRows || r.First > math.MaxUint64-r.Count {
				return 0, fmt.Errorf("a run of %d from %d", r.Count, r.First)
			}
			first, last, runs = r.First, r.First+r.Count-1, runs[1:]
		} else {
			first, last, holes = holes[0].First, holes[0].Last, holes[1:]
		}
		if first <= highest || last < first || last == math.MaxUint64 {
			return 0, fmt.Errorf("numbers %d to %d after %d", first, last, highest)
		}
		highest = last
	}
	return highest, nil
}
