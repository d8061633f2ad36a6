package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/dlmstest"
	"gridgate/drivers/cosem"
	"gridgate/drivers/line"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
)

// command runs metersim with args until the test ends, gives the first lines
// that it prints, and stop, which gives the exit code and stderr.
func command(t *testing.T, lines int, args ...string) (printed []string, stop func() (int, string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	var stderr bytes.Buffer
	done := make(chan int, 1)
	go func() {
		p := cli.Program{Name: "metersim", Verbs: []cli.Verb{dlmsVerb(), replayVerb()}}
		code := p.Run(ctx, cli.Env{Stdout: w, Stderr: &stderr}, args)
		_ = w.Close()
		done <- code
	}()
	stop = func() (int, string) {
		cancel()
		code := <-done
		done <- code
		return code, stderr.String()
	}
	t.Cleanup(func() { stop() })
	for scanner := bufio.NewScanner(r); len(printed) < lines && scanner.Scan(); {
		printed = append(printed, scanner.Text())
	}
	return printed, stop
}

// visit reads a simulated meter through the driver.
func visit(t *testing.T, addr string, cfg cosem.Config, ask meter.Ask) (meter.Got, error) {
	t.Helper()
	cfg.ID, cfg.Now = "m", stamps
	l := line.TCP(addr, line.Options{})
	m := cosem.New(cfg, l)
	got, err := m.Visit(t.Context(), ask)
	if err := errors.Join(m.Close(), l.Close()); err != nil {
		t.Error(err)
	}
	return got, err
}

func readings(t *testing.T, names ...string) meter.Ask {
	t.Helper()
	var g meter.Group
	for _, n := range names {
		c, err := meter.ParseChannel(n)
		if err != nil {
			t.Fatal(err)
		}
		g.Channels = append(g.Channels, c)
	}
	return meter.Ask{Groups: []meter.Group{g}}
}

func TestDLMSMeters(t *testing.T) {
	t.Parallel()
	printed, stop := command(t, 4, "dlms", "-listen", "127.0.0.1:0", "-count", "4", "-password", "12345678",
		"-serial-prefix", "T", "-faults", "garbage,serial", "-capture", "30m")
	if len(printed) != 4 {
		t.Fatalf("printed %q", printed)
	}
	var addrs, serials []string
	for _, l := range printed {
		f := strings.Fields(l)
		addrs, serials = append(addrs, f[0]), append(serials, f[2])
	}
	everything := readings(t, "0-0:1.0.0", "0-0:96.1.0", "0-0:42.0.0", "1-0:1.8.0", "1-0:2.8.0", "1-0:3.8.0", "1-0:4.8.0",
		"1-0:1.7.0", "1-0:2.7.0", "1-0:16.7.0", "1-0:14.7.0", "1-0:31.7.0", "1-0:32.7.0", "1-0:51.7.0", "1-0:52.7.0",
		"1-0:71.7.0", "1-0:72.7.0", "1-0:1.6.0", "1-0:1.6.0/4:5")
	everything.Clock = true
	since := time.Now().Add(-41 * 24 * time.Hour)
	everything.Profiles = []meter.Profile{{Channel: "1-0:99.1.0*255/7:2", Since: since.UnixMilli()}}
	got, err := visit(t, addrs[0], cosem.Config{Client: 17, Auth: cosem.AuthLLS, Password: []byte("12345678"), Serial: serials[0]}, everything)
	if err != nil || len(got.Failures) != 0 || !got.Identity.Proven || serials[0] != "T000001" {
		t.Fatalf("%v, identity %+v, failures %v", err, got.Identity, got.Failures)
	}
	if got.Clock == nil || got.Clock.Offset.Abs() > 5*time.Second {
		t.Errorf("clock %+v", got.Clock)
	}
	registers := len(everything.Groups[0].Channels)
	if rows := len(got.Rows) - registers; rows < 2*48*40 || rows > 2*(48*40+1) {
		t.Errorf("%d readings of the load profile, want two in each half hour of 40 days", rows)
	}

	if got, err := visit(t, addrs[1], cosem.Config{Serial: serials[1]}, readings(t, "1-0:1.8.0")); err != nil || !got.Identity.Proven {
		t.Errorf("public client: %v, %+v", err, got.Identity)
	}
	if _, err := visit(t, addrs[1], cosem.Config{Client: 17, Auth: cosem.AuthLLS, Password: []byte("1234567")}, meter.Ask{}); !errors.Is(err, meter.ErrAuthentication) {
		t.Errorf("wrong password: %v", err)
	}
	if got, err := visit(t, addrs[2], cosem.Config{Serial: serials[2]}, meter.Ask{}); err != nil || !got.Identity.Exchanged() {
		t.Errorf("another serial: %v, %+v", err, got.Identity)
	}
	for range 6 {
		if got, err := visit(t, addrs[3], cosem.Config{Timeout: 100 * time.Millisecond}, readings(t, "1-0:1.8.0")); err == nil || len(got.Rows) != 0 {
			t.Errorf("garbage: %v, %+v", err, got.Rows)
		}
	}
	if code, stderr := stop(); code != 0 || stderr != "" {
		t.Errorf("ended with %d: %s", code, stderr)
	}
}

func TestDLMSUsage(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"dlms -count 0":                "-count 0",
		"dlms -faults fire":            `no fault "fire": want garbage, serial, late`,
		"dlms -faults serial,x":        "2 faults for 1 meters",
		"dlms -capture 1500ms":         "-capture 1.5s",
		"dlms -listen nowhere":         `-listen "nowhere"`,
		"dlms -listen :65535 -count 2": "room for 2 ports",
		"dlms now":                     `"now"`,
		"replay":                       "want -trace",

		"dlms -transport udp -auth none -ref sn": "-ref sn is not of -transport udp",
	} {
		if _, stop := command(t, 0, strings.Fields(args)...); true {
			if code, stderr := stop(); code != 2 || !strings.Contains(stderr, want) {
				t.Errorf("%s: %d, %s", args, code, stderr)
			}
		}
	}
	if code, stderr := func() (int, string) {
		_, stop := command(t, 0, "replay", "-trace", "dlms.go")
		return stop()
	}(); code != 1 || !strings.Contains(stderr, "dlms.go: no line of the trace") {
		t.Errorf("%d, %s", code, stderr)
	}
}

const conversation = "../../dlms/testdata/01-wrapper-ln-none-clock-range.txt"

func TestReplay(t *testing.T) {
	t.Parallel()
	printed, stop := command(t, 1, "replay", "-listen", "127.0.0.1:0", "-trace", conversation)
	if len(printed) != 1 {
		t.Fatal("it does not listen")
	}
	got, err := visit(t, strings.Fields(printed[0])[0], cosem.Config{}, readings(t, "1-1:21.25.0", "0-0:1.0.0", "1-0:9.9.9"))
	if err != nil || len(got.Rows) != 2 || got.Rows[0].Value.String() != "0.25" || got.Rows[0].Unit != meter.WattHour ||
		got.Rows[1].Value.String() != "2026-11-22T08:40:23+00:00" || len(got.Failures) != 1 {
		t.Errorf("%v, %+v, %v", err, got.Rows, got.Failures)
	}
	if code, stderr := stop(); code != 0 || !strings.Contains(stderr, "not in the trace: get 1-0:9.9.9*255/3:2") {
		t.Errorf("ended with %d: %s", code, stderr)
	}
}

func TestReplayHDLC(t *testing.T) {
	t.Parallel()
	printed, stop := command(t, 1, "replay", "-listen", "127.0.0.1:0", "-trace", "../../dlms/testdata/02-hdlc-ln-none-clock-range.txt")
	if len(printed) != 1 {
		t.Fatal("it does not listen")
	}
	got, err := visit(t, strings.Fields(printed[0])[0], cosem.Config{HDLC: &cosem.HDLC{}}, readings(t, "1-1:21.25.0", "0-0:1.0.0", "1-0:9.9.9"))
	if err != nil || len(got.Rows) != 2 || got.Rows[0].Value.String() != "0.34" || got.Rows[0].Unit != meter.WattHour ||
		got.Rows[1].Value.String() != "2026-11-22T08:40:26+00:00" || len(got.Failures) != 1 {
		t.Errorf("%v, %+v, %v", err, got.Rows, got.Failures)
	}
	if code, stderr := stop(); code != 0 || !strings.Contains(stderr, "not in the trace: get 1-0:9.9.9*255/3:2") {
		t.Errorf("ended with %d: %s", code, stderr)
	}
}

// TestReplayModeE plays a conversation that begins with a sign-on.
func TestReplayModeE(t *testing.T) {
	t.Parallel()
	for _, strict := range []string{"-strict=false", "-strict"} {
		printed, stop := command(t, 1, "replay", strict, "-listen", "127.0.0.1:0", "-trace", "../../dlms/modee/testdata/09-modeE-hdlc-lls.txt")
		if len(printed) != 1 {
			t.Fatal("it does not listen")
		}
		at := strings.Fields(printed[0])[0]
		if strict == "-strict" { // the driver asks for more than was asked then
			conn, err := net.Dial("tcp", at)
			if err != nil {
				t.Fatal(err)
			}
			for _, turn := range [][2]string{{"/?!\r\n", "/GRX512345678\r\n"}, {"\x06252\r\n", "\x06252\r\n"}} {
				b := make([]byte, len(turn[1]))
				_, werr := conn.Write([]byte(turn[0]))
				if _, err := io.ReadFull(conn, b); err != nil || werr != nil || string(b) != turn[1] {
					t.Errorf("%q: %q, %v, %v", turn[0], b, err, werr)
				}
			}
			_, werr := conn.Write([]byte("no frame of HDLC"))
			_, _ = io.ReadAll(conn) // until it hangs up
			if err := errors.Join(werr, conn.Close()); err != nil {
				t.Error(err)
			}
			if code, stderr := stop(); code != 1 || !strings.Contains(stderr, "line 10: the client sent") {
				t.Errorf("ended with %d: %s", code, stderr)
			}
			continue
		}
		cfg := cosem.Config{Client: 17, Auth: cosem.AuthLLS, Password: dlms.Secret("Gurux"), HDLC: &cosem.HDLC{}, ModeE: &cosem.ModeE{}}
		got, err := visit(t, at, cfg, readings(t, "1-1:21.25.0", "0-0:1.0.0"))
		if err != nil || len(got.Rows) != 2 || got.Rows[0].Value.String() != "1.26" || got.Rows[1].Value.String() != "2026-11-22T08:40:46+00:00" {
			t.Errorf("%v, %+v, %v", err, got.Rows, got.Failures)
		}
		if code, stderr := stop(); code != 0 {
			t.Errorf("ended with %d: %s", code, stderr)
		}
	}
}

func TestStrictReplayRefusesAnotherClient(t *testing.T) {
	t.Parallel()
	printed, stop := command(t, 1, "replay", "-strict", "-listen", "127.0.0.1:0", "-trace", conversation)
	if len(printed) != 1 {
		t.Fatal("it does not listen")
	}
	if _, err := visit(t, strings.Fields(printed[0])[0], cosem.Config{}, meter.Ask{}); err == nil {
		t.Error("the driver's conversation was taken for the captured one")
	}
	if code, stderr := stop(); code != 1 || !strings.Contains(stderr, dlmstest.ErrScript.Error()) {
		t.Errorf("ended with %d: %s", code, stderr)
	}
}

// TestHouseholdAddsUp compares energy with the sum of power, over two days.
func TestHouseholdAddsUp(t *testing.T) {
	t.Parallel()
	for number := range 3 {
		h := household{number: number}
		begin := time.Date(2026, 5, 3, 0, 0, 0, 0, time.UTC)
		const step = time.Minute
		drawn, fed := h.energy(begin)
		for at := begin; at.Before(begin.Add(2 * day)); at = at.Add(step) {
			p, f := h.power(at.Add(step / 2))
			if p <= 0 || f < 0 {
				t.Fatalf("power %v, %v at %v", p, f, at)
			}
			drawn, fed = drawn+p*step.Hours(), fed+f*step.Hours()
			d, f := h.energy(at.Add(step))
			if math.Abs(d-drawn) > 0.1 || math.Abs(f-fed) > 0.1 {
				t.Fatalf("household %d at %v: energy %v and %v, the sum of power %v and %v", number, at, d, f, drawn, fed)
			}
		}
	}
}
