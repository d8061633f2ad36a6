package modbus

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/internal/meter"
)

// onRTU gives a meter at a rig on a pseudo-terminal.
func onRTU(t *testing.T, g *rig, cfg Config) *Meter {
	t.Helper()
	cfg.ID, cfg.Unit, cfg.Transport, cfg.Settings, cfg.Now = "m", 1, RTU, settings, clock()
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second
	}
	return New(cfg, serialLine(t, g.onPty(t)))
}

func TestVisitReportsWhatWasAsked(t *testing.T) {
	t.Parallel()
	g := &rig{}
	model := modelOf(1, 2, 30)
	model.Registers[1].Unit, model.Registers[1].Scale = meter.Volt, -1
	m := onRTU(t, g, Config{Model: model})
	got, err := m.Visit(t.Context(), meter.Ask{
		Groups: []meter.Group{
			{Name: "a", Lane: meter.Instant, Channels: []meter.Channel{channelAt(30), channelAt(2), "no.such"}},
			{Name: "b", Lane: meter.Billing, Channels: []meter.Channel{channelAt(2)}},
		},
		Profiles: []meter.Profile{{Channel: "1-0:99.1.0*255/7:2"}},
		Clock:    true,
	})
	if err != nil {
		t.Fatal(err)
	}
	volts := meter.UintValue(uint64(word(4, 2)), -1)
	// Requests go by address, so register 2 was read first.
	first := clock()()
	second, third := meter.Stamp{Time: first.Time + 1}, meter.Stamp{Time: first.Time + 2}
	want := []meter.Row{
		{Meter: "m", Channel: channelAt(30), Value: meter.UintValue(uint64(word(4, 30)), 0), Stamp: second, Lane: meter.Instant, Quality: meter.IdentityNotProven},
		{Meter: "m", Channel: channelAt(2), Value: volts, Stamp: first, Lane: meter.Instant, Unit: meter.Volt, Quality: meter.IdentityNotProven},
		{Meter: "m", Channel: channelAt(2), Value: volts, Stamp: third, Lane: meter.Billing, Unit: meter.Volt, Quality: meter.IdentityNotProven},
	}
	if !slices.Equal(got.Rows, want) {
		t.Errorf("got %+v", got.Rows)
	}
	if len(got.Failures) != 2 || !errors.Is(got.Failures[0], ErrNoProfile) || !errors.Is(got.Failures[1], ErrNotInModel) || got.Failures[1].Channel != "no.such" || got.Clock != nil {
		t.Errorf("failures %v, clock %v", got.Failures, got.Clock)
	}
	if asked := g.asked(); !slices.Equal(asked, []shape{{4, 1}, {4, 1}, {4, 1}}) {
		t.Errorf("asked %v: one register in two groups is read once, and again for the bill", asked)
	}
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	serial := Register{Function: 3, Address: 0xFC00, Type: U32}
	number := uint64(word(3, 0xFC00))<<16 | uint64(word(3, 0xFC01))
	shown := meter.UintValue(number, 0).String()
	refuse := func(function uint8, _, _ uint16) bool { return function == 3 }
	for _, c := range []struct {
		name   string
		want   string
		refuse func(uint8, uint16, uint16) bool
		id     meter.Identity
		bad    meter.Quality
	}{
		{"as configured", shown, nil, meter.Identity{Want: shown, Found: shown, Proven: true}, 0},
		{"the plate has zeros", "00" + shown, nil, meter.Identity{Want: "00" + shown, Found: "00" + shown, Proven: true}, 0},
		{"none configured", "", nil, meter.Identity{Found: shown, Proven: true}, 0},
		{"another meter", "4711", nil, meter.Identity{Want: "4711", Found: shown}, 0},
		{"refused", shown, refuse, meter.Identity{Want: shown}, meter.IdentityNotProven},
	} {
		model := modelOf(7)
		model.Serial = &serial
		got, err := onRTU(t, &rig{refuse: c.refuse}, Config{Model: model, Serial: c.want}).Visit(t.Context(), ask())
		if err != nil || got.Identity != c.id {
			t.Errorf("%s: %+v, %v", c.name, got.Identity, err)
		}
		if len(got.Rows) != 1 || got.Rows[0].Serial != c.id.Found || got.Rows[0].Quality != c.bad {
			t.Errorf("%s: %+v", c.name, got.Rows)
		}
		if c.name == "another meter" && !got.Identity.Exchanged() {
			t.Errorf("%s: not seen", c.name)
		}
	}
}

// A meter that refuses long reads, or reads across a hole, is asked in parts;
// what was learnt is kept.
func TestRefusedReadsAreSplit(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]func(function uint8, address, count uint16) bool{
		"too long":      func(_ uint8, _, count uint16) bool { return count > 5 },
		"across a hole": func(_ uint8, address, count uint16) bool { return address < 7 && address+count > 7 },
	} {
		g := &rig{refuse: refuse}
		model := modelOf(1, 2, 3, 4, 8, 9, 10, 11)
		m := onRTU(t, g, Config{Model: model})
		var asked []int
		for range 2 {
			before := len(g.asked())
			got, err := m.Visit(t.Context(), ask())
			if right, wrong := count(model, got.Rows); err != nil || right != 8 || wrong != 0 || len(got.Failures) > 0 {
				t.Fatalf("%s: %d right, %d wrong, %v, %v", name, right, wrong, got.Failures, err)
			}
			asked = append(asked, len(g.asked())-before)
		}
		if asked[0] != 3 || asked[1] != 2 {
			t.Errorf("%s: %v requests in the visits, want 3 and then 2", name, asked)
		}
	}
}

func TestARegisterTheMeterHasNotIsAFailure(t *testing.T) {
	t.Parallel()
	g := &rig{refuse: func(_ uint8, address, count uint16) bool { return address <= 3 && address+count > 3 }}
	got, err := onRTU(t, g, Config{Model: modelOf(1, 2, 3, 4, 5)}).Visit(t.Context(), ask())
	if err != nil || len(got.Rows) != 4 || len(got.Failures) != 1 {
		t.Fatalf("%d rows, %v, %v", len(got.Rows), got.Failures, err)
	}
	if f := got.Failures[0]; f.Channel != channelAt(3) || !strings.Contains(f.Error(), "illegal data address (exception 2)") || !strings.Contains(f.Error(), "unit 1: read 1 registers at 0x0003") {
		t.Errorf("got %v", f)
	}
}

func TestGarbledAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &rig{spoil: func(_ int, _, answer []byte) [][]byte {
			answer[3] ^= 1
			return [][]byte{answer}
		}}
		_, err := simulated(t, g, Config{Model: modelOf(1), Settings: settings}).Visit(t.Context(), ask())
		if !errors.Is(err, meter.ErrGarbled) || !strings.HasPrefix(err.Error(), "line wire: ") || !strings.Contains(err.Error(), "is it unit 1 at 19200 8N1") {
			t.Fatalf("got %v", err)
		}
		if n := len(g.asked()); n != 1+maxRetries {
			t.Errorf("%d requests", n)
		}
	})
}

func TestALineThatIsNeverSilent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &rig{spoil: func(int, []byte, []byte) [][]byte { return slices.Repeat([][]byte{{0x55}}, 200) }}
		model := modelOf(1)
		model.Turnaround = 2 * pauseTime
		_, err := simulated(t, g, Config{Model: model}).Visit(t.Context(), ask())
		if !errors.Is(err, meter.ErrGarbled) || !strings.Contains(err.Error(), "the line does not fall silent") {
			t.Fatalf("got %v", err)
		}
	})
}

// What was read before the meter fell silent is given.
func TestRowsBeforeAnError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &rig{spoil: func(n int, _, answer []byte) [][]byte {
			if n > 0 {
				return nil
			}
			return [][]byte{answer}
		}}
		model := modelOf(100, 200)
		got, err := simulated(t, g, Config{Model: model}).Visit(t.Context(), ask())
		if right, wrong := count(model, got.Rows); !errors.Is(err, meter.ErrNoAnswer) || right != 1 || wrong != 0 {
			t.Fatalf("%d right, %d wrong, %v", right, wrong, err)
		}
	})
}

func TestCancelledVisit(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 100)
	g := &rig{spoil: func(int, []byte, []byte) [][]byte { asked <- struct{}{}; return nil }}
	m := onRTU(t, g, Config{Model: modelOf(1), Timeout: time.Hour})
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the reason")
	go func() { <-asked; cancel(why) }()
	if _, err := m.Visit(ctx, ask()); !errors.Is(err, why) {
		t.Fatalf("got %v", err)
	}
	// The answer may still come: the same quantity is not asked next.
	ctx, stop := context.WithCancel(t.Context())
	go func() { <-asked; stop() }()
	if _, err := m.Visit(ctx, ask()); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if a := g.asked(); a[0] == a[1] {
		t.Errorf("asked %v", a)
	}
}

func TestPlausibility(t *testing.T) {
	t.Parallel()
	volts, hertz := float32(230), float32(50)
	answer := func(request []byte) []byte {
		b := []byte{1, 4, 12}
		for _, f := range []float32{volts, hertz, 77} {
			b = binary.BigEndian.AppendUint32(b, math.Float32bits(f))
		}
		address, n := binary.BigEndian.Uint16(request[2:]), binary.BigEndian.Uint16(request[4:])
		return frame(append([]byte{1, 4, byte(2 * n)}, b[3+2*address:3+2*(address+n)]...)...)
	}
	model := &Model{Holes: true, Checks: []Check{{"volts", 80, 480}, {"hertz", 45, 65}}}
	for i, c := range []meter.Channel{"volts", "hertz", "power"} {
		model.Registers = append(model.Registers, Register{Channel: c, Function: 4, Address: uint16(2 * i), Type: F32})
	}
	for _, c := range []struct {
		volts, hertz float32
		bad          string // rows out of range
	}{
		{230, 50, ""},
		{0, 50, "volts"},
		{230, 0, "hertz"},
		{2e-38, 5e-9, "volts hertz power"}, // the words in the wrong order
		{float32(math.NaN()), 50, "volts"},
	} {
		volts, hertz = c.volts, c.hertz
		g := &rig{spoil: func(_ int, request, _ []byte) [][]byte { return [][]byte{answer(request)} }}
		m := onRTU(t, g, Config{Model: model})
		for _, a := range []meter.Ask{ask(), ask("power")} { // the checks are made though not asked for
			got, err := m.Visit(t.Context(), a)
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range got.Rows {
				if is, want := row.Quality&meter.OutOfRange != 0, strings.Contains(c.bad, string(row.Channel)); is != want {
					t.Errorf("%v V, %v Hz: %s has %v", c.volts, c.hertz, row.Channel, row.Quality)
				}
				if row.Channel == "volts" && math.IsNaN(float64(c.volts)) && row.Value.Kind != meter.None {
					t.Errorf("no number gave %v", row.Value)
				}
			}
			if n := len(a.Groups[0].Channels); n > 0 && n != len(got.Rows) {
				t.Errorf("%d rows for %d channels", len(got.Rows), n)
			}
		}
	}
}
