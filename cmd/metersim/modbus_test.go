package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
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
	out, err := exec.CommandContext(t.Context(), "mbpoll", append([]string{"-1", "-0", "-q"}, args...)...).CombinedOutput()
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
		serial := mbpoll(t, append([]string{"-B", "-t", "4:int", "-r", "64512", "-c", "1"}, args...)...)[0xFC00]
		if strconv.Itoa(int(serial)) != where[4] {
			t.Errorf("%v: serial %v", where, serial)
		}
		values := mbpoll(t, append([]string{"-B", "-t", "3:float", "-r", "0", "-c", "20"}, args...)...)
		maps.Copy(values, mbpoll(t, append([]string{"-B", "-t", "3:float", "-r", "66", "-c", "7"}, args...)...))
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

// mbpoll reads every type that it knows, of meters with other word orders, and
// is refused where the map has a hole.
func TestMbpollReadsOtherTypes(t *testing.T) {
	t.Parallel()
	at := func(model string) []string {
		where, _ := simulate(t, 1, "-listen", "127.0.0.1:0", "-model", model)
		host, port, _ := strings.Cut(where[0][0], ":")
		return []string{"-m", "tcp", "-p", port, "-a", "1", host}
	}
	for _, c := range []struct {
		model, function, order string
		address, count         int
		low, high              float64 // of each
	}{
		{"carlo-gavazzi-em340", "3:int", "", 0x00, 3, 2270, 2360},   // s32, low word first, 0.1 V
		{"carlo-gavazzi-em340", "3", "", 0x33, 1, 499, 501},         // u16, 0.1 Hz
		{"abb-b23", "4:int", "-B", 0x5B00, 3, 2270, 2360},           // u32, high word first, 0.1 V
		{"abb-b23", "4", "", 0x5B2C, 1, 4997, 5003},                 // u16, 0.01 Hz
		{"abb-b23", "4", "", 0x5B3A, 4, 950, 960},                   // s16, 0.001
		{"phoenix-eem-ma370", "4:float", "", 0x8006, 3, 227, 236},   // f32, low word first
		{"chint-dtsu666", "4:float", "-B", 0x2006, 3, 2270, 2360},   // f32, high word first, 0.1 V
		{"socomec-countis-e34", "4", "", 0xC350, 4, 0x0043, 0x0053}, // "SOCO"
		{"carlo-gavazzi-em24-e1", "3", "", 0x000B, 1, 1648, 1653},   // the model
		{"siemens-pac3200", "4:float", "-B", 55, 1, 49.97, 50.03},   // f32 at an odd address
		{"dzg-dvh4013", "4:int", "-B", 0x0012, 1, 49970, 50030},     // u32, 0.001 Hz
	} {
		args := append([]string{"-t", c.function, "-r", strconv.Itoa(c.address), "-c", strconv.Itoa(c.count)}, at(c.model)...)
		if c.order != "" {
			args = append([]string{c.order}, args...)
		}
		values := mbpoll(t, args...)
		if len(values) != c.count {
			t.Errorf("%v gave %v", args, values)
		}
		for _, v := range values {
			if v < c.low || v > c.high {
				t.Errorf("%v gave %v, want %v to %v", args, values, c.low, c.high)
			}
		}
	}
	args := append([]string{"-1", "-0", "-q", "-t", "4", "-r", strconv.Itoa(0x5B06), "-c", "2"}, at("abb-b23")...)
	if out, err := exec.CommandContext(t.Context(), "mbpoll", args...).CombinedOutput(); err == nil || !strings.Contains(string(out), "Illegal data address") {
		t.Errorf("across a hole: %v: %s", err, out)
	}
}

// Every built-in map is a meter that can be simulated, and that the driver
// reads whole, without a refusal and with the identity that the map asks for.
func TestDriverReadsEveryModel(t *testing.T) {
	t.Parallel()
	var list bytes.Buffer
	p := cli.Program{Name: "metersim", Verbs: []cli.Verb{modbusVerb()}}
	if code := p.Run(t.Context(), cli.Env{Stdout: &list, Stderr: &list}, []string{"modbus", "-model", "list"}); code != 0 {
		t.Fatal(list.String())
	}
	names := strings.Fields(list.String())
	if !slices.Equal(names, configs.ModelNames()) {
		t.Fatalf("-model list: %v", names)
	}
	for _, name := range names {
		model, err := configs.Model(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range []modbus.Transport{modbus.TCP, modbus.RTU, modbus.RTUOverTCP} {
			t.Run(fmt.Sprintf("%s %d", name, kind), func(t *testing.T) {
				t.Parallel()
				args := map[modbus.Transport]string{modbus.TCP: "-listen 127.0.0.1:0", modbus.RTU: "-pty", modbus.RTUOverTCP: "-rtu -listen 127.0.0.1:0"}[kind]
				where, _ := simulate(t, 1, append(strings.Fields(args), "-model", name, "-serial", "4711")...)
				l := line.TCP(where[0][0], line.Options{})
				if kind == modbus.RTU {
					l = line.Serial(where[0][0], line.Options{LockDir: t.TempDir()})
				}
				defer l.Close()
				m := modbus.New(modbus.Config{ID: "m", Unit: 1, Transport: kind, Settings: line.Settings{Baud: 115200}, Model: model, Timeout: 20 * time.Second, Now: stamps}, l)
				ask := meter.Ask{Groups: []meter.Group{{Lane: meter.Instant}}}
				if len(energies(model)) > 0 { // no channels would be all
					ask.Groups = append(ask.Groups, meter.Group{Lane: meter.Billing, Channels: energies(model)})
				}
				got, err := m.Visit(t.Context(), ask)
				if err != nil || len(got.Failures) > 0 || len(got.Rows) != len(model.Registers)+len(energies(model)) {
					t.Fatalf("%d rows, %v, %v", len(got.Rows), got.Failures, err)
				}
				if model.Serial != nil && got.Identity.Found != "4711" {
					t.Errorf("identity %+v", got.Identity)
				}
				var quality meter.Quality
				if model.Serial == nil && !slices.ContainsFunc(model.Identity, func(i modbus.Identity) bool { return len(i.Want) > 0 }) {
					quality = meter.IdentityNotProven
				}
				for _, row := range got.Rows {
					if row.Quality != quality || !row.Value.IsNumber() || !plausible(row) {
						t.Errorf("%s: %v %v %v", row.Channel.Short(), row.Value, row.Unit, row.Quality)
					}
				}
			})
		}
	}
}

func energies(model *modbus.Model) []meter.Channel {
	var all []meter.Channel
	for _, r := range model.Registers {
		if r.Unit == meter.WattHour {
			all = append(all, r.Channel)
		}
	}
	return all
}

// plausible says whether a row is what a household has.
func plausible(row meter.Row) bool {
	v := row.Value.Float64()
	switch row.Unit {
	case meter.Volt:
		return v > 220 && v < 240
	case meter.Hertz:
		return v > 49.9 && v < 50.1
	case meter.Ampere:
		return v > 0.1 && v < 20
	case meter.Watt, meter.Var:
		return v >= 0 && v < 3000
	case meter.WattHour, meter.VarHour:
		return v >= 800 && v < 1e8
	case meter.NoUnit:
		return v > 0.95 && v < 0.96
	default:
		return false
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
	model, err := configs.Model("eastron-sdm630")
	if err != nil {
		t.Fatal(err)
	}
	m := &modbusMeter{unit: 1, serial: 0x12345678, model: model, now: func() time.Time { return time.Unix(1_800_000_000, 0) }}
	for _, c := range []struct{ name, request, answer string }{
		{"serial number", "\x03\xFC\x00\x00\x02", "\x03\x04\x12\x34\x56\x78"},
		{"its low half", "\x03\xFC\x01\x00\x01", "\x03\x02\x56\x78"},
		{"export is 12.5 kWh", "\x04\x00\x4A\x00\x02", "\x04\x04\x41\x48\x00\x00"},
		{"a hole", "\x04\x00\x12\x00\x02", "\x04\x04\x00\x00\x00\x00"},
		{"beyond the map", "\x04\x00\x4F\x00\x02", "\x84\x02"},
		{"beyond the serial number", "\x03\xFC\x00\x00\x03", "\x83\x02"},
		{"no register", "\x04\x00\x00\x00\x00", "\x84\x03"},
		{"too many", "\x04\x00\x00\x00\x29", "\x84\x03"},
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
	m := &modbusMeter{number: 4, model: &modbus.Model{}, now: func() time.Time { return now }}
	before, sum := m.value("1-0:1.8.0*255/3:2"), 0.0
	const step = time.Second
	for range 3600 {
		now = now.Add(step / 2)
		sum += m.value("1-0:16.7.0*255/3:2") * step.Hours()
		now = now.Add(step / 2)
	}
	if got := m.value("1-0:1.8.0*255/3:2") - before; math.Abs(got-sum) > 1e-4*sum {
		t.Errorf("an hour added %v Wh, the power %v", got, sum)
	}
}

func TestModbusUsage(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-model x":                    "want one of abb-b23, ",
		"-faults late,x":              "want some of late,split,",
		"-count 0":                    "want 1 to 247",
		"-link x":                     "-link needs -pty",
		"-listen x":                   "want host:port",
		"-rtu -pty":                   "-rtu is for -listen",
		"-every 0":                    "want 1 or more",
		"-serial 99999999999":         "want at most",
		"extra":                       "unexpected argument",
		"-units 0":                    "want numbers from 1 to 247",
		"-units 1,x":                  "want numbers from 1 to 247",
		"-baud 9600":                  "-baud is for -pty",
		"-pty -baud 9":                "want 300 to",
		"-pty -baud 9600 -format 5N1": "want 8N1",
	} {
		var stderr bytes.Buffer
		p := cli.Program{Name: "metersim", Verbs: []cli.Verb{modbusVerb()}}
		code := p.Run(t.Context(), cli.Env{Stdout: io.Discard, Stderr: &stderr}, append([]string{"modbus"}, strings.Fields(args)...))
		if code != 2 || !strings.Contains(stderr.String(), want) {
			t.Errorf("%s: %d %s", args, code, stderr.String())
		}
	}
}
