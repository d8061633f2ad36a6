package iec21

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gridgate/internal/meter"
)

func programmable() *rig {
	r := modeC()
	r.password = "12345678"
	r.registers = map[string]string{
		"C.1.0": "(50123456)", "3.8.0": "(000007.5*kvarh)", "1.8.0*01": "(001200.000*kWh)", "1.6.0": "(1.5*kW)(2609151230)",
		"0.9.1": "(010003)", "0.9.2": "(000101)",
	}
	return r
}

func count(heard []string, prefix string) (n int) {
	for _, h := range heard {
		if strings.HasPrefix(h, prefix) {
			n++
		}
	}
	return n
}

func TestRegistersInTheProgrammingMode(t *testing.T) {
	t.Parallel()
	r := programmable()
	with(t, r, Config{Mode: Programming, Password: []byte("12345678"), Serial: "50123456"}, func(t *testing.T, m *Meter) {
		for visit := range 2 {
			a := ask(t, "1-0:3.8.0", "1-0:1.8.0*1", "1-0:1.6.0", "1-0:1.6.0/4:5", "1-0:9.9.9", "name.own")
			a.Clock = true
			got, err := m.Visit(t.Context(), a)
			want := []string{"1-0:3.8.0=7500varh", "1-0:1.8.0*1=1200000Wh", "1-0:1.6.0=1500W", "1-0:1.6.0/4:5=2026-09-15T12:30:??"}
			if err != nil || !slices.Equal(show(got.Rows), want) || !got.Identity.Proven {
				t.Fatalf("%v %q %+v", err, show(got.Rows), got.Identity)
			}
			if len(got.Failures) != 2 || !isRefused(got.Failures[0].Err) || !errors.Is(got.Failures[1].Err, ErrNotOBIS) {
				t.Errorf("failures %v", got.Failures)
			}
			if got.Clock == nil || visit == 0 && got.Clock.Offset.Abs() < time.Minute {
				t.Errorf("clock %+v", got.Clock)
			}
		}
	})
	said := r.said()
	if last := said[len(said)-1]; last != "B0 " || count(said, "P1 (12345678)") != 2 || count(said, "R5 C.1.0()") != 2 || count(said, `"\x06041`) != 2 {
		t.Errorf("said %q", said)
	}
}

// TestWhatTheReadoutLacksIsAskedFor has a second session only where it helps.
func TestWhatTheReadoutLacksIsAskedFor(t *testing.T) {
	t.Parallel()
	r := programmable()
	with(t, r, Config{Password: []byte("12345678")}, func(t *testing.T, m *Meter) {
		for range 2 {
			got, err := m.Visit(t.Context(), ask(t, "1-0:1.8.0", "1-0:3.8.0", "1-0:9.9.9"))
			if want := []string{"1-0:1.8.0=1234567Wh", "1-0:3.8.0=7500varh"}; err != nil || !slices.Equal(show(got.Rows), want) || len(got.Failures) != 1 {
				t.Fatalf("%v %q %v", err, show(got.Rows), got.Failures)
			}
		}
		if n := count(r.said(), "R5 9.9.9()"); n != 1 {
			t.Errorf("what the meter refused was asked for %d times", n)
		}
		before := count(r.said(), "P1")
		if _, err := m.Visit(t.Context(), ask(t, "1-0:1.8.0", "1-0:9.9.9")); err != nil || count(r.said(), "P1") != before {
			t.Errorf("%v: a session for nothing", err)
		}
	})
}

func TestPasswordIsRefused(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(r *rig){
		"break": func(*rig) {},
		"nak": func(r *rig) {
			r.spoil = func(_ int, b []byte) []byte {
				if string(b) == "\x01B0\x03q" {
					return []byte{0x15}
				}
				return b
			}
		},
		"error": func(r *rig) {
			r.challenge = "A1B2C3D4"
			r.spoil = func(_ int, b []byte) []byte {
				if string(b) == "\x01B0\x03q" {
					return withSum([]byte("\x02(ER03)\x03"))
				}
				return b
			}
		},
	} {
		r := programmable()
		change(r)
		with(t, r, Config{Mode: Programming, Password: []byte("87654321")}, func(t *testing.T, m *Meter) {
			got, err := m.Visit(t.Context(), ask(t, "1-0:3.8.0"))
			if !errors.Is(err, meter.ErrAuthentication) || len(got.Rows) > 0 {
				t.Errorf("%s: %v", name, err)
			}
			if strings.Contains(fmt.Sprint(err), "87654321") || strings.Contains(fmt.Sprint(err), "P2") != (r.challenge != "") {
				t.Errorf("%s: %v", name, err)
			}
			if n := count(r.said(), "P1"); n != 1 {
				t.Errorf("%s: the password was sent %d times", name, n)
			}
		})
	}
}

// TestDamagedAnswerToThePassword does not send it again: that may be the try
// that locks out.
func TestDamagedAnswerToThePassword(t *testing.T) {
	t.Parallel()
	r := programmable()
	r.spoil = func(_ int, b []byte) []byte {
		if string(b) == "\x06" {
			return []byte("\x02(ER")
		}
		return b
	}
	with(t, r, Config{Mode: Programming, Password: []byte("12345678")}, func(t *testing.T, m *Meter) {
		_, err := m.Visit(t.Context(), ask(t, "1-0:3.8.0"))
		if n := count(r.said(), "P1"); err == nil || errors.Is(err, meter.ErrAuthentication) || n != 1 {
			t.Errorf("%v, sent %d times", err, n)
		}
	})
}

// TestReadCommands has a meter that knows only R1.
func TestReadCommands(t *testing.T) {
	t.Parallel()
	for _, refusal := range []byte{3, 0x15} {
		r := programmable()
		r.answer = func(command, _ string) (string, byte) {
			if command != "R1" {
				return "(ERROR)", refusal
			}
			return "", 0
		}
		with(t, r, Config{Mode: Programming}, func(t *testing.T, m *Meter) {
			r.password = ""
			for range 2 {
				if got, err := m.Visit(t.Context(), ask(t, "1-0:3.8.0")); err != nil || len(got.Rows) != 1 {
					t.Fatalf("%v %v", err, got.Failures)
				}
			}
			if n := count(r.said(), "R5"); n != 1 {
				t.Errorf("R5 was tried %d times", n)
			}
			if n := count(r.said(), "P1"); n != 0 {
				t.Errorf("P1 without a password")
			}
		})
	}
}

// TestAnswerOfAnother takes no answer with another address than the asked one.
func TestAnswerOfAnother(t *testing.T) {
	t.Parallel()
	r := programmable()
	r.answer = func(_, data string) (string, byte) {
		if strings.HasPrefix(data, "3.8.0") {
			return "4.8.0(1*kvarh)", 3
		}
		return "", 0
	}
	with(t, r, Config{Mode: Programming, Password: []byte("12345678")}, func(t *testing.T, m *Meter) {
		if got, err := m.Visit(t.Context(), ask(t, "1-0:3.8.0")); !errors.Is(err, meter.ErrGarbled) || len(got.Rows) > 0 {
			t.Errorf("%v %q", err, show(got.Rows))
		}
	})
}

// TestDamageInTheProgrammingMode spoils each message once: all is read, and
// nothing twice.
func TestDamageInTheProgrammingMode(t *testing.T) {
	t.Parallel()
	for nth := 2; nth < 7; nth++ {
		for name, spoil := range map[string]func([]byte) []byte{
			"flip": func(b []byte) []byte { b = slices.Clone(b); b[len(b)/2] ^= 2; return b },
			"cut":  func(b []byte) []byte { return b[:len(b)-1] },
		} {
			r := programmable()
			r.spoil = func(n int, b []byte) []byte {
				if n == nth && len(b) > 1 {
					return spoil(b)
				}
				return b
			}
			with(t, r, Config{Mode: Programming, Password: []byte("12345678")}, func(t *testing.T, m *Meter) {
				got, err := m.Visit(t.Context(), ask(t, "1-0:3.8.0", "1-0:1.8.0*1"))
				if want := []string{"1-0:3.8.0=7500varh", "1-0:1.8.0*1=1200000Wh"}; err != nil || !slices.Equal(show(got.Rows), want) {
					t.Errorf("%s of message %d: %v %q, %q", name, nth, err, show(got.Rows), r.said())
				}
			})
		}
	}
}

func TestOnlyAReadout(t *testing.T) {
	t.Parallel()
	r := modeC()
	r.id, r.rate = "/KAM 685", 0
	with(t, r, Config{Password: []byte("1")}, func(t *testing.T, m *Meter) {
		a := ask(t, "1-0:1.8.0", "1-0:3.8.0")
		a.Profiles = []meter.Profile{{Channel: channel(t, "1-0:99.1.0")}}
		got, err := m.Visit(t.Context(), a)
		if err != nil || len(got.Rows) != 1 || len(got.Failures) != 2 || !errors.Is(got.Failures[1].Err, errMode) {
			t.Errorf("%v %q %v", err, show(got.Rows), got.Failures)
		}
	})
}

func TestAnotherMeterInTheSecondSession(t *testing.T) {
	t.Parallel()
	r := programmable()
	r.registers["C.1.0"] = "(999)"
	with(t, r, Config{Password: []byte("12345678")}, func(t *testing.T, m *Meter) {
		got, err := m.Visit(t.Context(), ask(t, "1-0:1.8.0", "1-0:3.8.0"))
		if !errors.Is(err, errOther) || len(got.Rows) != 1 || got.Identity.Found != "50123456" {
			t.Errorf("%v %q %+v", err, show(got.Rows), got.Identity)
		}
	})
}

// loadProfile answers P.01 with quarters of hours: each value is the number of
// the quarter of the day.
func loadProfile(seasoned bool, head string) func(command, data string) (string, byte) {
	first := time.Date(2000, 1, 2, 0, 15, 0, 0, time.UTC)
	const rows = 120
	return func(command, data string) (string, byte) {
		span, ok := strings.CutPrefix(strings.TrimSuffix(data, ")"), "P.01(")
		if !ok || command != "R5" {
			return "", 0
		}
		from, to, _ := strings.Cut(span, ";")
		layout, season := "0601021504", ""
		if seasoned {
			season = "0"
			if len(from) != 11 || len(to) != 11 {
				return "P.01(ERROR)", 3
			}
			from, to = from[1:], to[1:]
		}
		begin, err := time.Parse(layout, from)
		end, err2 := time.Parse(layout, to)
		if err != nil || err2 != nil {
			return "(ER07)", 3
		}
		var b strings.Builder
		for i := range rows {
			at := first.Add(time.Duration(i) * 15 * time.Minute)
			if at.Before(begin) || at.After(end) {
				continue
			}
			if b.Len() == 0 || i == 60 { // a new head in the middle
				status := "00000000"
				if i >= 60 {
					status = "80"
				}
				fmt.Fprintf(&b, "P.01(%s%s)(%s)%s\r\n", season, at.Format(layout+"05"), status, head)
			}
			fmt.Fprintf(&b, "(%d.5)(%d)\r\n", i, 2*i)
		}
		if b.Len() == 0 {
			return "P.01(ERROR)", 3
		}
		return b.String(), 3
	}
}

func TestLoadProfile(t *testing.T) {
	t.Parallel()
	for _, seasoned := range []bool{false, true} {
		for _, blocks := range []int{0, 7} {
			r := programmable()
			r.blocks = blocks
			r.answer = loadProfile(seasoned, "(15)(2)(1.5)(kW)(1-0:1.8.0)(kWh)")
			with(t, r, Config{Password: []byte("12345678"), Serial: "50123456"}, func(t *testing.T, m *Meter) {
				time.Sleep(60 * time.Hour)
				profile := channel(t, "1-0:99.1.0")
				since := time.Date(2000, 1, 2, 3, 0, 0, 0, time.UTC).UnixMilli()
				got, err := m.Visit(t.Context(), meter.Ask{Profiles: []meter.Profile{{Channel: profile, Lane: meter.Interval, Since: since}}})
				if err != nil || len(got.Failures) > 0 || len(got.Cursors) != 1 || len(got.Rows) != 2*(120-12) {
					t.Fatalf("seasoned %v, blocks %d: %v %v, %d rows, %+v", seasoned, blocks, err, got.Failures, len(got.Rows), got.Cursors)
				}
				for i, row := range got.Rows {
					n := int64(12 + i/2)
					at := time.Date(2000, 1, 2, 0, 15, 0, 0, time.UTC).Add(time.Duration(n) * 15 * time.Minute).UnixMilli()
					want := meter.Row{
						Meter: "m", Serial: "50123456", Channel: channel(t, "1-0:1.5.0"), Lane: meter.Interval, Period: 900, HasStatus: true,
						Value: meter.UintValue(uint64(n*10+5), 2), Unit: meter.Watt, Stamp: row.Stamp,
					}
					if i%2 == 1 {
						want.Channel, want.Value, want.Unit = channel(t, "1-0:1.8.0"), meter.UintValue(uint64(2*n), 3), meter.WattHour
					}
					if n >= 60 {
						want.Status = 0x80
					}
					if row != want || row.Stamp.Time != at || row.Stamp.Source != meter.FromMeter {
						t.Fatalf("row %d: %+v\nwant %+v at %d", i, row, want, at)
					}
				}
				again, err := m.Visit(t.Context(), meter.Ask{Profiles: []meter.Profile{{Channel: profile, Since: got.Cursors[0].Time}}})
				if err != nil || len(again.Rows) > 0 || len(again.Cursors) > 0 {
					t.Errorf("again: %v, %d rows", err, len(again.Rows))
				}
				if len(again.Failures) > 0 && !isRefused(again.Failures[0].Err) {
					t.Errorf("again: %v", again.Failures)
				}
			})
		}
	}
}

// TestStretchOfALoadProfile asks for the rows up to a time, and is told that
// there are no more.
func TestStretchOfALoadProfile(t *testing.T) {
	t.Parallel()
	r := programmable()
	r.answer = loadProfile(false, "(15)(2)(1.5)(kW)(1-0:1.8.0)(kWh)")
	with(t, r, Config{Password: []byte("12345678"), Serial: "50123456"}, func(t *testing.T, m *Meter) {
		time.Sleep(60 * time.Hour)
		at := func(hour, minute int) int64 { return time.Date(2000, 1, 2, hour, minute, 0, 0, time.UTC).UnixMilli() }
		for _, c := range []struct {
			since, until, first, last int64
			rows                      int
		}{
			{at(-4, 0), at(2, 20), at(0, 15), at(2, 15), 2 * 9},
			{at(3, 0), at(4, 0), at(3, 15), at(4, 0), 2 * 4},
			{at(29, 0), at(35, 0), at(29, 15), at(30, 0), 2 * 4},
		} {
			got, err := m.Visit(t.Context(), meter.Ask{Profiles: []meter.Profile{{
				Channel: channel(t, "1-0:99.1.0"), Lane: meter.Interval, Since: c.since, Until: c.until,
			}}})
			if err != nil || len(got.Failures) > 0 || len(got.Rows) != c.rows || len(got.Cursors) != 1 || got.Cursors[0].Time != c.until {
				t.Errorf("%+v: %v %v, %d rows, %+v", c, err, got.Failures, len(got.Rows), got.Cursors)
				continue
			}
			if first, last := got.Rows[0].Stamp.Time, got.Rows[c.rows-1].Stamp.Time; first != c.first || last != c.last {
				t.Errorf("%+v: rows of %d to %d", c, first, last)
			}
		}
	})
}

func TestProfilesThatAreNone(t *testing.T) {
	t.Parallel()
	for head, want := range map[string]error{
		"(0)(2)(1.5)(kW)(1.8.0)(kWh)":    errLayout,
		"(15)(99)(1.5)(kW)(1.8.0)(kWh)":  errLayout,
		"(15)(0)":                        errLayout,
		"(15)(3)(1.5)(kW)(1.8.0)(kWh)":   errLayout,
		"(15)(2)(1.5)(kW)(1.8.0)(xyz)":   errUnit,
		"(15)(2)(SERIAL)(kW)(1.8.0)(Wh)": errAddress,
	} {
		r := programmable()
		r.answer = loadProfile(false, head)
		with(t, r, Config{Password: []byte("12345678")}, func(t *testing.T, m *Meter) {
			time.Sleep(60 * time.Hour)
			got, err := m.Visit(t.Context(), meter.Ask{Profiles: []meter.Profile{
				{Channel: channel(t, "1-0:99.1.0"), Since: time.Date(2000, 1, 2, 0, 0, 0, 0, time.UTC).UnixMilli()},
				{Channel: channel(t, "1-0:1.8.0")},
			}})
			if err != nil || len(got.Failures) != 2 || !errors.Is(got.Failures[0].Err, want) || !errors.Is(got.Failures[1].Err, ErrNoProfile) {
				t.Errorf("%s: %v %v", head, err, got.Failures)
			}
			if n := len(got.Rows); n > 0 == errors.Is(want, errLayout) {
				t.Errorf("%s: %d rows", head, n)
			}
		})
	}
}
