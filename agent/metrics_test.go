package agent

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gridgate/agent/status"
	"gridgate/internal/proctest"
)

// promtool runs Debian's promtool.
func promtool(t *testing.T, stdin string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "promtool", args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil || args[0] == "check" && args[1] == "metrics" && len(out) > 0 {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestMetrics has promtool look at the metrics of an agent with meters that answer
// and one that does not, over HTTP and over the control socket.
func TestMetrics(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	port := s.paged("meter_metrics: true", modbusMeter("good", startZeroMeter(t).address, "fast"), modbusMeter("dead", "127.0.0.1:1", "fast"))
	defer s.begin()()
	s.visited(2, "good")
	s.visited(1, "dead")
	s.servedAt(port)
	wanted := []string{
		`gridgate_build_info{version="1.2.3"} 1`, `gridgate_meters{state="failing"} 1`, `gridgate_meters{state="locked"} 0`,
		`gridgate_meter_up{meter="good"} 1`, `gridgate_meter_up{meter="dead"} 0`, `gridgate_backlog_rows{lane="billing"} 0`,
		`gridgate_orders_refused_total{reason="expired"} 0`, `gridgate_buffer_open 1`, `gridgate_uplink_connected 0`, `gridgate_trust_version 0`,
	}
	var text string
	proctest.Until(t, "one meter reads and one fails", func() bool {
		code, header, body := s.ask(port, viewerToken, "/metrics")
		if code != 200 || header.Get("Content-Type") != "text/plain; version=0.0.4; charset=utf-8" {
			t.Fatalf("%d %v %s", code, header, body)
		}
		text = body
		for _, want := range wanted[:5] { // the rest is so from the beginning
			if !strings.Contains(text, "\n"+want+"\n") {
				return false
			}
		}
		return true
	})
	promtool(t, text, "check", "metrics")
	for _, want := range wanted {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("no sample %s in\n%s", want, text)
		}
	}
	for _, want := range []string{`(?m)^gridgate_polls_total\{line="other",result="ok"\} [1-9]`, `(?m)^gridgate_polls_total\{line="other",result="no-line"\} [1-9]`, `(?m)^gridgate_lane_rows_total\{lane="instant"\} [1-9]`, `(?m)^gridgate_memory_anonymous_bytes [1-9]`} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("nothing matches %s in\n%s", want, text)
		}
	}
	local, err := status.AskMetrics(t.Context(), filepath.Join(s.dir, "c"))
	if err != nil {
		t.Fatal(err)
	}
	promtool(t, local, "check", "metrics")
	known := metricNames(t)
	for _, text := range []string{text, local} {
		for _, f := range regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(text, -1) {
			if !known[f[1]] {
				t.Errorf("%s is not found in the source", f[1])
			}
		}
	}
}

// metricNames gives the names of all metrics there are.
func metricNames(t *testing.T) map[string]bool {
	t.Helper()
	src, err := os.ReadFile("metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, m := range regexp.MustCompile(`"((?:gridgate|process|go)_[a-z_]+)"`).FindAllStringSubmatch(string(src), -1) {
		names[m[1]] = true
	}
	if len(names) < 60 {
		t.Fatalf("%d metrics only: %q", len(names), slices.Sorted(maps.Keys(names)))
	}
	return names
}

// The help of a metric names its unit and ends like a sentence, whether a scrape
// shows it or not.
func TestMetricHelp(t *testing.T) {
	t.Parallel()
	src, err := os.ReadFile("metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, m := range regexp.MustCompile(`"(gridgate_[a-z_]+)", (?:(counter|gauge), )?"([^"]*)"`).FindAllStringSubmatch(string(src), -1) {
		n++
		if (m[2] == "counter") != strings.HasSuffix(m[1], "_total") || !strings.HasSuffix(m[3], ".") {
			t.Errorf("%s %s: %s", m[1], m[2], m[3])
		}
	}
	if n < 60 {
		t.Errorf("%d found only", n)
	}
}

// TestAlerts has promtool check the rules and test each on a gateway that has the
// trouble and one that has not.
func TestAlerts(t *testing.T) {
	t.Parallel()
	const dir = "../configs/prometheus/"
	promtool(t, "", "check", "rules", dir+"alerts.yaml")
	promtool(t, "", "test", "rules", dir+"alerts.test.yaml")
	rules, err := os.ReadFile(dir + "alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile(dir + "alerts.test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	alerts := regexp.MustCompile(`- alert: (\w+)\n\s+expr: (.*)`).FindAllStringSubmatch(string(rules), -1)
	if len(alerts) < 15 {
		t.Fatalf("%d alerts", len(alerts))
	}
	known := metricNames(t)
	for _, a := range alerts {
		if !strings.Contains(string(tests), "alertname: "+a[1]+"\n") {
			t.Errorf("%s has no test", a[1])
		}
		checkExpression(t, known, a[1], a[2])
	}
}

// checkExpression finds metrics that do not exist.
func checkExpression(t *testing.T, known map[string]bool, where, expr string) {
	t.Helper()
	names := regexp.MustCompile(`\b(?:gridgate|process|go)_[a-z_]+`).FindAllString(expr, -1)
	if len(names) == 0 && !strings.HasPrefix(expr, "up{") {
		t.Errorf("%s: no metric of ours in %s", where, expr)
	}
	for _, n := range names {
		if !known[n] {
			t.Errorf("%s: %s does not exist", where, n)
		}
	}
}

// TestDashboard has every expression of the dashboard name metrics that exist, and
// promtool parse it.
func TestDashboard(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../configs/grafana/gridgate.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Title   string
			Type    string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	known := metricNames(t)
	var rules strings.Builder
	rules.WriteString("groups:\n- name: x\n  rules:\n")
	n := 0
	for _, p := range d.Panels {
		if len(p.Targets) == 0 && p.Type != "row" {
			t.Errorf("%s shows nothing", p.Title)
		}
		for _, x := range p.Targets {
			checkExpression(t, known, p.Title, x.Expr)
			n++
			expr := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*").Replace(x.Expr)
			fmt.Fprintf(&rules, "  - {record: 'x:%d', expr: %q}\n", n, expr)
		}
	}
	if n < 30 {
		t.Errorf("%d expressions only", n)
	}
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "", "check", "rules", path)
}
