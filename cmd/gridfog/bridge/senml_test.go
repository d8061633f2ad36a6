package bridge

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os/exec"
	"strings"
	"testing"

	"gridgate/agent/batch"
	"gridgate/cmd/gridfog/track"
)

const at = 1_767_225_600_250 // 2026-01-01T00:00:00.250Z

// reading is a row of house-1 at gateway north/gw-7.
func reading(channel batch.Channel, time int64, v batch.Value, unit batch.Unit, more ...func(*batch.Row)) track.Reading {
	r := track.Reading{
		Stream: track.Stream{Site: "north", Gateway: "gw-7", Epoch: 1, Lane: batch.Instant},
		Row: batch.Row{
			Meter: "house-1", Serial: "4711", Channel: channel, Stamp: batch.Stamp{Time: time}, Value: v, Unit: unit, Lane: batch.Instant,
		},
	}
	for _, f := range more {
		f(&r.Row)
	}
	r.Lane = r.Row.Lane
	return r
}

func uintOf(n uint64, scale int8) batch.Value {
	return batch.Value{Kind: batch.Uint, Bits: n, Scale: scale}
}

func quality(q batch.Quality) func(*batch.Row) { return func(r *batch.Row) { r.Quality = q } }
func of(id batch.ID) func(*batch.Row) {
	return func(r *batch.Row) { r.Meter, r.Serial = id, "of-"+string(id) }
}

func interval(seconds uint32) func(*batch.Row) {
	return func(r *batch.Row) { r.Lane, r.Period = batch.Interval, seconds }
}

const (
	energy  = "1-0:1.8.0*255/3:2"
	voltage = "1-0:32.7.0*255/3:2"
)

func TestNames(t *testing.T) {
	t.Parallel()
	for channel, want := range map[batch.Channel]string{
		energy: "1-0:1.8.0", "1-0:1.8.0*1/3:2": "1-0:1.8.0.1", "1-0:1.8.0*255/5:3": "1-0:1.8.0_5:3", "thd.current.l1": "thd.current.l1",
		"0-0:96.1.0*255/1:2": "0-0:96.1.0", "no \xff channel\n": "no___channel_",
	} {
		if got := ChannelName(channel); got != want {
			t.Errorf("%s: %s, want %s", channel, got, want)
		}
		if err := CheckBase(ChannelName(channel)); err != nil {
			t.Error(err)
		}
	}
	row := reading(energy, at, uintOf(1, 0), 30, interval(900)).Row
	if got := rowName(&row); got != "interval/900s/1-0:1.8.0" {
		t.Error(got)
	}
	for base, good := range map[string]bool{"": true, "urn:dev:ops:32473-gw_": true, "/x": false, "a b": false, "ä": false, "a*": false} {
		if (CheckBase(base) == nil) != good {
			t.Errorf("%q: %v", base, CheckBase(base))
		}
	}
}

func TestSenML(t *testing.T) {
	t.Parallel()
	const head = `[{"bn":"gridgate/north/gw-7/house-1/","bt":1767225600.25,"n":"instant/`
	none := batch.Value{}
	for name, c := range map[string]struct {
		rows []track.Reading
		want string
	}{
		"energy":  {[]track.Reading{reading(energy, at, uintOf(120345, 1), 30)}, head + `1-0:1.8.0","u":"Wh","v":1203450}]`},
		"voltage": {[]track.Reading{reading(voltage, at, uintOf(2301, -1), 35)}, head + `1-0:32.7.0","u":"V","v":230.1}]`},
		"all digits": {
			[]track.Reading{reading(energy, at, uintOf(math.MaxUint64, -3), 30)}, head + `1-0:1.8.0","u":"Wh","v":18446744073709551.615}]`,
		},
		"shifted":        {[]track.Reading{reading("a", at, uintOf(12345, 0), 31)}, head + `a","u":"kVAh","v":12.345}]`},
		"bar":            {[]track.Reading{reading("a", at, uintOf(1013, -3), 24)}, head + `a","u":"hPa","v":1013}]`},
		"not registered": {[]track.Reading{reading("a", at, uintOf(5, 0), 15)}, head + `a","u":"gridgate:m³/h","v":5}]`},
		"no unit":        {[]track.Reading{reading("a", at, uintOf(5, 0), 0)}, head + `a","v":5}]`},
		"a number":       {[]track.Reading{reading("a", at, uintOf(5, 0), 255)}, head + `a","v":5}]`},
		"yes":            {[]track.Reading{reading("a", at, batch.Value{Kind: batch.Bool, Bits: 1}, 0)}, head + `a","vb":true}]`},
		"text":           {[]track.Reading{reading("a", at, batch.Value{Kind: batch.Text, Data: "a\"ü\n"}, 0)}, head + `a","vs":"a\"ü\u000a"}]`},
		"octets":         {[]track.Reading{reading("a", at, batch.Value{Kind: batch.Octets, Data: "\xfb\xff\x00\x01"}, 0)}, head + `a","vd":"-_8AAQ"}]`},
		"doubtful": {
			[]track.Reading{reading(energy, at, uintOf(5, 0), 30, quality(batch.RanBackwards|batch.DaylightSaving))},
			head + `1-0:1.8.0/doubtful","u":"Wh","v":5},{"n":"instant/1-0:1.8.0/quality","vs":"ran-backwards+daylight-saving"}]`,
		},
		"a remark": {
			[]track.Reading{reading(energy, at, uintOf(5, 0), 30, quality(batch.PowerFailure))},
			head + `1-0:1.8.0","u":"Wh","v":5},{"n":"instant/1-0:1.8.0/quality","vs":"power-failure"}]`,
		},
		"summer":       {[]track.Reading{reading("a", at, uintOf(5, 0), 0, quality(batch.DaylightSaving))}, head + `a","v":5}]`},
		"none":         {[]track.Reading{reading("a", at, none, 0, quality(batch.IntervalMissing))}, head + `a/quality","vs":"interval-missing"}]`},
		"none, unsaid": {[]track.Reading{reading("a", at, none, 0)}, head + `a/quality","vs":"no-value"}]`},
		"not a number": {
			[]track.Reading{reading("a", at, batch.Value{Kind: batch.Float32, Bits: 0x7FC00000}, 0)}, head + `a/quality","vs":"not-a-number"}]`,
		},
		"meters and times": {
			[]track.Reading{
				reading("a", at, uintOf(1, 0), 0), reading("b", at, uintOf(2, 0), 0), reading("a", at+900_000, uintOf(3, 0), 0, interval(900)),
				reading("a", at-250, uintOf(4, 0), 0, of("house-2")), reading("a", 17, uintOf(9, 0), 0),
			},
			head + `a","v":1},{"n":"instant/b","v":2},{"n":"interval/900s/a","t":900,"v":3},{"bn":"gridgate/north/gw-7/house-2/","n":"instant/a","t":-0.25,"v":4}]`,
		},
		"no clock": {[]track.Reading{reading("a", earliest-1, uintOf(9, 0), 0)}, ""},
	} {
		got, n := SenML{Base: DefaultBase}.Append(nil, c.rows)
		if string(got) != c.want {
			t.Errorf("%s:\n%s, want\n%s", name, got, c.want)
		}
		if want := len(c.rows); n != want && name != "no clock" && !(name == "meters and times" && n == want-1) {
			t.Errorf("%s: %d of %d rows", name, n, want)
		}
		if len(got) > 0 && !json.Valid(got) {
			t.Errorf("%s: no JSON", name)
		}
	}
}

// TestAResolverReadsWhatWeWrite holds packs against a resolver in Python, which
// was written from RFC 8428, 4.6 and 4.5: each record comes back with its whole
// name, absolute time and exact value.
func TestAResolverReadsWhatWeWrite(t *testing.T) {
	t.Parallel()
	var rows []track.Reading
	var want []string
	for i := range 300 {
		id := batch.ID(fmt.Sprintf("house-%d", i/7))
		time := at + int64(i%5)*123
		v := uintOf(uint64(i)*987654321012345, -3)
		value := "v " + v.String()
		switch i % 4 {
		case 1:
			v = batch.Value{Kind: batch.Bool, Bits: uint64(i) & 1}
			value = fmt.Sprint("vb ", i&1 == 1)
		case 2:
			v = batch.Value{Kind: batch.Octets, Data: strings.Repeat("\xfe", i%6)}
			value = "vd " + hex.EncodeToString([]byte(v.Data))
		case 3:
			v = batch.Value{Kind: batch.Text, Data: fmt.Sprintf("häuschen \\ %d", i)}
			value = "vs " + v.Data
		}
		rows = append(rows, reading("thing", time, v, 30, of(id)))
		want = append(want, fmt.Sprintf("gridgate/north/gw-7/%s/instant/thing %d Wh %s", id, time, value))
	}
	for _, resolved := range []bool{false, true} {
		resolve(t, SenML{Base: DefaultBase, Resolved: resolved}, rows, want)
	}
}

func resolve(t *testing.T, s SenML, rows []track.Reading, want []string) {
	t.Helper()
	pack, n := s.Append(nil, rows)
	if strings.Contains(string(pack), `"b`) == s.Resolved {
		t.Errorf("base fields in %s", pack)
	}
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "testdata/resolve.py")
	cmd.Stdin = bytes.NewReader(append(pack, '\n'))
	out, err := cmd.CombinedOutput()
	if err != nil || n != len(rows) {
		t.Fatalf("%d rows: %v\n%s", n, err, out)
	}
	if got := strings.TrimSpace(string(out)); got != strings.Join(want, "\n") {
		t.Errorf("resolved:\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	if strings.Contains(string(pack), base64.StdEncoding.EncodeToString([]byte("\xfe"))) {
		t.Error("base64 with padding")
	}
}

func TestDoubt(t *testing.T) {
	t.Parallel()
	for q, want := range map[batch.Quality]bool{
		0: false, batch.ClockUnsynchronised: false, batch.DaylightSaving | batch.RolledOver: false, batch.PowerFailure: false, batch.TimeCorrected: false,
		batch.MeterClockAdjusted: false, batch.Estimated: true, batch.Substituted: true, batch.OutOfRange: true, batch.RanBackwards: true,
		batch.MeterClockInvalid: true, batch.IntervalMissing: true, batch.Overflow: true, batch.IdentityNotProven: true, batch.Test: true,
		batch.Inconsistent: true, batch.DaylightSaving | batch.Estimated: true, 1 << 31: true,
	} {
		if Doubtful(q) != want {
			t.Errorf("%s: %v", q, !want)
		}
	}
}
