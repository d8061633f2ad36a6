package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"gridgate/configs"
	"gridgate/drivers/line"
	"gridgate/drivers/modbus"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
)

// simulate runs the verb until the test ends, or stop is called, and gives the
// lines that it prints: address, "unit", unit, "serial", serial.
func simulate(t *testing.T, lines int, args ...string) (printed [][]string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	var stderr bytes.Buffer
	done := make(chan int, 1)
	go func() {
		p := cli.Program{Name: "metersim", Verbs: []cli.Verb{modbusVerb()}}
		code := p.Run(ctx, cli.Env{Stdout: w, Stderr: &stderr}, append([]string{"modbus"}, args...))
		_ = w.Close()
		done <- code
	}()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			if code := <-done; code != 0 {
				t.Errorf("metersim ended with %d: %s", code, stderr.String())
			}
		}
	}
	t.Cleanup(stop)
	for scanner := bufio.NewScanner(r); len(printed) < lines && scanner.Scan(); {
		printed = append(printed, strings.Fields(scanner.Text()))
	}
	if len(printed) != lines {
		t.Fatalf("printed %v", printed)
	}
	return printed, stop
}

// stamps gives the machine's time.
func stamps() meter.Stamp { return meter.Stamp{Time: time.Now().UnixMilli()} }

// mbpoll reads with an independent client and gives the numbers that it
// prints, by register.
func mbpoll(t *testing.T, args ...string) map[int]float64 {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "mbpoll", append([]string{"-1", "-0", "-B", "-q"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("mbpoll %v: %v: %s", args, err, out)
	}
	values := map[int]float64{}
	for _, m := range regexp.MustCompile(`(?m)^\[(\d+)\]:\s+(\S+)`).FindAllStringSubmatch(string(out), -1) {
		at, aerr := strconv.Atoi(m[1])
		v, verr := strconv.ParseFloat(m[2], 64)
		if err := errors.Join(aerr, verr); err != nil {
			t.Fatal(err)
		}
		values[at] = v
	}
	return values
}

func TestMbpollReadsTheSimulatedMeters(t *testing.T) {
	t.Parallel()
	onTCP, _ := simulate(t, 2, "-listen", "127.0.0.1:0", "-count", "2")
	link := filepath.Join(t.TempDir(), "sub", "rs485")
	onPty, stop := simulate(t, 3, "-pty", "-count", "3", "-model", "eastron-sdm120", "-link", link)
	for i, where := range append(onTCP, onPty...) {
		host, port, _ := strings.Cut(where[0], ":")
		args := []string{"-m", "tcp", "-p", port, "-a", where[2], host}
		if port == "" {
			args = []string{"-m", "rtu", "-b", "9600", "-P", "none", "-a", where[2], host}
		}
		serial := mbpoll(t, append([]string{"-t", "4:int", "-r", "64512", "-c", "1"}, args...)...)[0xFC00]
		if strconv.Itoa(int(serial)) != where[4] {
			t.Errorf("%v: serial %v", where, serial)
		}
		values := mbpoll(t, append([]string{"-t", "3:float", "-r", "0", "-c", "40"}, args...)...)
		volt, amp, watt, hertz, kwh := values[0], values[6], values[0x0C], values[0x46], values[0x48]
		if volt < 220 || volt > 240 || hertz < 49.9 || hertz > 50.1 || amp <= 0 || watt <= 0 || watt > volt*amp || kwh <= 0 {
			t.Errorf("%v: %v", where, values)
		}
		if three := values[2] != 0; three != (i < 2) {
			t.Errorf("%v: phase 2 has %v V", where, values[2])
		}
	}
	stop()
	if _, err := os.Lstat(link); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the link stayed: %v", err)
	}
}

// The driver with the built-in maps reads the simulated meters, with every
// fault there is, and never reads anything but what the meter has.
func TestDriverReadsTheSimulatedMeters(t *testing.T) {
	t.Parallel()
	all := strings.Join(modbusFaults(), ",")
	for _, c := range []struct {
		model     string
		transport modbus.Transport
		faults    string
	}{
		{"eastron-sdm630", modbus.TCP, ""},
		{"eastron-sdm120", modbus.RTU, ""},
		{"eastron-sdm630", modbus.TCP, all},
		{"eastron-sdm630", modbus.RTU, all},
	} {
		t.Run(fmt.Sprintf("%s %d %s", c.model, c.transport, c.faults), func(t *testing.T) {
			t.Parallel()
			args := []string{"-count", "2", "-model", c.model, "-faults", c.faults, "-every", "3", "-serial", "777"}
			if c.transport == modbus.TCP {
				args = append(args, "-listen", "127.0.0.1:0")
			} else {
				args = append(args, "-pty")
			}
			timeout := 10 * time.Second
			if c.faults != "" {
				timeout = 100 * time.Millisecond
			}
			where, _ := simulate(t, 2, args...)
			shared := line.Serial(where[0][0], line.Options{LockDir: t.TempDir()})
			defer shared.Close()
			for i, w := range where {
				l := shared
				if c.transport == modbus.TCP {
					l = line.TCP(w[0], line.Options{})
					defer l.Close()
				}
				model, err := configs.Model(c.model)
				if err != nil {
					t.Fatal(err)
				}
				unit, _ := strconv.Atoi(w[2])
				readMeter(t, modbus.New(modbus.Config{
					ID: "m", Serial: strconv.Itoa(777 + i), Unit: uint8(unit), Transport: c.transport,
					Model: model, Timeout: timeout, Now: stamps,
				}, l), model, c.faults != "")
			}
		})
	}
}

// readMeter visits a meter some times. Without faults every value comes; with
// faults what comes is right: plausible, and with energies that do not run
// backwards.
func readMeter(t *testing.T, m *modbus.Meter, model *modbus.Model, faults bool) {
	t.Helper()
	last := map[meter.Channel]float64{}
	rows := 0
	for range 12 {
		got, err := m.Visit(t.Context(), meter.Ask{Groups: []meter.Group{{Lane: meter.Instant}}})
		if !faults && (err != nil || !got.Identity.Proven || len(got.Rows) != len(model.Registers)) {
			t.Fatalf("%+v, %d rows, %v", got.Identity, len(got.Rows), err)
		}
		rows += len(got.Rows)
		for _, row := range got.Rows {
			v := row.Value.Float64()
			switch row.Unit {
			case meter.WattHour, meter.VarHour:
				if v < last[row.Channel] || last[row.Channel] > 0 && v > last[row.Channel]+100 {
					t.Errorf("%s went from %v to %v", row.Channel.Short(), last[row.Channel], v)
				}
			case meter.Volt:
				if v < 220 || v > 240 {
					t.Errorf("%v V", v)
				}
			default:
			}
			last[row.Channel] = v
			if row.Quality != 0 {
				t.Errorf("%s: %v %v", row.Channel.Short(), v, row.Quality)
			}
		}
	}
	if rows == 0 {
		t.Error("nothing was read")
	}
}

func TestGoldenAnswers(t *testing.T) {
	t.Parallel()
	m := &modbusMeter{unit: 1, serial: 0x12345678, phases: 3, now: func() time.Time { return time.Unix(1_800_000_000, 0) }}
	for _, c := range []struct{ name, request, answer string }{
		{"serial number", "\x03\xFC\x00\x00\x02", "\x03\x04\x12\x34\x56\x78"},
		{"its low half", "\x03\xFC\x01\x00\x01", "\x03\x02\x56\x78"},
		{"export is 12.5 kWh", "\x04\x00\x4A\x00\x02", "\x04\x04\x41\x48\x00\x00"},
		{"a hole", "\x04\x01\x00\x00\x02", "\x04\x04\x00\x00\x00\x00"},
		{"beyond the map", "\x04\x01\x7F\x00\x02", "\x84\x02"},
		{"beyond the serial number", "\x03\xFC\x00\x00\x03", "\x83\x02"},
		{"no register", "\x04\x00\x00\x00\x00", "\x84\x03"},
		{"too many", "\x04\x00\x00\x00\x51", "\x84\x03"},
		{"cut short", "\x04\x00\x00\x00", "\x84\x03"},
		{"another function", "\x06\x00\x00\x00\x00", "\x86\x01"},
	} {
		if got := m.answer([]byte(c.request)); string(got) != c.answer {
			t.Errorf("%s: got % X, want % X", c.name, got, c.answer)
		}
	}
	// The manufacturer's own example.
	if got := addCRC([]byte{1, 4, 0, 0, 0, 2}); !bytes.Equal(got, []byte{1, 4, 0, 0, 0, 2, 0x71, 0xCB}) || !crcGood(got) {
		t.Errorf("CRC gave % X", got)
	}
}

// Energy is what power adds up to.
func TestEnergyIsTheIntegralOfPower(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	m := &modbusMeter{phases: 3, number: 4, now: func() time.Time { return now }}
	before, sum := m.registers()[0x48], 0.0
	const step = time.Second
	for range 3600 {
		now = now.Add(step / 2)
		sum += m.registers()[0x34] * step.Hours() / 1000
		now = now.Add(step / 2)
	}
	if got := m.registers()[0x48] - before; math.Abs(got-sum) > 1e-4*sum {
		t.Errorf("an hour added %v kWh, the power %v", got, sum)
	}
}

func TestModbusUsage(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-model x":            "want one of eastron-sdm120, eastron-sdm630",
		"-faults late,x":      "want some of late,split,",
		"-count 0":            "want 1 to 247",
		"-link x":             "-link needs -pty",
		"-listen x":           "want host:port",
		"-every 0":            "want 1 or more",
		"-serial 99999999999": "want at most",
		"extra":               "unexpected argument",
	} {
		var stderr bytes.Buffer
		p := cli.Program{Name: "metersim", Verbs: []cli.Verb{modbusVerb()}}
		code := p.Run(t.Context(), cli.Env{Stdout: io.Discard, Stderr: &stderr}, append([]string{"modbus"}, strings.Fields(args)...))
		if code != 2 || !strings.Contains(stderr.String(), want) {
			t.Errorf("%s: %d %s", args, code, stderr.String())
		}
	}
}
