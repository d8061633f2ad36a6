package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"gridgate/configs"
	"gridgate/internal/proctest"
)

// scanned runs a scan and gives what it found by unit or physical address, and what
// it printed on standard error.
func scanned(t *testing.T, code int, args ...string) (found []foundJSON, errOut string) {
	t.Helper()
	got, out, errOut := cmdline(t, append([]string{"scan", "-json", "-wait", "5s", "-control", filepath.Join(t.TempDir(), "none")}, args...)...)
	if got != code {
		t.Fatalf("exit code %d, want %d\n%s%s", got, code, out, errOut)
	}
	for line := range strings.Lines(out) {
		var f foundJSON
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		found = append(found, f)
	}
	return found, errOut
}

// startSim starts a simulator on a terminal and gives the link to it.
func startSim(t *testing.T, bin string, args ...string) string {
	t.Helper()
	link := filepath.Join(t.TempDir(), "tty")
	proctest.Start(t, nil, filepath.Join(bin, "metersim"), append(args, "-pty", "-link", link)...).Await("tty")
	return link
}

// TestScan finds what metersim simulates on paced terminals. It says nothing of how
// long that takes: that is known of simulated time.
func TestScan(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "gridgate", "metersim")

	t.Run("modbus", func(t *testing.T) {
		t.Parallel()
		link := startSim(t, bin, "modbus", "-baud", "19200", "-units", "3,5,7,9", "-model", "eastron-sdm120,abb-b23,schneider-iem3155,eastron-sdm630", "-device-id")
		file := filepath.Join(t.TempDir(), "found.yaml")
		found, _ := scanned(t, 0, "serial://"+link+"?baud=19200&format=8N1", "-units", "3-5,7,9", "-config-out", file)
		want := []foundJSON{
			{Unit: 3, Serial: "20260001", Model: "eastron-sdm120", Says: "eastron sdm120 V1"},
			{Unit: 5, Model: "abb-b23", Says: "abb b23 V2"},
			{Unit: 7, Serial: "20260003", Model: "schneider-iem3155", Says: "schneider iem3155 V3"},
			{Unit: 9, Serial: "20260004", Model: "eastron-sdm630", Says: "eastron sdm630 V4"},
		}
		if len(found) != len(want) {
			t.Fatalf("found %+v", found)
		}
		for i, w := range want {
			w.Protocol, w.Line, w.Settings, w.URL = "modbus+rtu", link, "19200 8N1", found[i].URL
			if f := found[i]; f.Unit != w.Unit || f.Serial != w.Serial || f.Model != w.Model || f.Says != w.Says || f.Settings != w.Settings || f.Line != link || f.Note != "" {
				t.Errorf("found %+v, want %+v", f, w)
			}
		}
		if code, out, errOut := cmdline(t, "check", "-config", file); code != 0 || !strings.Contains(out, "ok: 4 meters on 1 line") {
			t.Errorf("check: %d %s%s", code, out, errOut)
		}
		if code, out, errOut := cmdline(t, "read", "-config", file, "-control", filepath.Join(t.TempDir(), "none"), "-json"); code != 0 || strings.Count(out, `"1-0:1.8.0`) != 4 {
			t.Errorf("read: %d %s%s", code, out, errOut)
		}
		before, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, errOut := scanned(t, 1, "modbus+rtu://"+link+"?baud=19200&format=8N1", "-units", "3", "-config-out", file)
		if after, err := os.ReadFile(file); err != nil || string(after) != string(before) || !strings.Contains(errOut, "-force overwrites it") {
			t.Errorf("%v: %s\n%s", err, after, errOut)
		}
		// With the gateway's own configuration what it has is not there twice.
		scanned(t, 0, "modbus+rtu://"+link+"?baud=19200&format=8N1", "-units", "3", "-config-out", file, "-force", "-config", write(t, "own.yaml", string(before)))
		if after, err := os.ReadFile(file); err != nil || !strings.Contains(string(after), "# unit 3: meter sdm120-3 of the configuration") || strings.Contains(string(after), "- {id") {
			t.Errorf("%v: %s", err, after)
		}
	})

	t.Run("dlms", func(t *testing.T) {
		t.Parallel()
		link := startSim(t, bin, "dlms", "-transport", "hdlc", "-bus", "-count", "3", "-physical", "17", "-baud", "9600")
		file := filepath.Join(t.TempDir(), "found.yaml")
		found, _ := scanned(t, 0, "dlms+hdlc://"+link+"?baud=9600&format=8N1", "-physical", "17-19", "-config-out", file)
		var got []string
		for _, f := range found {
			got = append(got, f.Serial)
		}
		slices.Sort(got)
		if want := []string{"GRG000001", "GRG000002", "GRG000003"}; !slices.Equal(got, want) {
			t.Errorf("found %+v", found)
		}
		cfg, err := configs.Load(file)
		if err != nil || len(cfg.Meters) != 3 {
			t.Fatalf("%v: %+v", err, cfg)
		}
		for _, m := range cfg.Meters {
			if want := fmt.Sprintf("GRG%06d", m.Address.Physical-16); m.Serial != want || m.Address.AddrLen < 2 {
				t.Errorf("%s: serial %s, want %s", m.Address, m.Serial, want)
			}
		}
	})

	t.Run("wrapper", func(t *testing.T) {
		t.Parallel()
		port := proctest.FreePorts(t, 1)
		at := "127.0.0.1:" + strconv.Itoa(port)
		proctest.Start(t, nil, filepath.Join(bin, "metersim"), "dlms", "-listen", at).Await(at)
		found, _ := scanned(t, 0, "dlms+wrapper://"+at)
		if len(found) != 1 || found[0].Serial != "GRG000001" || found[0].Protocol != "dlms+wrapper" {
			t.Errorf("found %+v", found)
		}
	})

	t.Run("modbus tcp", func(t *testing.T) {
		t.Parallel()
		port := proctest.FreePorts(t, 1)
		at := "127.0.0.1:" + strconv.Itoa(port)
		proctest.Start(t, nil, filepath.Join(bin, "metersim"), "modbus", "-listen", at, "-model", "abb-b23").Await(at)
		found, _ := scanned(t, 0, "modbus+tcp://"+at, "-units", "1")
		if len(found) != 1 || found[0].Model != "abb-b23" || found[0].Protocol != "modbus+tcp" {
			t.Errorf("found %+v", found)
		}
	})

	t.Run("iec21", func(t *testing.T) {
		t.Parallel()
		link := startSim(t, bin, "iec21")
		found, _ := scanned(t, 0, "iec21://"+link)
		if len(found) != 1 || found[0].Serial != "50000001" || found[0].Protocol != "iec21" || !strings.Contains(found[0].URL, "signon=300") {
			t.Errorf("found %+v", found)
		}
	})

	// A line that the agent has is lent, and a scan that is interrupted says what it found.
	t.Run("interrupted", func(t *testing.T) {
		t.Parallel()
		link := startSim(t, bin, "modbus", "-baud", "19200", "-units", "1,2", "-model", "eastron-sdm630")
		dir, err := os.MkdirTemp("", "gg") // t.TempDir is too long for a Unix socket
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		config := write(t, "g.yaml", strings.NewReplacer("DIR", dir, "dlms+wrapper://127.0.0.1:4059", "modbus+rtu://"+link+"?baud=19200&unit=1&model=eastron-sdm630", "A1", "20260001").Replace(wellFormed))
		agent := proctest.Start(t, nil, filepath.Join(bin, "gridgate"), "run", "-config", config)
		agent.Await("gridgate runs")
		scan := proctest.Start(t, nil, filepath.Join(bin, "gridgate"), "scan", "serial://"+link+"?baud=19200&format=8N1", "-units", "1-247", "-wait", "1m", "-control", filepath.Join(dir, "control.sock"), "-all")
		agent.Await("line lent to a tool")
		scan.Await("Modbus units")
		scan.Signal(syscall.SIGINT)
		if code := scan.Wait(); code != 1 || !strings.Contains(scan.Output(), "interrupted; ") {
			t.Errorf("%d: %s", code, scan.Output())
		}
		agent.Await("line given back")
		if code := agent.Stop(); code != 0 {
			t.Errorf("agent: %d", code)
		}
	})
}

func TestScanRefusesWhatItCannotDo(t *testing.T) {
	t.Parallel()
	file := write(t, "there.yaml", "x")
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{2, "want one URL", nil},
		{2, "three slashes", []string{"serial://ttyS1"}},
		{2, "with two slashes", []string{"tcp:///dev/ttyS1"}},
		{2, "want serial:///dev/ttyUSB0, tcp://HOST:PORT", []string{"/dev/ttyS1"}},
		{2, "unknown scheme", []string{"knx:///dev/ttyS1"}},
		{2, "baud: ", []string{"serial:///dev/ttyS1?baud=fast"}},
		{2, "format: ", []string{"serial:///dev/ttyS1?format=9X9"}},
		{2, "-units: \"0\": want numbers", []string{"serial:///dev/ttyS1", "-units", "0"}},
		{2, "-units: \"1-248\": want numbers", []string{"serial:///dev/ttyS1", "-units", "1-248"}},
		{2, "-units: \"9-3\": want numbers", []string{"serial:///dev/ttyS1", "-units", "9-3"}},
		{2, "-physical: \"x\": want numbers", []string{"serial:///dev/ttyS1", "-physical", "x"}},
		{2, "-protocol \"knx\"", []string{"serial:///dev/ttyS1", "-protocol", "knx"}},
		{2, "-protocol dlms: not with modbus+rtu", []string{"modbus+rtu:///dev/ttyS1", "-protocol", "dlms"}},
		{2, "-wait -1s", []string{"serial:///dev/ttyS1", "-wait", "-1s"}},
		{2, "such a line is not scanned", []string{"dlms+udp://10.0.0.1"}},
		{2, "has no list of its nodes", []string{"plc+gateway://10.0.0.1"}},
		{1, "is there already", []string{"serial:///dev/ttyS1", "-config-out", file}},
		{1, "no such file or directory", []string{"serial:///dev/ttyS1", "-config-out", "/no/such/folder/x.yaml"}},
		{1, "no such port", []string{"serial:///dev/no-such-port"}},
		{1, "connection refused", []string{"modbus+tcp://127.0.0.1:1", "-units", "1"}},
	} {
		code, out, errOut := cmdline(t, append([]string{"scan", "-control", "/no/such/socket"}, c.args...)...)
		if code != c.code || !strings.Contains(errOut, c.want) || out != "" {
			t.Errorf("%q: %d %q %q; want %d %q", c.args, code, out, errOut, c.code, c.want)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "x" {
		t.Errorf("%q, %v", b, err)
	}
}
