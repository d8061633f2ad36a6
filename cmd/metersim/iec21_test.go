package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gridgate/drivers/iec21"
	"gridgate/drivers/line"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
)

// startIEC21 runs the verb and gives the line that it says.
func startIEC21(t *testing.T, o iec21Options) (where string) {
	t.Helper()
	if o.every == 0 {
		o.every = 5
	}
	if o.mode == "" {
		o.mode = "c"
	}
	if o.baud == 0 {
		o.baud = 9600
	}
	if o.count == 0 {
		o.count = 1
	}
	o.listen, o.capture = "127.0.0.1:0", 15*time.Minute
	o.serial = 50000001
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- runIEC21(ctx, cli.Env{Stdout: w}, o) }()
	t.Cleanup(func() {
		cancel()
		_ = r.Close()
		if err := <-done; err != nil {
			t.Errorf("metersim: %v", err)
		}
	})
	said := bufio.NewScanner(r)
	if !said.Scan() {
		t.Fatal("it says nothing")
	}
	where, _, _ = strings.Cut(said.Text(), " ")
	go func() {
		for said.Scan() {
		}
	}()
	return where
}

func iec21Reader(t *testing.T, where string, c iec21.Config) *iec21.Meter {
	t.Helper()
	l := line.TCP(where, line.Options{})
	if strings.HasPrefix(where, "/") {
		l = line.Serial(where, line.Options{LockDir: t.TempDir()})
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	c.ID, c.TimeZone = "m", time.Local
	c.Now = func() meter.Stamp {
		return meter.Stamp{Time: time.Now().UnixMilli(), Mono: time.Now().UnixMilli()}
	}
	return iec21.New(c, l)
}

func registers(t *testing.T, codes ...string) []meter.Group {
	t.Helper()
	g := meter.Group{Lane: meter.Billing}
	for _, s := range codes {
		c, err := meter.ParseChannel(s)
		if err != nil {
			t.Fatal(err)
		}
		g.Channels = append(g.Channels, c)
	}
	return []meter.Group{g}
}

// TestIEC21Modes reads each mode, over TCP and on a pseudo-terminal.
func TestIEC21Modes(t *testing.T) {
	t.Parallel()
	link := filepath.Join(t.TempDir(), "optical")
	for name, o := range map[string]iec21Options{
		"a": {mode: "a", baud: 300}, "a bare": {mode: "a", baud: 300, bare: true}, "b": {mode: "b"}, "c": {}, "pty": {pty: true, link: link, pace: 300},
		"two": {count: 2, faults: "echo"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := iec21Reader(t, startIEC21(t, o), iec21.Config{Serial: "50000001", Address: "50000001"})
			got, err := m.Visit(t.Context(), meter.Ask{Groups: registers(t, "1-0:1.8.0", "0-0:97.97.0", "1-0:1.6.0/4:5"), Clock: true})
			if err != nil || len(got.Rows) != 3 || len(got.Failures) > 0 || got.Identity.Proven == o.bare {
				t.Fatalf("%v %+v %v", err, got.Rows, got.Failures)
			}
			want, _ := household{number: 0}.energy(time.Now())
			if v := got.Rows[0]; v.Unit != meter.WattHour || v.Value.Float64() < want-10 || v.Value.Float64() > want+1 {
				t.Errorf("energy %+v, want about %f", v, want)
			}
			if c := got.Clock; c == nil || c.Offset.Abs() > c.Uncertainty+time.Second {
				t.Errorf("clock %+v", c)
			}
		})
	}
}

func TestIEC21Programming(t *testing.T) {
	t.Parallel()
	where := startIEC21(t, iec21Options{password: "12345678", pty: true})
	m := iec21Reader(t, where, iec21.Config{Password: []byte("12345678"), Serial: "50000001", Mode: iec21.Programming})
	profile := meter.Channel("1-0:99.1.0*255/7:2")
	since := time.Now().Add(-50 * time.Hour)
	got, err := m.Visit(t.Context(), meter.Ask{
		Groups: registers(t, "1-0:1.8.0", "1-0:3.8.0"), Clock: true,
		Profiles: []meter.Profile{{Channel: profile, Since: since.UnixMilli(), Lane: meter.Interval}},
	})
	if err != nil || len(got.Failures) > 0 || !got.Identity.Proven || got.Clock == nil || len(got.Cursors) != 1 {
		t.Fatalf("%v %v %+v %+v", err, got.Failures, got.Identity, got.Cursors)
	}
	at, rows := since.Truncate(15*time.Minute).Add(15*time.Minute), 0
	for _, r := range got.Rows[2:] {
		if r.Channel != "1-0:1.8.0*255/3:2" {
			continue
		}
		drawn, _ := household{}.energy(at)
		if r.Stamp.Time != at.UnixMilli() || r.Value.Float64() > drawn || r.Value.Float64() < drawn-1.5 || r.Period != 900 {
			t.Fatalf("row %d at %v: %+v, want %f at %v", rows, r.Stamp.UTC(), r, drawn, at)
		}
		rows++
		at = at.Add(15 * time.Minute)
	}
	if rows < 199 || rows > 201 {
		t.Errorf("%d rows of 50 h", rows)
	}
	m = iec21Reader(t, startIEC21(t, iec21Options{password: "12345678"}), iec21.Config{Password: []byte("1"), Mode: iec21.Programming})
	if _, err := m.Visit(t.Context(), meter.Ask{}); !errors.Is(err, meter.ErrAuthentication) {
		t.Errorf("wrong password: %v", err)
	}
}

// TestIEC21Faults spoils messages: no value that the meter does not have.
func TestIEC21Faults(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"noise", "bcc", "cut", "parity"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			m := iec21Reader(t, startIEC21(t, iec21Options{faults: fault, every: 4}), iec21.Config{Timeout: 300 * time.Millisecond})
			good := 0
			for range 3 {
				before, _ := household{}.energy(time.Now())
				got, err := m.Visit(t.Context(), meter.Ask{Groups: registers(t, "1-0:1.8.0", "0-0:96.1.0")})
				if err != nil {
					if len(got.Rows) > 0 || !errors.Is(err, meter.ErrGarbled) && !errors.Is(err, meter.ErrNoAnswer) {
						t.Fatalf("%v %+v", err, got.Rows)
					}
					continue
				}
				if good++; len(got.Rows) != 2 || got.Rows[0].Value.Float64() < before-2 || got.Rows[0].Value.Float64() > before+2 || got.Rows[1].Value.String() != "50000001" {
					t.Fatalf("%+v, want about %f", got.Rows, before)
				}
			}
			if good < 2 {
				t.Errorf("%d of 3 visits read", good)
			}
		})
	}
}

func TestIEC21Options(t *testing.T) {
	t.Parallel()
	good := iec21Options{count: 1, mode: "c", baud: 9600, every: 5, capture: time.Minute, serial: 1}
	for name, change := range map[string]func(*iec21Options){
		"-count": func(o *iec21Options) { o.count = 0 }, "-mode": func(o *iec21Options) { o.mode = "e" },
		"-baud": func(o *iec21Options) { o.baud = 1201 }, "-pace": func(o *iec21Options) { o.pace = -1 },
		"-bare": func(o *iec21Options) { o.bare = true }, "-capture": func(o *iec21Options) { o.capture = time.Second },
		"-link": func(o *iec21Options) { o.link = "x" }, "-faults": func(o *iec21Options) { o.faults = "x" },
		"-every": func(o *iec21Options) { o.every = 0 }, "-password": func(o *iec21Options) { o.password = strings.Repeat("1", 33) },
	} {
		o := good
		change(&o)
		err := runIEC21(t.Context(), cli.Env{Stdout: os.Stderr}, o)
		if name == "-faults" && err != nil {
			continue
		}
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
