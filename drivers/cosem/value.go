package cosem

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/internal/meter"
)

// errNotScalar says that an attribute is no single value.
var errNotScalar = errors.New("not a single value")

// toValue gives data of an attribute as a value, with what is held against it.
// The scaler is for numbers only. Null-data is no value, and missing.
func toValue(data axdr.Value, a dlms.Attribute, scaler int8) (meter.Value, meter.Quality, error) {
	if isTime(a) && data.Tag == axdr.TagOctetString || data.Tag == axdr.TagDateTime {
		return timeValue(data.Str)
	}
	switch data.Tag {
	case axdr.TagNull:
		return meter.Value{}, meter.IntervalMissing, nil
	case axdr.TagInteger, axdr.TagLong, axdr.TagDoubleLong, axdr.TagLong64:
		n, _ := data.Int64()
		return meter.IntValue(n, scaler), 0, nil
	case axdr.TagUnsigned, axdr.TagLongUnsigned, axdr.TagDoubleLongUnsigned, axdr.TagLong64Unsigned:
		return meter.UintValue(data.Num, scaler), 0, nil
	case axdr.TagEnum, axdr.TagBCD:
		return meter.UintValue(data.Num, 0), 0, nil
	case axdr.TagFloat32:
		return meter.Float32Value(uint32(data.Num), scaler), 0, nil
	case axdr.TagFloat64:
		return meter.Float64Value(data.Num, scaler), 0, nil
	case axdr.TagBoolean:
		return meter.BoolValue(data.Num != 0), 0, nil
	case axdr.TagVisibleString, axdr.TagUTF8String:
		if utf8.ValidString(data.Str) {
			return meter.TextValue(data.Str), 0, nil
		}
		return meter.OctetsValue([]byte(data.Str)), 0, nil
	case axdr.TagOctetString:
		if isText(a) && isPrintable(data.Str) {
			return meter.TextValue(data.Str), 0, nil
		}
		return meter.OctetsValue([]byte(data.Str)), 0, nil
	case axdr.TagBitString, axdr.TagDate, axdr.TagTime:
		return meter.OctetsValue([]byte(data.Str)), 0, nil
	case axdr.TagArray, axdr.TagStructure, axdr.TagCompactArray, axdr.TagDateTime,
		axdr.TagDeltaInteger, axdr.TagDeltaLong, axdr.TagDeltaDoubleLong,
		axdr.TagDeltaUnsigned, axdr.TagDeltaLongUnsigned, axdr.TagDeltaDoubleLongUnsigned:
	}
	return meter.Value{}, 0, fmt.Errorf("%w: %v", errNotScalar, data.Tag)
}

func timeValue(s string) (meter.Value, meter.Quality, error) {
	d, err := dlms.ParseDateTime(s)
	if err != nil {
		return meter.Value{}, 0, err
	}
	return meter.Value{Kind: meter.DateTime, Data: s}, clockQuality(d), nil
}

// clockQuality is what a clock's status holds against a row.
func clockQuality(d dlms.DateTime) meter.Quality {
	var q meter.Quality
	if d.Has(dlms.StatusInvalid) {
		q |= meter.MeterClockInvalid
	}
	if d.Has(dlms.StatusDaylightSaving) {
		q |= meter.DaylightSaving
	}
	return q
}

// isTime says whether an attribute is a date-time that comes as octet-string.
func isTime(a dlms.Attribute) bool {
	switch a.Class {
	case meter.ClassClock:
		return a.ID == 2
	case meter.ClassExtended:
		return a.ID == 5
	case meter.ClassDemandRegister:
		return a.ID == 6 || a.ID == 7
	}
	return false
}

// isText says whether an octet-string is text by the meaning of its code:
// identifiers and versions. Others are octets even when they look like text,
// so that a channel does not change its kind with its value.
func isText(a dlms.Attribute) bool {
	c := a.Code
	switch {
	case a.Class != meter.ClassData || a.ID != 2:
		return false
	case c[0] == 0 && c[2] == 42: // logical device name
		return true
	case c[0] == 0 && c[2] == 96 && c[3] == 1: // device ids
		return true
	}
	return c[2] == 0 && (c[3] == 0 || c[3] == 2) // numbers of the meter, versions
}

func isPrintable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
