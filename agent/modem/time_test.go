package modem

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestParseCCLK(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		`+CCLK: "26/11/22,17:30:05+04"`:  "2026-11-22T16:30:05Z", // Berlin in winter
		`+CCLK: "26/07/01,00:10:00+22"`:  "2026-06-30T18:40:00Z", // India
		`+CCLK:"26/07/01,00:10:00-34"`:   "2026-07-01T08:40:00Z",
		`+CCLK: "24/02/29,23:59:59+00"`:  "2024-02-29T23:59:59Z",
		`+CCLK: "26/01/01,00:00:00+56"`:  "2025-12-31T10:00:00Z",
		`+CCLK:  "68/12/31,23:59:59+00"`: "2068-12-31T23:59:59Z",
	} {
		got, err := ParseCCLK(line)
		if err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%s: %v, %v; want %s", line, got, err, want)
		}
	}
	for line, want := range map[string]string{
		``:                               "want +CCLK:",
		`+CCLK: 26/11/22,17:30:05+04`:    "want +CCLK:",
		`+CCLK: "`:                       "want +CCLK:",
		`+CCLK: "26/11/22,17:30:05"`:     "no time zone",
		`+CCLK: "26/11/22,17:30:05+4"`:   "want yy",
		`+CCLK: "2026/11/22,17:30:05+4"`: "want yy",
		`+CCLK: "26/11/22,17:30:05 04"`:  "want + or -",
		`+CCLK: "26/11/22,17:30:05+99"`:  "further from UTC",
		`+CCLK: "26/13/22,17:30:05+04"`:  "no time",
		`+CCLK: "25/02/29,17:30:05+04"`:  "no time",
		`+CCLK: "80/01/06,00:00:07+00"`:  "no time of this century",
		`+CCLK: "26/11/22,24:00:00+00"`:  "no time",
	} {
		if got, err := ParseCCLK(line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want %q", line, got, err, want)
		}
	}
}

func FuzzParseCCLK(f *testing.F) {
	f.Add(`+CCLK: "26/11/22,17:30:05+04"`)
	f.Add(`+CCLK: "80/01/06,00:00:07-00"`)
	f.Fuzz(func(t *testing.T, line string) {
		got, err := ParseCCLK(line)
		if err == nil && (got.Year() < 1999 || got.Year() > 2070 || got.Nanosecond() != 0) {
			t.Errorf("%q gives %v", line, got)
		}
	})
}

func TestNetworkTime(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]string{
		"AT+CCLK?\r\r\n+CCLK: \"26/11/22,17:30:05+04\"\r\n\r\nOK\r\n": "2026-11-22T16:30:05Z",
		"\r\n+CREG: 1\r\n+CCLK: \"26/11/22,17:30:05+00\"\r\nOK\r\n":   "2026-11-22T17:30:05Z",
		"\r\nOK\r\n":                        "modem: says OK and no time",
		"\r\nERROR\r\n":                     "modem: the modem refuses AT+CCLK?",
		"\r\n+CME ERROR: 3\r\n":             "modem: the modem refuses AT+CCLK?: 3",
		"\r\n+CCLK: \"\"\r\nOK\r\n":         `modem: "+CCLK: \"\"": want yy/MM/dd`,
		strings.Repeat("+CSQ: 1\r\n", 1000): "modem: the modem answers garbage",
		"\r\n":                              "modem: the modem does not answer",
	} {
		synctest.Test(t, func(t *testing.T) {
			p := &fake{answer: func(string) string { return answer }}
			got, err := NetworkTime(t.Context(), p)
			text := got.Format(time.RFC3339)
			if err != nil {
				text = err.Error()
			}
			if !strings.HasPrefix(text, want) {
				t.Errorf("%q: %s; want %s", answer, text, want)
			}
		})
	}
}
