package iec21

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

// What keeps a value from being one.
var (
	errUnit    = errors.New("unknown unit")
	errNoValue = errors.New("the meter shows no value")
)

// reading is a value as rows have it.
type reading struct {
	value   meter.Value
	unit    meter.Unit
	quality meter.Quality
}

// parseValue reads what stands between parentheses. Numbers keep all digits:
// the prefix of the unit goes into the scale, 001.50*kWh is 150 × 10 Wh.
func parseValue(c obis.Code, raw string) (reading, error) {
	text, unitText := cutUnit(raw)
	if isRefusal(text) {
		return reading{}, &refusalError{text}
	}
	if unitText == "" {
		if t, ok := parseTime(text); ok && isTime(c) {
			return reading{value: t.value()}, nil
		}
		if isText(c) {
			return reading{value: meter.TextValue(text)}, nil
		}
	}
	if text == "" || strings.Trim(text, "-*") == "" {
		return reading{}, errNoValue
	}
	unit, prefix, ok := parseUnit(unitText)
	if !ok {
		return reading{}, fmt.Errorf("%w: %q", errUnit, unitText)
	}
	v, q, ok := parseNumber(text, prefix)
	switch {
	case !ok && unitText != "":
		return reading{}, fmt.Errorf("%w: %q is no number", errLine, raw)
	case !ok:
		return reading{value: meter.TextValue(text)}, nil
	}
	return reading{value: v, unit: unit, quality: q}, nil
}

// parseNumber reads a decimal number × 10^prefix. Some write a decimal comma.
func parseNumber(s string, prefix int) (meter.Value, meter.Quality, bool) {
	digits, negative := strings.CutPrefix(strings.TrimPrefix(s, "+"), "-")
	whole, frac, dotted := strings.Cut(strings.Replace(digits, ",", ".", 1), ".")
	all := whole + frac
	if all == "" || strings.Trim(all, "0123456789") != "" || dotted && frac == "" || len(all) > 64 {
		return meter.Value{}, 0, false
	}
	scale := prefix - len(frac)
	n, err := strconv.ParseUint(all, 10, 64)
	if err != nil || scale < math.MinInt8 || negative && n > math.MaxInt64 {
		return meter.Value{}, meter.Overflow, true
	}
	if negative {
		return meter.IntValue(-int64(n), int8(scale)), 0, true
	}
	return meter.UintValue(n, int8(scale)), 0, true
}

// parseUnit gives a unit and the power of ten before it. Makes differ in the
// use of capitals; only m and M differ in meaning.
func parseUnit(s string) (unit meter.Unit, prefix int, ok bool) {
	if s == "" {
		return meter.Count, 0, true
	}
	if u, ok := bareUnit(s); ok {
		return u, 0, true
	}
	powers := map[byte]int{'m': -3, 'k': 3, 'K': 3, 'M': 6, 'G': 9, 'T': 12}
	if p, ok := powers[s[0]]; ok {
		if u, ok := bareUnit(s[1:]); ok && u != meter.Celsius && u != meter.CubicMetre && u != meter.Minute {
			return u, p, true
		}
	}
	return 0, 0, false
}

// bareUnit gives a unit without a prefix (IEC 62056-6-2, 4.3.2).
func bareUnit(s string) (meter.Unit, bool) {
	const cubicMetrePerHour, litre, pascal, bar, joule, kelvin, ampereHour = 15, 19, 23, 24, 25, 52, 57
	u, ok := map[string]meter.Unit{
		"wh": meter.WattHour, "varh": meter.VarHour, "vah": meter.VAHour,
		"w": meter.Watt, "var": meter.Var, "va": meter.VoltAmpere,
		"v": meter.Volt, "a": meter.Ampere, "hz": meter.Hertz, "ah": ampereHour,
		"°c": meter.Celsius, "c": meter.Celsius, "degc": meter.Celsius, "gradc": meter.Celsius, "cel": meter.Celsius, "k": kelvin,
		"deg": meter.Degree, "%": meter.Percent, "m3": meter.CubicMetre, "m3/h": cubicMetrePerHour, "l": litre,
		"h": 5, "min": meter.Minute, "s": meter.Second, "d": 4, "pa": pascal, "bar": bar, "j": joule,
	}[strings.ToLower(s)]
	return u, ok
}
