package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"gridgate/agent/status"
	"gridgate/configs"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// TestMemoryOfTheDemo runs the demo's configuration, on ports of its own, and
// looks at the memory that belongs to the agent alone.
func TestMemoryOfTheDemo(t *testing.T) {
	t.Parallel()
	const most = 16 << 20 // bytes
	bin := proctest.Build(t, "gridgate", "metersim")
	dir, err := os.MkdirTemp("", "gg") // t.TempDir is too long for a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	broker := mqtttest.Mosquitto(t, mqtttest.Config{})
	dlms, modbus := proctest.FreePorts(t, 10), proctest.FreePorts(t, 5)
	pairs := []string{"./demo-run", dir, "127.0.0.1:11883", broker.Address}
	for i := range 10 {
		pairs = append(pairs, fmt.Sprintf(":%d", 14059+i), fmt.Sprintf(":%d", dlms+i))
	}
	for i := range 5 {
		pairs = append(pairs, fmt.Sprintf(":%d", 15020+i), fmt.Sprintf(":%d", modbus+i))
	}
	config := write(t, "demo.yaml", strings.NewReplacer(pairs...).Replace(string(configs.Demo())))

	const password = "12345678"
	sim := filepath.Join(bin, "metersim")
	d := proctest.Start(t, nil, sim, "dlms", "-listen", fmt.Sprintf("127.0.0.1:%d", dlms), "-count", "10", "-password", password)
	m := proctest.Start(t, nil, sim, "modbus", "-listen", fmt.Sprintf("127.0.0.1:%d", modbus), "-count", "5", "-model", "eastron-sdm630")
	s := proctest.Start(t, nil, sim, "modbus", "-pty", "-link", filepath.Join(dir, "rs485"), "-count", "5", "-model", "eastron-sdm120", "-serial", "20270001")
	d.Await(fmt.Sprintf(":%d", dlms+9))
	m.Await(fmt.Sprintf(":%d", modbus+4))
	s.Await("rs485")
	agent := proctest.Start(t, []string{"GRIDGATE_DEMO_PASSWORD=" + password}, filepath.Join(bin, "gridgate"), "run", "-config", config)
	agent.Await("gridgate runs")

	var report status.Report
	proctest.Until(t, "400 rows are delivered", func() bool {
		report, err = status.Ask(t.Context(), filepath.Join(dir, "control.sock"))
		return err == nil && report.Uplink.Rows >= 400
	})
	for _, m := range report.Meters {
		if m.State != "ok" {
			t.Errorf("%s is %s: %s", m.Meter, m.State, m.Error)
		}
	}
	anon := rssAnon(t, agent.PID())
	t.Logf("RssAnon %d kB", anon>>10)
	if anon > most {
		t.Errorf("RssAnon is %d bytes, want at most %d", anon, most)
	}
	if code := agent.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// rssAnon gives the anonymous resident memory of a process (proc(5)).
func rssAnon(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "RssAnon:")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 2 {
		t.Fatalf("no RssAnon in\n%s", text)
	}
	kb, err := strconv.Atoi(fields[0])
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}
