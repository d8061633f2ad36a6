package sniff

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

// data writes a value of A-XDR, with what is cut off said.
func data(b []byte) string {
	const most = 4096 // values
	v, _, _, err := axdr.ParseSome(b, most)
	if err != nil {
		return octets(b) + " (no data)"
	}
	return text(v, 0)
}

// text writes a value in one line: [1, "abc", {…}]. Date-times come as times.
func text(v axdr.Value, depth int) string {
	const most = 12 // elements that are shown
	items, ok := v.Elements()
	if v.Tag == axdr.TagStructure {
		items, ok = v.Items, true
	}
	if ok {
		if depth > 4 {
			return "…"
		}
		var parts []string
		for i, e := range items {
			if i == most {
				parts = append(parts, fmt.Sprintf("… %d in all", len(items)))
				break
			}
			parts = append(parts, text(e, depth+1))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	switch uint8(v.Tag) { // the others are numbers
	case uint8(axdr.TagNull):
		return "null"
	case uint8(axdr.TagOctetString), uint8(axdr.TagVisibleString), uint8(axdr.TagUTF8String):
		return textString(v.Str)
	case uint8(axdr.TagBitString):
		return fmt.Sprintf("bits %X", v.Str)
	case uint8(axdr.TagBoolean):
		return strconv.FormatBool(v.Num != 0)
	case uint8(axdr.TagFloat32):
		return fmt.Sprint(math.Float32frombits(uint32(v.Num)))
	case uint8(axdr.TagFloat64):
		return fmt.Sprint(math.Float64frombits(v.Num))
	}
	if n, ok := v.Int64(); ok {
		return fmt.Sprint(n)
	}
	if n, ok := v.Uint64(); ok {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%v %X", v.Tag, v.Str)
}

// textString writes octets: as a time where they are one, as text where they can be
// read, and else in hexadecimal digits.
func textString(s string) string {
	if len(s) == dlms.DateTimeLen {
		if t, err := dlms.ParseDateTime(s); err == nil && s[0] >= 7 && s[0] < 9 {
			return fmt.Sprintf("%04d-%02d-%02d %02d:%02d:%02d", t.Year, t.Month, t.Day, t.Hour, t.Minute, t.Second)
		}
	}
	if len(s) == len(obis.Code{}) && s[5] == 0xFF {
		return obis.Code([]byte(s)).Short()
	}
	if len(s) > 0 && strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0 {
		return strconv.Quote(s)
	}
	return octets([]byte(s))
}
