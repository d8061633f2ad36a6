package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gridgate/agent/modem"
	"gridgate/agent/poll"
	"gridgate/agent/status"
)

// awayMost is how long the fog may be away before that is worth a look.
const awayMost = 5 * time.Minute

// judgeHealth says in a word how the gateway does. away is how long the fog was not
// reached.
func judgeHealth(r *status.Report, away time.Duration) status.Health {
	var fault, degraded []string
	if r.Intake.Error != "" {
		fault = append(fault, "readings are not stored: "+r.Intake.Error)
	}
	for _, n := range r.Notes {
		if strings.HasPrefix(n, noBuffer) || strings.HasPrefix(n, noState) {
			fault = append(fault, n)
		} else {
			degraded = append(degraded, n)
		}
	}
	states := map[string]int{}
	for _, m := range r.Meters {
		states[m.State]++
	}
	bad := states[string(poll.Failing)] + states[string(poll.LockedOut)]
	switch {
	case bad > 0 && bad == len(r.Meters):
		fault = append(fault, fmt.Sprintf("no meter is read, of %d", len(r.Meters)))
	case bad > 0:
		degraded = append(degraded, fmt.Sprintf("%d of %d meters are not read", bad, len(r.Meters)))
	}
	if n := states[string(poll.Exchanged)]; n > 0 {
		degraded = append(degraded, fmt.Sprintf("at %d places another meter answers than the configured one", n))
	}
	switch {
	case !r.Uplink.Connected && away > awayMost:
		degraded = append(degraded, "the fog was not reached for "+away.Round(time.Minute).String()+orError(r.Uplink.Error))
	case len(r.Uplink.Unconfirmed) > 0:
		degraded = append(degraded, "the fog does not confirm "+strings.Join(r.Uplink.Unconfirmed, ", "))
	case r.Uplink.Withheld:
		degraded = append(degraded, "the budget of the uplink is spent")
	}
	if modemFails(r.Modem) {
		degraded = append(degraded, "modem: "+r.Modem.State+orError(r.Modem.Error))
	}
	if r.Clock.Bound == nil {
		degraded = append(degraded, "the clock is unsure"+orError(r.Clock.Reason))
	}
	h := status.Health{State: status.Healthy, Why: append(fault, degraded...)}
	switch {
	case len(fault) > 0:
		h.State = status.Fault
	case len(degraded) > 0:
		h.State = status.Degraded
	}
	return h
}

// modemFails says whether there is a modem and it is in no network.
func modemFails(m *status.Modem) bool {
	return m != nil && m.State != string(modem.OK) && m.State != string(modem.Waiting)
}

func orError(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}

// reportLines sums up the meters of each line. mu is held.
func (a *Agent) reportLines() []status.Line {
	lines := []status.Line{}
	for _, l := range a.cfg.Lines() {
		r, ok := a.lines[l.Key]
		if !ok {
			continue
		}
		out := status.Line{Line: l.Key, Serial: l.Serial, Meters: len(l.Meters)}
		if r.single != nil {
			c := r.single.Count()
			out.Requests, out.Lost, out.Damaged = c.Asked, c.Silent, c.Damaged
		}
		for _, s := range r.poller.Status() {
			out.Visits, out.Silent, out.Garbled = out.Visits+s.Visits, out.Silent+s.Silent, out.Garbled+s.Garbled
			if s.State == poll.OK || s.State == poll.Partial || s.State == poll.Exchanged {
				out.Read++
			}
			if s.Gone {
				out.Error = s.Err
			}
		}
		lines = append(lines, out)
	}
	return lines
}

// reportConfig says which configuration runs. mu is held.
func (a *Agent) reportConfig() status.RunningConfig {
	return status.RunningConfig{File: a.opts.ConfigPath, Hash: a.cfg.Hash(), Meters: len(a.cfg.Meters)}
}

// reportBuffer says how large the buffer is. mu is held.
func (a *Agent) reportBuffer() *status.Buffer {
	if a.store.Epoch() == 0 {
		return nil
	}
	b := &status.Buffer{Path: a.cfg.Buffer.Path, Most: a.store.options.MaxSize}
	if info, err := os.Stat(filepath.Join(b.Path, "readings.db")); err == nil {
		b.Size = info.Size()
	}
	return b
}
