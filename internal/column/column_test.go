package column

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"gridgate/internal/meter"
)

// pack is the body of rows and the dictionary that it needs, read back from its bytes.
func pack(t testing.TB, rows []meter.Row) ([]byte, *Dict) {
	t.Helper()
	d := NewDict()
	body, err := AppendRows(nil, rows, d)
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseDict(b)
	if err != nil {
		t.Fatal(err)
	}
	return body, back
}

// anyRow draws rows that share names, stamps and values often enough for every
// path of the codec, and are odd often enough for every bit.
func anyRow() *rapid.Generator[meter.Row] {
	names := rapid.SampledFrom([]meter.Channel{"1-0:1.8.0*255/3:2", "1-0:32.7.0*255/3:2", "thd.l1", ""})
	bits := rapid.OneOf(rapid.Uint64Range(0, 300), rapid.Uint64(), rapid.SampledFrom([]uint64{
		0, math.MaxUint64, 1 << 63, math.Float64bits(230.1), uint64(math.Float32bits(230.1)),
		math.Float64bits(math.NaN()), math.Float64bits(math.Inf(-1)), 1 << 31, uint64(math.Float32bits(-0.25)),
	}))
	times := rapid.OneOf(rapid.Int64(), rapid.Int64Range(1.7e12, 1.7e12+5), rapid.SampledFrom([]int64{math.MinInt64, math.MaxInt64}))
	return rapid.Custom(func(t *rapid.T) meter.Row {
		return meter.Row{
			Meter:   meter.ID(rapid.SampledFrom([]string{"a", "b", "house-3", ""}).Draw(t, "meter")),
			Serial:  rapid.SampledFrom([]string{"", "1", "\xff\x00"}).Draw(t, "serial"),
			Channel: names.Draw(t, "channel"),
			Stamp: meter.Stamp{
				Time: times.Draw(t, "time"), Boot: rapid.Uint32().Draw(t, "boot"), Mono: times.Draw(t, "mono"),
				Bound: rapid.Uint32().Draw(t, "bound"), Source: meter.Source(rapid.Uint8Range(0, 2).Draw(t, "source")),
			},
			Occurrence: rapid.Uint8().Draw(t, "occurrence"),
			Value: meter.Value{
				Kind: meter.Kind(rapid.Uint8Range(0, uint8(meter.DateTime)).Draw(t, "kind")), Scale: rapid.Int8Range(-1, 1).Draw(t, "scale"),
				Bits: bits.Draw(t, "bits"), Data: rapid.StringN(0, 3, -1).Draw(t, "data"),
			},
			Unit:    meter.Unit(rapid.SampledFrom([]uint8{0, 30, 255}).Draw(t, "unit")),
			Quality: meter.Quality(rapid.Uint32().Draw(t, "quality")),
			Lane:    meter.Lane(rapid.Uint8Range(0, uint8(meter.Instant)).Draw(t, "lane")),
			Period:  rapid.Uint32().Draw(t, "period"),
			Status:  rapid.Uint64().Draw(t, "status"), HasStatus: rapid.Bool().Draw(t, "has status"),
		}
	})
}

func TestEveryFieldSurvives(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		rows := rapid.SliceOfN(anyRow(), 0, 40).Draw(rt, "rows")
		// Stretches of one stamp and one series are what the codec is made for.
		for i := range rows {
			if i > 0 && rapid.Bool().Draw(rt, "same stamp") {
				rows[i].Stamp = rows[i-1].Stamp
			}
			if i > 0 && rapid.Bool().Draw(rt, "same series") {
				bits := rows[i].Value.Bits
				rows[i].Meter, rows[i].Serial, rows[i].Channel = rows[i-1].Meter, rows[i-1].Serial, rows[i-1].Channel
				rows[i].Value, rows[i].Unit = rows[i-1].Value, rows[i-1].Unit
				rows[i].Value.Bits = bits
			}
		}
		body, d := pack(t, rows)
		got, err := ParseRows(body, d)
		if err != nil {
			rt.Fatal(err)
		}
		if len(rows) == 0 && len(got) == 0 {
			return
		}
		if diff := cmp.Diff(rows, got); diff != "" {
			rt.Fatal(diff)
		}
	})
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	row := meter.Row{Meter: "a", Channel: "x"}
	with := func(change func(*meter.Row)) []meter.Row { r := row; change(&r); return []meter.Row{r} }
	for name, c := range map[string]struct {
		rows []meter.Row
		want error
	}{
		"too many": {make([]meter.Row, MaxRows+1), ErrTooMany},
		"lane":     {with(func(r *meter.Row) { r.Lane = 4 }), nil},
		"kind":     {with(func(r *meter.Row) { r.Value.Kind = 9 }), nil},
		"id":       {with(func(r *meter.Row) { r.Meter = "\xff" }), nil},
		"serial":   {with(func(r *meter.Row) { r.Serial = strings.Repeat("9", 256) }), nil},
		"channel":  {with(func(r *meter.Row) { r.Channel = meter.Channel(strings.Repeat("x", 256)) }), nil},
	} {
		if _, err := AppendRows(nil, c.rows, NewDict()); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	d := NewDict()
	if _, err := AppendKnownRows(nil, []meter.Row{row}, d, nil); !errors.Is(err, ErrNotInDict) || len(d.Meters()) != 0 {
		t.Errorf("a row that is not in the dictionary: %v, and it has %d meters", err, len(d.Meters()))
	}
	if added, err := d.Add([]meter.Row{row}); err != nil || !added {
		t.Errorf("adding: %v, %v", added, err)
	}
	if added, err := d.Add([]meter.Row{row}); err != nil || added {
		t.Errorf("adding again: %v, %v", added, err)
	}
	if _, err := AppendKnownRows(nil, []meter.Row{row}, d, nil); err != nil {
		t.Error(err)
	}
}
