package modbus

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// start runs a program until the test ends and gives the first line with
// ready in it. A program that is not there fails the test.
func start(t *testing.T, ready, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, name, args...)
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatalf("%s: %v (scripts/setup.sh installs it)", name, err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = cmd.Wait() // killed by us, most likely
		_ = w.Close()
	})
	found, all := make(chan string, 1), strings.Builder{}
	wg.Go(func() {
		defer close(found)
		for lines := bufio.NewScanner(r); lines.Scan(); {
			fmt.Fprintln(&all, lines.Text())
			if strings.Contains(lines.Text(), ready) {
				select {
				case found <- lines.Text():
				default:
				}
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if t.Failed() {
			t.Logf("%s: %s", name, all.String())
		}
	})
	text, ok := <-found
	if !ok {
		t.Fatalf("%s ended", name)
	}
	return text
}

// terminals gives the two ends of a pair of pseudo-terminals.
func terminals(t *testing.T) (a, b string) {
	t.Helper()
	dir := t.TempDir()
	a, b = filepath.Join(dir, "a"), filepath.Join(dir, "b")
	start(t, "starting data transfer", "socat", "-d", "-d", "pty,rawer,link="+a, "pty,rawer,link="+b)
	return a, b
}

// sdm630 is the map of testdata/peer.py, with one register that it refuses.
func sdm630() (*Model, map[meter.Channel]float32) {
	want := map[meter.Channel]float32{}
	m := &Model{
		Name: "sdm630", MaxRegs: 40, Holes: true,
		Serial: &Register{Function: 3, Address: 0xFC00, Type: U32},
		Checks: []Check{{"1-0:32.7.0*255/3:2", 80, 480}, {"1-0:14.7.0*255/3:2", 45, 65}},
	}
	for _, r := range []struct {
		code    string
		address uint16
		value   float32
	}{
		{"32.7.0", 0x00, 230.1},
		{"52.7.0", 0x02, 231.2},
		{"72.7.0", 0x04, 232.3},
		{"31.7.0", 0x06, 1.25},
		{"51.7.0", 0x08, 2.5},
		{"71.7.0", 0x0A, 3.75},
		{"36.7.0", 0x0C, 287.5},
		{"56.7.0", 0x0E, -578},
		{"76.7.0", 0x10, 871.125},
		{"16.7.0", 0x34, 580.625},
		{"131.7.0", 0x3C, -12.5},
		{"13.7.0", 0x3E, 0.98},
		{"14.7.0", 0x46, 49.98},
		{"1.8.0", 0x48, 1234.567},
		{"2.8.0", 0x4A, 0.5},
		{"3.8.0", 0x4C, 77.25},
		{"4.8.0", 0x4E, 8},
		{"99.7.0", 0x60, 0}, // the peer has none
	} {
		c := meter.Channel("1-0:" + r.code + "*255/3:2")
		m.Registers = append(m.Registers, Register{Channel: c, Function: 4, Address: r.address, Type: F32})
		want[c] = r.value
	}
	return m, want
}

// The driver reads a Modbus server of other hands. The server refuses reads
// across registers that it has not, so the requests are split as well.
func TestPymodbus(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind      string
		transport Transport
	}{{"tcp", TCP}, {"rtuovertcp", RTUOverTCP}, {"rtu", RTU}} {
		t.Run(c.kind, func(t *testing.T) {
			t.Parallel()
			var l *line.Line
			if c.transport == RTU {
				ours, theirs := terminals(t)
				start(t, "ready", "/usr/bin/python3", "testdata/peer.py", c.kind, theirs)
				l = serialLine(t, ours)
			} else {
				port := strings.TrimPrefix(start(t, "ready", "/usr/bin/python3", "testdata/peer.py", c.kind), "ready ")
				l = closing(t, line.TCP("127.0.0.1:"+port, line.Options{}))
			}
			readPeer(t, l, c.transport)
		})
	}
}

// readPeer reads all that a peer has, twice.
func readPeer(t *testing.T, l *line.Line, transport Transport) {
	t.Helper()
	model, want := sdm630()
	m := New(Config{
		ID: "m", Serial: "19451234", Unit: 7, Transport: transport, Settings: settings, Model: model,
		Timeout: 10 * time.Second, Now: clock(),
	}, l)
	for range 2 {
		got, err := m.Visit(t.Context(), ask())
		if err != nil {
			t.Fatal(err)
		}
		if !got.Identity.Proven || got.Identity.Found != "19451234" {
			t.Errorf("identity %+v", got.Identity)
		}
		if len(got.Rows) != len(want)-1 || len(got.Failures) != 1 || got.Failures[0].Channel != "1-0:99.7.0*255/3:2" {
			t.Errorf("%d rows, failures %v", len(got.Rows), got.Failures)
		}
		t.Logf("%d rows of %s, refused: %v", len(got.Rows), got.Identity.Found, got.Failures)
		for _, row := range got.Rows {
			if row.Value != meter.Float32Value(math.Float32bits(want[row.Channel]), 0) || row.Quality != 0 {
				t.Errorf("%s: %v %v, want %v", row.Channel, row.Value, row.Quality, want[row.Channel])
			}
		}
	}
}

// The driver reads a server of libmodbus, which has no holes but an end.
func TestLibmodbus(t *testing.T) {
	t.Parallel()
	peer := filepath.Join(t.TempDir(), "peer")
	if out, err := exec.CommandContext(t.Context(), "gcc", "-O1", "-Wall", "-I/usr/include/modbus", "-o", peer, "testdata/peer.c", "-lmodbus").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s(scripts/setup.sh installs libmodbus-dev)", err, out)
	}
	t.Run("tcp", func(t *testing.T) {
		t.Parallel()
		port := strings.TrimPrefix(start(t, "ready", peer, "tcp"), "ready ")
		readPeer(t, closing(t, line.TCP("127.0.0.1:"+port, line.Options{})), TCP)
	})
	t.Run("rtu", func(t *testing.T) {
		t.Parallel()
		ours, theirs := terminals(t)
		start(t, "ready", peer, "rtu", theirs)
		readPeer(t, serialLine(t, ours), RTU)
	})
}

// Another unit on the same line is silent, and says so.
func TestPymodbusSilentUnit(t *testing.T) {
	t.Parallel()
	ours, theirs := terminals(t)
	start(t, "ready", "/usr/bin/python3", "testdata/peer.py", "rtu", theirs)
	l := serialLine(t, ours)
	model, _ := sdm630()
	for _, unit := range []uint8{8, 7, 8, 7} {
		timeout := 10 * time.Second
		if unit == 8 {
			timeout = 100 * time.Millisecond
		}
		m := New(Config{ID: "m", Unit: unit, Transport: RTU, Settings: settings, Model: model, Timeout: timeout, Now: clock()}, l)
		got, err := m.Visit(t.Context(), ask("1-0:14.7.0*255/3:2"))
		if unit == 7 && (err != nil || len(got.Rows) != 1) || unit == 8 && err == nil {
			t.Errorf("unit %d: %v, %v", unit, got.Rows, err)
		}
	}
}
