package bridge

import (
	"math"
	"math/bits"
	"strconv"
	"unicode/utf8"

	"gridgate/agent/batch"
)

// typeOf gives the data type that holds the values of a channel, as far as one
// value tells. ok is false for a value that is not there.
func typeOf(v batch.Value) (t DataType, ok bool) {
	switch v.Kind {
	case batch.Int, batch.Uint:
		switch {
		case v.Scale < 0:
			return TypeDouble, true
		case v.Kind == batch.Int:
			return TypeInt64, true
		default:
			return TypeUInt64, true
		}
	case batch.Float32:
		if v.Scale == 0 {
			return TypeFloat, true
		}
		return TypeDouble, true
	case batch.Float64:
		return TypeDouble, true
	case batch.Bool:
		return TypeBoolean, true
	case batch.Octets:
		return TypeBytes, true
	case batch.Text, batch.DateTime:
		return TypeString, true
	case batch.None:
	}
	return 0, false
}

// join gives the type that holds the values of both: of a channel whose meter
// changed its mind about scale or kind. It never goes back, so that two such
// rows in turn do not make a birth each.
func join(a, b DataType) DataType {
	number := func(t DataType) bool {
		return t == TypeInt64 || t == TypeUInt64 || t == TypeFloat || t == TypeDouble
	}
	switch {
	case a == b:
		return a
	case number(a) && number(b):
		return TypeDouble
	default:
		return TypeString
	}
}

// datum gives the value as one of type t: its bits or data. ok is false when
// t does not hold exactly this value, or there is none: then it is null, for a
// wrong value is worse than none.
func datum(v batch.Value, t DataType) (number uint64, data string, ok bool) {
	if v.Kind == batch.None {
		return 0, "", false
	}
	own, _ := typeOf(v)
	switch t {
	case TypeInt64, TypeUInt64:
		if own != t {
			return 0, "", false
		}
		return scaled(v)
	case TypeFloat:
		return uint64(uint32(v.Bits)), "", own == t && v.IsNumber()
	case TypeDouble:
		return double(v)
	case TypeBoolean:
		return v.Bits & 1, "", own == t
	case TypeBytes:
		return 0, v.Data, own == t
	case TypeString:
		data = v.String()
		return 0, data, utf8.ValidString(data)
	case TypeInt32:
	}
	return 0, "", false
}

// scaled gives mantissa × 10^scale as 64 bits, when it fits.
func scaled(v batch.Value) (number uint64, data string, ok bool) {
	magnitude, negative := v.Bits, v.Kind == batch.Int && int64(v.Bits) < 0
	if negative {
		magnitude = -magnitude
	}
	for range v.Scale {
		high, low := bits.Mul64(magnitude, 10)
		if high != 0 {
			return 0, "", false
		}
		magnitude = low
	}
	limit := uint64(math.MaxUint64)
	if v.Kind == batch.Int {
		limit = math.MaxInt64
		if negative {
			limit++
		}
	}
	if magnitude > limit {
		return 0, "", false
	}
	if negative {
		magnitude = -magnitude
	}
	return magnitude, "", true
}

// double gives v as a float64, when that has all its digits: written out as
// short as it can be, it is the meter's number again. Up to 15 digits always
// are.
func double(v batch.Value) (number uint64, data string, ok bool) {
	if !v.IsNumber() {
		return 0, "", false
	}
	if v.Kind == batch.Float64 && v.Scale == 0 {
		return v.Bits, "", true
	}
	text := v.String()
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !sameDecimal(strconv.FormatFloat(f, 'f', -1, 64), text) {
		return 0, "", false
	}
	return math.Float64bits(f), "", true
}

// sameDecimal compares two decimal numbers as written, without exponents; one
// may have zeros at the end of its fraction that the other has not.
func sameDecimal(a, b string) bool { return trimFraction(a) == trimFraction(b) }

func trimFraction(s string) string {
	point := false
	for i := range len(s) {
		point = point || s[i] == '.'
	}
	if !point {
		return s
	}
	for s[len(s)-1] == '0' {
		s = s[:len(s)-1]
	}
	if s[len(s)-1] == '.' {
		s = s[:len(s)-1]
	}
	if s == "-0" {
		return "0"
	}
	return s
}
