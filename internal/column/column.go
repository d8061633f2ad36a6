// Package column turns rows into a compact body and back. The buffer keeps
// bodies on flash and batches carry them; the meters and channels that a body
// speaks of by number stand in a Dict.
//
// A body is a protobuf message, as are the columns in it (docs/formats.md has
// every byte, agent/batch/batch.proto the schema):
//
//	Body
//	  1 plain     Columns, as they are
//	  2 size      length of the columns when inflated
//	  3 deflated  Columns, deflated (RFC 1951, no header); in place of 1
//	  4 bits      the low bits of all numbers (see numberWriter)
//	  6 coded     the rest of all numbers
//	Columns, in the order of the rows
//	  1 rows           how many
//	  2 meter_counts   run lengths of rows of one meter
//	  3 meter_steps    the meter's number less that of the run before
//	  4 channel_steps 25 channel_counts   rows that are as foretold (see followers), then a step to the next channel
//	  5 stamp_counts   run lengths of rows with one stamp
//	  8 boots 9 bounds 10 sources        runs over stamps
//	Columns, in column order: by channel number, then meter number, then row
//	  11 orders 12 decimals 13 bases 23 besides 24 shares   for each channel (see coding)
//	  15 data_lengths                    runs over rows
//	  16 data                            text and octets, one after the other
//	  17 qualities 18 lanes 19 periods 20 occurrences 21 statuses 22 has_statuses   runs over rows
//	Numbers
//	  a time and then a mono for each stamp (see guess), a number for each row in column order (see series)
//
// Runs are pairs of a count and a value; a column that is absent is all zeros.
// In column order the rows of one channel, a group, stand together, and among
// them those of one series (one channel of one meter) in their order.
//
// Columns 6, 7 and 14 had numbers in the first form, which ParseFirstRows reads.
package column

import (
	"errors"
	"fmt"

	"gridgate/internal/meter"
	"gridgate/internal/wire"
)

// MaxRows is how many rows a body may have. Its rows in memory take about
// 160 bytes each, whatever little the body takes.
const MaxRows = 16384

// The errors that callers decide on.
var (
	// ErrTooMany says that there are more rows than MaxRows.
	ErrTooMany = errors.New("too many rows for a body")
	// ErrNotInDict says that a meter or channel has no number and may get none.
	ErrNotInDict = errors.New("not in the dictionary")
	// ErrDictFull says that a dictionary has all the entries it may have.
	ErrDictFull = errors.New("dictionary is full")
	// ErrCorrupt says that a body or dictionary is none.
	ErrCorrupt = errors.New("corrupt")
)

// The field numbers of a body.
const (
	bodyPlain = iota + 1
	bodySize
	bodyDeflated
	bodyBits
	_ // a catalogue has its format there
	bodyCoded
)

// The field numbers of the columns.
const (
	colRows = iota + 1
	colMeterCounts
	colMeterSteps
	colChannelSteps
	colStampCounts
	colTimes // of the first form; so are monos and values
	colMonos
	colBoots
	colBounds
	colSources
	colOrders
	colDecimals
	colBases
	colValues
	colDataLengths
	colData
	colQualities
	colLanes
	colPeriods
	colOccurrences
	colStatuses
	colHasStatuses
	colBesides
	colShares
	colChannelCounts
	colEnd
)

// AppendRows appends the body of rows to dst. Meters and channels that d does
// not have are added to it.
func AppendRows(dst []byte, rows []meter.Row, d *Dict) ([]byte, error) {
	return appendRows(dst, rows, d, true, nil)
}

// AppendKnownRows is AppendRows with a dictionary that does not change: a meter
// or channel that it does not have is an ErrNotInDict. It leaves out the lanes,
// which are then read as 0. s may be nil.
func AppendKnownRows(dst []byte, rows []meter.Row, d *Dict, s *State) ([]byte, error) {
	return appendRows(dst, rows, d, false, s)
}

func appendRows(dst []byte, rows []meter.Row, d *Dict, own bool, s *State) ([]byte, error) {
	if len(rows) > MaxRows {
		return nil, fmt.Errorf("%d rows: %w", len(rows), ErrTooMany)
	}
	e := encoders.Get().(*encoder)
	defer encoders.Put(e)
	if err := e.number(rows, d, own); err != nil {
		return nil, err
	}
	e.columns(rows, d, own, s)
	dst = e.appendPacked(dst, e.out)
	dst = wire.AppendBytes(dst, bodyBits, e.writer.noise.bytes())
	return wire.AppendBytes(dst, bodyCoded, e.writer.coded.bytes()), nil
}

// ParseRows gives the rows of a body, in their order. They share their names
// with d and nothing with b. It allocates at most 64 KiB, 64 bytes for each of
// b, and 256 for each row; a body has no more rows than bytes when inflated, nor
// than MaxRows.
func ParseRows(b []byte, d *Dict) ([]meter.Row, error) { return ParseKnownRows(nil, b, d, nil) }

// ParseKnownRows is ParseRows for a body that was written with a State, which
// must have the same Base, or nil. The rows are appended to dst. Whoever gives a
// Base holds the Check against the writer's before he believes the rows.
func ParseKnownRows(dst []meter.Row, b []byte, d *Dict, s *State) ([]meter.Row, error) {
	return parseRows(dst, b, d, s, nil)
}

func parseRows(dst []meter.Row, b []byte, d *Dict, s *State, first *firstNumbers) ([]meter.Row, error) {
	dec := decoders.Get().(*decoder)
	defer decoders.Put(dec)
	dec.first = first
	rows, err := dec.parse(dst, b, d, s)
	dec.forget()
	if err != nil {
		return nil, fmt.Errorf("rows: %w: %w", ErrCorrupt, err)
	}
	return rows, nil
}
