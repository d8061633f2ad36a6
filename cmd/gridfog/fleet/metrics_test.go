package fleet

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Prometheus's own tool takes the metrics, their names and their units.
func TestMetricsPleasePromtool(t *testing.T) {
	t.Parallel()
	now := moment(t, "2026-01-01T09:00:00Z")
	f := New(time.UTC)
	if err := f.State(stateTopic("gw-1"), []byte(online), true, now); err != nil {
		t.Fatal(err)
	}
	if err := f.State(stateTopic("gw-2"), []byte(`{"state":"offline","reason":"lost","version":"a\"b\\c\nd","at":"2026-01-01T09:30:00Z"}`), true, now); err != nil {
		t.Fatal(err)
	}
	f.SetShares("north", map[string][]Share{"gw-1": {{"2025-12-31", 8, 96, 72}, {"2025-12-31", 12, 96, 96}}})
	if err := f.Rows("north", "gw-1", nil, now); err != nil {
		t.Fatal(err)
	}
	well := true
	var out bytes.Buffer
	if err := WriteMetrics(&out, f.Gateways(now, false), Tool{Connected: true, Messages: 5, Refused: 1, Database: &well}); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`gridgate_gateways{state="online"} 1`,
		`gridgate_gateways{state="offline"} 1`,
		`gridgate_gateways{state="unknown"} 0`,
		`gridgate_gateway_online{site="north",gateway="gw-1"} 1`,
		`gridgate_gateway_online{site="north",gateway="gw-2"} 0`,
		`gridgate_gateway_info{site="north",gateway="gw-1",version="1.0",config="5f3c0a9be0d1c277",epoch="00c0ffee00c0ffee",time_zone="Europe/Berlin"} 1`,
		`gridgate_gateway_info{site="north",gateway="gw-2",version="a\"b\\c\nd",config="",epoch="",time_zone=""} 1`,
		`gridgate_gateway_state_since_timestamp_seconds{site="north",gateway="gw-1"} 1.7672508e+09`,
		`gridgate_gateway_backlog_rows{site="north",gateway="gw-1",lane="interval"} 96`,
		`gridgate_gateway_clock_synchronised{site="north",gateway="gw-1"} 1`,
		`gridgate_gateway_clock_error_bound_seconds{site="north",gateway="gw-1"} 0.012`,
		`gridgate_gateway_lane_withheld{site="north",gateway="gw-1",lane="instant"} 1`,
		`gridgate_gateway_lane_withheld{site="north",gateway="gw-1",lane="alarm"} 0`,
		`gridgate_gateway_day_intervals_in_time_ratio{site="north",gateway="gw-1",deadline="8h"} 0.75`,
		`gridgate_gateway_day_intervals_in_time{site="north",gateway="gw-1",deadline="12h"} 96`,
		`gridfog_messages_total 5`,
		`gridfog_database_up 1`,
	} {
		if !strings.Contains(out.String(), "\n"+line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	for _, line := range []string{`gridgate_gateway_start_timestamp_seconds{site="north",gateway="gw-2"}`, `gridgate_gateway_meters{site="north",gateway="gw-2"}`} {
		if strings.Contains(out.String(), line) {
			t.Errorf("what nobody knows is told: %s", line)
		}
	}
	if said, err := promtool(t, out.Bytes()); err != nil || len(said) > 0 {
		t.Errorf("promtool: %v\n%s", err, said)
	}
	if t.Failed() {
		t.Log(out.String())
	}
	// That it looks: a counter by convention ends in _total.
	if out, err := promtool(t, []byte("# HELP x A thing.\n# TYPE x counter\nx 1\n")); err == nil {
		t.Errorf("promtool takes a bad name: %s", out)
	}
}

func promtool(t *testing.T, metrics []byte) ([]byte, error) {
	t.Helper()
	if _, err := exec.LookPath("promtool"); err != nil {
		t.Fatal("promtool is not installed (apt-get install prometheus)")
	}
	cmd := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
	cmd.Stdin = bytes.NewReader(metrics)
	return cmd.CombinedOutput()
}
