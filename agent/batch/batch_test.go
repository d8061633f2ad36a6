package batch

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func header() Header {
	return Header{Site: "north", Gateway: "gw-7", Epoch: 0x0123456789ABCDEF, Lane: Interval}
}

// span is a stretch with a gap that a hole fills, and one value in each field.
func span() Span {
	stamp := Stamp{Time: 1_700_000_100_000, Boot: 2, Mono: 3_600_000, Bound: 40, Source: FromMeter}
	later := stamp
	later.Time += 900_000
	return Span{
		Lane: Interval,
		Rows: []Row{
			{
				Meter: "house-1", Serial: "4711", Channel: "1-0:1.8.0*255/3:2", Stamp: stamp,
				Value: Value{Kind: Uint, Scale: -2, Bits: 123456}, Unit: 30, Lane: Interval, Period: 900, Status: 8, HasStatus: true,
			},
			{
				Meter: "house-1", Serial: "4711", Channel: "1-0:1.8.0*255/3:2", Stamp: later,
				Value: Value{Kind: Uint, Scale: -2, Bits: 123466}, Unit: 30, Lane: Interval, Period: 900, Quality: PowerFailure, Occurrence: 1,
			},
		},
		Runs:  []Run{{First: 1000, Count: 1}, {First: 1004, Count: 1}},
		Holes: []Hole{{First: 1001, Last: 1003, Reason: Quota, Count: 3}},
		Last:  1004,
	}
}

// kinds is a span with a row of each kind, and floats of each sort.
func kinds() Span {
	s := Span{Lane: Interval}
	for i, v := range []Value{
		{Kind: None},
		{Kind: Int, Scale: -3, Bits: 1 << 63},
		{Kind: Uint, Bits: math.MaxUint64},
		{Kind: Bool, Bits: 1},
		{Kind: Float32, Bits: uint64(math.Float32bits(230.1))},
		{Kind: Float32, Bits: uint64(math.Float32bits(229.75))},
		{Kind: Float64, Bits: math.Float64bits(-12.345)},
		{Kind: Float64, Scale: 3, Bits: math.Float64bits(math.Pi)},
		{Kind: Text, Data: "v1.2 \u00e4"},
		{Kind: Octets, Data: "\x00\xff"},
		{Kind: DateTime, Data: "\x07\xE4\x01\x01\xFF\x00\x03\x00\x00\xFF\x88\x00"},
	} {
		s.Rows = append(s.Rows, Row{Meter: "m", Channel: Channel(fmt.Sprint("x", v.Kind)), Value: v, Lane: Interval})
		s.Rows[i].Stamp.Time = int64(i * i)
	}
	s.Runs, s.Last = []Run{{First: 1, Count: uint64(len(s.Rows))}}, uint64(len(s.Rows))
	return s
}

// walk is a span of many rows, which is deflated.
func walk() Span {
	s := Span{Lane: Interval}
	for m := range 20 {
		for k := range 10 {
			for c := range 5 {
				s.Rows = append(s.Rows, Row{
					Meter: ID(fmt.Sprintf("house-%d", m)), Serial: fmt.Sprint(4711 + m), Channel: Channel(fmt.Sprintf("1-0:%d.8.0*255/3:2", c)),
					Stamp: Stamp{Time: 1_700_000_100_000 + int64(k)*900_000, Boot: 2, Mono: int64(5_000_000 + 300*m), Bound: 40, Source: FromMeter},
					Value: Value{Kind: Uint, Scale: -1, Bits: uint64(1_000_000*c + 77*m*m + k*(100+c) + k*k*m%7)}, Unit: 30, Lane: Interval, Period: 900,
				})
			}
		}
	}
	s.Runs, s.Last = []Run{{First: 70_000, Count: uint64(len(s.Rows))}}, 70_000+uint64(len(s.Rows))-1
	return s
}

// pack is the batch of a span and its catalogue.
func pack(t testing.TB, h Header, s Span) ([]byte, *Catalogue) {
	t.Helper()
	c := NewCatalogue()
	if added := c.Add(s.Rows); added != (len(s.Rows) > 0) {
		t.Fatalf("added is %v", added)
	}
	b, err := Append(nil, h, s, c)
	if err != nil {
		t.Fatal(err)
	}
	return b, c
}

// known finds c alone.
func known(c *Catalogue) func(Hash) *Catalogue {
	return func(h Hash) *Catalogue {
		if h == c.Hash() {
			return c
		}
		return nil
	}
}

func TestBatchSurvives(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]Span{
		"small": span(), "kinds": kinds(), "walk": walk(),
		"holes only": {Lane: Interval, Holes: []Hole{{First: 1, Last: 1, Reason: UncleanStop}, {First: 2, Last: 1 << 60, Reason: Damaged, Count: 9}}, Last: 1 << 60},
	} {
		b, c := pack(t, header(), s)
		raw, err := c.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseCatalogue(raw)
		if err != nil {
			t.Fatal(err)
		}
		want := header()
		want.Catalogue = HashOf(raw)
		got, gotSpan, err := Parse(b, known(back))
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, want)
		}
		if diff := cmp.Diff(s, gotSpan); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestGoldenBytes(t *testing.T) {
	t.Parallel()
	s := span()
	s.Rows, s.Runs = s.Rows[:1], []Run{{First: 1000, Count: 1}}
	s.Holes[0], s.Last = Hole{First: 1001, Last: 1003, Reason: Quota, Count: 3}, 1003
	b, c := pack(t, header(), s)
	catalogue, _ := c.AppendBinary(nil)
	for name, g := range map[string]struct {
		got  []byte
		want string
	}{
		"catalogue": {catalogue, `
			0a2c
			  0a0f 0a07 686f7573652d31 1204 34373131
			  1219 0a11 312d303a312e382e302a3235352f333a32 1002 1803 201e
			2801`},
		"batch": {b, `
			0802  1205 6e6f727468  1a04 67772d37  21 efcdab8967452301  2802
			3208 f858f2380ff3c7cf  3a03 e70701
			4209 08e907 1002 1803 2003
			4a41
			  0a2e
			    0801 120101 1a0100 220100 2a0101
			    42020102 4a020128 52020101 9a01030184 07
			    aa01020108 b201020101 ca010100
			  220a a0eee6cf0b4077031203
			  3203 a56e7b`},
	} {
		if got, want := hex.EncodeToString(g.got), strings.Join(strings.Fields(g.want), ""); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
}

func TestTruncated(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]Span{"small": span(), "walk": walk()} {
		b, c := pack(t, header(), s)
		for n := range b {
			if _, got, err := Parse(b[:n], known(c)); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%s: %d bytes of %d: %v, %+v", name, n, len(b), err, got)
			}
		}
	}
}

func TestUnknownCatalogueAndNewerFormat(t *testing.T) {
	t.Parallel()
	b, c := pack(t, header(), span())
	h, _, err := Parse(b, func(Hash) *Catalogue { return nil })
	var unknown *UnknownCatalogueError
	if !errors.As(err, &unknown) || unknown.Hash != c.Hash() || !strings.Contains(err.Error(), c.Hash().String()) {
		t.Errorf("catalogue not known: %v", err)
	}
	if h.Gateway != "gw-7" || h.Epoch != header().Epoch || h.Lane != Interval {
		t.Errorf("the header beside the error: %+v", h)
	}
	var newer *FormatError
	for format, want := range map[byte]string{1: "older than this program reads", 3: "newer than this program reads"} {
		b[1] = format
		_, _, err = Parse(b, known(c))
		if !errors.As(err, &newer) || newer.Format != uint64(format) || !strings.Contains(err.Error(), want) {
			t.Errorf("a batch of format %d: %v", format, err)
		}
	}
	raw, _ := c.AppendBinary(nil)
	raw[len(raw)-1] = 2
	if _, err = ParseCatalogue(raw); !errors.As(err, &newer) {
		t.Errorf("newer catalogue: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*Header, *Span)
		want   string
	}{
		"site":            {func(h *Header, _ *Span) { h.Site = "No" }, "site"},
		"gateway":         {func(h *Header, _ *Span) { h.Gateway = "" }, "gateway"},
		"lane of span":    {func(_ *Header, s *Span) { s.Lane = Alarm }, "lane alarm"},
		"lane of row":     {func(_ *Header, s *Span) { s.Rows[1].Lane = Alarm }, "row 1 is of lane alarm"},
		"no numbers":      {func(_ *Header, s *Span) { s.Runs = nil }, "2 rows have 0 numbers"},
		"empty":           {func(_ *Header, s *Span) { *s = Span{Lane: Interval} }, "neither rows nor holes"},
		"number 0":        {func(_ *Header, s *Span) { s.Runs[0].First = 0 }, "after 0"},
		"falling":         {func(_ *Header, s *Span) { s.Runs[1].First = 900 }, "after"},
		"overlap":         {func(_ *Header, s *Span) { s.Holes[0].Last = 1004 }, "after 1004"},
		"backward hole":   {func(_ *Header, s *Span) { s.Holes[0].Last = 1000 }, "1001 to 1000"},
		"last":            {func(_ *Header, s *Span) { s.Last++ }, "end at 1004"},
		"past the end":    {func(_ *Header, s *Span) { s.Runs[1].First = math.MaxUint64 }, "a run of 1"},
		"not in the list": {func(_ *Header, s *Span) { s.Rows[0].Meter = "other" }, "not in the dictionary"},
	} {
		h, s := header(), span()
		catalogue := NewCatalogue()
		catalogue.Add(s.Rows)
		c.change(&h, &s)
		if _, err := Append(nil, h, s, catalogue); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, c.want)
		}
	}
}

func TestCatalogueGrows(t *testing.T) {
	t.Parallel()
	s := span()
	c := NewCatalogue()
	empty := c.Hash()
	if !c.Empty() || !c.Add(s.Rows[:1]) || c.Add(s.Rows) || c.Empty() {
		t.Error("a catalogue changes when a meter or channel is new, and only then")
	}
	first := c.Hash()
	other := s.Rows[0]
	other.Value.Scale = 1
	if !c.Add([]Row{other}) || c.Hash() == first || first == empty {
		t.Error("another scale did not make another catalogue")
	}
	h, got, err := Parse(mustAppend(t, s, c), known(c))
	if err != nil || h.Catalogue != c.Hash() || !cmp.Equal(got, s) {
		t.Errorf("%+v, %v", h, err)
	}
	if len(c.Meters()) != 1 || c.Meters()[0].Serial != "4711" || len(c.Channels()) != 2 || c.Channels()[1].Scale != 1 {
		t.Errorf("%+v, %+v", c.Meters(), c.Channels())
	}
}

func mustAppend(t testing.TB, s Span, c *Catalogue) []byte {
	t.Helper()
	b, err := Append(nil, header(), s, c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAFullCatalogueStartsAnew(t *testing.T) {
	t.Parallel()
	c := NewCatalogue()
	rows := make([]Row, 1<<16)
	for i := range rows {
		rows[i] = Row{Meter: ID(fmt.Sprint(i)), Channel: "x", Lane: Interval}
	}
	c.Add(rows)
	s := span()
	if !c.Add(s.Rows) || len(c.Meters()) != 1 {
		t.Errorf("%d meters", len(c.Meters()))
	}
	mustAppend(t, s, c)
}

func TestNumbersSurvive(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s, next := Span{Lane: Interval}, rapid.Uint64Range(1, 1<<62).Draw(rt, "first")
		for range rapid.IntRange(1, 8).Draw(rt, "stretches") {
			next += rapid.SampledFrom([]uint64{0, 0, 0, 1, 1 << 40}).Draw(rt, "gap")
			n := rapid.Uint64Range(1, 5).Draw(rt, "length")
			if rapid.Bool().Draw(rt, "hole") {
				s.Holes = append(s.Holes, Hole{First: next, Last: next + n - 1, Reason: Reason(n), Count: rapid.Uint64().Draw(rt, "count")})
			} else {
				s.Runs = append(s.Runs, Run{First: next, Count: n})
				for range n {
					s.Rows = append(s.Rows, Row{Meter: "m", Channel: "x", Lane: Interval, Value: Value{Kind: Int, Bits: uint64(len(s.Rows))}})
				}
			}
			next += n
			s.Last = next - 1
		}
		b, c := pack(t, header(), s)
		_, got, err := Parse(b, known(c))
		if err != nil || !cmp.Equal(got, s) {
			rt.Fatalf("%v\n%s", err, cmp.Diff(s, got))
		}
	})
}

func TestNothingIsKeptOfTheInput(t *testing.T) {
	t.Parallel()
	b, c := pack(t, header(), span())
	raw, _ := c.AppendBinary(nil)
	back, err := ParseCatalogue(raw)
	if err != nil {
		t.Fatal(err)
	}
	h, got, err := Parse(b, known(back))
	if err != nil {
		t.Fatal(err)
	}
	clear(b)
	clear(raw)
	if h.Site != "north" || !cmp.Equal(got, span()) || back.Hash() != c.Hash() {
		t.Errorf("%+v %+v", h, got)
	}
}

// FuzzParse takes any bytes for a catalogue and a batch. What can be read is
// written and read again as the same.
func FuzzParse(f *testing.F) {
	for _, s := range []Span{span(), kinds(), walk()} {
		b, c := pack(f, header(), s)
		raw, err := c.AppendBinary(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, b)
	}
	f.Fuzz(func(t *testing.T, raw, b []byte) {
		c, err := ParseCatalogue(raw)
		if err != nil {
			return
		}
		h, s, err := Parse(b, func(Hash) *Catalogue { return c })
		if err != nil {
			return
		}
		again := NewCatalogue()
		again.Add(s.Rows)
		b2, err := Append(nil, h, s, again)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		h2, s2, err := Parse(b2, known(again))
		h.Catalogue = again.Hash()
		if err != nil || h2 != h || !cmp.Equal(s, s2) {
			t.Fatalf("%v\n%s", err, cmp.Diff(s, s2))
		}
	})
}

func TestAliasesAreComplete(t *testing.T) {
	t.Parallel()
	all := []Kind{None, Int, Uint, Float32, Float64, Bool, Text, Octets, DateTime}
	if !slices.IsSorted(all) || (DateTime + 1).Valid() {
		t.Error("a kind has no alias")
	}
	if (Instant + 1).Valid() {
		t.Error("a lane has no alias")
	}
}
