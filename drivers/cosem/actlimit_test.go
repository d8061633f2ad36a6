package cosem

import (
	"errors"
	"strings"
	"testing"
	"time"

	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/internal/meter"
)

// newLimited gives a meter whose limiter watches watts in steps of 10, by its
// own clock.
func newLimited(t *testing.T) actor {
	t.Helper()
	clock := &turnable{at: start()}
	return newActor(t, actorOptions{mode: 4, clock: clock, objects: []dlmstest.Object{
		dlmstest.Register(obisOf("1-0:1.7.0"), 1, 27, fixed(axdr.LongUnsigned(80))),
		dlmstest.Limiter(obisOf("0-0:17.0.0"), dlmstest.Column{Class: 3, Code: obisOf("1-0:1.7.0"), ID: 2}, axdr.LongUnsigned(900),
			func() time.Time { return time.UnixMilli(clock.now().Time).UTC() }),
	}})
}

// TestLimitLetsGo has the meter itself end the limit, and nobody else.
func TestLimitLetsGo(t *testing.T) {
	t.Parallel()
	a := newLimited(t)
	o, err := a.order(t, meter.Limit{Threshold: meter.UintValue(2300, 0), Unit: meter.Watt, Emergency: &meter.Emergency{Length: time.Hour}})
	if err != nil || o.Result != meter.Done || value(o.After, "threshold") != "2300 W" || value(o.After, "in emergency") != "yes" {
		t.Fatalf("%v (%v): %v; %v", o.Result, o.Err, o.After, err)
	}
	a.clock.turn(59 * time.Minute)
	if o, err := a.order(t, meter.Look{At: meter.Limit{}}); err != nil || value(o.After, "threshold") != "2300 W" {
		t.Errorf("after 59 minutes: %v, %v", o.After, err)
	}
	a.clock.turn(2 * time.Minute)
	if o, err := a.order(t, meter.Look{At: meter.Limit{}}); err != nil || value(o.After, "threshold") != "9000 W" || value(o.After, "in emergency") != "no" {
		t.Errorf("after 61 minutes: %v, %v", o.After, err)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	kilo := func(n uint64) meter.Value { return meter.UintValue(n, 3) }
	hour := &meter.Emergency{Length: time.Hour}
	for name, c := range map[string]struct {
		limit meter.Limit
		want  string // "" is refused
		why   string
	}{
		"for an hour":         {meter.Limit{Threshold: kilo(2), Unit: meter.Watt, Emergency: hour}, "2000 W", ""},
		"for good":            {meter.Limit{Threshold: kilo(3), Unit: meter.Watt}, "3000 W", ""},
		"nothing":             {meter.Limit{Threshold: meter.UintValue(0, 0), Unit: meter.Watt, Emergency: hour}, "0 W", ""},
		"as it is":            {meter.Limit{Emergency: hour}, "9000 W", ""},
		"not in its steps":    {meter.Limit{Threshold: meter.UintValue(2345, 0), Unit: meter.Watt, Emergency: hour}, "", "steps"},
		"more than it holds":  {meter.Limit{Threshold: kilo(1000), Unit: meter.Watt, Emergency: hour}, "", "more than"},
		"amperes":             {meter.Limit{Threshold: meter.UintValue(10, 0), Unit: meter.Ampere, Emergency: hour}, "", `"A"`},
		"below nothing":       {meter.Limit{Threshold: meter.IntValue(-10, 0), Unit: meter.Watt}, "", "threshold of -10"},
		"a text":              {meter.Limit{Threshold: meter.TextValue("much"), Unit: meter.Watt}, "", "threshold of"},
		"later":               {meter.Limit{Threshold: kilo(2), Unit: meter.Watt, Emergency: &meter.Emergency{Start: start().Add(time.Hour), Length: time.Hour}}, "9000 W", ""},
		"longer than it does": {meter.Limit{Threshold: kilo(2), Unit: meter.Watt, Emergency: &meter.Emergency{Length: 1 << 62}}, "", "emergency of"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newLimited(t)
			o, err := a.order(t, c.limit)
			switch {
			case err != nil:
				t.Error(err)
			case c.want == "" && (o.Result != meter.Refused || !errors.Is(o.Err, meter.ErrMustNot) || !strings.Contains(o.Err.Error(), c.why) || o.Sent):
				t.Errorf("%v (%v), want it refused for %q", o.Result, o.Err, c.why)
			case c.want != "" && (o.Result != meter.Done || value(o.After, "threshold") != c.want):
				t.Errorf("%v (%v): %v, want %s", o.Result, o.Err, o.After, c.want)
			}
		})
	}
}

// TestLimitEnds takes back what is in force.
func TestLimitEnds(t *testing.T) {
	t.Parallel()
	a := newLimited(t)
	for _, c := range []struct {
		limit meter.Limit
		want  string
	}{
		{meter.Limit{Threshold: meter.UintValue(2000, 0), Unit: meter.Watt, Emergency: &meter.Emergency{Length: time.Hour}}, "2000 W"},
		{meter.Limit{Emergency: &meter.Emergency{}}, "9000 W"},
	} {
		if o, err := a.order(t, c.limit); err != nil || o.Result != meter.Done || value(o.After, "threshold") != c.want {
			t.Fatalf("%v (%v): %v; %v", o.Result, o.Err, o.After, err)
		}
	}
	if o, err := a.order(t, meter.Limit{Emergency: &meter.Emergency{Profile: 9, Length: time.Hour}}); err != nil || o.Result != meter.Refused {
		t.Errorf("a profile that is not the meter's: %v (%v), %v", o.Result, o.Err, err)
	}
}
