// Package axdr encodes and decodes the data of DLMS/COSEM: the type Data of
// IEC 62056-5-3 in A-XDR (IEC 61334-6).
//
//	tag       1 octet    which type follows (see Tag)
//	contents  by type:   integers and floats in network order;
//	                     strings with a length before them;
//	                     array and structure with a count, then so many Data;
//	                     compact-array with the type of its elements once,
//	                     the length of what follows, and the contents of the
//	                     elements without their tags
//
// A length or count is one octet below 128, else 0x80 + n and n octets in
// network order. A longer form than needed is accepted, and so is any octet
// but 0 for a true boolean; encoding gives the shortest form and 1. These two
// are the only ways in which re-encoding what was decoded differs from it.
package axdr

import (
	"errors"
	"fmt"
	"math"
)

// MaxDepth is how many arrays and structures may stand within one another.
// Meters use four.
const MaxDepth = 16

// Tag is the type of a Data (IEC 62056-5-3, 9.5, Data).
type Tag uint8

// The tags.
const (
	TagNull               Tag = 0
	TagArray              Tag = 1
	TagStructure          Tag = 2
	TagBoolean            Tag = 3
	TagBitString          Tag = 4
	TagDoubleLong         Tag = 5
	TagDoubleLongUnsigned Tag = 6
	TagOctetString        Tag = 9
	TagVisibleString      Tag = 10
	TagUTF8String         Tag = 12
	TagBCD                Tag = 13
	TagInteger            Tag = 15
	TagLong               Tag = 16
	TagUnsigned           Tag = 17
	TagLongUnsigned       Tag = 18
	TagCompactArray       Tag = 19
	TagLong64             Tag = 20
	TagLong64Unsigned     Tag = 21
	TagEnum               Tag = 22
	TagFloat32            Tag = 23
	TagFloat64            Tag = 24
	TagDateTime           Tag = 25
	TagDate               Tag = 26
	TagTime               Tag = 27
	// The delta types say by how much a number is more than the one before it.
	TagDeltaInteger            Tag = 28
	TagDeltaLong               Tag = 29
	TagDeltaDoubleLong         Tag = 30
	TagDeltaUnsigned           Tag = 31
	TagDeltaLongUnsigned       Tag = 32
	TagDeltaDoubleLongUnsigned Tag = 33
)

// form is how the contents of a type are laid out.
type form uint8

const (
	unknown  form = iota
	number        // width octets
	fixed         // width octets kept as they are
	counted       // length and octets
	bitCount      // number of bits, then the octets that hold them
	nested        // count and that many Data
	compact       // type, length and contents without tags
)

type layout struct {
	name  string
	form  form
	width int
}

var layouts = [...]layout{ //nolint:gochecknoglobals // a constant table
	TagNull: {"null-data", fixed, 0}, TagArray: {"array", nested, 0}, TagStructure: {"structure", nested, 0},
	TagBoolean: {"boolean", number, 1}, TagBitString: {"bit-string", bitCount, 0},
	TagDoubleLong: {"double-long", number, 4}, TagDoubleLongUnsigned: {"double-long-unsigned", number, 4},
	TagOctetString: {"octet-string", counted, 0}, TagVisibleString: {"visible-string", counted, 0},
	TagUTF8String: {"utf8-string", counted, 0}, TagBCD: {"bcd", number, 1},
	TagInteger: {"integer", number, 1}, TagLong: {"long", number, 2},
	TagUnsigned: {"unsigned", number, 1}, TagLongUnsigned: {"long-unsigned", number, 2}, TagCompactArray: {"compact-array", compact, 0},
	TagLong64: {"long64", number, 8}, TagLong64Unsigned: {"long64-unsigned", number, 8}, TagEnum: {"enum", number, 1},
	TagFloat32: {"float32", number, 4}, TagFloat64: {"float64", number, 8},
	TagDateTime: {"date-time", fixed, 12}, TagDate: {"date", fixed, 5}, TagTime: {"time", fixed, 4},
	TagDeltaInteger: {"delta-integer", number, 1}, TagDeltaLong: {"delta-long", number, 2},
	TagDeltaDoubleLong: {"delta-double-long", number, 4}, TagDeltaUnsigned: {"delta-unsigned", number, 1},
	TagDeltaLongUnsigned: {"delta-long-unsigned", number, 2}, TagDeltaDoubleLongUnsigned: {"delta-double-long-unsigned", number, 4},
}

func (t Tag) layout() layout {
	if int(t) < len(layouts) {
		return layouts[t]
	}
	return layout{}
}

// String gives the standard's name of the type, or "tag N".
func (t Tag) String() string {
	if l := t.layout(); l.name != "" {
		return l.name
	}
	return fmt.Sprintf("tag %d", uint8(t))
}

// Value is one Data: a leaf, or an array or structure of Data. The zero value
// is null-data. It aliases nothing that it was decoded from.
type Value struct {
	Tag Tag
	// Num holds numbers: the two's complement of signed ones extended to 64
	// bits, the bits of floats, 0 or 1 of a boolean, the number of bits of a
	// bit-string.
	Num uint64
	// Str holds the octets of strings, of bit-strings (the first bit is the
	// highest of the first octet), and of date-time, date and time; and the
	// type description of a compact-array as it is encoded.
	Str string
	// Items are the elements of an array, structure or compact-array.
	Items []Value
}

// Null gives null-data.
func Null() Value { return Value{} }

// Array gives an array. It keeps items.
func Array(items ...Value) Value { return Value{Tag: TagArray, Items: items} }

// Structure gives a structure. It keeps items.
func Structure(items ...Value) Value { return Value{Tag: TagStructure, Items: items} }

// CompactArray gives a compact-array of elements of one type; see Describe for
// the description. It keeps items.
func CompactArray(description string, items ...Value) Value {
	return Value{Tag: TagCompactArray, Str: description, Items: items}
}

// Boolean gives a boolean.
func Boolean(v bool) Value {
	if v {
		return Value{Tag: TagBoolean, Num: 1}
	}
	return Value{Tag: TagBoolean}
}

// Integer gives an integer (8 bits, signed).
func Integer(v int8) Value { return signed(TagInteger, int64(v)) }

// Long gives a long (16 bits, signed).
func Long(v int16) Value { return signed(TagLong, int64(v)) }

// DoubleLong gives a double-long (32 bits, signed).
func DoubleLong(v int32) Value { return signed(TagDoubleLong, int64(v)) }

// Long64 gives a long64.
func Long64(v int64) Value { return signed(TagLong64, v) }

// Unsigned gives an unsigned (8 bits).
func Unsigned(v uint8) Value { return Value{Tag: TagUnsigned, Num: uint64(v)} }

// LongUnsigned gives a long-unsigned (16 bits).
func LongUnsigned(v uint16) Value { return Value{Tag: TagLongUnsigned, Num: uint64(v)} }

// DoubleLongUnsigned gives a double-long-unsigned (32 bits).
func DoubleLongUnsigned(v uint32) Value { return Value{Tag: TagDoubleLongUnsigned, Num: uint64(v)} }

// Long64Unsigned gives a long64-unsigned.
func Long64Unsigned(v uint64) Value { return Value{Tag: TagLong64Unsigned, Num: v} }

// Enum gives an enum.
func Enum(v uint8) Value { return Value{Tag: TagEnum, Num: uint64(v)} }

// Float32 gives a float32.
func Float32(v float32) Value { return Value{Tag: TagFloat32, Num: uint64(math.Float32bits(v))} }

// Float64 gives a float64.
func Float64(v float64) Value { return Value{Tag: TagFloat64, Num: math.Float64bits(v)} }

// OctetString gives an octet-string.
func OctetString(s string) Value { return Value{Tag: TagOctetString, Str: s} }

// VisibleString gives a visible-string.
func VisibleString(s string) Value { return Value{Tag: TagVisibleString, Str: s} }

// BitString gives a bit-string of the first n bits of s.
func BitString(s string, n int) Value { return Value{Tag: TagBitString, Str: s, Num: uint64(n)} }

// Delta gives a number of a delta type, signed or not. Whether it fits the type
// shows when it is encoded.
func Delta(t Tag, v int64) Value { return signed(t, v) }

func signed(t Tag, v int64) Value { return Value{Tag: t, Num: uint64(v)} }

// Int64 gives a signed whole number; ok is false for other types, the delta
// types among them.
func (v Value) Int64() (n int64, ok bool) {
	return int64(v.Num), v.isSigned() && v.Tag < TagDeltaInteger
}

// Delta gives what a delta type adds; ok is false for other types.
func (v Value) Delta() (n int64, ok bool) {
	return int64(v.Num), v.Tag >= TagDeltaInteger && v.Tag <= TagDeltaDoubleLongUnsigned
}

// Elements gives the elements of an array or a compact-array; ok is false for
// other types.
func (v Value) Elements() (items []Value, ok bool) {
	return v.Items, v.Tag == TagArray || v.Tag == TagCompactArray
}

// Uint64 gives an unsigned whole number or an enum; ok is false for other types.
func (v Value) Uint64() (n uint64, ok bool) {
	switch v.Tag { //nolint:exhaustive // the unsigned ones, and no others
	case TagUnsigned, TagLongUnsigned, TagDoubleLongUnsigned, TagLong64Unsigned, TagEnum:
		return v.Num, true
	}
	return 0, false
}

func (v Value) isSigned() bool {
	switch v.Tag { //nolint:exhaustive // the signed ones, and no others
	case TagInteger, TagLong, TagDoubleLong, TagLong64, TagDeltaInteger, TagDeltaLong, TagDeltaDoubleLong:
		return true
	}
	return false
}

// Equal says whether v and w are the same Data: equal tags and contents.
func (v Value) Equal(w Value) bool {
	if v.Tag != w.Tag || v.Num != w.Num || v.Str != w.Str || len(v.Items) != len(w.Items) {
		return false
	}
	for i := range v.Items {
		if !v.Items[i].Equal(w.Items[i]) {
			return false
		}
	}
	return true
}

// What is wrong with data. They come wrapped in a *SyntaxError.
var (
	ErrTruncated = errors.New("cut short")
	ErrTag       = errors.New("type not known")
	ErrDepth     = errors.New("nested too deeply")
	ErrLength    = errors.New("length out of range")
	// ErrType says that the elements of a compact-array are not of its type.
	ErrType = errors.New("not of the described type")
	// ErrRoom says that there are more values than a decoder gives room.
	ErrRoom = errors.New("too many values")
)

// SyntaxError says where in the data something is wrong, and in which type.
type SyntaxError struct {
	Offset int // octets from the start of the data to the tag
	Tag    Tag
	Err    error
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("data at offset %d, tag %d (%v): %v", e.Offset, uint8(e.Tag), e.Tag, e.Err)
}

func (e *SyntaxError) Unwrap() error { return e.Err }
