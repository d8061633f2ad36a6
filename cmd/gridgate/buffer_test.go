package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gridgate/buffer"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
)

// bufferCommand runs `gridgate buffer` in this process.
func bufferCommand(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	p := cli.Program{Name: "gridgate", Verbs: []cli.Verb{bufferVerb()}}
	code = p.Run(t.Context(), cli.Env{Stdout: &o, Stderr: &e}, append([]string{"buffer"}, args...))
	return code, o.String(), e.String()
}

func bufferWithRows(t *testing.T) (dir string, s *buffer.Store) {
	t.Helper()
	dir = t.TempDir()
	s, err := buffer.Open(dir, buffer.Options{BootID: "b"})
	if err != nil {
		t.Fatal(err)
	}
	rows := []meter.Row{
		{
			Meter: "m1", Serial: "S\"1", Channel: "1-0:1.8.0*255/3:2", Stamp: meter.Stamp{Time: 1_700_000_000_123, Boot: 1},
			Value: meter.UintValue(18446744073709551615, -3), Unit: meter.WattHour, Lane: meter.Billing,
		},
		{
			Meter: "m1", Channel: "name", Stamp: meter.Stamp{Time: 1_700_000_001_000, Boot: 1},
			Value: meter.TextValue("x\ny"), Quality: meter.Test, Lane: meter.Instant,
		},
	}
	err = s.Append(context.WithoutCancel(t.Context()), meter.Append{
		Rows: rows, Losses: []meter.Loss{{Lane: meter.Instant, Reason: meter.MemoryFull, Count: 5}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return dir, s
}

func TestBufferVerb(t *testing.T) {
	t.Parallel()
	dir, s := bufferWithRows(t)
	for _, what := range []string{"stat", "dump", "check"} {
		code, _, errOut := bufferCommand(t, what, "-path", dir)
		if code != 1 || !strings.Contains(errOut, fmt.Sprintf("process %d", os.Getpid())) || !strings.Contains(errOut, "gridgate status") {
			t.Errorf("%s of a store in use: %d %s", what, code, errOut)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := bufferCommand(t, "dump", "-path", dir, "-json")
	want := `{"lane":"billing","sequence":1,"meter":"m1","serial":"S\"1","channel":"1-0:1.8.0*255/3:2","time":"2023-11-14T22:13:20.123Z","value":18446744073709551.615,"unit":"Wh","quality":"good"}
{"lane":"instant","sequence":2,"meter":"m1","serial":"","channel":"name","time":"2023-11-14T22:13:21.000Z","value":"x\u000ay","unit":"","quality":"test"}
`
	if code != 0 || out != want {
		t.Errorf("dump: %d %s\n%s", code, errOut, out)
	}
	if _, out, _ := bufferCommand(t, "dump", "-path", dir, "-lane", "instant"); strings.Count(out, "\n") < 2 || strings.Contains(out, "billing") {
		t.Errorf("dump of one lane:\n%s", out)
	}
	code, out, errOut = bufferCommand(t, "-path", dir, "-json", "stat")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var store storeJSON
	var lane laneJSON
	if code != 0 || len(lines) != 5 || json.Unmarshal([]byte(lines[0]), &store) != nil || json.Unmarshal([]byte(lines[4]), &lane) != nil {
		t.Fatalf("stat: %d %s\n%s", code, errOut, out)
	}
	if store.Epoch != fmt.Sprintf("%016x", s.Epoch()) || store.Boots != 1 || !store.Clean ||
		lane.Lane != "instant" || lane.Last != 2 || lane.Rows != 1 || lane.Holes != 1 || lane.Lost != 5 {
		t.Errorf("stat: %+v %+v", store, lane)
	}
	if code, out, _ := bufferCommand(t, "stat", "-path", dir); code != 0 || !strings.Contains(out, "LANE") || !strings.Contains(out, "stopped cleanly") {
		t.Errorf("stat: %d\n%s", code, out)
	}
	if code, out, errOut := bufferCommand(t, "check", "-path", dir); code != 0 || !strings.Contains(out, "2 chunks, 2 rows, 1 holes") {
		t.Errorf("check: %d %s\n%s", code, errOut, out)
	}
}

func TestBufferVerbOnDamage(t *testing.T) {
	t.Parallel()
	dir, s := bufferWithRows(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "readings.db")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[bytes.Index(b, []byte("GGCK"))+60] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := bufferCommand(t, "check", "-path", dir, "-json")
	var report checkJSON
	if code != 1 || json.Unmarshal([]byte(out), &report) != nil || report.Sound || len(report.Problems) != 1 || !strings.Contains(errOut, "damaged") {
		t.Errorf("check: %d %s\n%s", code, errOut, out)
	}
	if code, out, errOut := bufferCommand(t, "dump", "-path", dir, "-json"); code != 0 || strings.Count(out, "\n") != 1 {
		t.Errorf("dump: %d %s\n%s", code, errOut, out)
	}
	if err := os.WriteFile(path, b[:len(b)/3], 0o600); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"stat", "dump", "check"} {
		if code, _, errOut := bufferCommand(t, what, "-path", dir); code != 1 || !strings.Contains(errOut, "damaged") {
			t.Errorf("%s of a file cut short: %d %s", what, code, errOut)
		}
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, b[:len(b)/3]) {
		t.Errorf("looking changed the file: %v", err)
	}
}

func TestBufferVerbUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{}, {"fly"}, {"stat", "dump"}, {"dump", "-lane", "fast"}, {"stat", "-lane", "alarm"}} {
		if code, _, errOut := bufferCommand(t, args...); code != 2 {
			t.Errorf("%v: %d %s", args, code, errOut)
		}
	}
	code, _, errOut := bufferCommand(t, "stat", "-path", t.TempDir())
	if code != 1 || !strings.Contains(errOut, "no readings.db there") {
		t.Errorf("empty directory: %d %s", code, errOut)
	}
	if code, out, _ := bufferCommand(t, "-h"); code != 0 || !strings.Contains(out, "gridgate buffer dump") {
		t.Errorf("help: %d\n%s", code, out)
	}
}

func TestBufferQueryExportImport(t *testing.T) {
	t.Parallel()
	dir, s := bufferWithRows(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want := "lane,sequence,meter,serial,channel,time,value,unit,quality,period,status\r\n" +
		"billing,1,m1,\"S\"\"1\",1-0:1.8.0*255/3:2,2023-11-14T22:13:20.123Z,18446744073709551.615,Wh,good,,\r\n"
	code, out, errOut := bufferCommand(t, "query", "-path", dir, "-csv", "-channel", "1-0:1.8.0", "-from", "2023-11-14", "-to", "2023-11-15")
	if code != 0 || out != want {
		t.Errorf("query: %d %s\n%q", code, errOut, out)
	}
	for _, args := range [][]string{{"-meter", "m2"}, {"-to", "2023-11-14"}, {"-from", "2023-11-14T22:13:21.001Z"}, {"-lane", "alarm"}} {
		if code, out, errOut := bufferCommand(t, append([]string{"query", "-path", dir, "-json"}, args...)...); code != 0 || out != "" {
			t.Errorf("%v: %d %s\n%s", args, code, errOut, out)
		}
	}
	file := filepath.Join(t.TempDir(), "gw.ggex")
	code, out, errOut = bufferCommand(t, "export", file, "-path", dir, "-site", "z", "-gateway", "g", "-json")
	var a archiveJSON
	if code != 0 || json.Unmarshal([]byte(out), &a) != nil || a.Rows != 2 || a.Holes != 1 || a.Site != "z" || a.Signer != "" {
		t.Errorf("export: %d %s\n%s", code, errOut, out)
	}
	if code, _, errOut := bufferCommand(t, "export", file, "-path", dir); code != 1 || !strings.Contains(errOut, "is there already") {
		t.Errorf("export over a file: %d %s", code, errOut)
	}
	other := t.TempDir()
	if code, out, errOut := bufferCommand(t, "import", file, "-path", other); code != 0 || !strings.Contains(out, "2 rows and 1 holes") {
		t.Errorf("import: %d %s\n%s", code, errOut, out)
	}
	if code, _, errOut := bufferCommand(t, "import", file, "-path", dir); code != 1 || !strings.Contains(errOut, "of this store") {
		t.Errorf("import into the same: %d %s", code, errOut)
	}
	if code, out, errOut := bufferCommand(t, "compact", "-path", other, "-json"); code != 0 || !strings.Contains(out, `"after":`) {
		t.Errorf("compact: %d %s\n%s", code, errOut, out)
	}
	for _, args := range [][]string{
		{"query", "-from", "yesterday"},
		{"query", "-meter", "M!"},
		{"query", "-channel", "!"},
		{"query", "-zone", "Mars"},
		{"query", "-csv", "-json"},
		{"query", "-from", "2026-01-02", "-to", "2026-01-01"},
		{"export"},
		{"import"},
		{"compact", "-all"},
	} {
		if code, _, errOut := bufferCommand(t, args...); code != 2 {
			t.Errorf("%v: %d %s", args, code, errOut)
		}
	}
}
