package bridge

import (
	"math"
	"math/big"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"gridgate/agent/batch"
)

func TestTypes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		v    batch.Value
		want DataType
	}{
		{batch.Value{Kind: batch.Uint}, TypeUInt64},
		{batch.Value{Kind: batch.Uint, Scale: 3}, TypeUInt64},
		{batch.Value{Kind: batch.Uint, Scale: -1}, TypeDouble},
		{batch.Value{Kind: batch.Int}, TypeInt64},
		{batch.Value{Kind: batch.Int, Scale: -2}, TypeDouble},
		{batch.Value{Kind: batch.Float32}, TypeFloat},
		{batch.Value{Kind: batch.Float32, Scale: 1}, TypeDouble},
		{batch.Value{Kind: batch.Float64}, TypeDouble},
		{batch.Value{Kind: batch.Bool}, TypeBoolean},
		{batch.Value{Kind: batch.Text}, TypeString},
		{batch.Value{Kind: batch.DateTime}, TypeString},
		{batch.Value{Kind: batch.Octets}, TypeBytes},
	} {
		if got, ok := typeOf(c.v); got != c.want || !ok {
			t.Errorf("%+v: %d", c.v, got)
		}
	}
	if _, ok := typeOf(batch.Value{}); ok {
		t.Error("no value has a type")
	}
	for _, c := range [][3]DataType{
		{TypeInt64, TypeInt64, TypeInt64},
		{TypeInt64, TypeUInt64, TypeDouble},
		{TypeFloat, TypeUInt64, TypeDouble},
		{TypeDouble, TypeString, TypeString},
		{TypeBoolean, TypeDouble, TypeString},
		{TypeBytes, TypeBoolean, TypeString},
	} {
		if join(c[0], c[1]) != c[2] || join(c[1], c[0]) != c[2] {
			t.Errorf("%d and %d: %d, want %d", c[0], c[1], join(c[0], c[1]), c[2])
		}
	}
}

func TestDatum(t *testing.T) {
	t.Parallel()
	double := func(f float64) uint64 { return math.Float64bits(f) }
	minus := func(n int64) uint64 { return uint64(-n) }
	for name, c := range map[string]struct {
		v      batch.Value
		t      DataType
		number uint64
		data   string
		ok     bool
	}{
		"register":                {batch.Value{Kind: batch.Uint, Bits: 120345}, TypeUInt64, 120345, "", true},
		"register in 10 Wh":       {batch.Value{Kind: batch.Uint, Bits: 120345, Scale: 1}, TypeUInt64, 1203450, "", true},
		"largest":                 {batch.Value{Kind: batch.Uint, Bits: math.MaxUint64}, TypeUInt64, math.MaxUint64, "", true},
		"too large":               {batch.Value{Kind: batch.Uint, Bits: math.MaxUint64, Scale: 1}, TypeUInt64, 0, "", false},
		"far too large":           {batch.Value{Kind: batch.Uint, Bits: 1, Scale: 127}, TypeUInt64, 0, "", false},
		"0 of any scale":          {batch.Value{Kind: batch.Uint, Scale: 127}, TypeUInt64, 0, "", true},
		"negative":                {batch.Value{Kind: batch.Int, Bits: minus(5), Scale: 2}, TypeInt64, minus(500), "", true},
		"lowest":                  {batch.Value{Kind: batch.Int, Bits: 1 << 63}, TypeInt64, 1 << 63, "", true},
		"lower than lowest":       {batch.Value{Kind: batch.Int, Bits: 1 << 63, Scale: 1}, TypeInt64, 0, "", false},
		"over the highest signed": {batch.Value{Kind: batch.Int, Bits: math.MaxInt64/10 + 1, Scale: 1}, TypeInt64, 0, "", false},
		"volts":                   {batch.Value{Kind: batch.Uint, Bits: 2301, Scale: -1}, TypeDouble, double(230.1), "", true},
		"zeros at the end":        {batch.Value{Kind: batch.Int, Bits: minus(23000), Scale: -3}, TypeDouble, double(-23), "", true},
		"15 digits":               {batch.Value{Kind: batch.Uint, Bits: 123456789012345, Scale: -4}, TypeDouble, double(12345678901.2345), "", true},
		"19 digits":               {batch.Value{Kind: batch.Uint, Bits: 1234567890123456789, Scale: -4}, TypeDouble, 0, "", false},
		"2^53+1":                  {batch.Value{Kind: batch.Uint, Bits: 1<<53 + 1}, TypeDouble, 0, "", false},
		"2^53":                    {batch.Value{Kind: batch.Uint, Bits: 1 << 53}, TypeDouble, double(1 << 53), "", true},
		"float":                   {batch.Value{Kind: batch.Float32, Bits: 0x4366199A}, TypeFloat, 0x4366199A, "", true},
		"float as double":         {batch.Value{Kind: batch.Float32, Bits: 0x4366199A}, TypeDouble, double(230.1), "", true},
		"float64":                 {batch.Value{Kind: batch.Float64, Bits: double(0.1)}, TypeDouble, double(0.1), "", true},
		"no number":               {batch.Value{Kind: batch.Float32, Bits: 0x7FC00000}, TypeFloat, 0x7FC00000, "", false},
		"infinite":                {batch.Value{Kind: batch.Float64, Bits: double(math.Inf(1))}, TypeDouble, 0, "", false},
		"no value":                {batch.Value{}, TypeDouble, 0, "", false},
		"yes":                     {batch.Value{Kind: batch.Bool, Bits: 1}, TypeBoolean, 1, "", true},
		"yes as text":             {batch.Value{Kind: batch.Bool, Bits: 1}, TypeString, 0, "true", true},
		"number as text":          {batch.Value{Kind: batch.Uint, Bits: 2301, Scale: -1}, TypeString, 0, "230.1", true},
		"octets":                  {batch.Value{Kind: batch.Octets, Data: "\x00\xff"}, TypeBytes, 0, "\x00\xff", true},
		"bad text":                {batch.Value{Kind: batch.Text, Data: "\xff"}, TypeString, 0, "\xff", false},
		"text as number":          {batch.Value{Kind: batch.Text, Data: "7"}, TypeUInt64, 0, "", false},
		"signed as unsigned":      {batch.Value{Kind: batch.Int, Bits: 7}, TypeUInt64, 0, "", false},
	} {
		number, data, ok := datum(c.v, c.t)
		if ok != c.ok || ok && (number != c.number || data != c.data) {
			t.Errorf("%s: %#x %q %v, want %#x %q %v", name, number, data, ok, c.number, c.data, c.ok)
		}
	}
}

// What is told as a number is the meter's number, to the last digit, or nothing
// is told.
func TestNumbersAreExact(t *testing.T) {
	t.Parallel()
	told := 0
	rapid.Check(t, func(rt *rapid.T) {
		digits := rapid.IntRange(0, 63).Draw(rt, "bits")
		v := batch.Value{
			Kind: rapid.SampledFrom([]batch.Kind{batch.Int, batch.Uint}).Draw(rt, "kind"), Scale: int8(rapid.IntRange(-20, 6).Draw(rt, "scale")),
			Bits: rapid.Uint64().Draw(rt, "mantissa") >> digits,
		}
		own, _ := typeOf(v)
		to := rapid.SampledFrom([]DataType{own, TypeDouble}).Draw(rt, "type")
		number, _, ok := datum(v, to)
		if !ok {
			if v.Scale <= 0 && to == TypeDouble && v.Bits < 1e15 {
				rt.Fatalf("%v is not told: up to 15 digits always are", v)
			}
			return
		}
		told++
		got := new(big.Rat)
		switch to {
		case TypeInt64:
			got.SetInt64(int64(number))
		case TypeUInt64:
			got.SetUint64(number)
		default: // as a consumer writes it
			if _, good := got.SetString(strconv.FormatFloat(math.Float64frombits(number), 'g', -1, 64)); !good {
				rt.Fatal("no number")
			}
		}
		if want, _ := new(big.Rat).SetString(v.String()); got.Cmp(want) != 0 {
			rt.Fatalf("%v is told as %v", v, got)
		}
	})
	if told == 0 {
		t.Error("nothing was told")
	}
}
