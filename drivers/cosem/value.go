package cosem

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"unicode/utf8"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/internal/meter"
)

// errNotScalar says that an attribute is no single value.
var errNotScalar = errors.New("not a single value")

// errRatio says that the ratio of a transformer cannot be applied without loss.
var errRatio = errors.New("transformer ratio is no whole number")

// model is what is to be known of a meter to understand its values.
type model struct {
	quirks  dlms.Quirks
	ratios  dlms.Ratios
	noRatio error // why there are no ratios, where the model needs them
}

// readModel reads what the model needs: the ratios, once and then daily.
func (v *visit) readModel(ctx context.Context) error {
	v.model = model{quirks: v.cfg.Quirks, ratios: v.cache.ratios.value}
	if !v.cfg.Quirks.Ratios || v.cache.ratios.fresh(v.cfg.Now()) && v.cache.ratios.value != (dlms.Ratios{}) {
		return nil
	}
	r, err := v.client.ReadRatios(ctx)
	switch err = v.tried(ctx, err); {
	case err == nil && !isWhole(r.Current, r.Voltage):
		v.model.noRatio = fmt.Errorf("%w: %w: %v and %v", dlms.ErrMalformed, errRatio, r.Current, r.Voltage)
	case err == nil:
		v.model.ratios, v.cache.ratios = r, kept[dlms.Ratios]{r, v.cfg.Now()}
	case isOfOne(err):
		v.model.noRatio = fmt.Errorf("transformer ratio: %w", err)
	default:
		return err
	}
	return nil
}

// isWhole says whether ratios can be multiplied by without loss.
func isWhole(ratios ...float64) bool {
	for _, r := range ratios {
		if !(r >= 1 && r <= 1<<26 && r == math.Trunc(r)) {
			return false
		}
	}
	return true
}

// cannot gives why there are no values of a unit, nil where there are.
func (m model) cannot(unit uint8) error {
	if m.quirks.Ratios && transformed(unit) {
		return m.noRatio
	}
	return nil
}

// value gives data of an attribute as a value, with what is held against it:
// a time as the standard has it, a number as it is on the primary side.
func (m model) value(data axdr.Value, a dlms.Attribute, scale dlms.ScalerUnit) (meter.Value, meter.Quality, error) {
	value, quality, err := toValue(data, a, scale.Scaler)
	if err != nil {
		return value, quality, err
	}
	if value.Kind == meter.DateTime && m.quirks.InvertDeviation {
		if d, err := dlms.ParseDateTime(value.Data); err == nil {
			var room [dlms.DateTimeLen]byte
			b, _ := m.quirks.Standard(d).AppendBinary(room[:0])
			value.Data = string(b)
		}
	}
	if !m.quirks.Ratios || !transformed(scale.Unit) {
		return value, quality, nil
	}
	if err := m.cannot(scale.Unit); err != nil {
		return meter.Value{}, 0, err
	}
	if value, ok := times(value, uint64(m.ratios.Of(scale.Unit))); ok {
		return value, quality, nil
	}
	return meter.Value{}, quality | meter.Overflow, nil
}

// transformed says whether transformers change numbers of a unit.
func transformed(unit uint8) bool { return dlms.Ratios{Current: 2, Voltage: 2}.Of(unit) != 1 }

// times gives v × n, if it fits.
func times(v meter.Value, n uint64) (meter.Value, bool) {
	switch v.Kind {
	case meter.Int:
		abs := v.Bits
		if v.Int64() < 0 {
			abs = -abs
		}
		over, product := bits.Mul64(abs, n)
		if over != 0 || product > math.MaxInt64 {
			return v, false
		}
		if v.Int64() < 0 {
			product = -product
		}
		return meter.IntValue(int64(product), v.Scale), true
	case meter.Uint:
		over, product := bits.Mul64(v.Bits, n)
		return meter.UintValue(product, v.Scale), over == 0
	case meter.Float32:
		f := float64(math.Float32frombits(uint32(v.Bits))) * float64(n)
		return meter.Float64Value(math.Float64bits(f), v.Scale), true
	case meter.Float64:
		f := math.Float64frombits(v.Bits) * float64(n)
		return meter.Float64Value(math.Float64bits(f), v.Scale), true
	case meter.None, meter.Bool, meter.Text, meter.Octets, meter.DateTime:
	}
	return v, true
}

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
	case axdr.TagEnum:
		return meter.UintValue(data.Num, 0), 0, nil
	case axdr.TagBCD:
		n, err := bcd(data.Num)
		return meter.UintValue(n, scaler), 0, err
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

// bcd gives the number of an octet of two decimal digits.
func bcd(octet uint64) (n uint64, err error) {
	tens, ones := octet>>4, octet&0xF
	if tens > 9 || ones > 9 {
		return 0, fmt.Errorf("%w: bcd of %#02x", dlms.ErrMalformed, octet)
	}
	return 10*tens + ones, nil
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
