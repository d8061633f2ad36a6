package bridge

import (
	"encoding/binary"
	"math"
	"strings"

	"gridgate/internal/wire"
)

// DataType is a Sparkplug B data type (Sparkplug 3.0, 6.4.16).
type DataType uint32

// The data types that are sent.
const (
	TypeInt32   DataType = 3 // of properties
	TypeInt64   DataType = 4
	TypeUInt64  DataType = 8
	TypeFloat   DataType = 9
	TypeDouble  DataType = 10
	TypeBoolean DataType = 11
	TypeString  DataType = 12
	TypeBytes   DataType = 17
)

// Metric is a metric of a payload (Sparkplug 3.0, 6.4.6).
//
//	1 name  2 alias  3 timestamp  4 datatype  5 is_historical  7 is_null  9 properties
//	11 long_value  12 float_value  13 double_value  14 boolean_value  15 string_value  16 bytes_value
//	PropertySet    1 keys  2 values          PropertyValue  1 type  3 int_value  8 string_value
type Metric struct {
	Name       string // "" leaves it out
	Alias      uint64 // 0 leaves it out
	Timestamp  int64  // milliseconds since 1970 UTC
	Type       DataType
	HideType   bool // leave the data type out: whoever heard the birth knows it
	Historical bool
	Null       bool
	Bits       uint64 // the value of the types that are numbers and of Boolean; a Float's in the low half
	Data       string // the value of String and Bytes
	Properties []Property
}

// Property is a property of a metric: text, or a number of 32 bits when Text is
// empty.
type Property struct {
	Key    string
	Text   string
	Number int32
}

// noSeq leaves the sequence number out, as in NDEATH.
const noSeq = -1

// appendPayload appends a payload (Sparkplug 3.0, 6.4.4): 1 timestamp,
// 2 metrics, 3 seq. A seq of 0 is written.
func appendPayload(b []byte, timestamp int64, seq int, metrics []Metric) []byte {
	b = appendVarint(b, 1, uint64(timestamp))
	var m []byte
	for i := range metrics {
		m = metrics[i].append(m[:0])
		b = wire.AppendMessage(b, 2, m)
	}
	if seq != noSeq {
		b = appendVarint(b, 3, uint64(seq))
	}
	return b
}

func (m *Metric) append(b []byte) []byte {
	b = wire.AppendBytes(b, 1, text(m.Name))
	b = wire.AppendUint(b, 2, m.Alias)
	b = appendVarint(b, 3, uint64(m.Timestamp))
	if !m.HideType {
		b = appendVarint(b, 4, uint64(m.Type))
	}
	if m.Historical {
		b = appendVarint(b, 5, 1)
	}
	if m.Null {
		b = appendVarint(b, 7, 1)
	}
	if len(m.Properties) > 0 {
		b = wire.AppendMessage(b, 9, appendProperties(nil, m.Properties))
	}
	if m.Null {
		return b
	}
	switch m.Type {
	case TypeInt32:
		return appendVarint(b, 10, m.Bits&math.MaxUint32)
	case TypeInt64, TypeUInt64:
		return appendVarint(b, 11, m.Bits)
	case TypeFloat:
		b = wire.AppendVarint(b, 12<<3|5)
		return binary.LittleEndian.AppendUint32(b, uint32(m.Bits))
	case TypeDouble:
		return wire.AppendFixed(b, 13, m.Bits)
	case TypeBoolean:
		return appendVarint(b, 14, m.Bits)
	case TypeString:
		return wire.AppendMessage(b, 15, text(m.Data))
	case TypeBytes:
		return wire.AppendMessage(b, 16, m.Data)
	}
	return b
}

func appendProperties(b []byte, properties []Property) []byte {
	for _, p := range properties {
		b = wire.AppendMessage(b, 1, p.Key)
	}
	for _, p := range properties {
		var v []byte
		if p.Text != "" {
			v = appendVarint(v, 1, uint64(TypeString))
			v = wire.AppendMessage(v, 8, text(p.Text))
		} else {
			v = appendVarint(v, 1, uint64(TypeInt32))
			v = appendVarint(v, 3, uint64(uint32(p.Number)))
		}
		b = wire.AppendMessage(b, 2, v)
	}
	return b
}

// text gives s as protobuf's strings must be: what is not UTF-8 becomes U+FFFD.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// appendVarint appends a field also when it is 0: the fields of Sparkplug's
// messages are optional, and one that is not there is not 0.
func appendVarint(b []byte, num int, v uint64) []byte {
	b = wire.AppendVarint(b, uint64(num)<<3|wire.Varint)
	return wire.AppendVarint(b, v)
}
