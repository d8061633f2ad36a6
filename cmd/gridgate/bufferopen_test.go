package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gridgate/agent/status"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/internal/proctest"
)

// TestBufferOfARunningAgent looks into the buffer of an agent that runs, and
// finds what is in its file once the agent has stopped.
func TestBufferOfARunningAgent(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "gridgate", "gridfog")
	dir, err := os.MkdirTemp("", "gg") // t.TempDir is too long for a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	data, socket := filepath.Join(dir, "data"), filepath.Join(dir, "c.sock")
	text := fmt.Sprintf(`version: 1
site: s
gateway: g
time_zone: UTC
buffer: {path: %s}
control: {socket: %s}
intake: {window: 0s, window_offline: 0s}
uplink: {broker: "tcp://127.0.0.1:1", start_jitter: 0s}
groups:
  energy: {lane: alarm, every: 1s, channels: ["1-0:1.8.0"]}
  now: {lane: instant, every: 1s, channels: ["1-0:32.7.0"]}
meters:
`, data, socket)
	for i := range 2 {
		serial := fmt.Sprintf("S%d", i)
		text += fmt.Sprintf("  - {id: m%d, serial: %s, groups: [energy, now], url: \"dlms+wrapper://%s?client=16\"}\n", i, serial, serveMeter(t, dlmstest.Options{
			Objects: []dlmstest.Object{
				dlmstest.Data(code(t, "0-0:96.1.0"), dlmstest.Fixed(axdr.OctetString(serial))),
				dlmstest.Register(code(t, "1-0:1.8.0"), -1, 30, dlmstest.Fixed(axdr.DoubleLongUnsigned(5))),
				dlmstest.Register(code(t, "1-0:32.7.0"), 0, 35, dlmstest.Fixed(axdr.LongUnsigned(230))),
			},
			Clients: map[uint16]dlmstest.Login{16: {}},
		}))
	}
	agent := proctest.Start(t, nil, filepath.Join(bin, "gridgate"), "run", "-config", write(t, "c.yaml", text))
	agent.Await("gridgate runs")
	proctest.Until(t, "some rows are stored", func() bool {
		r, err := status.Ask(t.Context(), socket)
		return err == nil && r.Intake.Stored >= 12 && len(r.Meters) == 2 && r.Meters[0].Rows > 0 && r.Meters[1].Rows > 0
	})

	look := func(args ...string) string {
		t.Helper()
		args = append([]string{"buffer", args[0], "-path", data, "-control", socket}, args[1:]...)
		out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "gridgate"), args...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	var st storeJSON
	stat, _, _ := strings.Cut(look("stat", "-json"), "\n")
	if err := json.Unmarshal([]byte(stat), &st); err != nil || len(st.Epoch) != 16 || st.Bytes == 0 {
		t.Errorf("stat: %v %s", err, stat)
	}
	if out := look("stat"); !strings.Contains(out, ", open\n") || !strings.Contains(out, "alarm") {
		t.Errorf("stat: %s", out)
	}
	query := []string{"query", "-meter", "m1", "-channel", "1-0:32.7.0", "-from", time.Now().Add(-time.Hour).UTC().Format(time.RFC3339), "-json"}
	rows := look(query...)
	if n := strings.Count(rows, "\n"); n < 3 || n != strings.Count(rows, `"lane":"instant"`) || n != strings.Count(rows, `"meter":"m1"`) {
		t.Errorf("query:\n%s", rows)
	}
	if out := look("query", "-to", "2020-01-01", "-csv"); strings.Count(out, "\n") != 1 {
		t.Errorf("query of a time without rows:\n%s", out)
	}
	if out := look("dump", "-lane", "instant", "-csv"); strings.Count(out, "\n") < 4 || strings.Contains(out, "alarm,") {
		t.Errorf("dump:\n%s", out)
	}
	archive := filepath.Join(dir, "a.ggex")
	if out := look("export", archive, "-json"); !strings.Contains(out, `"site":"s","gateway":"g","epoch":"`+st.Epoch) {
		t.Errorf("export: %s", out)
	}
	if out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "gridfog"), "decode", archive).CombinedOutput(); err != nil || !strings.Contains(string(out), "m1") {
		t.Errorf("decode: %v\n%s", err, out)
	}
	// An agent with another buffer is not asked for this one.
	other, _ := bufferWithRows(t)
	if exit, _, errOut := bufferCommand(t, "stat", "-path", other, "-control", socket); exit != 1 || !strings.Contains(errOut, "another buffer") {
		t.Errorf("stat of another buffer: %d %s", exit, errOut)
	}

	if exit := agent.Stop(); exit != 0 {
		t.Errorf("exit code %d", exit)
	}
	if after := look(query...); !strings.HasPrefix(after, rows) {
		t.Errorf("the file has\n%s\nthe agent had\n%s", after, rows)
	}
}
