package dlms

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

func loadProfile() obis.Code { return obis.Code{1, 0, 99, 1, 0, 255} }

func loadColumns() []Column {
	status := Attribute{Class: 1, Code: obis.Code{0, 0, 96, 10, 1, 255}, ID: 2}
	export := energy()
	export.Code[2] = 2
	return []Column{{Attribute: clockObject()}, {Attribute: status}, {Attribute: energy()}, {Attribute: export}}
}

func layout() *Layout {
	return NewLayout(Attribute{Class: 7, Code: loadProfile(), ID: 2}, loadColumns(), 15*time.Minute)
}

const day = "07EA0B16FF" // 2026-11-22

// at is the octets of a date-time of that day, UTC+1.
func at(hour, minute int) string { return fmt.Sprintf("090C%s%02X%02X0000FFC400", day, hour, minute) }

func TestProfile(t *testing.T) {
	t.Parallel()
	rows := "0105" +
		"0204" + at(8, 0) + "1101" + "060000000A" + "1205DC" +
		"0204 00 00 1F03 00" + // everything left out but a delta
		"0204" + at(9, 0) + "1108" + "1DFFFE" + "00" + // after a gap, less by two
		"0204 00 00 00 1C05" +
		"0204" + at(9, 30) + "00 1C05 120001"
	client, s := granted(t, everything|SelectiveAccess, 0, "C401C100"+rows)
	since := time.Date(2026, 11, 22, 7, 0, 0, 0, time.UTC)
	got, err := client.Profile(t.Context(), layout(), Rows{Since: since, Until: since.Add(time.Hour + 30*time.Minute), Zone: time.FixedZone("", 3600)})
	if err != nil || len(got) != 5 {
		t.Fatalf("%+v, %v", got, err)
	}
	same(t, "range", s, "C001C1 0007 0100630100FF 02 01 01 0204 0204 120008 09060000010000FF 0F02 120000"+
		"090C 07EA0B16FF08000000FFC400 090C 07EA0B16FF091E0000FFC400 0100")
	null := axdr.Null()
	for i, want := range []struct {
		minutes        int
		status, values [2]axdr.Value
	}{
		{0, [2]axdr.Value{axdr.Unsigned(1)}, [2]axdr.Value{axdr.DoubleLongUnsigned(10), axdr.LongUnsigned(1500)}},
		{15, [2]axdr.Value{axdr.Unsigned(1)}, [2]axdr.Value{axdr.DoubleLongUnsigned(13), null}},
		{60, [2]axdr.Value{axdr.Unsigned(8)}, [2]axdr.Value{axdr.DoubleLongUnsigned(11), null}},
		{75, [2]axdr.Value{axdr.Unsigned(8)}, [2]axdr.Value{null, null}}, // the second: no number to add to
		{90, [2]axdr.Value{axdr.Unsigned(8)}, [2]axdr.Value{null, axdr.LongUnsigned(1)}},
	} {
		row := got[i]
		if !row.Time.Equal(since.Add(time.Duration(want.minutes)*time.Minute)) || !layout().StatusOf(row).Equal(want.status[0]) ||
			!row.Values[2].Equal(want.values[0]) || !row.Values[3].Equal(want.values[1]) {
			t.Errorf("row %d: %+v, want %+v", i, row, want)
		}
	}

	// With the knowledge that null-data is the value before, where nothing else
	// is known.
	l := layout()
	l.Columns[3].Unchanged = true
	data, _, err := axdr.Parse(unhex(t, rows))
	if err != nil {
		t.Fatal(err)
	}
	got, err = l.Parse(data, Quirks{}, nil)
	if err != nil || !got[1].Values[3].Equal(axdr.LongUnsigned(1500)) || !got[3].Values[3].Equal(axdr.LongUnsigned(1505)) {
		t.Errorf("unchanged: %+v, %v", got, err)
	}
}

func TestProfileByEntry(t *testing.T) {
	t.Parallel()
	client, s := granted(t, everything|SelectiveAccess, 0, "C401C100 0100")
	if got, err := client.Profile(t.Context(), layout(), Rows{FromEntry: 5, ToEntry: 7}); err != nil || len(got) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	same(t, "entries", s, "C001C1 0007 0100630100FF 02 01 02 0204 0600000005 0600000007 120001 120000")
}

func TestProfileWithoutSelectiveAccess(t *testing.T) {
	t.Parallel()
	var rows strings.Builder
	for i := range 4 {
		rows.WriteString("0204" + at(8, 15*i) + "1100" + fmt.Sprintf("06000000%02X", i) + "00")
	}
	since := time.Date(2026, 11, 22, 7, 15, 0, 0, time.UTC)
	numbers := func(rows []ProfileRow) string {
		var n []uint64
		for _, r := range rows {
			n = append(n, r.Values[2].Num)
		}
		return fmt.Sprint(n)
	}
	for name, c := range map[string]struct {
		quirks Quirks
		want   Rows
		rows   string
		asked  int
	}{
		"by time":           {Quirks{Selector: Whole}, Rows{Since: since, Until: since.Add(15 * time.Minute)}, "[1 2]", 1},
		"by entry":          {Quirks{Selector: Whole}, Rows{FromEntry: 2, ToEntry: 3}, "[1 2]", 1},
		"to the last":       {Quirks{Selector: Whole}, Rows{FromEntry: 3}, "[2 3]", 1},
		"after the last":    {Quirks{Selector: Whole}, Rows{FromEntry: 9}, "[]", 1},
		"when refused":      {Quirks{}, Rows{Since: since, Until: since}, "[1]", 3},
		"inverted":          {Quirks{Selector: Whole, InvertDeviation: true}, Rows{Since: since.Add(2 * time.Hour), Until: since.Add(2 * time.Hour)}, "[1]", 1},
		"inverted elsewhen": {Quirks{Selector: Whole, InvertDeviation: true}, Rows{Since: since, Until: since}, "[]", 1},
	} {
		answers := []string{"C401C10103", "C401C20103", "C401C300 0104" + rows.String()}
		if c.asked == 1 {
			answers = []string{"C401C100 0104" + rows.String()}
		}
		client, s := granted(t, everything, 0, answers...)
		client.options.Quirks = c.quirks
		got, err := client.Profile(t.Context(), layout(), c.want)
		if err != nil || numbers(got) != c.rows || len(s.sent) != c.asked {
			t.Errorf("%s: %s, %v, want %s; asked %d times", name, numbers(got), err, c.rows, len(s.sent))
		}
	}
	for name, c := range map[string]struct {
		answers []string
		is      error
		left    Selector
	}{
		"no count":                  {[]string{"C401C10103", "C401C20104"}, ObjectUndefined, ByEntry},
		"refused whatever is asked": {[]string{"C401C10103", "C401C2010B", "C401C3010D"}, ReadWriteDenied, ByTime},
		"no answer":                 {[]string{}, errSilence, ByTime},
	} {
		client, _ := granted(t, everything|SelectiveAccess, 0, c.answers...)
		pages := client.Pages(layout(), Rows{Since: since, Until: since})
		if got, err := pages.Next(t.Context()); !errors.Is(err, c.is) || pages.Selector != c.left || !pages.More() {
			t.Errorf("%s: %+v, %v, %v", name, got, err, pages.Selector)
		}
	}
}

func TestProfileOfOtherLayout(t *testing.T) {
	t.Parallel()
	for name, rows := range map[string]string{
		"no array":        "1105",
		"a column less":   "0101 0203" + at(8, 0) + "1101 1102",
		"row of a number": "0101 1105",
		"time of numbers": "0101 0204 1105 1105 1105 1105",
		"short time":      "0101 0204 0904 01020304 1105 1105 1105",
	} {
		data, _, err := axdr.Parse(unhex(t, rows))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := layout().Parse(data, Quirks{}, nil); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	data, _, err := axdr.Parse(unhex(t, "0102 0204 00 1105 1105 1105 0204 090C FFFFFFFFFFFFFFFFFF800000 1105 1105 1105"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := layout().Parse(data, Quirks{}, nil)
	if err != nil || !got[0].Time.IsZero() || !got[1].Time.IsZero() {
		t.Errorf("rows without a time: %+v, %v", got, err)
	}
}

func TestCompactProfile(t *testing.T) {
	t.Parallel()
	data, _, err := axdr.Parse(unhex(t, "13020209121E0C07EA0B16070800000000000000010C07EA0B16070F0000000000000002"))
	if err != nil {
		t.Fatal(err)
	}
	l := NewLayout(Attribute{Class: 7, Code: loadProfile(), ID: 2}, []Column{{Attribute: clockObject()}, {Attribute: energy()}}, 0)
	rows, err := l.Parse(data, Quirks{}, nil)
	if err != nil || len(rows) != 2 || !rows[1].Time.Equal(time.Date(2026, 11, 22, 15, 0, 0, 0, time.UTC)) || rows[1].Values[1].Num != 2 {
		t.Errorf("%+v, %v", rows, err)
	}
	if v := l.StatusOf(rows[0]); v.Tag != axdr.TagNull {
		t.Errorf("status of a profile without: %v", v)
	}
}

func TestDeltas(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ before, delta, want axdr.Value }{
		"signed":           {axdr.Integer(-5), axdr.Delta(axdr.TagDeltaInteger, -3), axdr.Integer(-8)},
		"unsigned":         {axdr.LongUnsigned(5), axdr.Delta(axdr.TagDeltaLongUnsigned, 60000), axdr.LongUnsigned(60005)},
		"over the type":    {axdr.Unsigned(250), axdr.Delta(axdr.TagDeltaUnsigned, 6), axdr.Null()},
		"under the type":   {axdr.Unsigned(5), axdr.Delta(axdr.TagDeltaInteger, -6), axdr.Null()},
		"over 64 bits":     {axdr.Long64(1<<63 - 1), axdr.Delta(axdr.TagDeltaUnsigned, 1), axdr.Null()},
		"over 64 unsigned": {axdr.Long64Unsigned(1<<64 - 1), axdr.Delta(axdr.TagDeltaUnsigned, 1), axdr.Null()},
		"under 0":          {axdr.Long64Unsigned(0), axdr.Delta(axdr.TagDeltaInteger, -1), axdr.Null()},
		"64 bits":          {axdr.Long64Unsigned(1 << 63), axdr.Delta(axdr.TagDeltaDoubleLongUnsigned, 1), axdr.Long64Unsigned(1<<63 + 1)},
		"zero":             {axdr.Long64(4), axdr.Delta(axdr.TagDeltaInteger, 0), axdr.Long64(4)},
		"no number":        {axdr.OctetString("5"), axdr.Delta(axdr.TagDeltaInteger, 1), axdr.Null()},
		"nothing":          {axdr.Null(), axdr.Delta(axdr.TagDeltaInteger, 1), axdr.Null()},
	} {
		if got := fill(c.delta, c.before, false); !got.Equal(c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestReadLayout(t *testing.T) {
	t.Parallel()
	const objects = "0104" +
		"0204 120008 09060000010000FF 0F02 120000" +
		"0204 120001 09060000600A01FF 0F02 120000" +
		"0204 120003 09060100010800FF 0F02 120000" +
		"0204 120003 09060100020800FF 0F02 120000"
	client, s := granted(t, everything, 0, "C403C103 00"+objects+"00 0600000384 00 1601", "C403C202 00 0202 0FFE 161E 0103")
	l, err := client.ReadLayout(t.Context(), loadProfile())
	if err != nil {
		t.Fatal(err)
	}
	want := layout()
	want.Sort = SortedOldest
	want.Columns[2].Scale, want.Columns[2].ScaleErr = ScalerUnit{Scaler: -2, Unit: 30}, nil
	want.Columns[3].ScaleErr = ReadWriteDenied
	if fmt.Sprintf("%+v", l) != fmt.Sprintf("%+v", want) || l.Clock != 0 || l.Status != 1 {
		t.Errorf("%+v, want %+v", l, want)
	}
	same(t, "layout", s, "C003C1 03 00070100630100FF0300 00070100630100FF0400 00070100630100FF0500", "C003C2 02 00030100010800FF0300 00030100020800FF0300")

	other := layout()
	other.Columns[3].Index = 1
	if layout().Sum() != want.Sum() || layout().Sum() == other.Sum() {
		t.Errorf("sums %x, %x, %x", layout().Sum(), want.Sum(), other.Sum())
	}
	for name, answer := range map[string]string{"refused": "C403C103 0104 0104 0104", "no columns": "C403C103 00 1105 00 1105 00 1105", "silence": ""} {
		var answers []string
		if answer != "" {
			answers = append(answers, answer)
		}
		client, _ := granted(t, everything, 0, answers...)
		if l, err := client.ReadLayout(t.Context(), loadProfile()); err == nil {
			t.Errorf("%s: %+v", name, l)
		}
	}
}

func TestScalerOf(t *testing.T) {
	t.Parallel()
	for a, want := range map[Attribute]int8{
		{Class: 3, ID: 2}: 3, {Class: 4, ID: 2}: 3, {Class: 4, ID: 5}: 0, {Class: 5, ID: 2}: 4, {Class: 5, ID: 3}: 4, {Class: 5, ID: 6}: 0, {Class: 1, ID: 2}: 0,
	} {
		if got, ok := ScalerOf(a); got.ID != want || ok != (want != 0) {
			t.Errorf("%v: %v %v", a, got, ok)
		}
	}
}

func TestQuirks(t *testing.T) {
	t.Parallel()
	moment := time.Date(2024, 6, 15, 20, 23, 45, 0, time.FixedZone("CEST", 7200))
	for _, q := range []Quirks{{}, {InvertDeviation: true}} {
		d := q.DateTimeOf(moment)
		want := int16(-120)
		if q.InvertDeviation {
			want = 120
		}
		if got, err := q.Time(d, nil); err != nil || !got.Equal(moment) || d.Deviation != want {
			t.Errorf("%+v: %+v is %v, %v", q, d, got, err)
		}
	}
	d := DateTime{Year: 2026, Month: 1, Day: 1, Deviation: NoDeviation}
	if got, err := (Quirks{InvertDeviation: true}).Time(d, time.UTC); err != nil || !got.Equal(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("no deviation, inverted: %v, %v", got, err)
	}
	client, s := granted(t, Get, 200)
	client.options.Quirks.MaxPDU = 12
	if _, err := client.Get(t.Context(), energy()); !errors.Is(err, ErrNotGranted) || len(s.sent) != 0 {
		t.Errorf("over the model's pdu: %v", err)
	}
	client.granted.MaxPDU, client.options.Quirks.MaxPDU = 10, 200
	if got := client.maxPDU(); got != 10 {
		t.Errorf("pdu of %d, want what the meter says", got)
	}
}

func TestProfileAllocations(t *testing.T) {
	const n = 96
	var rows strings.Builder
	for i := range n {
		rows.WriteString("0204" + at(i/4, i%4*15) + "1100" + fmt.Sprintf("06000000%02X", i) + "1200FF")
	}
	b := unhex(t, fmt.Sprintf("01%02X", n)+rows.String())
	l := layout()
	if got := testing.AllocsPerRun(20, func() {
		data, _, err := axdr.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if rows, err := l.Parse(data, Quirks{}, nil); err != nil || len(rows) != n {
			t.Fatal(err)
		}
	}); got > 2*n+4 {
		t.Errorf("%v allocations for %d rows, want at most 2 a row", got, n)
	}
}

// FuzzRows parses buffers. What comes out has as many rows, no deltas, and
// nothing in it that has no encoding.
func FuzzRows(f *testing.F) {
	f.Add(unhex(f, "0102 0204"+at(8, 0)+"1101 060000000A 1205DC 0204 00 00 1F03 00"))
	f.Add(unhex(f, "0101 0204 00 00 1C05 1DFFFF"))
	f.Add(unhex(f, "13 0204 09 11 06 1F 13 0C"+day+"080000 00FFC400 01 00000001 02"))
	f.Fuzz(func(t *testing.T, b []byte) {
		data, _, err := axdr.Parse(b)
		if err != nil {
			return
		}
		l := layout()
		l.Columns[3].Unchanged = true
		items, _ := data.Elements()
		rows, err := l.Parse(data, Quirks{}, nil)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("%x: %v", b, err)
			}
			return
		}
		if len(rows) != len(items) {
			t.Fatalf("%x: %d rows of %d", b, len(rows), len(items))
		}
		for _, r := range rows {
			for i, v := range r.Values {
				if _, ok := v.Delta(); ok && i != l.Clock {
					t.Fatalf("%x: column %d is %+v", b, i, v)
				}
				if _, err := v.AppendBinary(nil); err != nil {
					t.Fatalf("%x: %+v: %v", b, v, err)
				}
			}
		}
	})
}
