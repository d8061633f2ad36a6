package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gridgate/agent/doctor"
	"gridgate/agent/status"
	"gridgate/drivers/drivertest"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
	"gridgate/internal/sys"
)

const day = 24 * time.Hour

// anyReport is for faults that need the agent and no more.
func anyReport(status.Report) bool { return true }

func stateIs(meter, state string) func(status.Report) bool {
	return func(r status.Report) bool {
		return slices.ContainsFunc(r.Meters, func(m status.Meter) bool { return m.Meter == meter && m.State == state })
	}
}

func modemIs(state string) func(status.Report) bool {
	return func(r status.Report) bool { return r.Modem != nil && r.Modem.State == state }
}

// TestDoctor plants a fault each time; the built gridgate doctor finds it, and says
// what to do.
func TestDoctor(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "gridgate", "metersim")
	for name, c := range map[string]struct {
		plant func(*place)
		level doctor.Level
		check string
		text  string // of the finding
		do    string
	}{
		"a key that is not known": {func(p *place) { p.more = "moder: {}" }, doctor.Fail, "config", "moder", "correct the file"},
		"no such port": {
			func(p *place) { p.unit("m", "/dev/ttyGridgate9", 1, "") },
			doctor.Fail, "port", "/dev/ttyGridgate9: no such port", "is the adapter plugged in?",
		},
		"another program has the port": {func(p *place) {
			p.unit("m", p.modbusLine(1), 1, "")
			proctest.Start(p.t, nil, "sh", "-c", "exec 3<>"+p.path("rs485")+"; echo has it; read -r _ <&3").Await("has it")
		}, doctor.Fail, "port", "is open in sh (pid", "stop sh"},
		"noise": {func(p *place) { p.unit("m", talker(p.t, true), 1, "") }, doctor.Fail, "line", "noise:", "bias"},
		"echo":  {func(p *place) { p.unit("m", talker(p.t, false), 1, "") }, doctor.Warn, "line", "echo:", "jumper"},
		"a meter that is not there": {func(p *place) {
			p.unit("m", p.modbusLine(1), 9, "")
			p.run("it fails", stateIs("m", "failing"))
		}, doctor.Fail, "meters", "m on ", "A and B the right way round"},
		"another meter": {func(p *place) {
			p.unit("m", p.modbusLine(1), 1, "4711")
			p.run("it is exchanged", stateIs("m", "exchanged"))
		}, doctor.Fail, "meters", "m on ", "write its serial,"},
		"a wrong password": {func(p *place) {
			port := proctest.FreePorts(p.t, 1)
			p.sim(fmt.Sprint(port), "dlms", "-listen", fmt.Sprintf("127.0.0.1:%d", port), "-password", "12345678")
			p.meter("m", "", fmt.Sprintf("dlms+wrapper://127.0.0.1:%d?client=17&auth=lls&password=file:%s", port, p.file("pw", "87654321", 0o600)))
			p.run("it is locked", stateIs("m", "locked"))
		}, doctor.Fail, "meters", "is locked", "-force"},
		"damaged answers": {func(p *place) {
			line := p.modbusLine(4, "-faults", "garbage", "-every", "3")
			for i := range 4 {
				p.unit(fmt.Sprintf("m%d", i), line, i+1, "")
				p.meters[i] = strings.Replace(p.meters[i], "timeout=5s", "timeout=500ms", 1) // a damaged answer takes that long
			}
			p.run("it shows", func(r status.Report) bool {
				return len(r.Lines) == 1 && r.Lines[0].Requests >= 20 && r.Lines[0].Damaged*10 > r.Lines[0].Requests
			})
		}, doctor.Fail, "line", "a damaged one (CRC)", "termination"},
		"no broker": {
			func(p *place) { p.broker = fmt.Sprintf("broker: tcp://127.0.0.1:%d", proctest.FreePorts(p.t, 1)) },
			doctor.Fail, "fog", "connection refused", "does the broker run",
		},
		"a name that is none": {func(p *place) { p.broker = "broker: tcp://fog..example" }, doctor.Fail, "dns", "fog..example", "name server"},
		"a password that the broker refuses": {func(p *place) {
			p.mosquitto(mqtttest.Config{User: "g", Password: "right"})
			p.broker += ", username: g, password: file:" + p.file("pw", "wrong", 0o600)
		}, doctor.Fail, "fog", "not authorised", "uplink.username"},
		"the broker's certificate is nobody's": {
			func(p *place) { p.tlsBroker(day, -day, day, false) },
			doctor.Fail, "fog", "signed by unknown authority", "uplink.ca",
		},
		"the broker's certificate is over": {
			func(p *place) { p.tlsBroker(-day, -2*day, day, true) },
			doctor.Fail, "fog", "certificate expired on", "a new certificate",
		},
		"the own certificate is over soon": {
			func(p *place) { p.tlsBroker(400*day, -day, 5*day, true) },
			doctor.Warn, "tls", "uplink.certificate expires in 4 days", "a new one",
		},
		"the own certificate is over": {
			func(p *place) { p.tlsBroker(400*day, -2*day, -day, true) },
			doctor.Fail, "tls", "uplink.certificate: certificate expired on", "a new certificate",
		},
		"another key": {func(p *place) {
			p.tlsBroker(400*day, -day, 400*day, true)
			_, key := p.save("other", certify(p.t, nil, -day, day))
			p.broker = strings.ReplaceAll(p.broker, p.path("own.key"), key)
		}, doctor.Fail, "fog", "private key does not match", "uplink.key"},
		"no secret": {func(p *place) {
			p.mosquitto(mqtttest.Config{})
			p.broker += ", username: g, password: file:" + p.path("nowhere")
		}, doctor.Fail, "secrets", "put the secret into that file", "make the file"},
		"a secret for all": {func(p *place) {
			p.mosquitto(mqtttest.Config{})
			p.broker += ", username: g, password: file:" + p.file("pw", "right", 0o644)
		}, doctor.Fail, "secrets", "may be read by every user", "chmod o="},
		"a configuration that was not applied": {func(p *place) {
			p.run("it runs", anyReport)
			p.more = "mains: {voltage: 230}"
			p.write()
		}, doctor.Warn, "agent", "another configuration than the file's", "reload"},
		"no agent": {func(*place) {}, doctor.Warn, "agent", "no agent runs", "systemctl start gridgate"},
		"a modem without SIM": {func(p *place) {
			p.modemOf("-sim", "out")
			p.run("it shows", modemIs("no SIM"))
		}, doctor.Fail, "modem", "no SIM is in the modem", "until it clicks"},
		"a modem that is refused": {
			func(p *place) { p.modemOf("-registration", "denied") },
			doctor.Fail, "modem", "the network refuses this SIM", "ask the operator",
		},
		"a weak signal": {func(p *place) { p.modemOf("-signal", "-113", "-maker", "sim800") }, doctor.Warn, "modem", "weak signal", "antenna"},
		"a modem that wants its PIN": {func(p *place) {
			p.modemOf("-pin", "1234")
			p.run("it shows", modemIs("PIN wanted"))
		}, doctor.Fail, "modem", "the SIM wants its PIN", "modem.pin"},
		"a modem that is silent": {func(p *place) {
			tty, err := drivertest.Pty()
			if err != nil {
				p.t.Fatal(err)
			}
			p.t.Cleanup(func() { _ = tty.Close() })
			p.more = "modem: {port: " + tty.Path + "}"
		}, doctor.Fail, "modem", "the modem does not answer", "port for AT commands"},
		"no interface": {
			func(p *place) { p.broker = "broker: tcp://127.0.0.1:1, interfaces: [wwan77]" },
			doctor.Warn, "network", "no network interface wwan77", "uplink.interfaces",
		},
		"files of another user": {func(p *place) {
			if err := os.Mkdir(p.path("buffer"), 0o700); err != nil {
				p.t.Fatal(err)
			}
			if os.Getuid() == 0 {
				if err := os.Chown(p.file("buffer/readings.db", "", 0o600), 4711, 4711); err != nil {
					p.t.Fatal(err)
				}
			} else if err := os.Chmod(p.path("buffer"), 0o500); err != nil { // whose files they are only root changes
				p.t.Fatal(err)
			}
		}, doctor.Fail, map[bool]string{true: "files", false: "disk"}[os.Getuid() == 0], p0(os.Getuid() == 0), "chown -R"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, bin)
			c.plant(p)
			if p.agent == nil {
				p.write()
			}
			all, code := p.doctor()
			found := slices.IndexFunc(all, func(f doctor.Finding) bool {
				return f.Level == c.level && f.Check == c.check && strings.Contains(f.Text, c.text) && strings.Contains(f.Do, c.do)
			})
			if found < 0 {
				t.Errorf("want %s %s %q, do %q; got", c.level, c.check, c.text, c.do)
				for _, f := range all {
					t.Log(f)
				}
			}
			for _, f := range all {
				if (f.Do == "") != (f.Level == doctor.OK) || strings.Contains(f.Do, "what it says; else") {
					t.Errorf("no remedy: %s", f)
				}
			}
			if want := map[bool]int{true: 1, false: 0}[slices.ContainsFunc(all, func(f doctor.Finding) bool { return f.Level == doctor.Fail })]; code != want {
				t.Errorf("exit code %d, want %d", code, want)
			}
		})
	}
}

func p0(root bool) string {
	if root {
		return "belongs to user 4711"
	}
	return "no permission to write"
}

// talker is a line that talks unasked, or that says again what it hears.
func talker(t *testing.T, unasked bool) string {
	t.Helper()
	tty, err := drivertest.Pty()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var b [64]byte
		for {
			n := 1
			if unasked {
				b[0] = 0xA5
				pause := time.NewTimer(5 * time.Millisecond)
				<-pause.C
			} else if n, err = tty.Read(b[:]); err != nil {
				return
			}
			if err := tty.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
				return
			}
			if _, err := tty.Write(b[:n]); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
		}
	}()
	t.Cleanup(func() { _ = tty.Close(); <-done })
	return tty.Path
}

// modemOf has a modem on the configuration.
func (p *place) modemOf(args ...string) {
	p.t.Helper()
	link := p.path("modem")
	p.sim("modem imei", append([]string{"modem", "-link", link}, args...)...)
	p.more = "modem: {port: " + link + ", every: 1s}"
}

// tlsBroker has a broker with a certificate that ends then, and one of our own from
// and to; known says whether we know who signed it.
func (p *place) tlsBroker(end, from, to time.Duration, known bool) {
	p.t.Helper()
	authority := certify(p.t, nil, -10*day, 1000*day)
	server, serverKey := p.save("broker", certify(p.t, authority, min(-day, end-day), end))
	p.mosquitto(mqtttest.Config{TLS: true, CertFile: server, KeyFile: serverKey})
	trusted := authority
	if !known {
		trusted = certify(p.t, nil, -day, 1000*day)
	}
	ca, _ := p.save("ca", trusted)
	own, key := p.save("own", certify(p.t, authority, from, to))
	p.broker = strings.Replace(p.broker, "tcp://", "ssl://", 1) + fmt.Sprintf(", ca: %s, certificate: %s, key: %s", ca, own, key)
}

// TestDoctorFindsNothing examines a gateway that is well: no alarm but that of a
// clock that nobody keeps right, where that is so.
func TestDoctorFindsNothing(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "gridgate", "metersim")
	p := newPlace(t, bin)
	p.tlsBroker(400*day, -day, 400*day, true)
	line := p.modbusLine(3)
	for i := range 3 {
		p.unit(fmt.Sprintf("shop-%d", i), line, i+1, fmt.Sprint(20270001+i))
	}
	port := proctest.FreePorts(t, 1)
	const password = "12345678"
	p.sim(fmt.Sprint(port), "dlms", "-listen", fmt.Sprintf("127.0.0.1:%d", port), "-password", password)
	p.meter("house", "", fmt.Sprintf("dlms+wrapper://127.0.0.1:%d?client=17&auth=lls&password=env:GRIDGATE_TEST_PASSWORD", port))
	p.modemOf("-pin", "4711")
	p.more = strings.Replace(p.more, "every: 1s", "every: 1s, pin: file:"+p.file("pin", "4711", 0o600), 1)
	p.env = []string{"GRIDGATE_TEST_PASSWORD=" + password}
	p.run("all is well", func(r status.Report) bool {
		return r.Uplink.Rows > 20 && modemIs("ok")(r) && !slices.ContainsFunc(r.Meters, func(m status.Meter) bool { return m.State != "ok" || m.Visits < 8 })
	})
	p.env = nil // the doctor knows nothing of the service's environment
	to := p.path("bundle.tar.gz")
	all, code := p.doctor("-bundle", to)
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	_, sure := sys.ClockError()
	for _, f := range all {
		if f.Level != doctor.OK && (f.Check != "clock" || sure) {
			t.Errorf("false alarm: %s", f)
		}
	}
	checks := map[string]bool{}
	for _, f := range all {
		checks[f.Check] = true
	}
	for _, check := range []string{"config", "agent", "line", "meters", "clock", "disk", "buffer", "modem", "fog", "tls", "secrets", "kernel", "memory"} {
		if !checks[check] {
			t.Errorf("%s was not looked at", check)
		}
	}
	files := bundleOf(t, to)
	for name, want := range map[string]string{
		"version.txt": version, "doctor.txt": "ok   meters", "config.yaml": "file:" + p.path("pin"), "status.json": `"health"`,
		"log.jsonl": "gridgate runs", "buffer.json": `"`, "machine.txt": "Linux version",
	} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s: want %q in %.300q", name, want, files[name])
		}
	}
	key, err := os.ReadFile(p.path("own.key"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		for _, secret := range []string{password, "4711\"", string(key[40:80])} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has a secret in it", name)
			}
		}
	}
	if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if code := p.agent.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func bundleOf(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Base(h.Name)] = string(text)
	}
}
