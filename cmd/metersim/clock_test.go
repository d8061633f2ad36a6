package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gridgate/configs"
	"gridgate/drivers/cosem"
	"gridgate/drivers/iec21"
	"gridgate/drivers/line"
	"gridgate/drivers/modbus"
	"gridgate/internal/meter"
)

func letIt(meter.Stamp, meter.ClockOffset) error { return nil }

// isSet holds what came of a setting of a clock that was off.
func isSet(t *testing.T, got meter.Got, err error, was time.Duration) {
	t.Helper()
	s := got.ClockSet
	if err != nil || s == nil || s.Err != nil || !s.Sent || s.After == nil {
		t.Fatalf("%v, %+v, failures %v", err, s, got.Failures)
	}
	if (s.Before.Offset-was).Abs() > s.Before.Uncertainty+time.Second || s.After.Offset.Abs() > s.After.Uncertainty {
		t.Errorf("from %+v to %+v, and it was off by %v", s.Before, *s.After, was)
	}
}

// TestClocksAreSet: over the wrapper, HDLC and a terminal, by writing and by
// shifting, and a profile's times follow.
func TestClocksAreSet(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args   []string
		hdlc   bool
		method meter.ClockMethod
	}{
		"wrapper":       {args: []string{"-listen", "127.0.0.1:0"}},
		"wrapper shift": {args: []string{"-listen", "127.0.0.1:0"}, method: meter.ShiftTime},
		"hdlc":          {args: []string{"-listen", "127.0.0.1:0", "-transport", "hdlc"}, hdlc: true},
		"hdlc shift":    {args: []string{"-listen", "127.0.0.1:0", "-transport", "hdlc"}, hdlc: true, method: meter.ShiftTime},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			printed, _ := command(t, 1, append([]string{"dlms", "-offset", "-75s", "-password", "12345678"}, c.args...)...)
			addr := strings.Fields(printed[0])[0]
			cfg := cosem.Config{Client: 17, Auth: cosem.AuthLLS, Password: []byte("12345678"), TimeZone: time.Local}
			if c.hdlc {
				cfg.HDLC = &cosem.HDLC{}
			}
			got, err := visit(t, addr, cfg, meter.Ask{Clock: true, SetClock: &meter.SetClock{Method: c.method, May: letIt}})
			isSet(t, got, err, -75*time.Second)
			if got, err = visit(t, addr, cfg, meter.Ask{Clock: true}); err != nil || got.Clock == nil || got.Clock.Offset.Abs() > got.Clock.Uncertainty {
				t.Errorf("afterwards: %v, %+v", err, got.Clock)
			}
		})
	}
}

func TestIEC21ClockIsSet(t *testing.T) {
	t.Parallel()
	o := iec21Options{password: "12345678"}
	o.clock.offset = 50 * time.Second
	where := startIEC21(t, o)
	for _, mode := range []iec21.Mode{iec21.Programming, 0} {
		m := iec21Reader(t, where, iec21.Config{Password: []byte("12345678"), Serial: "50000001", Mode: mode, TimeZone: time.Local})
		at := time.Now()
		got, err := m.Visit(t.Context(), meter.Ask{Groups: registers(t, "1-0:1.8.0"), Clock: true, SetClock: &meter.SetClock{May: letIt}})
		if near := at.Add(3 * time.Minute); near.Hour() == 0 && near.Minute() < 6 {
			if err != nil || got.ClockSet != nil { // date and time may be of different days
				t.Errorf("near midnight: %v, %+v", err, got.ClockSet)
			}
			continue
		}
		want := 50 * time.Second
		if mode != iec21.Programming {
			want = 0 // it was set before
		}
		isSet(t, got, err, want)
	}
}

func TestModbusClockIsSet(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const text = "name: timed\nclock: {function: 3, address: 0x1000, format: words, zone: utc, write: allowed}\n" +
		"registers:\n  - {channel: \"1-0:14.7.0\", function: 3, address: 0, type: u16, unit: Hz}\n"
	if err := os.WriteFile(filepath.Join(dir, "timed.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	model, err := configs.ModelIn(dir, "timed")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args      []string
		transport modbus.Transport
	}{
		"tcp": {transport: modbus.TCP}, "rtuovertcp": {args: []string{"-rtu"}, transport: modbus.RTUOverTCP},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			printed, _ := simulate(t, 1, append([]string{"-listen", "127.0.0.1:0", "-model", "timed", "-models", dir, "-offset", "90s"}, c.args...)...)
			l := line.TCP(printed[0][0], line.Options{})
			t.Cleanup(func() { _ = l.Close() })
			now := func() meter.Stamp {
				n := time.Now()
				return meter.Stamp{Time: n.UnixMilli(), Mono: n.UnixMilli(), Boot: 1}
			}
			m := modbus.New(modbus.Config{ID: "m", Unit: 1, Transport: c.transport, Model: model, Timeout: 20 * time.Second, Now: now}, l)
			got, err := m.Visit(t.Context(), meter.Ask{Clock: true, SetClock: &meter.SetClock{May: letIt}})
			isSet(t, got, err, 90*time.Second)
		})
	}
}
