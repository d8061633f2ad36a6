package iec21

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

func TestAddresses(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"1.8.0": "1-0:1.8.0*255", "1-0:1.8.0*255": "1-0:1.8.0*255", "1.8.0*01": "1-0:1.8.0*1", "1.8.1&12": "1-0:1.8.1*12",
		"32.7": "1-0:32.7.0*255", "C.1.0": "0-0:96.1.0*255", "F.F": "0-0:97.97.0*255", "F.F.0": "0-0:97.97.0*255",
		"L.1.0": "0-0:98.1.0*255", "P.01": "1-0:99.1.0*255", "P.98": "1-0:99.98.0*255", "0.0.0": "1-0:0.0.0*255",
		"0.9.1": "1-0:0.9.1*255", "1.0.0": "0-0:1.0.0*255", "96.1.1": "0-0:96.1.1*255", "0-1:24.2.1": "0-1:24.2.1*255",
		"C.90.1": "0-0:96.90.1*255",
	} {
		got, err := parseAddress(in)
		if err != nil || got.String() != want {
			t.Errorf("%s: %v, %v, want %s", in, got, err, want)
			continue
		}
		if again, err := parseAddress(addressOf(got)); err != nil || again != got {
			t.Errorf("%s is asked for as %s, which is %v, %v", in, addressOf(got), again, err)
		}
	}
	for code, want := range map[obis.Code]string{
		{1, 0, 1, 8, 0, 255}: "1.8.0", {0, 0, 96, 1, 0, 255}: "C.1.0", {1, 0, 99, 1, 0, 255}: "P.01", {1, 1, 1, 8, 0, 3}: "1-1:1.8.0*03",
	} {
		if got := addressOf(code); got != want {
			t.Errorf("%v is asked for as %s, want %s", code, got, want)
		}
	}
	for _, bad := range []string{"", "1", "1.8.0.0", "A.1.0", "256.1.0", "1.8.0*", "1.8.0*256", "1:1.8.0", "1-0:1-0:1.8.0", "-1.8.0", "1..0"} {
		if got, err := parseAddress(bad); err == nil {
			t.Errorf("%q was taken for %v", bad, got)
		}
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	energy := obis.Code{1, 0, 1, 8, 0, 255}
	for in, want := range map[string]string{
		"001234.567*kWh": "1234567 Wh", "1*MWh": "1000000 Wh", "0000000.000*kWh": "0 Wh", "12.50*kvarh": "12500 varh",
		"7*kVArh": "7000 varh", "1*KWH": "1000 Wh", "000007,4*kW": "7400 W", "-0.25*kW": "-250 W", "+1*W": "1 W", "230.10*V": "230.10 V",
		"5*mA": "0.005 A", "12.3*m3": "12.3 m³", "21.5*C": "21.5 °C", "0.81": "0.81 ", "18446744073709551615": "18446744073709551615 ",
		" 17 *kWh": "17000 Wh", "18446744073709551616*Wh": " Wh overflow", "A8F": "A8F ", "60*min": "60 min",
		"2609151230": "2609151230 ",
	} {
		got, err := parseValue(energy, in)
		text := got.value.String() + " " + got.unit.String()
		if got.quality != 0 {
			text += " " + got.quality.String()
		}
		if err != nil || text != want {
			t.Errorf("%q: %q, %v, want %q", in, text, err, want)
		}
	}
	for in, want := range map[string]error{
		"": errNoValue, "-----*kWh": errNoValue, "1*xx": errUnit, "1.2.3*kWh": errLine, "12..*kWh": errLine, "1*kmin": errUnit, "0x12*Wh": errLine,
	} {
		if got, err := parseValue(energy, in); !errors.Is(err, want) {
			t.Errorf("%q: %+v, %v, want %v", in, got, err, want)
		}
	}
	for _, refusal := range []string{"ERROR", "ER03", "ERR1", "ER", "error", "ERROR 12"} {
		if _, err := parseValue(energy, refusal); !isRefused(err) {
			t.Errorf("%q is no refusal: %v", refusal, err)
		}
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"2609151230":        "2026-09-15T10:30:00Z 2026-09-15T12:30:??",
		"260915123045":      "2026-09-15T10:30:45Z 2026-09-15T12:30:45",
		"12609151230":       "2026-09-15T10:30:00Z 2026-09-15T12:30:??",
		"0260115123045":     "2026-01-15T11:30:45Z 2026-01-15T12:30:45",
		"2260915123045":     "2026-09-15T12:30:45Z 2026-09-15T12:30:45+00:00",
		"260915123045S":     "2026-09-15T10:30:45Z 2026-09-15T12:30:45",
		"261025023000S":     "2026-10-25T00:30:00Z 2026-10-25T02:30:00",
		"261025023000W":     "2026-10-25T01:30:00Z 2026-10-25T02:30:00",
		"0261025023000":     "2026-10-25T01:30:00Z 2026-10-25T02:30:00",
		"26-09-15,12:30":    "2026-09-15T10:30:00Z 2026-09-15T12:30:??",
		"26-09-15 12:30:45": "2026-09-15T10:30:45Z 2026-09-15T12:30:45",
		"2609152400":        "2026-09-15T22:00:00Z 2026-09-16T00:00:??",
	} {
		m, ok := parseTime(in)
		got := m.in(berlin).UTC().Format(time.RFC3339) + " " + m.value().String()
		if !ok || got != want {
			t.Errorf("%s: %s, %v, want %s", in, got, ok, want)
		}
	}
	for _, bad := range []string{"", "0", "2613011230", "2602301230", "2609152401", "2609151260", "3260915123045", "260915123045X", "26-09-15", "26/09/15,12:30", "26-09-1512:30", "2609-15,12:30", "ab09151230", "26 09"} {
		if m, ok := parseTime(bad); ok {
			t.Errorf("%q was taken for %+v", bad, m)
		}
	}
}

func TestLinesOfABlock(t *testing.T) {
	t.Parallel()
	r, err := parseReadout(&frame{kind: stx, body: []byte(
		"1.8.1(1*kWh)1.8.2(2*kWh)\r\n*01(5*kWh)\r\n&02(6*kWh)\n(7*kWh)\r\nno line\r\n1.8.1(9*kWh)\r\n1.6*1(13,0*kW)!\r\n3.8.0(1)")})
	var got []string
	for _, e := range r.entries {
		value, _ := e.read(false)
		got = append(got, e.code.Short()+"="+value.value.String())
	}
	want := "1-0:1.8.1=1000 1-0:1.8.2=2000 1-0:1.8.2*1=5000 1-0:1.8.2*2=6000 1-0:1.6.0*1=13000"
	if strings.Join(got, " ") != want || err != nil {
		t.Errorf("%v\n got %s\nwant %s", err, strings.Join(got, " "), want)
	}
	if _, err := parseReadout(&frame{body: []byte("1.8.1(1*kWh)\r\nno line\r\n!\r\n")}); !errors.Is(err, errGarbled) {
		t.Errorf("damage in a readout without a check: %v", err)
	}
}

func TestParseLineRefuses(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"", "1.8.0", "1.8.0(", "1.8.0)", "1.8.0(1", "1.8.0((1)", "1.8.0(1)x", "1.8.0(\x01)", "1 .8(1)", "1/8(1)",
		strings.Repeat("1", 33) + "(1)", strings.Repeat("(1)", maxValues+1), "(" + strings.Repeat("1", maxLine) + ")",
	} {
		if sets, err := parseLine([]byte(bad)); err == nil {
			t.Errorf("%.40q was taken for %v", bad, sets)
		}
	}
}

// FuzzLine has that what is accepted is the same bytes when it is written again.
func FuzzLine(f *testing.F) {
	for _, l := range strings.Split(shown, "\r\n") {
		f.Add([]byte(l))
	}
	f.Add([]byte("P.01(1220823161500)(00000000)(15)(2)(1.5)(kW)(2.5)(kW)(0.1)(0.2)"))
	f.Fuzz(func(t *testing.T, b []byte) {
		sets, err := parseLine(b)
		if err != nil {
			return
		}
		if again := appendLine(nil, sets); !bytes.Equal(again, b) {
			t.Fatalf("%q came back as %q", b, again)
		}
		for _, s := range sets {
			code, err := parseAddress(s.address)
			if err != nil {
				continue
			}
			if again, err := parseAddress(addressOf(code)); err != nil || again != code {
				t.Fatalf("%v is asked for as %q", code, addressOf(code))
			}
			e := entry{code: code, values: s.values}
			for _, isTime := range []bool{false, true} {
				if r, err := e.read(isTime); err == nil && !r.value.Kind.Valid() {
					t.Fatalf("%q gives %+v", b, r)
				}
			}
		}
	})
}

// FuzzBlock has that a readout and a profile of anything end, and that rows are
// within what was asked for.
func FuzzBlock(f *testing.F) {
	f.Add([]byte(shown))
	f.Add([]byte("P.01(1220823161500)(00)(15)(2)(1.5)(kW)(2.8.0)(kWh)\r\n(0.1)(5)\r\n(0.2)(6)\r\n"))
	f.Add([]byte("(2209010000)(00)(15)(1)(1.5)(kW)(1)(2)(3)"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, kind := range []byte{0, stx} {
			r, err := parseReadout(&frame{kind: kind, body: b})
			if err == nil && len(r.entries) > maxSets {
				t.Fatal("too many entries")
			}
			for c, i := range r.at {
				if r.entries[i].code != c || len(r.entries[i].values) == 0 {
					t.Fatalf("%v is %+v", c, r.entries[i])
				}
			}
		}
		tb := table{zone: time.UTC, since: 1, until: 1 << 42}
		if err := tb.add(&frame{kind: stx, body: b}, "P.01"); err != nil && len(tb.rows) > 0 {
			t.Fatal("rows beside an error")
		}
		for _, row := range tb.rows {
			if row.Stamp.Time <= 1 || row.Stamp.Time > tb.since || row.Period == 0 || row.Value.Kind == meter.None && row.Quality == 0 {
				t.Fatalf("row %+v", row)
			}
		}
	})
}
