package command

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.yaml.in/yaml/v4"

	"gridgate/agent/order"
	"gridgate/internal/meter"
)

// with gives the decoder of parameters.
func with(text string) func(any) error {
	return func(into any) error {
		if text == "" {
			return nil
		}
		return yaml.Load([]byte(text), into, yaml.WithKnownFields(), yaml.WithUniqueKeys())
	}
}

func actionOf(t *testing.T, name string) Action {
	t.Helper()
	for _, a := range meterActions() {
		if a.Name == name {
			return a
		}
	}
	t.Fatalf("no action %s", name)
	return Action{}
}

const someSum = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

// TestMeterParameters has parameters that are right, and for each that is wrong
// all that is named of it.
func TestMeterParameters(t *testing.T) {
	t.Parallel()
	const calendar = `{name: C, seasons: [{name: S, start: 01-01, week: W}], weeks: [{name: W, days: [1, 1, 1, 1, 1, 1, 1]}], days: [{id: 1, switches: [{at: "00:00", script: 1}]}], activate: %s}`
	for _, c := range []struct {
		action, with string
		wrong        []string // nil is right
	}{
		{"disconnect", "", nil},
		{"disconnect", "{object: 0-1:96.3.10}", nil},
		{"disconnect", "{object: 0-1:96.3.10/70:2}", nil},
		{"disconnect", "{object: breaker}", []string{"with.object"}},
		{"disconnect", "{object: 0-0:17.0.0/71:2}", []string{"with.object"}},
		{"disconnect", "{direct: allow}", []string{"direct"}},
		{"connect", "{direct: allow}", nil},
		{"connect", "{direct: yes, object: x}", []string{"with.direct", "with.object"}},
		{"limit", `{threshold: 2300 W, duration: 1h}`, nil},
		{"limit", `{threshold: 2.3 kW, duration: 90m, start: "2026-12-01T17:00:00Z", profile: 3}`, nil},
		{"limit", `{threshold: 16 A, permanent: true}`, nil},
		{"limit", `{end: true}`, nil},
		{"limit", `{}`, []string{"with.duration", "with.threshold"}},
		{"limit", `{threshold: 2300, duration: 1, start: soon, profile: -1}`, []string{"with.threshold", "with.duration", "with.start", "with.profile"}},
		{"limit", `{threshold: -5 W, duration: 1500ms}`, []string{"with.threshold", "with.duration"}},
		{"limit", `{threshold: 5 W, duration: 1h, permanent: true}`, []string{"with.duration"}},
		{"limit", `{threshold: 5 W, permanent: true, start: "2026-12-01T17:00:00Z"}`, []string{"with.permanent"}},
		{"limit", `{threshold: 5 W, end: true}`, []string{"with.threshold"}},
		{"limit", `{threshold: 99999999999999999999 W, duration: 1h}`, []string{"with.threshold"}},
		{"limit", `{threshold: 1. W, duration: 800h}`, []string{"with.threshold", "with.duration"}},
		{"demand-reset", "", nil},
		{"demand-reset", "{table: 0-0:10.0.1, script: 2}", nil},
		{"demand-reset", "{table: x, script: 65536}", []string{"with.table", "with.script"}},
		{"calendar", fmt.Sprintf(calendar, "now"), nil},
		{"calendar", fmt.Sprintf(calendar, "no"), nil},
		{"calendar", fmt.Sprintf(calendar, `"2027-01-01T00:00:00+01:00"`), nil},
		{"calendar", fmt.Sprintf(calendar, "soon"), []string{"with.activate"}},
		{"calendar", "{activate: now}", []string{"with.name", "with.seasons", "with.weeks", "with.days"}},
		{"calendar", `{name: C, seasons: [{name: S, start: 02-30, week: X}, {name: S, start: 13-01, week: W}], weeks: [{name: W, days: [1, 2]}], days: [{id: 300, switches: [{at: "06:30", script: 0}, {at: "06:00", script: 1}]}], activate: now}`, []string{
			"seasons[0].start", "seasons[0].week", "seasons[1].start", "seasons[1].name", "weeks[0].days", "days[0].id", "switches[0].script", "switches[1].at", "want 00:00",
		}},
		{"special-days", "{days: [{index: 1, date: 12-25, day: 2}, {index: 2, date: 2028-02-29, day: 2}]}", nil},
		{"special-days", "{replace: true}", nil},
		{"special-days", "{}", []string{"with.days"}},
		{"special-days", "{days: [{index: 1, date: 2027-02-29, day: 300}, {index: 1, date: x, day: -1}]}", []string{"days[0].date", "days[0].day", "days[1].index", "days[1].date", "days[1].day"}},
		{"change-keys", "{sealed: age}", nil},
		{"change-keys", "{}", []string{"with.sealed"}},
		{"import-keys", "{sealed: ' '}", []string{"with.sealed"}},
		{"meter-image", "{sha256: " + someSum + ", size: 4, data: dGVzdA==}", nil},
		{"meter-image", "{sha256: " + someSum + ", remove: true}", nil},
		{"meter-image", "{sha256: 12, size: 3, offset: -1, data: dGVzdA==}", []string{"with.sha256", "with.offset"}},
		{"meter-image", "{sha256: " + someSum + ", size: 99999999, data: '!'}", []string{"with.size", "with.data"}},
		{"meter-image", "{sha256: " + someSum + ", remove: true, size: 3}", []string{"with.remove"}},
		{"meter-firmware", "{sha256: " + someSum + ", identifier: FW-2, activate: now}", nil},
		{"meter-firmware", "{sha256: " + someSum + ", identifier: 'hex:0102', activate: no}", nil},
		{"meter-firmware", "{sha256: x, identifier: 'hex:1', activate: then, object: y}", []string{"with.sha256", "with.identifier", "with.activate", "with.object"}},
	} {
		_, err := actionOf(t, c.action).New(with(c.with))
		if (err == nil) != (c.wrong == nil) {
			t.Errorf("%s %s: %v", c.action, c.with, err)
			continue
		}
		for _, want := range c.wrong {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s %s: %v does not name %s", c.action, c.with, err, want)
			}
		}
	}
}

func TestAmount(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		value meter.Value
		unit  meter.Unit
	}{
		"2300 W":   {meter.UintValue(2300, 0), meter.Watt},
		"2.35 kW":  {meter.UintValue(235, 1), meter.Watt},
		"0.5 A":    {meter.UintValue(5, -1), meter.Ampere},
		"10 kVA":   {meter.UintValue(10, 3), meter.VoltAmpere},
		" 0 kg/s ": {meter.UintValue(0, 0), 50},
	} {
		if value, unit, err := amount(text); err != nil || value != want.value || unit != want.unit {
			t.Errorf("%q: %v %v, %v", text, value, unit, err)
		}
	}
}

// TestRoles has what switches signed by the control room, protected meters left
// alone, and nothing done twice.
func TestRoles(t *testing.T) {
	t.Parallel()
	for _, a := range meterActions() {
		if a.Name == "tunnel" {
			continue // there is nothing to look at behind it
		}
		switching := a.Name == "disconnect" || a.Name == "connect" || a.Name == "limit"
		if a.Switches != switching || switching && (a.Role != order.Control || a.AfterCut != Never) || a.AfterCut == Repeat {
			t.Errorf("%+v", a)
		}
		if a.Disconnects != (a.Name == "disconnect") {
			t.Errorf("%s counts as a disconnect: %v", a.Name, a.Disconnects)
		}
		if e, err := a.New(with(goodOf(a.Name))); err != nil {
			t.Errorf("%s: %v", a.Name, err)
		} else if _, can := e.(ReadBack); can != (a.AfterCut == Never) {
			t.Errorf("%s reads back after a cut: %v", a.Name, can)
		}
	}
}

func goodOf(action string) string {
	return map[string]string{
		"limit":        "{threshold: 5 W, duration: 1h}",
		"calendar":     `{name: C, seasons: [{name: S, start: 01-01, week: W}], weeks: [{name: W, days: [1, 1, 1, 1, 1, 1, 1]}], days: [{id: 1, switches: [{at: "00:00", script: 1}]}], activate: now}`,
		"special-days": "{replace: true}", "change-keys": "{sealed: x}", "import-keys": "{sealed: x}",
		"meter-image":    "{sha256: " + someSum + ", remove: true}",
		"meter-firmware": "{sha256: " + someSum + ", identifier: F, activate: no}",
	}[action]
}

// jobOf gives a job whose meter does what visit says.
func jobOf(visit func(ask meter.Ask) (meter.Got, error)) *Job {
	return &Job{
		Command: "c-1", Meter: "m1", Serial: "A1", Expires: time.Now().Add(time.Hour), Gateway: &Gateway{},
		Visit:    func(_ context.Context, ask meter.Ask) (meter.Got, error) { return visit(ask) },
		Progress: func(int64, int64, string) {},
		Note:     func(any) error { return nil },
	}
}

// TestTriesAgain has a meter that does not answer asked again, as long as nothing
// was sent to it, and never behind that.
func TestTriesAgain(t *testing.T) {
	t.Parallel()
	fact := []meter.Fact{{Name: "output", Value: "off"}}
	for name, c := range map[string]struct {
		outcomes []meter.Outcome // of one visit after the other, the last for good
		errs     []error
		state    State
		visits   int
		text     string
	}{
		"at once":           {[]meter.Outcome{{Result: meter.Done, Sent: true, After: fact}}, nil, Done, 1, "output off"},
		"it was so":         {[]meter.Outcome{{Result: meter.Done, Before: fact, After: fact}}, nil, Done, 1, "it was so already"},
		"the third time":    {[]meter.Outcome{{}, {}, {Result: meter.Done, Sent: true}}, []error{meter.ErrNoAnswer, meter.ErrNoLine}, Done, 3, ""},
		"never":             {[]meter.Outcome{{}}, []error{meter.ErrNoAnswer, meter.ErrNoAnswer, meter.ErrNoAnswer, meter.ErrNoAnswer, meter.ErrNoAnswer}, Failed, 4, "nothing was sent"},
		"locked":            {[]meter.Outcome{{}}, []error{meter.ErrAuthentication}, Failed, 1, "nothing was sent"},
		"no answer to it":   {[]meter.Outcome{{Result: meter.Unknown, Sent: true, After: fact}}, []error{meter.ErrNoAnswer}, Unknown, 1, "now: output off"},
		"sent, and no word": {[]meter.Outcome{{Sent: true}}, []error{meter.ErrNoAnswer}, Failed, 1, ""},
		"refused":           {[]meter.Outcome{{Result: meter.Refused, Err: meter.ErrMustNot}}, nil, Refused, 1, "not allowed"},
		"contradicts":       {[]meter.Outcome{{Result: meter.Failed, Sent: true, Err: errors.New("it stuck")}}, nil, Failed, 1, "it stuck"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				visits := 0
				j := jobOf(func(ask meter.Ask) (meter.Got, error) {
					o := c.outcomes[min(visits, len(c.outcomes)-1)]
					var err error
					if visits < len(c.errs) {
						err = c.errs[visits]
					}
					visits++
					o.Act = ask.Acts[0]
					if ask.Serial != "A1" || len(ask.Acts) != 1 {
						t.Errorf("asked %+v", ask)
					}
					return meter.Got{Done: []meter.Outcome{o}}, err
				})
				out := onMeter{act: meter.Disconnect{}}.Do(t.Context(), j)
				if out.State != c.state || visits != c.visits || !strings.Contains(out.Text, c.text) {
					t.Errorf("%v %q after %d visits", out.State, out.Text, visits)
				}
			})
		})
	}
}

// TestExpires has nobody wait for a meter longer than the command is valid.
func TestExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		visits := 0
		j := jobOf(func(meter.Ask) (meter.Got, error) { visits++; return meter.Got{}, meter.ErrNoAnswer })
		j.Expires = time.Now().Add(20 * time.Second)
		if out := (onMeter{act: meter.Disconnect{}}).Do(t.Context(), j); out.State != Failed || visits != 2 {
			t.Errorf("%v after %d visits", out, visits)
		}
	})
}

// TestSaysWhatIsReady has who ordered it see that nobody has power yet.
func TestSaysWhatIsReady(t *testing.T) {
	t.Parallel()
	for output, want := range map[string]string{"off": "the customer closes it", "on": "output on"} {
		j := jobOf(func(meter.Ask) (meter.Got, error) {
			return meter.Got{Done: []meter.Outcome{{Result: meter.Done, Sent: true, After: []meter.Fact{{Name: "output", Value: output}}}}}, nil
		})
		e, err := actionOf(t, "connect").New(with(""))
		if err != nil {
			t.Fatal(err)
		}
		if out := e.Do(t.Context(), j); !strings.Contains(out.Text, want) || strings.Contains(out.Text, "customer") != (output == "off") {
			t.Errorf("output %s: %+v", output, out)
		}
	}
}

// TestReadsBack has what is looked at after a cut sent as a look, and no more.
func TestReadsBack(t *testing.T) {
	t.Parallel()
	j := jobOf(func(ask meter.Ask) (meter.Got, error) {
		if look, is := ask.Acts[0].(meter.Look); !is || look.At != (meter.Disconnect{}) {
			t.Errorf("asked %+v", ask.Acts)
		}
		return meter.Got{Done: []meter.Outcome{{Result: meter.Done, After: []meter.Fact{{Name: "output", Value: "off"}}}}}, nil
	})
	if out := (onMeter{act: meter.Disconnect{}}).ReadBack(t.Context(), j); out.Text != "output off" {
		t.Errorf("%+v", out)
	}
}
