package modbus

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"gridgate/internal/meter"
)

func TestTheKindOfMeterIsChecked(t *testing.T) {
	t.Parallel()
	at := Register{Function: 3, Address: 0x0B, Type: U16, Line: 7}
	shown := meter.UintValue(uint64(word(3, 0x0B)), 0).String()
	serial := Register{Function: 3, Address: 0xFC00, Type: U32}
	number := meter.UintValue(uint64(word(3, 0xFC00))<<16|uint64(word(3, 0xFC01)), 0).String()
	for _, c := range []struct {
		name     string
		identity Identity
		serial   *Register
		want     string // the configured serial number
		refuse   bool
		quality  meter.Quality
		wrong    string // what the error says
		requests int    // of two visits
	}{
		{"fits", Identity{at, []string{"1", shown}, nil}, nil, "", false, 0, "", 4},
		{"fits by its beginning", Identity{at, []string{shown[:2] + "*"}, nil}, nil, "", false, 0, "", 4},
		{"fits, and a serial number is configured", Identity{at, []string{shown}, nil}, nil, "4711", false, meter.IdentityNotProven, "", 4},
		{"fits not", Identity{at, []string{"1", "2"}, nil}, nil, "", false, 0, "models/test.yaml:7: meter m: register 0x000B: the meter is of another model: it shows \"" + shown + "\", and test is for 1, 2", 2},
		{"is excluded", Identity{at, nil, []string{shown}}, nil, "", false, 0, "test is not for " + shown, 2},
		{"is not excluded, which proves nothing", Identity{at, nil, []string{"1"}}, nil, "", false, meter.IdentityNotProven, "", 4},
		{"refused", Identity{at, []string{"1"}, nil}, nil, "", true, meter.IdentityNotProven, "", 4},
		{"after a serial number once", Identity{at, []string{shown}, nil}, &serial, number, false, 0, "", 5},
		{"fits not, though there is a serial number", Identity{at, []string{"1"}, nil}, &serial, number, false, 0, "another model", 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := &rig{}
				if c.refuse {
					g.refuse = func(function uint8, _, _ uint16) bool { return function == 3 }
				}
				model := modelOf(7)
				model.File, model.Serial, model.Identity = "models/test.yaml", c.serial, []Identity{c.identity}
				m := simulated(t, g, Config{Model: model, Settings: settings, Serial: c.want})
				for range 2 {
					got, err := m.Visit(t.Context(), ask())
					if c.wrong != "" {
						if !errors.Is(err, ErrOtherModel) || !strings.Contains(err.Error(), c.wrong) || len(got.Rows) > 0 {
							t.Fatalf("%v, %v", got.Rows, err)
						}
						continue
					}
					if err != nil || len(got.Rows) != 1 || got.Rows[0].Quality != c.quality {
						t.Fatalf("%v, %v", got.Rows, err)
					}
				}
				if n := len(g.asked()); n != c.requests {
					t.Errorf("%d requests: %v", n, g.asked())
				}
			})
		})
	}
}
