package iec21

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gridgate/internal/meter"
)

// Lines in the forms that public readouts of Landis+Gyr E350 and E230, Kamstrup
// 685, Iskraemeco MT and Elster AS meters have; the numbers are made up.
const shown = "F.F(00)\r\n0.0(          120123)\r\nC.1.0(50123456)\r\nC.1.1(        )\r\n" +
	"0.9.1(101530)\r\n0.9.2(260915)\r\n" +
	"1.8.0(001234.567*kWh)\r\n1.8.0*01(001200.000*kWh)\r\n1.8.0*02(001100.5*kWh)\r\n" +
	"1.6.1(0.123*kW)(2609151230)\r\n1.6.1&03(0.5*kW)(2608010015)\r\n" +
	"1-0:2.8.0*255(000010.49*MWh)\r\n32.7(241*V)\r\n31.7(000.35*A)\r\n14.7(50.0*Hz)\r\n33.7.0(-0.81)\r\n" +
	"9.8.0(1*kVAh)\r\nC.7.0(0008)\r\n0.2.0(M26)\r\nC.5.0(0401)\r\n16.7(-0.25*kW)\r\n96.1.1(4B41)\r\n" +
	"LOT(7)\r\n5.8.0(--------*kvarh)\r\n6.8.0(12*xyz)\r\n!\r\n"

func modeC() *rig {
	return &rig{id: "/LGZ4ZMF100AC.M26", rate: 4800, address: "50123456", shown: shown}
}

func wantShown() []string {
	return []string{
		"0-0:97.97.0=00", "1-0:0.0.0=120123", "0-0:96.1.0=50123456", "0-0:96.1.1=", "1-0:0.9.1=101530", "1-0:0.9.2=260915",
		"1-0:1.8.0=1234567Wh", "1-0:1.8.0*1=1200000Wh", "1-0:1.8.0*2=1100500Wh",
		"1-0:1.6.1=123W", "1-0:1.6.1/4:5=2026-09-15T12:30:??", "1-0:1.6.1*3=500W", "1-0:1.6.1*3/4:5=2026-08-01T00:15:??",
		"1-0:2.8.0=10490000Wh", "1-0:32.7.0=241V", "1-0:31.7.0=0.35A", "1-0:14.7.0=50.0Hz", "1-0:33.7.0=-0.81",
		"1-0:9.8.0=1000VAh", "0-0:96.7.0=8", "1-0:0.2.0=M26", "0-0:96.5.0=0401", "1-0:16.7.0=-250W",
	}
}

func TestReadoutOfEachMode(t *testing.T) {
	t.Parallel()
	a, b, bare := modeC(), modeC(), modeC()
	a.id, a.rate = "/KAM 685", 0
	b.id, b.rate, b.isB = "/ELSDAS1440", 4800, true
	bare.id, bare.rate, bare.bare = "/KAM 685", 0, true
	fast := modeC()
	fast.id = "/EMh5\\2E350"
	for name, r := range map[string]*rig{"A": a, "B": b, "C": modeC(), "bare": bare, "fast": fast} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			with(t, r, Config{Serial: "0050123456", Address: "50123456"}, func(t *testing.T, m *Meter) {
				got, err := m.Visit(t.Context(), meter.Ask{Groups: []meter.Group{{Lane: meter.Billing}}})
				want := wantShown()
				if r.bare {
					for i := range want {
						want[i] += " identity-not-proven"
					}
				}
				if rows := show(got.Rows); err != nil || !slices.Equal(rows, want) {
					t.Fatalf("%v\n got %q\nwant %q", err, rows, want)
				}
				if id := got.Identity; id.Found != "0050123456" || id.Proven == r.bare {
					t.Errorf("identity %+v", id)
				}
				for _, row := range got.Rows {
					if row.Lane != meter.Billing || row.Serial != "0050123456" || row.Stamp.Time == 0 {
						t.Fatalf("row %+v", row)
					}
				}
			})
		})
	}
}

func TestChannelsAreTakenAsAsked(t *testing.T) {
	t.Parallel()
	with(t, modeC(), Config{}, func(t *testing.T, m *Meter) {
		got, err := m.Visit(t.Context(), ask(t, "1-0:1.8.0", "1-0:1.8.0*1", "1-0:1.6.1/5:6", "1-0:99.8.0", "thd.l1", "1-0:5.8.0", "1-0:6.8.0", "1-0:1.8.0/4:5", "1-0:1.8.0/3:3"))
		want := []string{"1-0:1.8.0=1234567Wh", "1-0:1.8.0*1=1200000Wh", "1-0:1.6.1/5:6=2026-09-15T12:30:??"}
		if rows := show(got.Rows); err != nil || !slices.Equal(rows, want) {
			t.Fatalf("%v: %q", err, rows)
		}
		wantErr := map[string]error{
			"1-0:99.8.0/7:2": ErrNotShown, "thd.l1": ErrNotOBIS, "1-0:5.8.0": errNoValue, "1-0:6.8.0": errUnit,
			"1-0:1.8.0/4:5": errNoValue, "1-0:1.8.0/3:3": ErrNotOBIS,
		}
		if len(got.Failures) != len(wantErr) {
			t.Fatalf("failures %v", got.Failures)
		}
		for _, f := range got.Failures {
			want := wantErr[f.Channel.Short()]
			if c := f.Channel.Short(); c == "1-0:99.8.0" {
				want = ErrNotShown
			}
			if !errors.Is(f.Err, want) {
				t.Errorf("%v: want %v", f, want)
			}
		}
		if got.Identity.Found != "50123456" || !got.Identity.Proven {
			t.Errorf("identity %+v", got.Identity)
		}
	})
}

func TestAnotherMeterIsTold(t *testing.T) {
	t.Parallel()
	with(t, modeC(), Config{Serial: "777"}, func(t *testing.T, m *Meter) {
		got, err := m.Visit(t.Context(), ask(t, "1-0:1.8.0"))
		if err != nil || !got.Identity.Exchanged() || got.Identity.Proven || got.Rows[0].Serial != "50123456" {
			t.Errorf("%v %+v %+v", err, got.Identity, got.Rows)
		}
	})
}

// TestRates has the line and the meter at the same rate throughout, the highest
// that both take.
func TestRates(t *testing.T) {
	t.Parallel()
	for maxBaud, want := range map[int]string{0: `"\x06040\r\n"`, 2400: `"\x06030\r\n"`, 300: `"\x06000\r\n"`, 19200: `"\x06040\r\n"`} {
		r := modeC()
		with(t, r, Config{MaxBaud: maxBaud}, func(t *testing.T, m *Meter) {
			got, err := m.Visit(t.Context(), ask(t, "1-0:1.8.0"))
			if err != nil || len(got.Rows) != 1 {
				t.Fatal(maxBaud, err)
			}
			if said := r.said(); !slices.Contains(said, want) || said[0] != "/?!" {
				t.Errorf("max %d: %q", maxBaud, said)
			}
		})
	}
}

// TestSlowReadout has no deadline for the whole of a readout: two thousand
// octets at 300 bit/s take more than a minute.
func TestSlowReadout(t *testing.T) {
	t.Parallel()
	r := modeC()
	r.shown = strings.Repeat("C.9.9(0123456789)\r\n", 100) + shown
	with(t, r, Config{MaxBaud: 300}, func(t *testing.T, m *Meter) {
		began := time.Now()
		got, err := m.Visit(t.Context(), meter.Ask{Groups: ask(t, "1-0:1.8.0").Groups, Clock: true})
		if took := time.Since(began); err != nil || len(got.Rows) != 1 || took < time.Minute {
			t.Fatalf("%v in %v: %+v", err, took, got)
		}
		if c := got.Clock; c == nil || c.Uncertainty < 30*time.Second || c.Uncertainty > 40*time.Second {
			t.Errorf("clock %+v", c)
		}
	})
}

func TestClockOfTheReadout(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	// A bubble's time begins at 2000-01-01T00:00:00Z.
	for text, want := range map[string]time.Duration{
		"0.9.1(010002)\r\n0.9.2(000101)\r\n":              0,
		"0.9.1(0010012)\r\n0.9.2(0000101)\r\n":            10 * time.Second,
		"0-0:1.0.0(000101010102W)\r\n":                    time.Minute,
		"0.9.1(01:00:32)\r\n0.9.2(00-01-01)\r\n":          30 * time.Second,
		"0.9.4(2000101000002)\r\n":                        0, // UTC
		"0.9.4(0001010100)\r\n":                           0,
		"1.0.0(00-01-01 02:00:02)\r\n0.9.2(00-99-01)\r\n": time.Hour,
	} {
		r := modeC()
		r.shown = "C.1.0(1)\r\n" + text + "!\r\n"
		with(t, r, Config{TimeZone: berlin}, func(t *testing.T, m *Meter) {
			got, err := m.Visit(t.Context(), meter.Ask{Clock: true})
			if err != nil || got.Clock == nil {
				t.Fatalf("%q: %v, %v", text, err, got.Failures)
			}
			if off := got.Clock.Offset - want; off.Abs() > got.Clock.Uncertainty || !got.Clock.Valid {
				t.Errorf("%q: %+v, want %v", text, got.Clock, want)
			}
		})
	}
	r := modeC()
	r.shown = "C.1.0(1)\r\n0.9.1(000001)\r\n0.9.2(000101)\r\n!\r\n" // the date may be of the day before
	with(t, r, Config{}, func(t *testing.T, m *Meter) {
		if got, err := m.Visit(t.Context(), meter.Ask{Clock: true}); err != nil || got.Clock != nil || len(got.Failures) != 1 {
			t.Errorf("%v %+v %v", err, got.Clock, got.Failures)
		}
	})
}

func TestDamageIsAskedForAgain(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(b []byte) []byte{
		"check": func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"digit": func(b []byte) []byte { b[40] ^= 1; return b },
		"end":   func(b []byte) []byte { return b[:len(b)-3] },
		"early": func(b []byte) []byte { b[60] = 3; return b },
		"lost":  func(b []byte) []byte { return append(b[:50], b[51:]...) },
		"noise": func(b []byte) []byte { return append([]byte{0x55, 0x02, 0x11, 0x7f}, b...) },
	} {
		r := modeC()
		r.spoil = func(n int, b []byte) []byte {
			if n == 1 {
				return spoil(slices.Clone(b))
			}
			return b
		}
		with(t, r, Config{}, func(t *testing.T, m *Meter) {
			got, err := m.Visit(t.Context(), meter.Ask{Groups: []meter.Group{{}}})
			if rows := show(got.Rows); err != nil || !slices.Equal(rows, wantShown()) {
				t.Errorf("%s: %v %q", name, err, rows)
			}
			// A meter that sent no end does not wait for NAK either; it is called again.
			if said := r.said(); !slices.Contains(said, "NAK") && name != "end" {
				t.Errorf("%s: %q", name, said)
			}
		})
	}
}

func TestDamageThatStaysIsNoValue(t *testing.T) {
	t.Parallel()
	r := modeC()
	r.spoil = func(n int, b []byte) []byte {
		if len(b) > 40 {
			b = slices.Clone(b)
			b[len(b)-1] ^= 4
		}
		return b
	}
	with(t, r, Config{}, func(t *testing.T, m *Meter) {
		got, err := m.Visit(t.Context(), meter.Ask{Groups: []meter.Group{{}}})
		if !errors.Is(err, meter.ErrGarbled) || len(got.Rows) > 0 {
			t.Errorf("%v %q", err, show(got.Rows))
		}
		if n := r.n; n > 6 {
			t.Errorf("%d messages: it gives up too late", n)
		}
	})
}

// TestTruncation cuts every message of a session at every length.
func TestTruncation(t *testing.T) {
	t.Parallel()
	for _, bare := range []bool{false, true} {
		small := "C.1.0(50123456)\r\n1.8.0(001234.567*kWh)\r\n!\r\n"
		for length := range len(small) + 3 {
			r := modeC()
			r.shown = small
			if r.bare = bare; bare {
				r.id, r.rate = "/KAM 685", 0
			}
			var cut atomic.Bool
			r.spoil = func(_ int, b []byte) []byte {
				if strings.HasPrefix(string(b), "/") {
					return b
				}
				cut.Store(length < len(b))
				return b[:min(length, len(b))]
			}
			with(t, r, Config{}, func(t *testing.T, m *Meter) {
				got, err := m.Visit(t.Context(), ask(t, "1-0:1.8.0"))
				whole := !cut.Load()
				if whole && err == nil && len(got.Rows) == 1 {
					return
				}
				if whole || err == nil || len(got.Rows) > 0 || !errors.Is(err, meter.ErrGarbled) && !errors.Is(err, meter.ErrNoAnswer) {
					t.Errorf("bare %v, %d octets: %v %q", bare, length, err, show(got.Rows))
				}
			})
		}
	}
}

// TestRandomDamage flips bits: no value differs from what the meter has.
func TestRandomDamage(t *testing.T) {
	t.Parallel()
	right, refused := wantShown(), 0
	for try := range uint64(150) {
		rng := rand.New(rand.NewPCG(1, try))
		r := modeC()
		r.spoil = func(_ int, b []byte) []byte {
			b = slices.Clone(b)
			if rng.IntN(2) == 0 { // a burst within one octet: what parity or check finds
				b[rng.IntN(len(b))] ^= 1 << rng.IntN(7)
			}
			return b
		}
		with(t, r, Config{}, func(t *testing.T, m *Meter) {
			got, err := m.Visit(t.Context(), meter.Ask{Groups: []meter.Group{{}}})
			if err != nil {
				refused++
			}
			if rows := show(got.Rows); err == nil && !slices.Equal(rows, right) || err != nil && len(rows) > 0 {
				t.Errorf("%v %q", err, rows)
			}
		})
	}
	if refused == 150 {
		t.Error("nothing was ever read")
	}
}

func TestLinesThatEchoAndShowParity(t *testing.T) {
	t.Parallel()
	for _, echoes := range []bool{false, true} {
		for _, marked := range []bool{false, true} {
			r := modeC()
			r.echoes, r.marked, r.password, r.registers = echoes, marked, "12345678", map[string]string{"C.1.0": "(50123456)", "3.8.0": "(7*kvarh)"}
			with(t, r, Config{Password: []byte("12345678")}, func(t *testing.T, m *Meter) {
				got, err := m.Visit(t.Context(), ask(t, "1-0:1.8.0", "1-0:3.8.0"))
				if want := []string{"1-0:1.8.0=1234567Wh", "1-0:3.8.0=7000varh"}; err != nil || !slices.Equal(show(got.Rows), want) {
					t.Errorf("echo %v parity %v: %v %q", echoes, marked, err, show(got.Rows))
				}
			})
		}
	}
	r := modeC()
	r.marked = true
	r.spoil = func(_ int, b []byte) []byte {
		if len(b) > 40 { // two changes that the check character does not see
			b = slices.Clone(b)
			b[42], b[43] = b[42]|0x80, b[43]|0x80
		}
		return b
	}
	with(t, r, Config{}, func(t *testing.T, m *Meter) {
		r.marked = false
		if got, err := m.Visit(t.Context(), ask(t, "1-0:1.8.0")); !errors.Is(err, meter.ErrGarbled) || len(got.Rows) > 0 {
			t.Errorf("wrong parity: %v %q", err, show(got.Rows))
		}
	})
}

func TestSilence(t *testing.T) {
	t.Parallel()
	r := modeC()
	r.address = "1"
	with(t, r, Config{Address: "2"}, func(t *testing.T, m *Meter) {
		began := time.Now()
		_, err := m.Visit(t.Context(), ask(t, "1-0:1.8.0"))
		if took := time.Since(began); !errors.Is(err, meter.ErrNoAnswer) || took > 3*time.Second || len(r.said()) != 1 {
			t.Errorf("%v in %v, called %q", err, took, r.said())
		}
	})
}

func TestASleepingMeterIsCalledTwice(t *testing.T) {
	t.Parallel()
	r := modeC()
	asleep := false
	r.spoil = func(_ int, b []byte) []byte {
		if asleep {
			asleep = false
			return nil
		}
		return b
	}
	with(t, r, Config{}, func(t *testing.T, m *Meter) {
		for range 2 {
			if got, err := m.Visit(t.Context(), ask(t, "1-0:1.8.0")); err != nil || len(got.Rows) != 1 {
				t.Errorf("%v %q", err, r.said())
			}
			asleep = true
		}
	})
}

// TestCancelReturnsAtOnce cancels within a readout, and has the next visit wait
// for the rest of it.
func TestCancelReturnsAtOnce(t *testing.T) {
	t.Parallel()
	with(t, modeC(), Config{MaxBaud: 300}, func(t *testing.T, m *Meter) {
		for _, after := range []time.Duration{0, 50 * time.Millisecond, 500 * time.Millisecond, 3 * time.Second} {
			ctx, cancel := context.WithTimeout(t.Context(), after)
			began := time.Now()
			got, err := m.Visit(ctx, ask(t, "1-0:1.8.0"))
			cancel()
			if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != after || len(got.Rows) > 0 {
				t.Errorf("cancelled after %v: %v in %v", after, err, took)
			}
			got, err = m.Visit(t.Context(), ask(t, "1-0:1.8.0"))
			if err != nil || len(got.Rows) != 1 {
				t.Errorf("after a cancellation after %v: %v", after, err)
			}
		}
	})
}

func TestEveryMessageOfTheClientIsOfTheStandard(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ command, data, want string }{
		{"B0", "", "\x01B0\x03q"}, // a well-known one
		{"P1", "(00000000)", "\x01P1\x02(00000000)\x03a"},
	} {
		if got := string(appendCommand(nil, c.command, c.data)); got != c.want {
			t.Errorf("%s: %q, want %q", c.command, got, c.want)
		}
	}
	if got := fmt.Sprintf("%v", New(Config{Password: []byte("hunter2")}, nil).cfg); strings.Contains(got, "hunter2") {
		t.Error("the password is printed")
	}
}
