package modbus

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"gridgate/internal/meter"
)

// The most registers that one request can ask for (Modbus Application
// Protocol V1.1b3, 6.3 and 6.4).
const maxRegs = 125

// Model is the register map of a kind of meter. It is read only once it is in
// use, and may be shared by all meters of the kind.
type Model struct {
	Name string
	// File is where the map was read from, for messages; "" is nowhere.
	File string
	// MaxRegs is how many registers the meter gives in one answer; 0 is 125.
	MaxRegs int
	// Holes allows reading across registers that the map does not name.
	Holes bool
	// Turnaround is the silence that the meter wants before a request, when
	// that is more than the 3.5 characters of the standard.
	Turnaround time.Duration
	// Serial is where the meter shows its serial number; nil when nowhere.
	// Its Channel is not used.
	Serial *Register
	// Identity is what tells this kind of meter from others: all of it must
	// fit before a value is believed. A meter that refuses to show one of them
	// is not judged by that one.
	Identity  []Identity
	Registers []Register
	Checks    []Check
	// Clock is where the meter keeps the time; nil when nowhere.
	Clock *Clock
}

// Register is one value of a map.
type Register struct {
	Channel  meter.Channel
	Function uint8 // 3 holding register, 4 input register
	// Address is what goes on the wire: counted from 0.
	Address uint16
	Type    Type
	// Words is the length of an ASCII register; the other types know theirs.
	Words uint16
	// LittleEndianWords says that the low word comes first. The bytes of a
	// word are always high byte first.
	LittleEndianWords bool
	// Scale is the power of ten that makes the register's number the Unit's:
	// 3 for a register in kWh and the unit Wh.
	Scale int8
	Unit  meter.Unit
	// NaN are the register's bits, the high word first, that say that there is
	// no value; HasNaN says that there are such.
	NaN    uint64
	HasNaN bool
	// Limits is what a value lies between that is plausible; nil for any.
	Limits *Limits
	Line   int // in the map's file; 0 when it is from no file
}

// Limits are the bounds of a plausible value in the register's Unit.
type Limits struct{ Min, Max float64 }

// Identity is a register that shows the vendor or the kind of a meter.
type Identity struct {
	Register // its Channel, Scale and Unit are not used
	// Want are the values that the kind has, as meter.Value prints them; a text
	// that ends in '*' stands for all that begin so. Empty for any but Not.
	Want []string
	// Not are the values of kinds that are easily taken for this one.
	Not []string
}

// fits says whether the map is for a meter that shows value.
func (i *Identity) fits(value string) bool {
	is := func(want string) bool {
		head, isPrefix := strings.CutSuffix(want, "*")
		return value == want || isPrefix && strings.HasPrefix(value, head)
	}
	return !slices.ContainsFunc(i.Not, is) && (len(i.Want) == 0 || slices.ContainsFunc(i.Want, is))
}

// Check says what a value must lie between when the map and the meter match.
// The bounds are in the channel's unit.
type Check struct {
	Channel  meter.Channel
	Min, Max float64
}

// Type is how a value stands in its registers.
type Type uint8

// The types.
const (
	U16 Type = iota + 1
	S16
	U32
	S32
	U64
	S64
	F32 // IEEE 754
	F64
	ASCII // two characters a register
	BCD16 // four decimal digits a register, the first one in the high bits
	BCD32
	BCD64
)

var typeNames = [...]string{ //nolint:gochecknoglobals // a constant table
	U16: "u16", S16: "s16", U32: "u32", S32: "s32", U64: "u64", S64: "s64", F32: "f32", F64: "f64", ASCII: "ascii",
	BCD16: "bcd16", BCD32: "bcd32", BCD64: "bcd64",
}

// String gives the type as model files name it.
func (t Type) String() string {
	if int(t) < len(typeNames) && typeNames[t] != "" {
		return typeNames[t]
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

// ParseType gives the type that model files call s.
func ParseType(s string) (Type, error) {
	if at := slices.Index(typeNames[:], s); at > 0 {
		return Type(at), nil
	}
	return 0, fmt.Errorf("type %q: want one of %s", s, strings.Join(typeNames[1:], ", "))
}

// Len is how many registers the value takes; 0 for a type that is none.
func (r *Register) Len() uint16 {
	switch r.Type {
	case U16, S16, BCD16:
		return 1
	case U32, S32, F32, BCD32:
		return 2
	case U64, S64, F64, BCD64:
		return 4
	case ASCII:
		return r.Words
	}
	return 0
}

// end is the address behind the register; it does not wrap.
func (r *Register) end() int { return int(r.Address) + int(r.Len()) }

// value reads r from its registers' bytes. It is no number but OutOfRange where
// the meter has none: by the map's NaN, a float that is not a number, a digit
// that is none.
func (r *Register) value(b []byte) (meter.Value, meter.Quality) {
	if r.Type == ASCII {
		return text(b), 0
	}
	bits, size := r.bits(b), len(b)*8
	if r.HasNaN && bits == r.NaN {
		return meter.Value{}, meter.OutOfRange
	}
	switch r.Type {
	case F32:
		if f := float64(math.Float32frombits(uint32(bits))); math.IsNaN(f) || math.IsInf(f, 0) {
			return meter.Value{}, meter.OutOfRange
		}
		return meter.Float32Value(uint32(bits), r.Scale), 0
	case F64:
		if f := math.Float64frombits(bits); math.IsNaN(f) || math.IsInf(f, 0) {
			return meter.Value{}, meter.OutOfRange
		}
		return meter.Float64Value(bits, r.Scale), 0
	case S16, S32, S64:
		return meter.IntValue(int64(bits<<(64-size))>>(64-size), r.Scale), 0
	case BCD16, BCD32, BCD64:
		number, ok := decimal(bits)
		if !ok {
			return meter.Value{}, meter.OutOfRange
		}
		return meter.UintValue(number, r.Scale), 0
	case U16, U32, U64, ASCII:
	}
	return meter.UintValue(bits, r.Scale), 0
}

// bits puts the registers' words together, the high one first.
func (r *Register) bits(b []byte) uint64 {
	var bits uint64
	for i := 0; i < len(b); i += 2 {
		at := i
		if r.LittleEndianWords {
			at = len(b) - 2 - i
		}
		bits = bits<<16 | uint64(binary.BigEndian.Uint16(b[at:]))
	}
	return bits
}

// decimal reads sixteen digits of four bits each.
func decimal(bits uint64) (number uint64, ok bool) {
	for shift := 60; shift >= 0; shift -= 4 {
		digit := bits >> shift & 0xF
		if digit > 9 {
			return 0, false
		}
		number = number*10 + digit
	}
	return number, true
}

// text reads characters up to the first NUL, without the spaces around them.
// What is not printable ASCII comes as octets.
func text(b []byte) meter.Value {
	if at := slices.Index(b, 0); at >= 0 {
		b = b[:at]
	}
	s := strings.Trim(string(b), " ")
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return meter.OctetsValue([]byte(s))
		}
	}
	return meter.TextValue(s)
}
