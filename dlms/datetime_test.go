package dlms

import (
	"errors"
	"testing"
	"time"
)

func TestDateTimeVectors(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for octets, want := range map[string]string{
		"07E40101FF00030000FF8800":  "2019-12-31T22:03:00Z", // deviation -120: UTC+2
		"07E40106FF00030000FFC400":  "2020-01-05T23:03:00Z", // deviation -60: UTC+1
		"07E40106FF00030000FF4C00":  "2020-01-05T21:03:00Z", // deviation -180: UTC+3
		"07E40106FF00030000012C00":  "2020-01-06T05:03:00Z", // deviation +300: UTC-5
		"07E2020CFF00000000800000":  "2018-02-11T23:00:00Z", // no deviation: local time
		"07E20719FF00000000800080":  "2018-07-24T22:00:00Z",
		"07E8060F0614172D00FF8880":  "2024-06-15T18:23:45Z",
		"07E8060F061417FFFFFF8880":  "2024-06-15T18:23:00Z", // seconds left open
		"07EA0B16070828173200 0000": "2026-11-22T08:40:23.5Z",
		"07EA0A19070200000080 0080": "2026-10-25T00:00:00Z", // 02:00 comes twice: in daylight saving time
		"07EA0A19070200000080 0000": "2026-10-25T01:00:00Z", // and after it
		"07EA0A190702000000FF8880":  "2026-10-25T00:00:00Z",
	} {
		d, err := ParseDateTime(string(unhex(t, octets)))
		if err != nil {
			t.Fatal(err)
		}
		got, err := d.Time(berlin)
		if err != nil || got.Format(time.RFC3339Nano) != want {
			t.Errorf("%s: %v, %v, want %s", octets, got.Format(time.RFC3339Nano), err, want)
		}
		if again, err := d.AppendBinary(nil); err != nil || string(again) != string(unhex(t, octets)) {
			t.Errorf("%s encodes as %x, %v", octets, again, err)
		}
	}
}

func TestDateTimesThatNameNoMoment(t *testing.T) {
	t.Parallel()
	for name, octets := range map[string]string{
		"open":              "FFFFFFFFFFFFFFFFFF8000FF",
		"year open":         "FFFF0101FF00030000FF8800",
		"month open":        "07E4FF01FF00030000FF8800",
		"last of the month": "07E401FEFF00030000FF8800",
		"hour open":         "07E40101FFFF030000FF8800",
		"minute open":       "07E40101FF00FF0000FF8800",
		"month 13":          "07E40D01FF00030000FF8800",
		"month 0":           "07E40001FF00030000FF8800",
		"day 0":             "07E40100FF00030000FF8800",
		"30 February":       "07E4021EFF00030000FF8800",
		"24 o'clock":        "07E40101FF18030000FF8800",
		"minute 60":         "07E40101FF003C0000FF8800",
		"second 60":         "07E40101FF00033C00FF8800",
		"hundredth 100":     "07E40101FF00030064FF8800",
		"deviation of 15 h": "07E40101FF00030000038400",
	} {
		d, err := ParseDateTime(string(unhex(t, octets)))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := d.Time(time.UTC); !errors.Is(err, ErrNoMoment) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for n := range 14 {
		if _, err := ParseDateTime(string(make([]byte, n))); (err == nil) != (n == DateTimeLen) {
			t.Errorf("%d octets: %v", n, err)
		}
	}
}

func TestDateTimeOf(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		t    time.Time
		want string
	}{
		{time.Date(2026, 11, 22, 8, 40, 23, 450_000_000, time.UTC), "07EA0B1607082817 2D 0000 00"},
		{time.Date(2024, 6, 15, 20, 23, 45, 0, berlin), "07E8060F0614172D 00 FF88 80"},
		{time.Date(2024, 1, 15, 20, 23, 45, 0, berlin), "07E8010F0114172D 00 FFC4 00"},
		{time.Date(2024, 1, 15, 20, 23, 45, 0, time.FixedZone("", -5*3600)), "07E8010F0114172D 00 012C 00"},
	} {
		if b := DateTimeOf(c.t).append(nil); string(b) != string(unhex(t, c.want)) {
			t.Errorf("%v: %x, want %s", c.t, b, c.want)
		}
	}
}

func FuzzDateTime(f *testing.F) {
	f.Add(unhex(f, "07E8060F0614172D00FF8880"))
	f.Add(unhex(f, "07EA0A190702000000800080"))
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ParseDateTime(string(b))
		if err != nil {
			return
		}
		if string(d.append(nil)) != string(b) {
			t.Fatalf("%x encodes as %x", b, d.append(nil))
		}
		at, err := d.Time(berlin)
		if err != nil || d.Year < 1900 {
			return
		}
		// What Time gives and DateTimeOf encodes names the same moment.
		again, err := DateTimeOf(at.In(berlin)).Time(nil)
		if err != nil || !again.Equal(at.Truncate(10*time.Millisecond)) {
			t.Fatalf("%x is %v, which encodes as %v, %v", b, at, again, err)
		}
	})
}

func TestRepeated(t *testing.T) {
	t.Parallel()
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	back := time.Date(2026, 10, 25, 1, 0, 0, 0, time.UTC)
	for by, want := range map[time.Duration]bool{
		-2 * time.Hour: false, -time.Hour - 1: false, -time.Hour: true, -1: true, 0: true, time.Hour - 1: true, time.Hour: false, 24 * time.Hour: false,
	} {
		begin, end, ok := Repeated(back.Add(by), zone)
		if ok != want || ok && (!begin.Equal(back.Add(-time.Hour)) || !end.Equal(back.Add(time.Hour))) {
			t.Errorf("%v from it: %v, %v, %t", by, begin, end, ok)
		}
	}
	if _, _, ok := Repeated(time.Date(2026, 3, 29, 1, 0, 0, 0, time.UTC), zone); ok {
		t.Error("clocks that are put forward repeat nothing")
	}
	first, second := back.Add(-30*time.Minute), back.Add(30*time.Minute)
	for last, want := range map[time.Time]time.Time{first.Add(-1): first, first: second, back: second, second.Add(-1): second, second: first} {
		for _, either := range []time.Time{first, second} {
			if got := Behind(either, last, zone); !got.Equal(want) {
				t.Errorf("%v behind %v: %v, want %v", either, last, got, want)
			}
			if got := Near(either, last, zone); !got.Equal(first) && last.Before(back) || !got.Equal(second) && last.After(back) {
				t.Errorf("%v near %v: %v", either, last, got)
			}
		}
	}
	if at := back.Add(2 * time.Hour); !Behind(at, at, zone).Equal(at) || !Near(at, back, zone).Equal(at) {
		t.Error("an hour that comes once is moved")
	}
}
