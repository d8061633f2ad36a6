package dlms

import (
	"errors"
	"testing"

	"gridgate/dlms/axdr"
)

func TestObjectsRefuseWhatTheyAreNot(t *testing.T) {
	t.Parallel()
	code := axdr.OctetString("\x01\x00\x01\x08\x00\xFF")
	for name, v := range map[string]axdr.Value{
		"null":         axdr.Null(),
		"empty":        axdr.Structure(),
		"array":        axdr.Array(axdr.Integer(0), axdr.Enum(30)),
		"unsigned":     axdr.Structure(axdr.Unsigned(0), axdr.Enum(30)),
		"no enum":      axdr.Structure(axdr.Integer(0), axdr.Unsigned(30)),
		"three of two": axdr.Structure(axdr.Integer(0), axdr.Enum(30), axdr.Null()),
	} {
		if got, err := ParseScalerUnit(v); !errors.Is(err, ErrMalformed) {
			t.Errorf("scaler_unit, %s: %+v, %v", name, got, err)
		}
	}
	for name, v := range map[string]axdr.Value{
		"null":       axdr.Null(),
		"structure":  axdr.Structure(),
		"not nested": axdr.Array(axdr.LongUnsigned(3)),
		"three":      axdr.Array(axdr.Structure(axdr.LongUnsigned(3), code, axdr.Integer(2))),
		"short code": axdr.Array(axdr.Structure(axdr.LongUnsigned(3), axdr.OctetString("\x01\x00"), axdr.Integer(2), axdr.LongUnsigned(0))),
		"class":      axdr.Array(axdr.Structure(axdr.Unsigned(3), code, axdr.Integer(2), axdr.LongUnsigned(0))),
		"attribute":  axdr.Array(axdr.Structure(axdr.LongUnsigned(3), code, axdr.Unsigned(2), axdr.LongUnsigned(0))),
		"index":      axdr.Array(axdr.Structure(axdr.LongUnsigned(3), code, axdr.Integer(2), axdr.Null())),
	} {
		if got, err := ParseColumns(v); !errors.Is(err, ErrMalformed) {
			t.Errorf("capture_objects, %s: %+v, %v", name, got, err)
		}
	}
	if got, err := ParseScalerUnit(axdr.Structure(axdr.Integer(-3), axdr.Enum(33))); err != nil || got != (ScalerUnit{-3, 33}) {
		t.Errorf("scaler_unit: %+v, %v", got, err)
	}
	got, err := ParseColumns(axdr.Array(axdr.Structure(axdr.LongUnsigned(4), code, axdr.Integer(-5), axdr.LongUnsigned(7))))
	if err != nil || len(got) != 1 || got[0].Attribute.String() != "1-0:1.8.0*255/4:-5" || got[0].Index != 7 {
		t.Errorf("capture_objects: %+v, %v", got, err)
	}
}
