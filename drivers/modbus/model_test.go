package modbus

import (
	"math"
	"testing"

	"gridgate/internal/meter"
)

func TestRegisterValues(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		r    Register
		in   string
		want meter.Value
		q    meter.Quality
	}{
		{"u16", Register{Type: U16, Scale: -2}, "FFFE", meter.UintValue(65534, -2), 0},
		{"s16", Register{Type: S16}, "FFFE", meter.IntValue(-2, 0), 0},
		{"u32", Register{Type: U32, Scale: -1}, "80000001", meter.UintValue(0x80000001, -1), 0},
		{"u32, low word first", Register{Type: U32, LittleEndianWords: true}, "00018000", meter.UintValue(0x80000001, 0), 0},
		{"s32", Register{Type: S32, Scale: -1}, "FFFFFF85", meter.IntValue(-123, -1), 0},
		{"s32, low word first", Register{Type: S32, LittleEndianWords: true}, "FF85FFFF", meter.IntValue(-123, 0), 0},
		{"u64", Register{Type: U64, Scale: 1}, "FFFFFFFFFFFFFFFE", meter.UintValue(math.MaxUint64-1, 1), 0},
		{"s64", Register{Type: S64}, "8000000000000001", meter.IntValue(math.MinInt64+1, 0), 0},
		{"s64, low word first", Register{Type: S64, LittleEndianWords: true}, "0004000300020001", meter.IntValue(0x0001000200030004, 0), 0},
		{"f32", Register{Type: F32, Scale: 3}, "43663334", meter.Float32Value(0x43663334, 3), 0},
		{"f32, low word first", Register{Type: F32, LittleEndianWords: true}, "33344366", meter.Float32Value(0x43663334, 0), 0},
		{"f64", Register{Type: F64}, "400921FB54442D18", meter.Float64Value(math.Float64bits(math.Pi), 0), 0},
		{"bcd16", Register{Type: BCD16}, "1234", meter.UintValue(1234, 0), 0},
		{"bcd32, low word first", Register{Type: BCD32, LittleEndianWords: true, Scale: -2}, "56781234", meter.UintValue(12345678, -2), 0},
		{"bcd64", Register{Type: BCD64}, "1234567890123456", meter.UintValue(1234567890123456, 0), 0},
		{"bcd that is none", Register{Type: BCD32}, "1234A678", meter.Value{}, meter.OutOfRange},
		{"u16 that the map says is none", Register{Type: U16, HasNaN: true, NaN: 0xFFFF}, "FFFF", meter.Value{}, meter.OutOfRange},
		{"s32 likewise, low word first", Register{Type: S32, LittleEndianWords: true, HasNaN: true, NaN: 0x7FFFFFFF}, "FFFF7FFF", meter.Value{}, meter.OutOfRange},
		{"s32 that is not that", Register{Type: S32, HasNaN: true, NaN: 0x7FFFFFFF}, "7FFFFFFE", meter.IntValue(0x7FFFFFFE, 0), 0},
		{"u64 that the map says is none", Register{Type: U64, HasNaN: true, NaN: 1<<64 - 1}, "FFFFFFFFFFFFFFFF", meter.Value{}, meter.OutOfRange},
		{"f32 that is none", Register{Type: F32}, "7FC00000", meter.Value{}, meter.OutOfRange},
		{"f32 infinite", Register{Type: F32}, "FF800000", meter.Value{}, meter.OutOfRange},
		{"f64 that is none", Register{Type: F64}, "FFF8000000000001", meter.Value{}, meter.OutOfRange},
		{"ascii", Register{Type: ASCII, Words: 4}, "2053444D36333000", meter.TextValue("SDM630"), 0},
		{"ascii, not", Register{Type: ASCII, Words: 2}, "41FF4200", meter.OctetsValue([]byte{0x41, 0xFF, 0x42}), 0},
	} {
		b := unhex(t, c.in)
		if int(c.r.Len())*2 != len(b) {
			t.Errorf("%s: %d registers for %d bytes", c.name, c.r.Len(), len(b))
		}
		if got, q := c.r.value(b); got != c.want || q != c.q {
			t.Errorf("%s: got %+v %v, want %+v %v", c.name, got, q, c.want, c.q)
		}
	}
}

func TestTypeNames(t *testing.T) {
	t.Parallel()
	for typ := U16; typ <= BCD64; typ++ {
		if got, err := ParseType(typ.String()); err != nil || got != typ {
			t.Errorf("%v: got %v, %v", typ, got, err)
		}
	}
	for _, s := range []string{"", "f16", "type(0)"} {
		if _, err := ParseType(s); err == nil {
			t.Errorf("%q passed", s)
		}
	}
	if n := (&Register{}).Len(); n != 0 {
		t.Errorf("a register of no type is %d long", n)
	}
}
