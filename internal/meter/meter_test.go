package meter

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"gridgate/dlms/obis"
)

func TestValueKeepsEveryDigit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		v    Value
		want string
	}{
		{IntValue(-1234, -2), "-12.34"},
		{IntValue(-4, -3), "-0.004"},
		{IntValue(5, 3), "5000"},
		{IntValue(0, 3), "0"},
		{IntValue(0, -2), "0.00"},
		{IntValue(math.MinInt64, 0), "-9223372036854775808"},
		{UintValue(math.MaxUint64, -5), "184467440737095.51615"},
		{UintValue(1, -128), "0." + strings.Repeat("0", 127) + "1"},
		{UintValue(25, -2), "0.25"},
		{Float32Value(math.Float32bits(1234.56), 3), "1234560"},
		{Float32Value(math.Float32bits(0.001), 3), "1"},
		{Float32Value(math.Float32bits(230.1), 0), "230.1"},
		{Float32Value(math.Float32bits(-0.5), -1), "-0.05"},
		{Float64Value(math.Float64bits(1e21), 0), "1000000000000000000000"},
		{BoolValue(true), "true"},
		{TextValue("a\"b"), "a\"b"},
		{OctetsValue([]byte{0xDE, 0xAD}), "dead"},
		{Value{}, ""},
		{Value{Kind: DateTime, Data: "\x07\xE4\x01\x01\xFF\x00\x03\x00\x00\xFF\x88\x00"}, "2020-01-01T00:03:00+02:00"},
		{Value{Kind: DateTime, Data: "\x07\xE2\x02\x0C\xFF\x00\x00\x00\x00\x80\x00\x00"}, "2018-02-12T00:00:00"},
		{Value{Kind: DateTime, Data: "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x00\x80\x00\x00"}, "????-??-??T??:??:??"},
	} {
		if got := c.v.String(); got != c.want {
			t.Errorf("%+v: got %s, want %s", c.v, got, c.want)
		}
		var back any
		if b := c.v.AppendJSON(nil); json.Unmarshal(b, &back) != nil {
			t.Errorf("%+v: not JSON: %s", c.v, b)
		}
	}
}

func TestValueThatIsNoNumberIsAStringInJSON(t *testing.T) {
	t.Parallel()
	for want, v := range map[string]Value{
		`"NaN"`:          Float32Value(math.Float32bits(float32(math.NaN())), 3),
		`"+Inf"`:         Float64Value(math.Float64bits(math.Inf(1)), 0),
		`null`:           {},
		`"x\u0000\"\\y"`: TextValue("x\x00\"\\y"),
	} {
		if got := string(v.AppendJSON(nil)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestChannel(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"1-0:1.8.0":         "1-0:1.8.0*255/3:2",
		"1-0:1.8.0*255":     "1-0:1.8.0*255/3:2",
		"1.0.1.8.0.255":     "1-0:1.8.0*255/3:2",
		"1-0:1.6.0":         "1-0:1.6.0*255/4:2",
		"1-0:1.6.0*255/4:5": "1-0:1.6.0*255/4:5",
		"0-0:1.0.0":         "0-0:1.0.0*255/8:2",
		"0-0:96.1.0":        "0-0:96.1.0*255/1:2",
		"1-0:99.1.0":        "1-0:99.1.0*255/7:2",
		"0-0:98.1.0":        "0-0:98.1.0*255/7:2",
		"1-0:1.4.0":         "1-0:1.4.0*255/5:2",
		"thd.current.l1":    "thd.current.l1",
	} {
		c, err := ParseChannel(in)
		if err != nil || string(c) != want {
			t.Errorf("%s: got %q, %v, want %s", in, c, err, want)
			continue
		}
		for _, form := range []string{string(c), c.Short()} {
			if again, err := ParseChannel(form); err != nil || again != c {
				t.Errorf("%s: its form %s reads back as %q, %v", in, form, again, err)
			}
		}
	}
	for _, bad := range []string{"", "1-0:1.8", "1-0:1.8.0/3", "1-0:1.8.0/x:2", "1-0:1.8.0/3:200", "a b", strings.Repeat("a", 65)} {
		if c, err := ParseChannel(bad); err == nil {
			t.Errorf("%q was taken for %q", bad, c)
		}
	}
	code, class, attribute, ok := Channel("1-0:1.6.0*255/4:5").Attribute()
	if !ok || code != (obis.Code{1, 0, 1, 6, 0, 255}) || class != 4 || attribute != 5 {
		t.Errorf("taken apart: %v %d %d %v", code, class, attribute, ok)
	}
	if _, _, _, ok := Channel("thd.l1").Attribute(); ok {
		t.Error("a name of its own was taken for an OBIS code")
	}
}

func TestID(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "A", "a b", "a/b", "a+", "#", "ä", strings.Repeat("a", 33)} {
		if _, err := ParseID(bad); err == nil {
			t.Errorf("%q was taken for an id", bad)
		}
	}
	if id, err := ParseID("house-01"); err != nil || id != "house-01" {
		t.Errorf("house-01: %q, %v", id, err)
	}
}

func TestQualityNames(t *testing.T) {
	t.Parallel()
	if got := (OutOfRange | Test).String(); got != "out-of-range+test" {
		t.Error(got)
	}
	if got := Quality(0).String(); got != "good" {
		t.Error(got)
	}
	if got := (Quality(1) << 31).String(); got != "bit31" {
		t.Error(got)
	}
	if got := strings.Count(KnownQuality.String(), "+") + 1; got != len(qualityNames) {
		t.Errorf("%d names for %d bits", len(qualityNames), got)
	}
}

func TestUnits(t *testing.T) {
	t.Parallel()
	for u, want := range map[Unit]string{WattHour: "Wh", Hertz: "Hz", Var: "var", NoUnit: "", Count: "", 200: "unit(200)", Percent: "%"} {
		if got := u.String(); got != want {
			t.Errorf("unit %d: got %q, want %q", u, got, want)
		}
	}
	if u, ok := ParseUnit("Wh"); !ok || u != WattHour {
		t.Error(u, ok)
	}
	if _, ok := ParseUnit("kWh"); ok {
		t.Error("kWh is Wh with a scale, not a unit")
	}
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		i    Identity
		want bool
	}{
		{Identity{Want: "1", Found: "2"}, true},
		{Identity{Want: "1", Found: "1"}, false},
		{Identity{Want: "", Found: "2"}, false},
		{Identity{Want: "1", Found: ""}, false},
	} {
		if c.i.Exchanged() != c.want {
			t.Errorf("%+v: exchanged is %v", c.i, !c.want)
		}
	}
}

func TestRowKeyFallsBackToTheMeter(t *testing.T) {
	t.Parallel()
	a := Row{Meter: "a", Channel: "x", Stamp: Stamp{Time: 5}}
	b := a
	b.Meter = "b"
	if a.Key() == b.Key() {
		t.Error("two meters without a serial share a key")
	}
	a.Serial, b.Serial = "s", "s"
	if a.Key() != b.Key() {
		t.Error("one serial under two names has two keys")
	}
}

func TestRowAsJSON(t *testing.T) {
	t.Parallel()
	r := Row{
		Meter: "house-1", Serial: "A\"1", Channel: "1-0:1.8.0*255/3:2", Stamp: Stamp{Time: 1767225600123},
		Value: UintValue(1234567, -2), Unit: WattHour, Quality: Estimated,
	}
	want := `{"meter":"house-1","serial":"A\"1","channel":"1-0:1.8.0*255/3:2","time":"2026-01-01T00:00:00.123Z","value":12345.67,"unit":"Wh","quality":"estimated"}`
	if got := string(r.AppendJSON(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
