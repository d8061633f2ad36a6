package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"gridgate/agent/status"
	"gridgate/configs"
	"gridgate/internal/sys"
)

// ledEvery is how often the lamps follow the gateway's health.
const ledEvery = 5 * time.Second

// showHealth has the lamps show the gateway's health until ctx ends, and then what
// a gateway shows that reads nothing.
func (a *Agent) showHealth(ctx context.Context) error {
	tick := time.NewTicker(ledEvery)
	defer tick.Stop()
	p := panel{a: a}
	for {
		if cfg := a.runs.Load(); len(cfg.Leds) > 0 || len(p.leds) > 0 {
			p.show(cfg.Leds, a.Report().Health.State)
		}
		select {
		case <-ctx.Done():
			p.show(p.leds, status.Fault)
			return nil
		case <-tick.C:
		}
	}
}

// panel is the lamps, and what they show.
type panel struct {
	a      *Agent
	leds   []configs.Led
	shown  []configs.Pattern
	failed []string
}

func (p *panel) show(leds []configs.Led, state status.HealthState) {
	if !slices.Equal(leds, p.leds) {
		p.leds, p.shown, p.failed = leds, make([]configs.Pattern, len(leds)), make([]string, len(leds))
	}
	for i, l := range leds {
		want := l.Pattern[indexOf(state)]
		if want == p.shown[i] {
			continue
		}
		err := light(l.Path, want)
		if err == nil {
			p.shown[i] = want
		} else if p.failed[i] != text(err) {
			p.a.log.Warn("a lamp cannot be switched", "error", err)
		}
		p.failed[i] = text(err)
	}
}

func indexOf(s status.HealthState) int {
	switch s {
	case status.Healthy:
		return 0
	case status.Degraded:
		return 1
	case status.Fault:
	}
	return 2
}

// light switches the lamp in that directory of sysfs (Documentation/leds/leds-class.rst).
// The kernel blinks by itself, so that it goes on whatever the agent does.
func light(dir string, p configs.Pattern) error {
	set := func(name, value string) error {
		if err := sys.WriteSysfs(filepath.Join(dir, name), value); err != nil {
			return fmt.Errorf("led: %w", err)
		}
		return nil
	}
	half := time.Duration(0)
	switch p {
	case configs.PatternSlow:
		half = time.Second
	case configs.PatternFast:
		half = time.Second / 8
	case configs.PatternOff, configs.PatternOn:
	}
	if half > 0 {
		if err := set("trigger", "timer"); err != nil {
			return err
		}
		ms := strconv.FormatInt(half.Milliseconds(), 10)
		if err := set("delay_on", ms); err != nil { // they appear with the trigger
			return err
		}
		return set("delay_off", ms)
	}
	if err := set("trigger", "none"); err != nil {
		return err
	}
	if p == configs.PatternOff {
		return set("brightness", "0")
	}
	return set("brightness", "255") // the kernel makes it max_brightness where that is less
}
