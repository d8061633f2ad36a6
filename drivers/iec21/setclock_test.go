package iec21

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"gridgate/internal/meter"
)

func always(meter.Stamp, meter.ClockOffset) error { return nil }

func TestAClockIsToldAsItTells(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		date, clock string
		by          time.Duration
		want        string
	}{
		{"260716", "123456", 4 * time.Second, "123500"},
		{"260716", "12:34:56", -6 * time.Second, "12:34:50"},
		{"1260716", "1123456", 4 * time.Second, "1123500"},
		{"260716", "123456", 1400 * time.Millisecond, "123457"},
	} {
		m, ok := joined(c.date, c.clock)
		if !ok {
			t.Fatalf("%s %s", c.date, c.clock)
		}
		if got := (shownClock{text: c.clock, m: m}).moved(c.by); got != c.want {
			t.Errorf("%s later by %v is %s, want %s", c.clock, c.by, got, c.want)
		}
	}
	for text, want := range map[string]string{
		"260716235958": "260717000001", "1260716120000": "1260716120003", "26-07-16,12:00:00": "26-07-16,12:00:03", "260716120000S": "260716120003S",
	} {
		m, ok := parseTime(text)
		if got := (shownClock{text: text, whole: true, m: m}).moved(3 * time.Second); !ok || got != want {
			t.Errorf("%s becomes %s, %v, want %s", text, got, ok, want)
		}
	}
}

// TestSetClock writes the time in the programming mode, once, with the command
// that goes with the one it is read by, and reads it back.
func TestSetClock(t *testing.T) {
	t.Parallel()
	no := errors.New("no")
	for title, c := range map[string]struct {
		method meter.ClockMethod
		may    func(meter.Stamp, meter.ClockOffset) error
		answer string // to the write; "" is ACK
		wrote  int
		sent   bool
		want   error
	}{
		"set":       {may: always, wrote: 1, sent: true},
		"not let":   {may: func(meter.Stamp, meter.ClockOffset) error { return no }, want: no},
		"shifted":   {method: meter.ShiftTime, may: always, want: meter.ErrClockMethod},
		"forbidden": {may: always, answer: "(ER04)", wrote: 1, sent: true},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			r := programmable()
			r.answer = func(command, data string) (string, byte) {
				address, value, _ := strings.Cut(data, "(")
				if command[0] != 'W' || address != "0.9.1" {
					return "", 0
				}
				if c.answer != "" {
					return c.answer, 3
				}
				r.registers["0.9.1"] = "(" + value
				return "", ack
			}
			with(t, r, Config{Mode: Programming, Password: []byte("12345678"), Serial: "50123456"}, func(t *testing.T, m *Meter) {
				a := ask(t, "1-0:3.8.0")
				a.SetClock = &meter.SetClock{Method: c.method, May: c.may}
				got, err := m.Visit(t.Context(), a)
				set := got.ClockSet
				if err != nil || set == nil || len(got.Rows) != 1 || set.Sent != c.sent {
					t.Fatalf("%v, %+v, %v", err, set, got.Failures)
				}
				if c.want != nil && !errors.Is(set.Err, c.want) || c.want == nil && isRefused(set.Err) != (c.answer != "") {
					t.Errorf("error %v", set.Err)
				}
				if title == "set" && (set.Err != nil || set.After == nil || set.After.Offset.Abs() > set.After.Uncertainty || set.Before.Offset.Abs() < time.Minute) {
					t.Errorf("before %+v, after %+v", set.Before, set.After)
				}
			})
			if n := count(r.said(), "W5 0.9.1("); n != c.wrote {
				t.Errorf("%d writes: %q", n, r.said())
			}
			if last := r.said(); slices.Index(last, "B0 ") != len(last)-1 {
				t.Errorf("the session is not ended: %q", last)
			}
		})
	}
}
