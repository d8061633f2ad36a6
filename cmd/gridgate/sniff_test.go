package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"gridgate/agent/status"
	"gridgate/drivers/drivertest"
	"gridgate/internal/cli"
	"gridgate/internal/proctest"
)

const trace = `# a read, its answer, a refusal
TX: 10:00:00.000 11 03 00 6B 00 03 76 87
RX: 10:00:00.040 11 03 06 02 2B 00 00 00 64 C8 BA
TX: 10:00:01.040 01 04 00 00 00 02 71 CB
RX: 10:00:01.050 01 84 02 C2 C1
`

func TestSniffDecodesFiles(t *testing.T) {
	t.Parallel()
	file := write(t, "trace.hex", trace)
	want := `10:00:00.000            → modbus     unit 17: read holding registers 0x006B (107) × 3
10:00:00.040     +0.040 ← modbus     unit 17: 3 registers from 0x006B = 022B 0000 0064
10:00:01.040     +1.000 → modbus     unit 1: read input registers 0x0000 (0) × 2
10:00:01.050     +0.010 ← modbus     unit 1: read input registers: illegal data address (exception 2)
`
	if code, out, errOut := cmdline(t, "sniff", file); code != 0 || out != want || errOut != "" {
		t.Errorf("%d %s%s", code, out, errOut)
	}
	code, out, _ := cmdline(t, "sniff", file, "-json", "-x")
	if lines := strings.Split(strings.TrimSpace(out), "\n"); code != 0 || len(lines) != 4 {
		t.Errorf("%d %s", code, out)
	} else {
		var last frameJSON
		if err := json.Unmarshal([]byte(lines[3]), &last); err != nil || last.From != "meter" || !last.Bad || last.Octets != "018402c2c1" || last.Protocol != "modbus" {
			t.Errorf("%v %s", err, lines[3])
		}
	}
	if code, out, _ := cmdline(t, "sniff", file, "-x"); code != 0 || !strings.Contains(out, "11 03 06 02 2B 00 00 00 64 C8 BA\n") {
		t.Errorf("%d %s", code, out)
	}
	// The same as octets, on standard input.
	raw := []byte("\x11\x03\x00\x6B\x00\x03\x76\x87\x01\x84\x02\xC2\xC1")
	var stdout, stderr bytes.Buffer
	env := cli.Env{Stdin: bytes.NewReader(raw), Stdout: &stdout, Stderr: &stderr, Getenv: os.Getenv}
	if code := program().Run(t.Context(), env, []string{"sniff", "-"}); code != 0 || strings.Count(stdout.String(), "\n") != 2 || !strings.Contains(stdout.String(), "× 3") {
		t.Errorf("%d %s%s", code, &stdout, &stderr)
	}
}

func TestSniffRefusesWhatItCannotDo(t *testing.T) {
	t.Parallel()
	junk := write(t, "junk", "\x00\x01\x02\x03 no frame of anything\xFF\xFE")
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{2, "want one URL or FILE", nil},
		{2, "-protocol \"knx\"", []string{"-protocol", "knx", junk}},
		{2, "-file \"doc\"", []string{"-file", "doc", junk}},
		{2, "-for -1s", []string{"-for", "-1s", junk}},
		{2, "three slashes", []string{"serial://ttyS1"}},
		{1, "nothing that could be decoded: read as raw", []string{junk}},
		{1, "neither pcap nor pcapng", []string{junk, "-file", "pcap"}},
		{1, "no such file", []string{"/no/such/file"}},
		{1, "is a directory", []string{"/"}},
		{1, "no such port", []string{"serial:///dev/no-such-port"}},
		{1, "use a capture", []string{"dlms+wrapper://127.0.0.1:4059"}},
	} {
		code, _, errOut := cmdline(t, append([]string{"sniff", "-control", "/no/such/socket"}, c.args...)...)
		if code != c.code || !strings.Contains(errOut, c.want) {
			t.Errorf("%q: %d %q; want %d %q", c.args, code, errOut, c.code, c.want)
		}
	}
}

// In a capture what is of nobody's meters is passed over, and counted.
func TestSniffPassesOverOtherConnections(t *testing.T) {
	t.Parallel()
	packet := func(port byte, data string) []byte {
		ip := append([]byte{0x45, 0, 0, byte(28 + len(data)), 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x9C, port, 1, 0xF6, 0, byte(8 + len(data)), 0, 0}, data...)
		head := []byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, byte(len(ip)), 0, 0, 0, byte(len(ip))}
		return append(head, ip...)
	}
	file := []byte{0xA1, 0xB2, 0xC3, 0xD4, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 101}
	file = append(file, packet(1, "GET / HTTP/1.1\r\n\r\n and more of that")...)
	file = append(file, packet(2, "\x00\x07\x00\x00\x00\x06\x01\x03\x00\x6B\x00\x03")...)
	code, out, errOut := cmdline(t, "sniff", write(t, "x.pcap", string(file)))
	if code != 0 || strings.Count(out, "\n") != 1 || !strings.Contains(out, "10.0.0.1:39938→10.0.0.2:502 → modbus-tcp #7 unit 1: read holding registers 0x006B (107) × 3") ||
		!strings.Contains(errOut, "1 connection of other protocols passed over") {
		t.Errorf("%d %s%s", code, out, errOut)
	}
}

// On a terminal it is in colour, unless that is not wanted.
func TestSniffInColour(t *testing.T) {
	t.Parallel()
	file := write(t, "trace.hex", trace)
	for name, colour := range map[string]bool{"": true, "1": false} {
		tty, err := drivertest.Pty()
		if err != nil {
			t.Fatal(err)
		}
		out, err := os.OpenFile(tty.Path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		env := cli.Env{Stdin: strings.NewReader(""), Stdout: out, Stderr: io.Discard, Getenv: func(key string) string {
			return map[string]string{"NO_COLOR": name, "TERM": "xterm"}[key]
		}}
		var got []byte
		var wg sync.WaitGroup
		wg.Go(func() {
			for !bytes.Contains(got, []byte("exception 2")) {
				buf := make([]byte, 4096)
				n, err := tty.Read(buf)
				if err != nil {
					return
				}
				got = append(got, buf[:n]...)
			}
		})
		if code := program().Run(t.Context(), env, []string{"sniff", file}); code != 0 {
			t.Errorf("exit code %d", code)
			_ = tty.Close()
		}
		wg.Wait()
		if has := bytes.Contains(got, []byte("\x1b[31m")) && bytes.Contains(got, []byte("\x1b[0m")); has != colour || bytes.Contains(got, []byte("\x1b")) != colour {
			t.Errorf("NO_COLOR=%q: %q", name, got)
		}
		_ = out.Close()
		_ = tty.Close()
	}
}

// What passes between a running agent and its meters is heard, and the agent polls
// on; without an agent the line itself is listened to, and nothing is sent.
func TestSniffListens(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "gridgate", "metersim")
	link := startSim(t, bin, "modbus", "-model", "eastron-sdm630")
	dir, err := os.MkdirTemp("", "gg") // t.TempDir is too long for a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "control.sock")
	config := write(t, "g.yaml", strings.NewReplacer("DIR", dir, "dlms+wrapper://127.0.0.1:4059", "modbus+rtu://"+link+"?unit=1&model=eastron-sdm630", "A1", "20260001").Replace(wellFormed))
	gridgate := filepath.Join(bin, "gridgate")
	agent := proctest.Start(t, nil, gridgate, "run", "-config", config)
	agent.Await("gridgate runs")
	visits := func() uint64 {
		r, err := status.Ask(t.Context(), socket)
		if err != nil || len(r.Meters) != 1 {
			t.Fatalf("%v: %+v", err, r.Meters)
		}
		return r.Meters[0].Rows
	}
	sniff := proctest.Start(t, nil, gridgate, "sniff", "serial://"+link, "-control", socket)
	sniff.Await("listening to what the agent")
	sniff.Await("2 registers from 0x0048 = ")
	before := visits()
	proctest.Until(t, "the meter is read on", func() bool { return visits() > before+1 })
	if code := sniff.Stop(); code != 0 {
		t.Errorf("sniff: %d", code)
	}
	if code := agent.Stop(); code != 0 {
		t.Errorf("agent: %d", code)
	}

	tty, err := drivertest.Pty()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tty.Close() }()
	alone := proctest.Start(t, nil, gridgate, "sniff", "serial://"+tty.Path, "-control", socket)
	alone.Await("listening on")
	if _, err := tty.Write([]byte("\x11\x03\x00\x6B\x00\x03\x76\x87")); err != nil {
		t.Fatal(err)
	}
	alone.Await("unit 17: read holding registers 0x006B (107) × 3")
	if code := alone.Stop(); code != 0 {
		t.Errorf("sniff: %d", code)
	}
}
