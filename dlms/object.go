package dlms

import (
	"math"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

// ScalerUnit is how a register's value is meant: value × 10^Scaler, in Unit
// (IEC 62056-6-2, 4.3.2).
type ScalerUnit struct {
	Scaler int8
	Unit   uint8
}

// ParseScalerUnit decodes the attribute scaler_unit.
func ParseScalerUnit(v axdr.Value) (ScalerUnit, error) {
	if v.Tag != axdr.TagStructure || len(v.Items) != 2 ||
		v.Items[0].Tag != axdr.TagInteger || v.Items[1].Tag != axdr.TagEnum {
		return ScalerUnit{}, malformed("scaler_unit is no structure of integer and enum")
	}
	scaler, _ := v.Items[0].Int64()
	unit, _ := v.Items[1].Uint64()
	return ScalerUnit{Scaler: int8(scaler), Unit: uint8(unit)}, nil
}

// Column is what a column of a profile generic holds: an entry of its
// capture_objects (IEC 62056-6-2, 4.3.6).
type Column struct {
	Attribute Attribute
	// Index picks an element of an attribute that is an array or structure,
	// from 1; 0 is the whole attribute.
	Index uint16
}

// ParseColumns decodes the attribute capture_objects.
func ParseColumns(v axdr.Value) ([]Column, error) {
	if v.Tag != axdr.TagArray {
		return nil, malformed("capture_objects is %v, want an array", v.Tag)
	}
	columns := make([]Column, 0, len(v.Items))
	for i, item := range v.Items {
		if item.Tag != axdr.TagStructure || len(item.Items) != 4 ||
			item.Items[0].Tag != axdr.TagLongUnsigned || item.Items[1].Tag != axdr.TagOctetString ||
			len(item.Items[1].Str) != len(obis.Code{}) ||
			item.Items[2].Tag != axdr.TagInteger || item.Items[3].Tag != axdr.TagLongUnsigned {
			return nil, malformed("capture_objects: entry %d is no capture object definition", i)
		}
		column := Column{
			Attribute: Attribute{Class: uint16(item.Items[0].Num), ID: int8(item.Items[2].Num)},
			Index:     uint16(item.Items[3].Num),
		}
		copy(column.Attribute.Code[:], item.Items[1].Str)
		columns = append(columns, column)
	}
	return columns, nil
}

// Apply gives n as it is meant: n × 10^Scaler.
func (s ScalerUnit) Apply(n float64) float64 {
	if s.Scaler < 0 {
		return n / math.Pow10(-int(s.Scaler))
	}
	return n * math.Pow10(int(s.Scaler))
}

// number gives a number of any type.
func number(v axdr.Value) (float64, bool) {
	switch v.Tag { //nolint:exhaustive // the others are whole numbers, or none
	case axdr.TagFloat32:
		return float64(math.Float32frombits(uint32(v.Num))), true
	case axdr.TagFloat64:
		return math.Float64frombits(v.Num), true
	}
	if n, ok := v.Int64(); ok {
		return float64(n), true
	}
	n, ok := v.Uint64()
	return float64(n), ok
}
