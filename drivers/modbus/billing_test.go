package modbus

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"testing"
	"testing/synctest"

	"gridgate/internal/meter"
)

// What goes into a bill is read again until it came twice alike, or grows as
// an energy can.
func TestBillsAreReadTwice(t *testing.T) {
	t.Parallel()
	same := []uint32{1000, 1000}
	for _, c := range []struct {
		name   string
		unit   meter.Unit
		shown  []uint32 // read by read; the last one stays
		silent int      // the read that is not answered, from 1
		want   uint64   // 0 for none
		reads  int
	}{
		{"the same", meter.WattHour, same, 0, 1000, 2},
		{"one wrong, then right", meter.WattHour, []uint32{66536, 1000, 1000}, 0, 1000, 3},
		{"right, one wrong, then right", meter.WattHour, []uint32{1000, 66536, 1000, 1000}, 0, 1000, 4},
		{"growing once", meter.WattHour, []uint32{1000, 1001, 1001}, 0, 1001, 3},
		{"growing each time", meter.WattHour, []uint32{1000, 1001, 1002, 1003}, 0, 1002, 3},
		{"growing each time, faster than can be", meter.WattHour, []uint32{1000, 2000, 3000, 4000}, 0, 0, 4},
		{"running backwards", meter.WattHour, []uint32{1003, 1002, 1001, 1000}, 0, 0, 4},
		{"no energy, and changing", meter.Volt, []uint32{1000, 1001, 1002, 1003}, 0, 0, 4},
		{"no energy, and resting", meter.Volt, []uint32{1000, 1001, 1001}, 0, 1001, 3},
		{"silent at the second", meter.WattHour, same, 2, 0, 4}, // and at its two repetitions
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				reads := 0
				g := &rig{spoil: func(_ int, request, _ []byte) [][]byte {
					if newMatcher(request).want.count != 2 {
						return nil // another quantity, asked after the silence
					}
					reads++
					if c.silent > 0 && reads >= c.silent {
						return nil
					}
					return [][]byte{frame(binary.BigEndian.AppendUint32([]byte{1, 4, 4}, c.shown[min(reads, len(c.shown))-1])...)}
				}}
				model := &Model{Name: "test", Holes: true, Registers: []Register{{Channel: "e", Function: 4, Address: 9, Type: U32, Unit: c.unit, Line: 3}}}
				m := simulated(t, g, Config{Model: model, Settings: settings})
				billing := meter.Ask{Groups: []meter.Group{{Lane: meter.Instant}, {Lane: meter.Billing, Channels: []meter.Channel{"e"}}}}
				got, err := m.Visit(t.Context(), billing)
				if (err != nil) != (c.silent > 0) || c.silent == 0 && reads != c.reads {
					t.Errorf("%d reads, %v", reads, err)
				}
				if len(got.Rows) == 0 || got.Rows[0].Lane != meter.Instant || got.Rows[0].Value.Bits != uint64(c.shown[0]) {
					t.Fatalf("the instant lane has %v", got.Rows)
				}
				rest := got.Rows[1:]
				if c.want == 0 {
					if len(rest) > 0 || len(got.Failures) != 1 || c.silent == 0 && !errors.Is(got.Failures[0], ErrUnsteady) {
						t.Errorf("%v, %v", rest, got.Failures)
					}
				} else if len(rest) != 1 || rest[0].Lane != meter.Billing || rest[0].Value != meter.UintValue(c.want, 0) || len(got.Failures) > 0 {
					t.Errorf("%v, %v", rest, got.Failures)
				}
			})
		})
	}
}

func TestStepIsTheLeastChange(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		v    meter.Value
		want float64
	}{
		{meter.UintValue(5, 3), 1000},
		{meter.IntValue(-5, -1), 0.1},
		{meter.Float32Value(math.Float32bits(1<<24), 3), 2000},
		{meter.Float64Value(math.Float64bits(1<<53), 0), 2},
	} {
		if got := step(c.v); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%v: %v, want %v", c.v, got, c.want)
		}
	}
}

// A value outside of the limits of its register is flagged in every lane, and
// one that is none is no number.
func TestLimitsAndNaN(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		model := modelOf(1, 2, 3)
		model.Registers[0].Limits = &Limits{0, 1}
		model.Registers[1].HasNaN, model.Registers[1].NaN = true, uint64(word(4, 2))
		m := simulated(t, &rig{}, Config{Model: model, Settings: settings})
		got, err := m.Visit(t.Context(), meter.Ask{Groups: []meter.Group{{Lane: meter.Instant}, {Lane: meter.Billing}}})
		if err != nil || len(got.Rows) != 6 {
			t.Fatalf("%v, %v", got.Rows, err)
		}
		for _, row := range got.Rows {
			flagged := row.Quality&meter.OutOfRange != 0
			if flagged != slices.Contains([]meter.Channel{channelAt(1), channelAt(2)}, row.Channel) || (row.Value.Kind == meter.None) != (row.Channel == channelAt(2)) {
				t.Errorf("%s %s: %v %v", row.Lane, row.Channel, row.Value, row.Quality)
			}
		}
	})
}
