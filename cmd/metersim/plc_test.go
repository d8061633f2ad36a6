package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gridgate/internal/cli"
	"gridgate/internal/proctest"
)

// TestPowerLines reads meters through each kind of bridge, process by process:
// with loss, delays and frames that come twice, and with keys.
func TestPowerLines(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "metersim", "gridgate")
	nowhere := filepath.Join(t.TempDir(), "none")
	gridgate := func(t *testing.T, want int, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "gridgate"), args...)
		out, err := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != want {
			t.Errorf("gridgate %s ended with %d, want %d: %v\n%s", strings.Join(args, " "), code, want, err, out)
		}
		return string(out)
	}
	const bad = "-loss 0.05 -delay 5ms-50ms -duplicates 0.2 "
	for name, tt := range map[string]struct{ flags, keys string }{
		"prime":           {bad + "-kind prime -listen 127.0.0.1:0", "&timeout=500ms"},
		"gateway":         {bad + "-kind gateway -network 7 -listen 127.0.0.1:0", "&timeout=500ms"},
		"gateway by hdlc": {"-delay 1ms-5ms -kind gateway -pty", "&timeout=3s"},
		"g3":              {bad + "-kind g3 -listen [::1]:0", "?timeout=500ms"},
		"hdlc":            {"-delay 1ms-5ms -kind hdlc -listen 127.0.0.1:0", ""},
		"keys": {
			"-kind prime -listen 127.0.0.1:0 -auth gmac -security authenc -delay 5ms-50ms",
			"&timeout=3s&client=1&auth=gmac&security=authenc&title=GRIDGATE&ek=000102030405060708090A0B0C0D0E0F&ak=D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDF",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := proctest.Start(t, nil, filepath.Join(bin, "metersim"), append([]string{"plc", "-nodes", "3"}, strings.Fields(tt.flags)...)...)
			lines := strings.Split(p.Await("ready"), "\n")
			for i, serial := range []string{"GRG000001", "GRG000002", "GRG000003"} {
				url, _, _ := strings.Cut(lines[i], " ")
				out := gridgate(t, 0, "read", url+tt.keys, "0-0:96.1.0", "1-0:1.8.0", "-control", nowhere, "-counters", t.TempDir())
				if !strings.Contains(out, serial) || !strings.Contains(out, "Wh") {
					t.Errorf("%s:\n%s", url, out)
				}
			}
			url, _, _ := strings.Cut(lines[0], "?")
			switch name {
			case "prime":
				out := gridgate(t, 0, "scan", url, "-control", nowhere)
				if strings.Count(out, "present") != 3 || !strings.Contains(out, "GRG000003  02:47:52:47:00:03") {
					t.Errorf("the scan says\n%s", out)
				}
				if out := gridgate(t, 0, "scan", url, "-json", "-control", nowhere); !strings.Contains(out, `{"device":2,"serial":"GRG000002","eui48":"02:47:52:47:00:02","state":"present"`) {
					t.Errorf("the scan says\n%s", out)
				}
				if out := gridgate(t, 1, "read", url+"?node=GRG999", "-control", nowhere); !strings.Contains(out, "the node is not in the list of the base node") {
					t.Errorf("of a node that there is not:\n%s", out)
				}
			case "gateway":
				if out := gridgate(t, 2, "scan", url); !strings.Contains(out, "has no list of its nodes") {
					t.Errorf("the scan says\n%s", out)
				}
			case "hdlc":
				// The meters of the bridge are found as those of any line.
				out := gridgate(t, 0, "scan", url, "-physical", "16-18", "-wait", "5s", "-control", nowhere)
				for _, serial := range []string{"GRG000001", "GRG000002", "GRG000003"} {
					if !strings.Contains(out, serial) {
						t.Errorf("the scan says\n%s", out)
					}
				}
			}
		})
	}
}

func TestPowerLineFlags(t *testing.T) {
	t.Parallel()
	for flags, want := range map[string]string{
		"-kind smoke":                  "want prime, gateway, g3 or hdlc",
		"-nodes 0":                     "-nodes 0: want",
		"-network 256":                 "-network 256: want",
		"-loss 1":                      "-loss, -duplicates and -churn",
		"-churn 1.1":                   "-loss, -duplicates and -churn",
		"-delay 8s-1s":                 "-delay",
		"-delay x":                     "-delay",
		"-kind prime -pty":             "-pty is for",
		"-link /tmp/x":                 "-link needs -pty",
		"-capture 1ms":                 "-capture",
		"more":                         "unexpected argument",
		"-kind gateway -security auth": "-security is for the client of -auth",
	} {
		var errOut bytes.Buffer
		p := cli.Program{Name: "metersim", Verbs: []cli.Verb{plcVerb()}}
		env := cli.Env{Stdout: &errOut, Stderr: &errOut}
		if code := p.Run(t.Context(), env, append([]string{"plc"}, strings.Fields(flags)...)); code != 2 || !strings.Contains(errOut.String(), want) {
			t.Errorf("%s: exit code %d, %q; want %q", flags, code, errOut.String(), want)
		}
	}
}
