package main

import (
	"strings"
	"testing"
	"time"

	"gridgate/agent/status"
)

func TestStatusTellsClocksAndGaps(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	r := status.Report{Meters: []status.Meter{
		{Meter: "m1", Clock: &status.Clock{Offset: 75.2, Uncertainty: 1.5, Valid: true}, Gaps: 302400},
		{Meter: "m2", Clock: &status.Clock{Offset: -1.2, Uncertainty: 1.5, Valid: true}},
		{Meter: "m3", Clock: &status.Clock{}},
	}}
	if err := printStatus(&out, r, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(out.String(), "\n") {
		fields := strings.Join(strings.Fields(line), " ")
		want := map[string]string{"m1": "+75 s 3.5 d", "m2": "right -", "m3": "invalid -"}
		for id, text := range want {
			if strings.HasPrefix(fields, id) && !strings.Contains(fields, text) {
				t.Errorf("%s: want %q in it", fields, text)
			}
		}
	}
	if !strings.Contains(out.String(), "m3") {
		t.Error(out.String())
	}
}

// The table has what the agent works with, and the meters with the worst first.
func TestStatusTellsAll(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	now := time.Now()
	signal, before, after := -109, now.Add(-time.Minute), now.Add(time.Hour)
	r := status.Report{
		Health: status.Health{State: status.Degraded, Why: []string{"1 of 4 meters are not read"}},
		Meters: []status.Meter{{Meter: "a", State: "ok"}, {Meter: "b", State: "failing", Error: "no answer"}, {Meter: "c", State: "waiting"}, {Meter: "d", State: "locked"}},
		Lines:  []status.Line{{Line: "/dev/ttyS1", Meters: 4, Read: 1, Visits: 9, Silent: 1, Requests: 100, Lost: 7, Damaged: 3}, {Line: "h:1", Visits: 5, Garbled: 2}},
		Buffer: &status.Buffer{Path: "/b", Size: 1500000, Most: 46000000},
		Config: status.RunningConfig{File: "/etc/g.yaml", Hash: "0123456789abcdef0123", Meters: 4},
		Modem: &status.Modem{
			State: "restarting", Registration: "unknown", Operator: "Zone 3", Signal: &signal, Kind: "RSSI", Weak: true, Error: "x",
			Resets: 2, LastReset: &before, LastBy: "AT", NextReset: &after,
		},
	}
	if err := printStatus(&out, r, now); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	for i, l := range lines {
		lines[i] = strings.Join(strings.Fields(l), " ")
	}
	text := strings.Join(lines, "\n")
	for _, want := range []string{
		"health degraded\n- 1 of 4 meters are not read\n", "config /etc/g.yaml, 4 meters, hash 0123456789abcdef\n", "buffer /b, 1.5 of at most 46.0 MB\n",
		"modem restarting, unknown, Zone 3, -109 dBm (RSSI), weak, 2 resets, last 1m0s ago by AT, next reset in 1h0m0s: x\n",
		"/dev/ttyS1 4 1 9 7 3 -\n", "h:1 0 0 5 0 2 -\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("want %q in\n%s", want, text)
		}
	}
	at := -1
	for _, meter := range []string{"\nd locked", "\nb failing", "\nc waiting", "\na ok"} {
		next := strings.Index(text, meter)
		if next <= at {
			t.Errorf("%q stands at %d, after %d, in\n%s", meter, next, at, text)
		}
		at = next
	}
}
