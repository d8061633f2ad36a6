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
