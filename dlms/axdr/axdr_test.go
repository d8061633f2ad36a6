package axdr

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// golden has a row for every type; the ones that come from captured
// conversations with real meters say so.
func golden() map[string]struct {
	hex  string
	want Value
} {
	return map[string]struct {
		hex  string
		want Value
	}{
		"null":                 {"00", Null()},
		"array":                {"01 03 11 01 11 02 11 03", Array(Unsigned(1), Unsigned(2), Unsigned(3))},
		"empty array":          {"01 00", Array()},
		"boolean":              {"03 01", Boolean(true)},
		"boolean false":        {"03 00", Boolean(false)},
		"bit-string":           {"04 0B A5 E0", BitString("\xA5\xE0", 11)},
		"double-long":          {"05 FF FF FF FE", DoubleLong(-2)},
		"double-long-unsigned": {"06 FF FF FF FE", DoubleLongUnsigned(0xFFFFFFFE)},
		"octet-string":         {"09 03 01 02 03", OctetString("\x01\x02\x03")},
		"visible-string":       {"0A 03 47 52 47", VisibleString("GRG")},
		"utf8-string":          {"0C 02 C3 A9", Value{Tag: TagUTF8String, Str: "é"}},
		"bcd":                  {"0D 42", Value{Tag: TagBCD, Num: 0x42}},
		"integer":              {"0F FE", Integer(-2)},
		"long":                 {"10 80 00", Long(-32768)},
		"unsigned":             {"11 FE", Unsigned(254)},
		"long-unsigned":        {"12 03 E8", LongUnsigned(1000)},
		"long64":               {"14 80 00 00 00 00 00 00 01", Long64(-9223372036854775807)},
		"long64-unsigned":      {"15 FF FF FF FF FF FF FF FE", Long64Unsigned(0xFFFFFFFFFFFFFFFE)},
		"enum":                 {"16 1E", Enum(30)},
		"float32":              {"17 44 9A 52 2B", Float32(1234.5677)},
		"float64":              {"18 40 93 4A 45 84 F4 C6 E7", Float64(1234.56789)},
		"date-time":            {"19 07 E4 01 01 FF 00 03 00 00 FF 88 00", Value{Tag: TagDateTime, Str: "\x07\xE4\x01\x01\xFF\x00\x03\x00\x00\xFF\x88\x00"}},
		"date":                 {"1A 07 E4 01 01 FF", Value{Tag: TagDate, Str: "\x07\xE4\x01\x01\xFF"}},
		"time":                 {"1B 00 03 00 00", Value{Tag: TagTime, Str: "\x00\x03\x00\x00"}},
		"long octet-string":    {"09 81 80" + strings.Repeat("55", 128), OctetString(strings.Repeat("U", 128))},
		"longer octet-string":  {"09 82 01 00" + strings.Repeat("55", 256), OctetString(strings.Repeat("U", 256))},
		"longest octet-string": {"09 84 00 01 00 00" + strings.Repeat("55", 65536), OctetString(strings.Repeat("U", 65536))},
		"captured clock":       {"09 0C 07 EA 0B 16 07 08 28 17 00 00 00 00", OctetString("\x07\xEA\x0B\x16\x07\x08\x28\x17\x00\x00\x00\x00")},
		"captured scaler_unit": {"02 02 0F FE 16 1E", Structure(Integer(-2), Enum(30))},
		"captured row": {
			"02 02 09 0C 07 EA 0B 16 07 08 1E 00 00 00 00 00 12 06 81",
			Structure(OctetString("\x07\xEA\x0B\x16\x07\x08\x1E\x00\x00\x00\x00\x00"), LongUnsigned(1665)),
		},
		"captured capture_objects": {
			"01 02 02 04 12 00 08 09 06 00 00 01 00 00 FF 0F 02 12 00 00 02 04 12 00 03 09 06 01 01 15 19 00 FF 0F 02 12 00 00",
			Array(
				Structure(LongUnsigned(8), OctetString("\x00\x00\x01\x00\x00\xFF"), Integer(2), LongUnsigned(0)),
				Structure(LongUnsigned(3), OctetString("\x01\x01\x15\x19\x00\xFF"), Integer(2), LongUnsigned(0))),
		},
	}
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for name, c := range golden() {
		b := unhex(t, c.hex)
		got, n, err := Parse(append(bytes.Clone(b), 0xAA, 0xBB)) // what follows is not ours
		if err != nil || n != len(b) || !got.Equal(c.want) {
			t.Errorf("%s: decoded %+v, %d octets, %v; want %+v, %d octets", name, got, n, err, c.want, len(b))
		}
		again, err := c.want.AppendBinary([]byte{0xEE})
		if err != nil || !bytes.Equal(again[1:], b) || again[0] != 0xEE {
			t.Errorf("%s: encoded %x, %v; want %x", name, again, err, b)
		}
	}
}

func TestTruncationAtEveryLength(t *testing.T) {
	t.Parallel()
	for name, c := range golden() {
		b := unhex(t, c.hex)
		for n := range min(len(b), 300) {
			_, _, err := Parse(b[:n:n])
			var where *SyntaxError
			if !errors.Is(err, ErrTruncated) || !errors.As(err, &where) || where.Offset > n {
				t.Fatalf("%s cut at %d: %v", name, n, err)
			}
		}
	}
}

func TestRefusedData(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("0101", MaxDepth)
	for name, c := range map[string]struct {
		hex    string
		is     error
		offset int
		text   string
	}{
		"unknown tag":       {"02 02 11 01 63 00", ErrTag, 4, "tag 99"},
		"compact-array":     {"13 12 06 00 01 00 02 00 03", ErrTag, 0, "compact-array"},
		"delta":             {"1C 01", ErrTag, 0, "delta-integer"},
		"too deep":          {deep + "01 00", ErrDepth, 2 * MaxDepth, "array"},
		"count over octets": {"01 82 FF FF 00 00 00", ErrTruncated, 0, "array"},
		"nested counts":     {"01 03 01 03 01 03 00", ErrTruncated, 4, "array"},
		"length of 5":       {"09 85 00 00 00 00 01 55", ErrLength, 0, "octet-string"},
		"length of 2^32-1":  {"09 84 FF FF FF FF 55", ErrLength, 0, "octet-string"},
		"indefinite length": {"09 80 55", ErrLength, 0, "octet-string"},
	} {
		_, _, err := Parse(unhex(t, c.hex))
		var where *SyntaxError
		if !errors.Is(err, c.is) || !errors.As(err, &where) || where.Offset != c.offset || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := Parse(unhex(t, deep+"00")); err != nil {
		t.Errorf("nesting of %d: %v", MaxDepth, err)
	}
}

func TestLenientForms(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"03 FF":             "03 01",    // a true boolean is any octet but 0
		"09 81 01 55":       "09 01 55", // lengths longer than needed
		"01 82 00 01 00":    "01 01 00",
		"09 83 00 00 01 55": "09 01 55",
	} {
		b := unhex(t, in)
		v, n, err := Parse(b)
		if err != nil || n != len(b) {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if out, err := v.AppendBinary(nil); err != nil || !bytes.Equal(out, unhex(t, want)) {
			t.Errorf("%s: canonical form %x, %v; want %s", in, out, err, want)
		}
	}
}

func TestRefusedValues(t *testing.T) {
	t.Parallel()
	deep := Null()
	for range MaxDepth + 1 {
		deep = Array(deep)
	}
	for name, c := range map[string]struct {
		v  Value
		is error
	}{
		"integer over 8 bits":   {Value{Tag: TagInteger, Num: 128}, ErrLength},
		"unsigned over 8 bits":  {Value{Tag: TagUnsigned, Num: 256}, ErrLength},
		"long under 16 bits":    {signed(TagLong, -32769), ErrLength},
		"boolean of 2":          {Value{Tag: TagBoolean, Num: 2}, ErrLength},
		"short date-time":       {Value{Tag: TagDateTime, Str: "short"}, ErrLength},
		"null with octets":      {Value{Str: "x"}, ErrLength},
		"bits without octets":   {BitString("", 3), ErrLength},
		"unknown tag":           {Value{Tag: 200}, ErrTag},
		"unknown tag in array":  {Array(Unsigned(1), Value{Tag: 19}), ErrTag},
		"nested over the limit": {deep, ErrDepth},
	} {
		if b, err := c.v.AppendBinary(nil); !errors.Is(err, c.is) {
			t.Errorf("%s: %x, %v", name, b, err)
		}
	}
}

func TestValuesAliasNothing(t *testing.T) {
	t.Parallel()
	for name, c := range golden() {
		b := unhex(t, c.hex)
		v, _, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		for i := range b {
			b[i] = 0x77
		}
		if !v.Equal(c.want) {
			t.Errorf("%s changed with the buffer it was read from", name)
		}
	}
}

func TestAccessors(t *testing.T) {
	t.Parallel()
	if n, ok := Integer(-2).Int64(); n != -2 || !ok {
		t.Errorf("integer: %d %v", n, ok)
	}
	if n, ok := Enum(30).Uint64(); n != 30 || !ok {
		t.Errorf("enum: %d %v", n, ok)
	}
	if _, ok := Unsigned(1).Int64(); ok {
		t.Error("an unsigned passed for a signed number")
	}
	for _, v := range []Value{Integer(1), Float32(1), Boolean(true), OctetString("1"), BitString("1", 8)} {
		if _, ok := v.Uint64(); ok {
			t.Errorf("%v passed for an unsigned number", v.Tag)
		}
	}
}

// rows gives a load profile of n rows as meters send it.
func rows(n int) []byte {
	profile := Value{Tag: TagArray}
	for i := range n {
		profile.Items = append(profile.Items, Structure(
			OctetString("\x07\xEA\x0B\x16\x07\x08\x1E\x00\x00\x00\x00\x00"), DoubleLongUnsigned(uint32(i)), Unsigned(0)))
	}
	b, err := profile.AppendBinary(nil)
	if err != nil {
		panic(err)
	}
	return b
}

func TestAllocations(t *testing.T) {
	const n = 96
	b := rows(n)
	if got := testing.AllocsPerRun(100, func() {
		if _, _, err := Parse(b); err != nil {
			t.Fatal(err)
		}
	}); got > 2*n+2 {
		t.Errorf("decoding %d rows: %v allocations, want at most 2 a row", n, got)
	}
	v := Structure(OctetString("abc"), DoubleLongUnsigned(1))
	buf := make([]byte, 0, 64)
	if got := testing.AllocsPerRun(100, func() {
		if _, err := v.AppendBinary(buf); err != nil {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("encoding: %v allocations", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range golden() {
		if len(c.hex) < 1000 {
			f.Add(unhex(f, c.hex))
		}
	}
	f.Add(unhex(f, "03FF"))
	f.Add(unhex(f, "0982000155"))
	f.Add(bytes.Repeat([]byte{1, 1}, 20))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, n, err := Parse(b)
		if err != nil {
			var where *SyntaxError
			if !errors.As(err, &where) {
				t.Fatalf("%x: %v says not where", b, err)
			}
			return
		}
		out, err := v.AppendBinary(nil)
		if err != nil || len(out) > n {
			t.Fatalf("%x: accepted, but encodes as %x, %v", b[:n], out, err)
		}
		again, m, err := Parse(out)
		if err != nil || m != len(out) || !again.Equal(v) {
			t.Fatalf("%x: its canonical form %x decodes to %+v, %v", b[:n], out, again, err)
		}
		if twice, _ := again.AppendBinary(nil); !bytes.Equal(twice, out) {
			t.Fatalf("%x: the canonical form is not stable: %x, %x", b[:n], out, twice)
		}
	})
}

func BenchmarkParseProfile(b *testing.B) {
	data := rows(96)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Parse(data); err != nil {
			b.Fatal(err)
		}
	}
}
