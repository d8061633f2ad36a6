package cosem

import (
	"errors"
	"testing"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/internal/meter"
)

// TestDecimalDigits: the octet of a bcd is two digits of the number, which the
// scaler scales; what are no digits is no number.
func TestDecimalDigits(t *testing.T) {
	t.Parallel()
	register := dlms.Attribute{Class: meter.ClassRegister, Code: obisOf("1-0:1.8.0"), ID: 2}
	for octet, want := range map[uint64]string{0x00: "0.0", 0x09: "0.9", 0x42: "4.2", 0x99: "9.9", 0x0A: "", 0xA0: "", 0xFF: ""} {
		v, _, err := toValue(axdr.Value{Tag: axdr.TagBCD, Num: octet}, register, -1)
		switch {
		case want == "" && !errors.Is(err, dlms.ErrMalformed):
			t.Errorf("%#x: %v, %v", octet, v, err)
		case want != "" && (err != nil || v.Kind != meter.Uint || v.String() != want):
			t.Errorf("%#x: %v, %v, want %s", octet, v, err, want)
		}
	}
}
