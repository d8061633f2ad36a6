package meter

import (
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Kind says how the bits of a Value are to be read. The numbers are part of
// the stored and the wire format.
type Kind uint8

// The kinds.
const (
	None     Kind = iota // no value; the row's quality says why
	Int                  // Bits is a signed 64-bit mantissa
	Uint                 // Bits is an unsigned 64-bit mantissa
	Float32              // the low half of Bits is an IEEE 754 binary32, as the meter sent it
	Float64              // Bits is an IEEE 754 binary64
	Bool                 // Bits is 0 or 1
	Text                 // Data is text
	Octets               // Data is bytes
	DateTime             // Data is the 12 octets of a COSEM date-time (IEC 62056-6-2, 4.1.6.1)
	kinds
)

// Valid says whether k is one of the kinds.
func (k Kind) Valid() bool { return k < kinds }

// Value is what a meter said, without loss: number = mantissa × 10^Scale, the
// mantissa exactly as the meter gave it. A float keeps its bits. What fits
// neither is a None with the quality Overflow, never a rounded number.
type Value struct {
	Kind  Kind
	Scale int8
	Bits  uint64
	Data  string
}

// IntValue gives v × 10^scale.
func IntValue(v int64, scale int8) Value { return Value{Kind: Int, Scale: scale, Bits: uint64(v)} }

// UintValue gives v × 10^scale.
func UintValue(v uint64, scale int8) Value { return Value{Kind: Uint, Scale: scale, Bits: v} }

// Float32Value gives the float with these bits × 10^scale.
func Float32Value(bits uint32, scale int8) Value {
	return Value{Kind: Float32, Scale: scale, Bits: uint64(bits)}
}

// Float64Value gives the float with these bits × 10^scale.
func Float64Value(bits uint64, scale int8) Value {
	return Value{Kind: Float64, Scale: scale, Bits: bits}
}

// BoolValue gives v.
func BoolValue(v bool) Value {
	if v {
		return Value{Kind: Bool, Bits: 1}
	}
	return Value{Kind: Bool}
}

// TextValue gives s.
func TextValue(s string) Value { return Value{Kind: Text, Data: s} }

// OctetsValue gives a copy of b.
func OctetsValue(b []byte) Value { return Value{Kind: Octets, Data: string(b)} }

// Int64 gives the mantissa of an Int.
func (v Value) Int64() int64 { return int64(v.Bits) }

// IsNumber says whether v has a finite numeric value.
func (v Value) IsNumber() bool {
	switch v.Kind {
	case Int, Uint:
		return true
	case Float32, Float64:
		f := v.raw()
		return !math.IsNaN(f) && !math.IsInf(f, 0)
	case None, Bool, Text, Octets, DateTime, kinds:
	}
	return false
}

// raw gives the unscaled number as a float64.
func (v Value) raw() float64 {
	switch v.Kind {
	case Int:
		return float64(int64(v.Bits))
	case Uint:
		return float64(v.Bits)
	case Float32:
		return float64(math.Float32frombits(uint32(v.Bits)))
	case Float64:
		return math.Float64frombits(v.Bits)
	case None, Bool, Text, Octets, DateTime, kinds:
	}
	return math.NaN()
}

// Float64 gives the number, rounded to a float64: for plausibility checks and
// display, not for billing. It is NaN for what is not a number.
func (v Value) Float64() float64 { return v.raw() * math.Pow10(int(v.Scale)) }

// Append appends v for people and for JSON numbers: every digit that the meter
// gave, and no more. Octets come in hexadecimal.
func (v Value) Append(b []byte) []byte {
	switch v.Kind {
	case Int:
		return appendScaled(b, strconv.FormatInt(int64(v.Bits), 10), int(v.Scale))
	case Uint:
		return appendScaled(b, strconv.FormatUint(v.Bits, 10), int(v.Scale))
	case Float32, Float64:
		size := 64
		if v.Kind == Float32 {
			size = 32
		}
		digits := strconv.FormatFloat(v.raw(), 'f', -1, size)
		if !v.IsNumber() {
			return append(b, digits...) // NaN, +Inf, -Inf
		}
		return appendScaled(b, digits, int(v.Scale))
	case Bool:
		return strconv.AppendBool(b, v.Bits != 0)
	case Text:
		return append(b, v.Data...)
	case Octets:
		return hex.AppendEncode(b, []byte(v.Data))
	case DateTime:
		return appendDateTime(b, v.Data)
	case None, kinds:
	}
	return b
}

// String gives what Append appends.
func (v Value) String() string { return string(v.Append(nil)) }

// AppendJSON appends v as a JSON value: a number with all its digits for
// numeric kinds, true or false, null for None, a string for the rest.
func (v Value) AppendJSON(b []byte) []byte {
	switch {
	case v.Kind == None:
		return append(b, "null"...)
	case v.Kind == Bool, v.IsNumber():
		return v.Append(b)
	default:
		return AppendJSONString(b, v.String())
	}
}

// AppendJSONString appends s as a JSON string; bytes that are not UTF-8 come
// as U+FFFD.
func AppendJSONString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < 0x20 || r == 0x7f || r == 0x2028 || r == 0x2029:
			b = fmt.Appendf(b, "\\u%04x", r)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

// appendScaled shifts the decimal point of digits by scale places.
func appendScaled(b []byte, digits string, scale int) []byte {
	if scale == 0 {
		return append(b, digits...)
	}
	if digits[0] == '-' {
		b, digits = append(b, '-'), digits[1:]
	}
	whole, frac, _ := strings.Cut(digits, ".")
	all, point := whole+frac, len(whole)+scale
	if point > len(all) {
		all += strings.Repeat("0", point-len(all))
	}
	if point < 1 {
		all = strings.Repeat("0", 1-point) + all
		point = 1
	}
	lead := 0
	for lead < point-1 && all[lead] == '0' {
		lead++
	}
	b = append(b, all[lead:point]...)
	if point < len(all) {
		b = append(b, '.')
		b = append(b, all[point:]...)
	}
	return b
}

// appendDateTime prints a COSEM date-time as the meter gave it: fields that it
// left open are '?', and the deviation is printed as an offset from UTC. What
// is not 12 octets long is printed in hexadecimal.
func appendDateTime(b []byte, s string) []byte {
	if len(s) != 12 {
		return hex.AppendEncode(b, []byte(s))
	}
	field := func(v, open int, format, unknown string) {
		if v == open {
			b = append(b, unknown...)
			return
		}
		b = fmt.Appendf(b, format, v)
	}
	field(int(s[0])<<8|int(s[1]), 0xFFFF, "%04d", "????")
	field(int(s[2]), 0xFF, "-%02d", "-??")
	field(int(s[3]), 0xFF, "-%02d", "-??")
	field(int(s[5]), 0xFF, "T%02d", "T??")
	field(int(s[6]), 0xFF, ":%02d", ":??")
	field(int(s[7]), 0xFF, ":%02d", ":??")
	if deviation := int(int16(uint16(s[9])<<8 | uint16(s[10]))); deviation != -0x8000 {
		sign := byte('+') // deviation is what to ADD to local time to get UTC
		if deviation > 0 {
			sign = '-'
		} else {
			deviation = -deviation
		}
		b = append(b, sign)
		b = fmt.Appendf(b, "%02d:%02d", deviation/60, deviation%60)
	}
	return b
}
