package column

import (
	"bytes"
	"compress/flate"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gridgate/internal/column/columntest"
	"gridgate/internal/meter"
	"gridgate/internal/wire"
)

// golden is three rows that use every column, with a value of its own in each
// field.
func golden() []meter.Row {
	return []meter.Row{
		{
			Meter: "house-1", Serial: "4711", Channel: "1-0:1.8.0*255/3:2",
			Stamp: meter.Stamp{Time: 1_700_000_100_000, Boot: 2, Mono: 3600_000, Bound: 40},
			Value: meter.UintValue(123456, -2), Unit: meter.WattHour, Lane: meter.Interval, Period: 900,
			Status: 8, HasStatus: true,
		},
		{
			Meter: "house-1", Serial: "4711", Channel: "1-0:1.8.0*255/3:2",
			Stamp: meter.Stamp{Time: 1_700_001_000_000, Boot: 2, Mono: 3600_000, Bound: 40, Source: meter.FromMeter},
			Value: meter.UintValue(123466, -2), Unit: meter.WattHour, Lane: meter.Interval, Period: 900,
			Quality: meter.PowerFailure, Occurrence: 1,
		},
		{
			Meter: "plc-9", Channel: "0-0:96.1.0*255/1:2",
			Stamp: meter.Stamp{Time: 1_700_001_000_500, Boot: 2, Mono: 3600_500, Bound: 40},
			Value: meter.TextValue("v1.2"), Lane: meter.Instant,
		},
	}
}

// TestGoldenBytes pins the format. What deflate makes is the compressor's
// business, so that writing is held against the columns before it, and reading
// against deflated bytes.
func TestGoldenBytes(t *testing.T) {
	t.Parallel()
	d, e := NewDict(), &encoder{}
	if err := e.number(golden(), d, true); err != nil {
		t.Fatal(err)
	}
	e.columns(golden(), d, true, nil)
	dict, err := d.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"dictionary": {dict, goldenDict},
		"columns":    {e.out, goldenColumns},
		"bits":       {e.writer.noise.bytes(), goldenBits},
		"coded":      {e.writer.coded.bytes(), goldenCoded},
	} {
		if got, want := hex.EncodeToString(c.got), strings.Join(strings.Fields(c.want), ""); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
	deflated, err := hex.DecodeString(goldenDeflated)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := ParseRows(deflated, d)
	if diff := cmp.Diff(golden(), rows); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

const (
	goldenDict = `
		0a0f 0a07 686f7573652d31 1204 34373131
		0a07 0a05 706c632d39
		1219 0a11 312d303a312e382e302a3235352f333a32 1002 1803 201e
		1216 0a12 302d303a39362e312e302a3235352f313a32 1006`
	goldenColumns = `
		08 03
		12 02 0201  1a 02 0002  22 03 000002
		2a 03 010101
		42 02 0302  4a 02 0328  52 06 010001010100
		7a 04 02000104  8201 04 76312e32
		8a01 07 01000180040100  9201 04 02020103  9a01 05 0284070100
		a201 06 010001010100  aa01 04 01080200  b201 04 01010200
		ca01 03 000000`
	goldenBits     = `a0eee6cf0bd0dd287b03743720b1`
	goldenCoded    = `a53dce3aa6e0ad42`
	goldenDeflated = `10671a5d2cca211282501485e1f39f7bf5bd6c349a1c8333ba04a3d1c518480c432212894422cb605514fa57e36273b57c0bc98f003e0e7f1df7df19016ad2223bf2ff7abe070aa24d3492363171725fd0ccc117926aad24581b21690f0000ffff220ea0eee6cf0bd0dd287b03743720b13208a53dce3aa6e0ad42`
)

func TestTruncated(t *testing.T) {
	t.Parallel()
	for name, rows := range map[string][]meter.Row{"plain": golden(), "deflated": newWalkRows(20)} {
		body, d := pack(t, rows)
		for n := range body {
			if _, err := ParseRows(body[:n], d); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%s: %d bytes of %d: %v", name, n, len(body), err)
			}
		}
		// A dictionary may end after any entry, but nowhere else.
		dict, _ := d.AppendBinary(nil)
		for n := range dict {
			short, err := ParseDict(dict[:n])
			if err != nil {
				continue
			}
			if again, _ := short.AppendBinary(nil); !bytes.Equal(again, dict[:n]) {
				t.Fatalf("%s: dictionary: %d bytes of %d read as %x", name, n, len(dict), again)
			}
		}
	}
}

func newWalkRows(meters int) []meter.Row {
	return columntest.NewWalk(1, meters, columntest.Int).Round()
}

func TestCorruptBytesDoNotPanic(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for _, rows := range [][]meter.Row{golden(), newWalkRows(20)} {
		body, d := pack(t, rows)
		for range 5000 {
			bad := slices.Clone(body)
			for range 1 + r.IntN(3) {
				bad[r.IntN(len(bad))] = byte(r.Uint32())
			}
			if _, err := ParseRows(bad, d); err != nil && !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%x: %v", bad, err)
			}
		}
	}
}

// coded is numbers each by a model of its own, as those of a single row.
func coded(numbers ...int64) (coded, noise []byte) {
	var w numberWriter
	w.reset()
	for _, v := range numbers {
		m := even
		w.number(&m, v)
	}
	return w.coded.bytes(), w.noise.bytes()
}

// message is a body of these columns, plain.
func message(coded, noise []byte, cols ...func([]byte) []byte) []byte {
	var in []byte
	for _, c := range cols {
		in = c(in)
	}
	b := wire.AppendBytes(wire.AppendMessage(nil, bodyPlain, in), bodyBits, noise)
	return wire.AppendBytes(b, bodyCoded, coded)
}

func TestMalformed(t *testing.T) {
	t.Parallel()
	d := NewDict()
	if _, err := d.Add([]meter.Row{{Meter: "a", Channel: "x"}}); err != nil {
		t.Fatal(err)
	}
	col := func(num int, b ...byte) func([]byte) []byte {
		return func(in []byte) []byte { return wire.AppendMessage(in, num, b) }
	}
	rows := func(n uint64) func([]byte) []byte {
		return func(in []byte) []byte { return wire.AppendUint(in, colRows, n) }
	}
	good := []func([]byte) []byte{
		rows(1), col(colMeterCounts, 1), col(colMeterSteps, 0), col(colChannelSteps, 0),
		col(colStampCounts, 1), col(colChannelCounts, 0),
	}
	zero, _ := coded(0, 0, 0)
	seven, noise := coded(0, 0, 7)
	if _, err := ParseRows(message(seven, noise, good...), d); err != nil {
		t.Fatalf("another row: %v", err)
	}
	if _, err := ParseRows(message(zero, nil, good...), d); err != nil {
		t.Fatalf("the row that the others spoil: %v", err)
	}
	with := func(at int, c func([]byte) []byte) []byte {
		bad := slices.Clone(good)
		bad[at] = c
		return message(zero, nil, bad...)
	}
	also := func(c ...func([]byte) []byte) []byte { return message(zero, nil, append(slices.Clone(good), c...)...) }
	bomb := zeros(t, 1<<20)
	for name, c := range map[string]struct {
		body []byte
		want string
	}{
		"empty":                     {nil, "want a content"},
		"two rows, a meter for one": {with(0, rows(2)), "meters: ends within"},
		"too many rows":             {with(0, rows(MaxRows+1)), "is over"},
		"more columns than rows":    {with(0, rows(0)), "too many"},
		"a run of no meters":        {with(1, col(colMeterCounts, 0)), "a run of 0"},
		"a run past the end":        {with(1, col(colMeterCounts, 2)), "a run of 2 where 1"},
		"a run more":                {with(1, col(colMeterCounts, 1, 1)), "bytes too many"},
		"a meter that is not there": {with(2, col(colMeterSteps, 2)), "number 1 of 1"},
		"a meter below all":         {with(2, col(colMeterSteps, 1)), "number -1 of 1"},
		"no such channel":           {with(3, col(colChannelSteps, 2)), "number 1 of 1"},
		"a channel from nothing":    {with(5, col(colChannelCounts, 1)), "nothing came after"},
		"more channels than rows":   {with(5, col(colChannelCounts, 2)), "2, want less than 2"},
		"a number without bits":     {message(seven, nil, good...), "bits end too soon"},
		"coded too short":           {message(zero[:len(zero)-1], nil, good...), "coded: 2 bytes, want 3"},
		"coded too long":            {message(append(slices.Clone(zero), 0), nil, good...), "coded: 4 bytes, want 3"},
		"nothing coded":             {message(nil, nil, good...), "coded: 0 bytes"},
		"first form":                {also(col(colValues, 0)), "first form"},
		"no channel beside":         {also(col(colBesides, 1)), "want less than 1"},
		"bits that nobody takes":    {message(zero, []byte{0}, good...), "bytes too many"},
		"a column twice":            {also(col(colStampCounts, 1)), "given twice"},
		"no such order":             {also(col(colOrders, orders)), "want less than 3"},
		"no such decimals":          {also(col(colDecimals, 11)), "want less than 11"},
		"no such lane":              {also(col(colLanes, 1, 4)), "4 is over 3"},
		"no such status flag":       {also(col(colHasStatuses, 1, 2)), "2 is over 1"},
		"a run too long":            {also(col(colQualities, 2, 1)), "1 too long"},
		"a run of nothing":          {also(col(colQualities, 0, 1)), "a run of nothing"},
		"data that nobody has":      {also(col(colData, 'x')), "data: 1 bytes too many"},
		"data that is not there":    {also(col(colDataLengths, 1, 1)), "1 is over 0"},
		"both forms":                {append(message(zero, nil, good...), wire.AppendBytes(nil, bodyDeflated, "x")...), "either plain or deflated"},
		"columns that are a number": {[]byte{0x08, 1}, "wire type 0, want 2"},
		"a bomb":                    {wire.AppendBytes(wire.AppendUint(nil, bodySize, 1<<20), bodyDeflated, bomb), "at most"},
		"a bomb that lies":          {wire.AppendBytes(wire.AppendUint(nil, bodySize, 8<<10), bodyDeflated, bomb), "inflates to more"},
		"less than it says":         {wire.AppendBytes(wire.AppendUint(nil, bodySize, 17), bodyDeflated, zeros(t, 16)), "inflating"},
	} {
		got, err := ParseRows(c.body, d)
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v (rows %v), want an error with %q", name, err, got, c.want)
		}
	}
}

func zeros(t testing.TB, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestAllocationIsBounded is not parallel: it counts what the process allocates.
func TestAllocationIsBounded(t *testing.T) {
	rows := make([]meter.Row, MaxRows)
	for i := range rows {
		rows[i] = meter.Row{Meter: "a", Channel: "x", Value: meter.TextValue("the same text again and again")}
	}
	same, d := pack(t, rows)
	for i := range rows {
		rows[i].Value = meter.IntValue(int64(i%64), 0)
	}
	small, d2 := pack(t, rows)
	claims := wire.AppendBytes(wire.AppendUint(nil, bodySize, 8<<10), bodyDeflated, zeros(t, 1<<20))
	for name, c := range map[string]struct {
		body []byte
		dict *Dict
		rows int
	}{
		"text":   {same, d, MaxRows},
		"small":  {small, d2, MaxRows},
		"walk":   {mustBody(t, newWalkRows(500), d), d, 500 * 11},
		"claims": {claims, d, 0},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := ParseRows(c.body, c.dict)
		runtime.ReadMemStats(&after)
		used := after.TotalAlloc - before.TotalAlloc
		limit := uint64(64<<10 + 64*len(c.body) + 256*c.rows)
		t.Logf("%s: %d bytes, %d rows, %v: allocated %d of %d", name, len(c.body), len(got), err, used, limit)
		if len(got) != c.rows || used > limit {
			t.Errorf("%s: %d bytes in, %d rows out, %d allocated, at most %d", name, len(c.body), len(got), used, limit)
		}
	}
}

func mustBody(t testing.TB, rows []meter.Row, d *Dict) []byte {
	t.Helper()
	body, err := AppendRows(nil, rows, d)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// FuzzRows takes any bytes for a dictionary and a body. What can be read is
// written and read again as the same.
func FuzzRows(f *testing.F) {
	for _, rows := range [][]meter.Row{nil, golden(), newWalkRows(2), newWalkRows(20)} {
		body, d := pack(f, rows)
		dict, err := d.AppendBinary(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(dict, body)
	}
	f.Fuzz(func(t *testing.T, dict, body []byte) {
		d, err := ParseDict(dict)
		if err != nil {
			return
		}
		rows, err := ParseRows(body, d)
		if err != nil {
			return
		}
		again, d2 := pack(t, rows)
		got, err := ParseRows(again, d2)
		if err != nil {
			t.Fatalf("what was written does not read: %v", err)
		}
		if len(rows)+len(got) > 0 && !cmp.Equal(rows, got) {
			t.Fatal(cmp.Diff(rows, got))
		}
	})
}

func TestRowsKeepNothingOfTheInput(t *testing.T) {
	t.Parallel()
	body, d := pack(t, golden())
	dict, _ := d.AppendBinary(nil)
	back, err := ParseDict(dict)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := ParseRows(body, back)
	if err != nil {
		t.Fatal(err)
	}
	clear(body)
	clear(dict)
	if diff := cmp.Diff(golden(), rows); diff != "" {
		t.Error(diff)
	}
}
