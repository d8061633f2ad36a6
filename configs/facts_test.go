package configs

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// codes are the short channels of the quantities in testdata/registers.csv.
func codes() map[string]string {
	return map[string]string{
		"V1": "1-0:32.7.0", "V2": "1-0:52.7.0", "V3": "1-0:72.7.0", "I1": "1-0:31.7.0", "I2": "1-0:51.7.0", "I3": "1-0:71.7.0",
		"P": "1-0:16.7.0", "P1": "1-0:36.7.0", "P2": "1-0:56.7.0", "P3": "1-0:76.7.0", "P+": "1-0:1.7.0", "P-": "1-0:2.7.0", "Psum": "1-0:15.7.0",
		"Q": "1-0:131.7.0", "Q1": "1-0:151.7.0", "Q2": "1-0:171.7.0", "Q3": "1-0:191.7.0", "Qsum": "power.reactive.absolute",
		"PF": "1-0:13.7.0", "PF1": "1-0:33.7.0", "PF2": "1-0:53.7.0", "PF3": "1-0:73.7.0", "f": "1-0:14.7.0",
		"E+": "1-0:1.8.0", "E+T1": "1-0:1.8.1", "E+T2": "1-0:1.8.2", "E+1": "1-0:21.8.0", "E+2": "1-0:41.8.0", "E+3": "1-0:61.8.0",
		"E-": "1-0:2.8.0", "E-T1": "1-0:2.8.1", "E-T2": "1-0:2.8.2", "E-1": "1-0:22.8.0", "E-2": "1-0:42.8.0", "E-3": "1-0:62.8.0", "Esum": "1-0:15.8.0",
		"R+": "1-0:3.8.0", "R-": "1-0:4.8.0", "R+T1": "1-0:3.8.1", "R-T1": "1-0:4.8.1", "Rsum": "energy.reactive.total",
	}
}

// factRows gives what the sources say: by model and channel, a register as
// text.
func factRows(t *testing.T) map[string]map[string]string {
	t.Helper()
	data, err := os.ReadFile("testdata/registers.csv")
	if err != nil {
		t.Fatal(err)
	}
	facts := map[string]map[string]string{}
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(strings.TrimSpace(line), ",")
		model, function, typ, order := f[0], f[1], f[2], f[3]
		factor, unit, _ := strings.Cut(f[4], " ")
		scale := map[string]int{"10": 1, "1": 0, "0.1": -1, "0.01": -2, "0.001": -3, "0.0001": -4}[factor]
		if rest, ok := strings.CutPrefix(unit, "k"); ok {
			unit, scale = rest, scale+3
		}
		quantities, last := strings.Fields(f[5]), ""
		for i, address := range strings.Fields(f[6]) {
			if !strings.HasPrefix(address, "0x") && len(address) < len(last) {
				address = last[:len(last)-len(address)] + address
			}
			last = address
			at, err := strconv.ParseUint(address, 0, 16)
			code, ok := codes()[quantities[i]]
			if err != nil || !ok {
				t.Fatalf("%s: %v", line, err)
			}
			if facts[model] == nil {
				facts[model] = map[string]string{}
			}
			facts[model][code] = fmt.Sprintf("function %s, 0x%04X, %s %s, 10^%d %s", function, at, typ, order, scale, unit)
		}
	}
	return facts
}

// The built-in maps say what the public sources say, no more and no less.
func TestModelsAgreeWithTheSources(t *testing.T) {
	t.Parallel()
	facts := factRows(t)
	if want := slices.Sorted(maps.Keys(facts)); !slices.Equal(ModelNames(), want) {
		t.Errorf("models %v, facts of %v", ModelNames(), want)
	}
	registers := 0
	for name, want := range facts {
		m, err := Model(name)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, r := range m.Registers {
			order := "be"
			if r.LittleEndianWords {
				order = "le"
			}
			got := fmt.Sprintf("function %d, 0x%04X, %v %s, 10^%d %v", r.Function, r.Address, r.Type, order, r.Scale, r.Unit)
			if code := r.Channel.Short(); got != want[code] {
				t.Errorf("%s:%d: %s is %q, the sources say %q", m.File, r.Line, code, got, want[code])
			} else {
				delete(want, code)
				registers++
			}
		}
		for code, fact := range want {
			t.Errorf("%s has no %s: %s", name, code, fact)
		}
	}
	t.Logf("%d registers of %d models", registers, len(facts))
}
