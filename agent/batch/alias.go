package batch

import (
	"gridgate/internal/column"
	"gridgate/internal/meter"
)

// The vocabulary of readings, under names that a fog may import.
type (
	// Row is one reading of one channel.
	Row = meter.Row
	// ID names a meter, a site or a gateway.
	ID = meter.ID
	// Channel names what is measured.
	Channel = meter.Channel
	// Stamp says when a row was taken and how well that is known.
	Stamp = meter.Stamp
	// Source says whose clock a stamp's time comes from.
	Source = meter.Source
	// Value is what a meter said, without loss.
	Value = meter.Value
	// Kind says how the bits of a Value are to be read.
	Kind = meter.Kind
	// Unit is a physical unit by its number in IEC 62056-6-2.
	Unit = meter.Unit
	// Quality says what is known against a row.
	Quality = meter.Quality
	// Lane is the queue that a row waited in.
	Lane = meter.Lane
	// Span is a stretch of a lane's sequence.
	Span = meter.Span
	// Run is consecutive sequence numbers.
	Run = meter.Run
	// Hole declares that sequence numbers carry no rows.
	Hole = meter.Hole
	// Reason says why rows are not there.
	Reason = meter.Reason
	// CatalogueMeter is a meter as a catalogue names it.
	CatalogueMeter = column.Meter
	// CatalogueChannel is a channel as a catalogue names it.
	CatalogueChannel = column.Channel
)

// The lanes.
const (
	Alarm    = meter.Alarm
	Billing  = meter.Billing
	Interval = meter.Interval
	Instant  = meter.Instant
)

// The kinds of a Value.
const (
	None     = meter.None
	Int      = meter.Int
	Uint     = meter.Uint
	Float32  = meter.Float32
	Float64  = meter.Float64
	Bool     = meter.Bool
	Text     = meter.Text
	Octets   = meter.Octets
	DateTime = meter.DateTime
)

// The sources of a Stamp.
const (
	FromGateway = meter.FromGateway
	FromMeter   = meter.FromMeter
)

// The bits of Quality.
const (
	ClockUnsynchronised = meter.ClockUnsynchronised
	TimeCorrected       = meter.TimeCorrected
	Estimated           = meter.Estimated
	Substituted         = meter.Substituted
	OutOfRange          = meter.OutOfRange
	RanBackwards        = meter.RanBackwards
	MeterClockInvalid   = meter.MeterClockInvalid
	MeterClockAdjusted  = meter.MeterClockAdjusted
	DaylightSaving      = meter.DaylightSaving
	PowerFailure        = meter.PowerFailure
	IntervalMissing     = meter.IntervalMissing
	Overflow            = meter.Overflow
	IdentityNotProven   = meter.IdentityNotProven
	Test                = meter.Test
	Inconsistent        = meter.Inconsistent
	RolledOver          = meter.RolledOver
)

// The reasons of a Hole.
const (
	Unexplained = meter.Unexplained
	UncleanStop = meter.UncleanStop
	MemoryFull  = meter.MemoryFull
	Quota       = meter.Quota
	Damaged     = meter.Damaged
)
