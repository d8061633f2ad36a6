package dlms

import (
	"time"

	"gridgate/dlms/obis"
)

// Quirks is what the meters of a model cannot do or do differently. The zero
// value is a meter by the standard.
type Quirks struct {
	// ListMax is how many attributes a request may name: 1 for a meter that
	// takes no lists whatever it grants; 0 is as many as the PDU has room for.
	ListMax int
	// Selector is the best way in which rows of profiles are selected.
	Selector Selector
	// NullUnchanged says that null-data in any column of a profile stands for
	// the value of the row before. Else it does so for the status alone.
	NullUnchanged bool
	// Ratios says that registers count on the secondary side of instrument
	// transformers, whose ratios the meter has: see Client.ReadRatios.
	Ratios bool
	// InvertDeviation says that the deviation in date-times is the minutes to
	// add to UTC to get local time, the sign turned around.
	InvertDeviation bool
	// CounterObject is where the meter shows the invocation counter of the
	// client, if not at the usual place.
	CounterObject obis.Code
	// Echo says that the line gives back what is sent on it.
	Echo bool
	// AddressLength is the octets of the HDLC server address: 1, 2 or 4; 0 is
	// the shortest that holds it.
	AddressLength uint8
	// MaxPDU is the longest APDU that the meter really takes, whatever it
	// says; 0 is what it says.
	MaxPDU uint16
}

// Time gives the moment that a date-time of such a meter names: see DateTime.Time.
func (q Quirks) Time(d DateTime, loc *time.Location) (time.Time, error) {
	return q.Standard(d).Time(loc)
}

// DateTimeOf gives t as such a meter is told it: see DateTimeOf.
func (q Quirks) DateTimeOf(t time.Time) DateTime { return q.Standard(DateTimeOf(t)) }

// Standard gives a date-time of such a meter as the standard has it, and one by
// the standard as such a meter has it.
func (q Quirks) Standard(d DateTime) DateTime {
	if q.InvertDeviation && d.Deviation != NoDeviation {
		d.Deviation = -d.Deviation
	}
	return d
}
