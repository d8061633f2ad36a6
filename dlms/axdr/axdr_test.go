package axdr

import (
	"bytes"
	"encoding/hex"
	"errors"
	"runtime"
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

func many(v Value, n int) []Value {
	items := make([]Value, n)
	for i := range items {
		items[i] = v
	}
	return items
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
		"null":                       {"00", Null()},
		"array":                      {"01 03 11 01 11 02 11 03", Array(Unsigned(1), Unsigned(2), Unsigned(3))},
		"empty array":                {"01 00", Array()},
		"boolean":                    {"03 01", Boolean(true)},
		"boolean false":              {"03 00", Boolean(false)},
		"bit-string":                 {"04 0B A5 E0", BitString("\xA5\xE0", 11)},
		"double-long":                {"05 FF FF FF FE", DoubleLong(-2)},
		"double-long-unsigned":       {"06 FF FF FF FE", DoubleLongUnsigned(0xFFFFFFFE)},
		"octet-string":               {"09 03 01 02 03", OctetString("\x01\x02\x03")},
		"visible-string":             {"0A 03 47 52 47", VisibleString("GRG")},
		"utf8-string":                {"0C 02 C3 A9", Value{Tag: TagUTF8String, Str: "é"}},
		"bcd":                        {"0D 42", Value{Tag: TagBCD, Num: 0x42}},
		"integer":                    {"0F FE", Integer(-2)},
		"long":                       {"10 80 00", Long(-32768)},
		"unsigned":                   {"11 FE", Unsigned(254)},
		"long-unsigned":              {"12 03 E8", LongUnsigned(1000)},
		"long64":                     {"14 80 00 00 00 00 00 00 01", Long64(-9223372036854775807)},
		"long64-unsigned":            {"15 FF FF FF FF FF FF FF FE", Long64Unsigned(0xFFFFFFFFFFFFFFFE)},
		"enum":                       {"16 1E", Enum(30)},
		"float32":                    {"17 44 9A 52 2B", Float32(1234.5677)},
		"float64":                    {"18 40 93 4A 45 84 F4 C6 E7", Float64(1234.56789)},
		"date-time":                  {"19 07 E4 01 01 FF 00 03 00 00 FF 88 00", Value{Tag: TagDateTime, Str: "\x07\xE4\x01\x01\xFF\x00\x03\x00\x00\xFF\x88\x00"}},
		"date":                       {"1A 07 E4 01 01 FF", Value{Tag: TagDate, Str: "\x07\xE4\x01\x01\xFF"}},
		"time":                       {"1B 00 03 00 00", Value{Tag: TagTime, Str: "\x00\x03\x00\x00"}},
		"long octet-string":          {"09 81 80" + strings.Repeat("55", 128), OctetString(strings.Repeat("U", 128))},
		"longer octet-string":        {"09 82 01 00" + strings.Repeat("55", 256), OctetString(strings.Repeat("U", 256))},
		"longest octet-string":       {"09 84 00 01 00 00" + strings.Repeat("55", 65536), OctetString(strings.Repeat("U", 65536))},
		"delta-integer":              {"1C FE", Delta(TagDeltaInteger, -2)},
		"delta-long":                 {"1D FE FF", Delta(TagDeltaLong, -257)},
		"delta-double-long":          {"1E FF FF FF FD", Delta(TagDeltaDoubleLong, -3)},
		"delta-unsigned":             {"1F FE", Delta(TagDeltaUnsigned, 254)},
		"delta-long-unsigned":        {"20 FE FF", Delta(TagDeltaLongUnsigned, 0xFEFF)},
		"delta-double-long-unsigned": {"21 FF FF FF FD", Delta(TagDeltaDoubleLongUnsigned, 0xFFFFFFFD)},
		"compact-array of long-unsigned": {
			"131206000100020003",
			CompactArray("\x12", LongUnsigned(1), LongUnsigned(2), LongUnsigned(3)),
		},
		"compact-array of rows": {
			"13020209121E0C07EA0B16070800000000000000010C07EA0B16070F0000000000000002",
			CompactArray("\x02\x02\x09\x12",
				Structure(OctetString("\x07\xEA\x0B\x16\x07\x08\x00\x00\x00\x00\x00\x00"), LongUnsigned(1)),
				Structure(OctetString("\x07\xEA\x0B\x16\x07\x0F\x00\x00\x00\x00\x00\x00"), LongUnsigned(2))),
		},
		"compact-array of numbers": {
			"1302030512110E0000000100020300000004000506",
			CompactArray("\x02\x03\x05\x12\x11",
				Structure(DoubleLong(1), LongUnsigned(2), Unsigned(3)), Structure(DoubleLong(4), LongUnsigned(5), Unsigned(6))),
		},
		"compact-array with arrays": {
			"13020206010002110C000000010A0B000000020C0D",
			CompactArray("\x02\x02\x06\x01\x00\x02\x11",
				Structure(DoubleLongUnsigned(1), Array(Unsigned(10), Unsigned(11))),
				Structure(DoubleLongUnsigned(2), Array(Unsigned(12), Unsigned(13)))),
		},
		"empty compact-array":     {"13 02 02 09 12 00", CompactArray("\x02\x02\x09\x12")},
		"compact-array with null": {"13 02 02 00 11 02 05 06", CompactArray("\x02\x02\x00\x11", Structure(Null(), Unsigned(5)), Structure(Null(), Unsigned(6)))},
		"compact-array with an empty array": {
			"13 02 02 01 00 00 12 11 02 05 06",
			CompactArray("\x02\x02\x01\x00\x00\x12\x11", Structure(Array(), Unsigned(5)), Structure(Array(), Unsigned(6))),
		},
		"compact-array of bits": {"13 04 05 0B A5 E0 02 40", CompactArray("\x04", BitString("\xA5\xE0", 11), BitString("\x40", 2))},
		"compact-arrays in an array": {
			"01 02 13 11 02 05 06 13 0F 01 FF",
			Array(CompactArray("\x11", Unsigned(5), Unsigned(6)), CompactArray("\x0F", Integer(-1))),
		},
		"long compact-array": {
			"13 11 81 80" + strings.Repeat("07", 128),
			CompactArray("\x11", many(Unsigned(7), 128)...),
		},
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
		"unknown tag":                     {"02 02 11 01 63 00", ErrTag, 4, "tag 99"},
		"tag after the deltas":            {"22 01", ErrTag, 0, "tag 34"},
		"compact of an unknown type":      {"13 63 01 00", ErrTag, 0, "compact-array"},
		"compact of compact":              {"13 13 12 02 00 01", ErrTag, 0, "compact-array"},
		"compact of null":                 {"13 00 01 00", ErrLength, 0, "compact-array"},
		"compact of empty structures":     {"13 02 00 01 00", ErrLength, 0, "compact-array"},
		"compact, contents cut":           {"13 12 04 00 01", ErrTruncated, 0, "compact-array"},
		"compact, half an element":        {"13 12 03 00 01 00", ErrTruncated, 0, "compact-array"},
		"compact, string past contents":   {"13 09 02 05 41 42 43 44 45", ErrTruncated, 0, "compact-array"},
		"compact, type nested over limit": {"13" + strings.Repeat("0201", MaxDepth) + "11 01 05", ErrDepth, 0, "compact-array"},
		"compact, arrays of many nulls":   {"13" + strings.Repeat("01FFFF", 8) + "00 01 00", ErrRoom, 0, "compact-array"},
		"compact, more values than room":  {"13 01 FFFF 02 00 01 00", ErrRoom, 0, "compact-array"},
		"compact, description cut":        {"13 02 05 12", ErrTruncated, 0, "compact-array"},
		"compact, count of the array cut": {"13 01 00", ErrTruncated, 0, "compact-array"},
		"compact of length 2^32-1":        {"13 12 84 FF FF FF FF", ErrLength, 0, "compact-array"},
		"too deep":                        {deep + "01 00", ErrDepth, 2 * MaxDepth, "array"},
		"count over octets":               {"01 82 FF FF 00 00 00", ErrTruncated, 0, "array"},
		"nested counts":                   {"01 03 01 03 01 03 00", ErrTruncated, 4, "array"},
		"length of 5":                     {"09 85 00 00 00 00 01 55", ErrLength, 0, "octet-string"},
		"length of 2^32-1":                {"09 84 FF FF FF FF 55", ErrLength, 0, "octet-string"},
		"indefinite length":               {"09 80 55", ErrLength, 0, "octet-string"},
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
		"unknown tag in array":  {Array(Unsigned(1), Value{Tag: 34}), ErrTag},
		"delta over 8 bits":     {Delta(TagDeltaInteger, 128), ErrLength},
		"delta under 0":         {Delta(TagDeltaUnsigned, -1), ErrLength},
		"compact of no type":    {CompactArray(""), ErrTruncated},
		"compact of two types":  {CompactArray("\x11\x12"), ErrLength},
		"compact of another":    {CompactArray("\x12", Unsigned(1)), ErrType},
		"compact, other count":  {CompactArray("\x01\x00\x02\x11", Array(Unsigned(1))), ErrType},
		"compact, other width":  {CompactArray("\x02\x02\x11\x11", Structure(Unsigned(1))), ErrType},
		"compact of nulls":      {CompactArray("\x00", Null()), ErrLength},
		"compact, number over":  {CompactArray("\x11", Value{Tag: TagUnsigned, Num: 256}), ErrLength},
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
	if n, ok := Delta(TagDeltaLong, -5).Delta(); n != -5 || !ok {
		t.Errorf("delta-long: %d %v", n, ok)
	}
	if _, ok := Delta(TagDeltaLong, -5).Int64(); ok {
		t.Error("a delta passed for a number")
	}
	if _, ok := Integer(1).Delta(); ok {
		t.Error("a number passed for a delta")
	}
	for _, v := range []Value{Array(Null()), CompactArray("\x11", Unsigned(1))} {
		if items, ok := v.Elements(); len(items) != 1 || !ok {
			t.Errorf("%v: elements %v %v", v.Tag, items, ok)
		}
	}
	if _, ok := Structure(Null()).Elements(); ok {
		t.Error("a structure has elements of one type")
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

// compactRows gives the same profile as a compact-array.
func compactRows(n int) []byte {
	v, _, err := Parse(rows(n))
	if err != nil {
		panic(err)
	}
	description, err := Describe(v.Items[0])
	if err != nil {
		panic(err)
	}
	b, err := CompactArray(description, v.Items...).AppendBinary(nil)
	if err != nil {
		panic(err)
	}
	return b
}

func TestAllocations(t *testing.T) {
	const n = 96
	for name, b := range map[string][]byte{"array": rows(n), "compact-array": compactRows(n)} {
		if got := testing.AllocsPerRun(100, func() {
			if _, _, err := Parse(b); err != nil {
				t.Fatal(err)
			}
		}); got > 2*n+2 {
			t.Errorf("decoding %d rows of an %s: %v allocations, want at most 2 a row", n, name, got)
		}
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

// TestMemory feeds what takes the most memory for its octets, and holds
// decoding to 64 KiB and 64 times the octets.
func TestMemory(t *testing.T) {
	const n = 1 << 16
	for name, b := range map[string][]byte{
		"unsigned in a compact-array":        append(unhex(t, "13 11 83 01 00 00"), make([]byte, n)...),
		"structures of one in a compact one": append(unhex(t, "13 02 01 11 83 01 00 00"), make([]byte, n)...),
		"small structures, as many as go":    append(unhex(t, "13 02 01 11 82 01 E0"), make([]byte, 480)...),
		"arrays of nulls":                    append(unhex(t, "01 83 01 00 00"), make([]byte, n)...),
		"arrays of arrays":                   append(unhex(t, "01 83 00 80 00"), bytes.Repeat([]byte{1, 0}, n/2)...),
		"short strings":                      append(unhex(t, "01 82 40 00"), bytes.Repeat([]byte{9, 2, 65, 66}, n/4)...),
		"empty arrays of a long type":        append(unhex(t, "13 02 02 01 00 00 02 81 64"+strings.Repeat("11", 100)+"11 82 40 00"), make([]byte, n/4)...),
		"counts that cannot be":              bytes.Repeat(unhex(t, "01 82 FF FF"), n/4),
		"nested nulls":                       unhex(t, "13 02 02 11"+strings.Repeat("01 00 64", 1)+"00 04 01 02 03 04"),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := Parse(b)
		runtime.ReadMemStats(&after)
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(64<<10+64*len(b)); got > most {
			t.Errorf("%s: %d octets took %d, want at most %d (%v)", name, len(b), got, most, err)
		}
	}
}

// TestMemoryOfLongData: what is long as well is held to what a gateway has, and
// a profile of 4096 rows of 40 columns goes.
func TestMemoryOfLongData(t *testing.T) {
	const n, most = 1 << 20, 15 << 20
	row := append(unhex(t, "02 28 09 0C 07 EA 03 1C 06 0C 00 00 00 00 00 00"), bytes.Repeat(unhex(t, "11 01"), 39)...)
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"nulls":         {append(unhex(t, "01 83 0F FF 00"), make([]byte, n)...), ErrRoom},
		"arrays":        {append(unhex(t, "01 83 07 FF 00"), bytes.Repeat([]byte{1, 0}, n/2)...), ErrRoom},
		"arrays of one": {append(unhex(t, "01 83 05 00 00"), bytes.Repeat([]byte{1, 1, 0}, n/3)...), ErrRoom},
		"compact":       {append(unhex(t, "13 11 83 0F FF 00"), make([]byte, n)...), ErrRoom},
		"many strings":  {append(unhex(t, "01 83 03 00 00"), bytes.Repeat([]byte{9, 3, 1, 2, 3}, n/5)...), nil},
		"small arrays":  {append(unhex(t, "01 83 01 80 00"), bytes.Repeat([]byte{1, 1, 0}, n/3)...), nil},
		"rows":          {append(unhex(t, "01 82 10 00"), bytes.Repeat(row, 4096)...), nil},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := Parse(c.b)
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > most || !errors.Is(err, c.want) {
			t.Errorf("%s: %d octets took %d, want at most %d; %v, want %v", name, len(c.b), got, most, err, c.want)
		}
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	for name, c := range golden() {
		if c.want.Tag != TagCompactArray || len(c.want.Items) == 0 || strings.Contains(name, "empty") {
			continue
		}
		if got, err := Describe(c.want.Items[0]); err != nil || got != c.want.Str {
			t.Errorf("%s: described as %x, %v; want %x", name, got, err, c.want.Str)
		}
	}
	deep := Unsigned(1)
	for range MaxDepth + 1 {
		deep = Structure(deep)
	}
	for name, c := range map[string]struct {
		v  Value
		is error
	}{
		"empty array":  {Array(), ErrLength},
		"compact":      {Structure(CompactArray("\x11")), ErrTag},
		"unknown":      {Value{Tag: 99}, ErrTag},
		"deep nesting": {deep, ErrDepth},
	} {
		if got, err := Describe(c.v); !errors.Is(err, c.is) {
			t.Errorf("%s: described as %x, %v", name, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range golden() {
		if len(c.hex) < 1000 {
			f.Add(unhex(f, c.hex))
		}
	}
	f.Add(unhex(f, "1301FFFF02000100"))
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
