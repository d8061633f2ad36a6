package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"gridgate/agent/status"
	"gridgate/configs"
	"gridgate/internal/proctest"
)

// lamp is a directory as the kernel makes it for a lamp.
func lamp(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"trigger", "brightness", "delay_on", "delay_off"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("-"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func lit(t *testing.T, dir string) (all string) {
	t.Helper()
	for _, name := range []string{"trigger", "brightness", "delay_on", "delay_off"} {
		path := filepath.Join(dir, name)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all += string(b) + " "
		if err := os.WriteFile(path, []byte("-"), 0o600); err != nil { // sysfs has no rest of the last value
			t.Fatal(err)
		}
	}
	return all
}

func TestPatterns(t *testing.T) {
	t.Parallel()
	dir := lamp(t)
	for p, want := range map[configs.Pattern]string{
		configs.PatternOff:  "none 0 - - ",
		configs.PatternOn:   "none 255 - - ",
		configs.PatternSlow: "timer - 1000 1000 ",
		configs.PatternFast: "timer - 125 125 ",
	} {
		if err := light(dir, p); err != nil {
			t.Error(err)
		}
		if got := lit(t, dir); got != want {
			t.Errorf("%s: %q; want %q", p, got, want)
		}
	}
	if err := light(filepath.Join(dir, "none"), configs.PatternOn); err == nil {
		t.Error("a lamp that is not there is lit")
	}
	if _, err := os.Stat(filepath.Join(dir, "none")); err == nil {
		t.Error("it was made")
	}
}

// The lamps follow the health, each with its own patterns, and show a fault at the end.
func TestLampsFollowTheHealth(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	startBroker(t, s.broker)
	m := startZeroMeter(t)
	green, red := lamp(t), lamp(t)
	cfg := s.config("here", modbusMeter("m", m.address, "fast"))
	cfg.Leds = []configs.Led{
		{Path: green, Pattern: [3]configs.Pattern{configs.PatternOn, configs.PatternSlow, configs.PatternOff}},
		{Path: red, Pattern: [3]configs.Pattern{configs.PatternOff, configs.PatternOff, configs.PatternFast}},
		{Path: filepath.Join(green, "gone"), Pattern: [3]configs.Pattern{configs.PatternOn, configs.PatternOn, configs.PatternOn}},
	}
	p := panel{}
	s.make(cfg)
	p.a = s.agent
	want := map[status.HealthState][2]string{
		status.Healthy:  {"none 255 - - ", "none 0 - - "},
		status.Degraded: {"timer - 1000 1000 ", "- - - - "}, // the red one stays off
		status.Fault:    {"none 0 - - ", "timer - 125 125 "},
	}
	for _, state := range []status.HealthState{status.Healthy, status.Degraded, status.Fault} {
		p.show(cfg.Leds, state)
		if got := [2]string{lit(t, green), lit(t, red)}; got != want[state] {
			t.Errorf("%s: %q; want %q", state, got, want[state])
		}
	}
	s.run()
	read := func(path string) string {
		b, _ := os.ReadFile(filepath.Join(path, "trigger"))
		return string(b)
	}
	proctest.Until(t, "the lamp shows how the gateway does", func() bool { return read(green) != "-" })
}

// Each kind of trouble is told, and the worst decides.
func TestJudgeHealth(t *testing.T) {
	t.Parallel()
	bound := 1.0
	good := func() *status.Report {
		return &status.Report{
			Clock: status.GatewayClock{Bound: &bound}, Uplink: status.Uplink{Connected: true},
			Meters: []status.Meter{{State: "ok"}, {State: "ok"}}, Modem: &status.Modem{State: "ok"},
		}
	}
	for name, c := range map[string]struct {
		change func(*status.Report)
		want   status.HealthState
		why    string
	}{
		"well":              {func(*status.Report) {}, status.Healthy, "[]"},
		"a short outage":    {func(r *status.Report) { r.Uplink.Connected = false }, status.Degraded, "[the fog was not reached for 6m0s]"},
		"one meter":         {func(r *status.Report) { r.Meters[0].State = "failing" }, status.Degraded, "[1 of 2 meters are not read]"},
		"all meters":        {func(r *status.Report) { r.Meters[0].State, r.Meters[1].State = "failing", "locked" }, status.Fault, "[no meter is read, of 2]"},
		"exchanged":         {func(r *status.Report) { r.Meters[0].State = "exchanged" }, status.Degraded, "[at 1 places another meter answers than the configured one]"},
		"the clock":         {func(r *status.Report) { r.Clock.Bound = nil }, status.Degraded, "[the clock is unsure]"},
		"the disk":          {func(r *status.Report) { r.Intake.Error = "full" }, status.Fault, "[readings are not stored: full]"},
		"no buffer":         {func(r *status.Report) { r.Notes = []string{noBuffer + ": x"} }, status.Fault, "[" + noBuffer + ": x]"},
		"the modem":         {func(r *status.Report) { r.Modem.State, r.Modem.Error = "no SIM", "none" }, status.Degraded, "[modem: no SIM: none]"},
		"no modem":          {func(r *status.Report) { r.Modem = nil }, status.Healthy, "[]"},
		"the fog's silence": {func(r *status.Report) { r.Uplink.Unconfirmed = []string{"alarm"} }, status.Degraded, "[the fog does not confirm alarm]"},
	} {
		r := good()
		c.change(r)
		h := judgeHealth(r, 6*60e9)
		if h.State != c.want || fmt.Sprint(h.Why) != c.why {
			t.Errorf("%s: %s %q; want %s %s", name, h.State, h.Why, c.want, c.why)
		}
	}
}
