package cosem

import (
	"errors"
	"slices"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
)

const (
	idObject   = "0-0:96.1.0*255/1:2"
	nameObject = "0-0:42.0.0*255/1:2"
)

// twoNames is a meter with a device id and a logical device name.
func twoNames(t *testing.T, refuses ...string) *rig {
	t.Helper()
	r := newRig(t, dlmstest.Options{Objects: append(objects("A1"), dlmstest.Data(obisOf("0-0:42.0.0"), fixed(axdr.OctetString("GRG42"))))})
	r.momentarily(refuses...)
	return r
}

// momentarily lets the meter refuse attributes for the moment.
func (r *rig) momentarily(refuses ...string) {
	r.spoil(func(request, frame []byte) []byte {
		if !slices.Contains(refuses, name(request)) {
			return frame
		}
		return append(frame[:6:6], 0, 5, 0xC4, 1, request[2], 1, byte(dlms.TemporaryFailure))
	})
}

// TestARefusalForTheMomentIsNoOtherMeter: a meter that does not say its serial
// number now is neither another one nor one of another name.
func TestARefusalForTheMomentIsNoOtherMeter(t *testing.T) {
	t.Parallel()
	for title, c := range map[string]struct {
		serial, refused string
		found           string
		visits          int // that fail
	}{
		"none configured":         {"", idObject, "GRG42", maxUnsaid},
		"the id is configured":    {"A1", idObject, "GRG42", maxUnsaid},
		"the name is configured":  {"GRG42", idObject, "GRG42", 0},
		"the name is refused":     {"GRG42", nameObject, "A1", maxUnsaid},
		"the name is of no use":   {"A1", nameObject, "A1", 0},
		"the other is configured": {"GRG42", "", "GRG42", 0},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			r := twoNames(t, c.refused)
			m := r.driver(t, Config{Serial: c.serial, Release: true})
			for visit := range c.visits + 2 {
				got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0"))
				switch {
				case visit < c.visits && (!errors.Is(err, dlms.TemporaryFailure) || len(got.Rows) != 0 || got.Identity.Exchanged()):
					t.Errorf("visit %d: %v, %s", visit, err, describe(got))
				case visit >= c.visits && (err != nil || got.Identity.Found != c.found):
					t.Errorf("visit %d: %v, %s", visit, err, describe(got))
				}
			}
			if c.visits == 0 {
				return
			}
			r.momentarily()
			want := "A1"
			if c.serial == "GRG42" {
				want = c.serial
			}
			if got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0")); err != nil || got.Identity.Found != want {
				t.Errorf("and then: %v, %s", err, describe(got))
			}
		})
	}
}

// TestTheSerialNumberStaysWhereItWas: a meter that told it is not given another
// one, however long it refuses.
func TestTheSerialNumberStaysWhereItWas(t *testing.T) {
	t.Parallel()
	r := twoNames(t)
	m := r.driver(t, Config{Release: true})
	if got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0")); err != nil || got.Identity.Found != "A1" {
		t.Fatalf("%v, %s", err, describe(got))
	}
	r.momentarily(idObject)
	for range maxUnsaid + 2 {
		if got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0")); !errors.Is(err, dlms.TemporaryFailure) || len(got.Rows) != 0 || got.Identity.Found != "" {
			t.Errorf("%v, %s", err, describe(got))
		}
	}
	r.momentarily()
	if got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0")); err != nil || got.Identity.Found != "A1" {
		t.Errorf("%v, %s", err, describe(got))
	}
}

// TestAServiceThatIsNeverAllowed: a meter that does not allow the first question
// of every visit keeps its association, unless it has forgotten it; one that
// allows nothing is associated with seldom.
func TestAServiceThatIsNeverAllowed(t *testing.T) {
	t.Parallel()
	never := func(frame []byte) []byte { return append(frame[:6:6], 0, 3, 0xD8, 1, 1) }
	visits := func(r *rig, m *Meter, n int) (associations, failures int) {
		r.asked()
		for range n {
			got, err := m.Visit(t.Context(), registers(t, "0-0:96.5.0", "1-0:1.8.0"))
			if err != nil {
				t.Error(err)
			}
			failures += len(got.Failures)
		}
		for _, asked := range r.asked() {
			if asked == "associate" {
				associations++
			}
		}
		return associations, failures
	}
	r := newRig(t, dlmstest.Options{Objects: objects("A1")})
	m := r.driver(t, Config{})
	refuse := func(request, frame []byte) []byte {
		if name(request) == "0-0:96.5.0*255/1:2" {
			return never(frame)
		}
		return frame
	}
	r.spoil(refuse)
	if a, f := visits(r, m, 5); a != 1 || f != 5 {
		t.Errorf("%d associations, %d failures in 5 visits", a, f)
	}
	forgotten := true
	r.spoil(func(request, frame []byte) []byte {
		if forgotten = forgotten && name(request) != "associate"; forgotten {
			return never(frame)
		}
		return refuse(request, frame)
	})
	if a, f := visits(r, m, 3); a != 1 || f != 3 {
		t.Errorf("forgotten: %d associations, %d failures in 3 visits", a, f)
	}

	r = newRig(t, dlmstest.Options{Objects: objects("A1")})
	clock := &turnable{at: start()}
	m = r.driver(t, Config{Now: clock.now})
	r.spoil(func(request, frame []byte) []byte {
		if name(request) != "associate" {
			return never(frame)
		}
		return frame
	})
	if a, f := visits(r, m, 5); a != 1 || f != 10 {
		t.Errorf("nothing allowed: %d associations, %d failures in 5 visits", a, f)
	}
	clock.turn(3 * time.Hour) // its monotonic time is half as fast
	if a, f := visits(r, m, 5); a != 1 || f != 10 {
		t.Errorf("an hour later: %d associations, %d failures in 5 visits", a, f)
	}
}
