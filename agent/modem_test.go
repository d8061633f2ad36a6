package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gridgate/drivers/drivertest"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// TestTheModemsTime asks a modem on a pseudo-terminal.
func TestTheModemsTime(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ answer, want, err string }{
		"time":     {"AT+CCLK?\r\r\n+CREG: 1\r\n+CCLK: \"26/11/22,20:15:30+08\"\r\n\r\nOK\r\n", "2026-11-22T18:15:30Z", ""},
		"error":    {"\r\nERROR\r\n", "", `refuses AT+CCLK?`},
		"no time":  {"\r\nOK\r\n", "", "says OK and no time"},
		"silence":  {"", "", "deadline exceeded"},
		"no modem": {"none", "", "no such port"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := "/dev/gridgate-no-such-port"
			if c.answer != "none" {
				p, err := drivertest.Pty()
				if err != nil {
					t.Fatal(err)
				}
				path = p.Path
				answered := make(chan struct{})
				go func() {
					defer close(answered)
					if asked, err := bufio.NewReader(p).ReadString('\r'); err == nil && strings.HasSuffix(asked, "AT+CCLK?\r") {
						_, _ = io.WriteString(p, c.answer)
					}
				}()
				t.Cleanup(func() { _ = p.Close(); <-answered })
			}
			limit := time.Minute
			if c.answer == "" {
				limit = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			got, err := (&networkTime{path: path}).NetworkTime(ctx)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%v, %v; want %q", got, err, c.err)
				}
				return
			}
			if err != nil || got.Format(time.RFC3339) != c.want {
				t.Errorf("%v, %v; want %s", got, err, c.want)
			}
		})
	}
}

// The fog is told how the modem does, and again when that is another; the clock asks
// the network over the same port.
func TestTheFogIsToldOfTheModem(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	l, err := net.Listen("tcp", s.broker)
	if err != nil {
		t.Fatal(err)
	}
	var broker mqtttest.Memory
	served := make(chan struct{})
	go func() { defer close(served); broker.Serve(l) }()
	t.Cleanup(func() {
		_ = l.Close()
		broker.CloseAll()
		<-served
	})
	link, script := filepath.Join(s.dir, "modem"), filepath.Join(s.dir, "script")
	if err := syscall.Mkfifo(script, 0o600); err != nil {
		t.Fatal(err)
	}
	fifo, err := os.OpenFile(script, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fifo.Close() })
	sim := proctest.Start(t, nil, filepath.Join(proctest.Build(t, "metersim"), "metersim"), "modem", "-link", link, "-script", script)
	sim.Await("modem imei")
	m := startZeroMeter(t)
	cfg := s.config("here", modbusMeter("m", m.address, "fast"))
	cfg.Modem.Port, cfg.Modem.Every = link, time.Second
	s.make(cfg)
	s.run()
	told := func() string {
		var st struct {
			Modem struct {
				State, Registration, Operator, IMEI, ICCID string
				Signal                                     int `json:"signal_dbm"`
				Resets                                     *int
			}
		}
		if b := broker.Retained(mqtt.StateTopic("here", "gw1")); len(b) > 0 {
			if err := json.Unmarshal(b, &st); err != nil {
				t.Fatalf("%s: %v", b, err)
			}
		}
		if st.Modem.Resets == nil {
			return ""
		}
		return fmt.Sprint(st.Modem.State, " ", st.Modem.Registration, " ", st.Modem.Operator, " ", st.Modem.IMEI, " ", st.Modem.ICCID, " ", st.Modem.Signal)
	}
	const rest = "Zone 3 Mobile 490154203237518 8949000000000000018 -81"
	proctest.Until(t, "the fog knows the modem", func() bool { return told() == "ok registered "+rest })
	if _, err := io.WriteString(fifo, "0s registration roaming\n"); err != nil {
		t.Fatal(err)
	}
	proctest.Until(t, "the fog knows that it roams", func() bool { return told() == "ok roaming "+rest })
	if m := s.agent.snapshot().Overview.Modem; m == nil || m.State != "ok" || m.Registration != "roaming" || m.Signal == nil || *m.Signal != -81 {
		t.Errorf("the page is told %+v", m)
	}
	metrics := string(s.agent.Metrics(nil))
	promtool(t, metrics, "check", "metrics")
	for _, want := range []string{`gridgate_modem_state{state="ok"} 1`, `gridgate_modem_state{state="no SIM"} 0`, "gridgate_modem_signal_dbm -81", "gridgate_modem_resets_total 0"} {
		if !strings.Contains(metrics, "\n"+want+"\n") {
			t.Errorf("no sample %s in\n%s", want, metrics)
		}
	}
	got, err := s.agent.networkTime(cfg).NetworkTime(t.Context())
	if off := time.Since(got); err != nil || off.Abs() > time.Minute {
		t.Errorf("%v, %v", got, err)
	}
}
