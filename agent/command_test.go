package agent

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gridgate/agent/bundle"
	"gridgate/agent/command"
	"gridgate/agent/order"
	"gridgate/configs"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// commanded is an agent in this process with a meter of all kinds of things, which
// knows the time.
type commanded struct {
	*site
	u     utility
	fog   *hearer
	level slog.LevelVar
	off   dlmstest.Wrong // of the meter's clock
	end   func()
	n     int
}

func newCommanded(t *testing.T) *commanded {
	t.Helper()
	c := &commanded{site: newSite(t), u: newUtility(t)}
	c.broker = mqtttest.Mosquitto(t, mqtttest.Config{}).Address
	clock, energy := dlmstest.Column{Class: 8, Code: obis.Code{0, 0, 1, 0, 0, 255}, ID: 2}, dlmstest.Column{Class: 3, Code: obis.Code{1, 0, 1, 8, 0, 255}, ID: 2}
	_, address := serveMeterThat(t, dlmstest.Everything,
		dlmstest.Data(obis.Code{0, 0, 96, 1, 0, 255}, dlmstest.Fixed(axdr.OctetString("S1"))),
		dlmstest.Register(obis.Code{1, 0, 32, 7, 0, 255}, 0, 35, func() axdr.Value { return axdr.LongUnsigned(230) }),
		dlmstest.Register(energy.Code, 0, 30, func() axdr.Value { return axdr.DoubleLongUnsigned(5000) }),
		dlmstest.SettableClock(clock.Code, time.Now().UTC, &c.off),
		dlmstest.Profile(obis.Code{1, 0, 99, 1, 0, 255}, []dlmstest.Column{clock, energy}, 900, func(s *dlmstest.Selection) []axdr.Value {
			var rows []axdr.Value
			for at := time.Now().Add(-48 * time.Hour).Truncate(15 * time.Minute); at.Before(time.Now()); at = at.Add(15 * time.Minute) {
				if s == nil || !at.Before(s.From) && !at.After(s.To) {
					rows = append(rows, axdr.Structure(axdr.OctetString(dlmstest.DateTime(at.UTC())), axdr.DoubleLongUnsigned(uint32(at.Unix()%1e6))))
				}
			}
			return rows
		}),
	)
	c.trusting(c.u, fmt.Sprintf("{id: m, serial: S1, url: \"dlms+wrapper://%s?client=16&server=1\", groups: [fast]}", address))
	c.fog = newHearer(t, c.broker, "here")
	c.begin()
	t.Cleanup(func() { c.end() })
	return c
}

// recentLine is a log with one line.
func recentLine() *bundle.Ring {
	r := new(bundle.Ring)
	_, _ = r.Write([]byte("a line\n")) // gives no error
	return r
}

func (c *commanded) begin() {
	c.t.Helper()
	cfg, err := configs.Load(c.file())
	if err != nil {
		c.t.Fatal(err)
	}
	c.agent, err = New(cfg, Options{
		Version: "1.2.3", Log: slog.New(slog.DiscardHandler), Getenv: os.Getenv, ConfigPath: c.file(), Level: &c.level, Recent: recentLine(),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.agent.orders.trusted = func() bool { return true }
	a, done := c.agent, make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- a.Run(ctx) }()
	c.end = func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, ErrRestart) {
			c.t.Error(err)
		}
		c.end = func() {}
	}
}

// order has a command carried out and gives its result.
func (c *commanded) order(r order.Role, payload string) command.Result {
	c.t.Helper()
	c.n++
	id := fmt.Sprintf("c%d", c.n)
	data := c.u.sign(r, fmt.Sprintf("gridgate: 1\nkind: command\ntarget: here/gw1\nid: %s\nnot_after: %s\n---\n%s", id, time.Now().Add(time.Hour).UTC().Format(time.RFC3339), payload))
	return c.fog.final(id, data)
}

func TestReadNow(t *testing.T) {
	t.Parallel()
	c := newCommanded(t)
	for payload, want := range map[string]string{
		"action: read\nmeters: [m]\n":                                           `"channel":"1-0:32.7.0*255/3:2"`,
		"action: read\nmeters: [S1]\nwith: {channels: [1-0:1.8.0]}\n":           `"value":5000,"unit":"Wh"`,
		"action: read\nmeters: ['*']\nwith: {groups: [fast]}\n":                 `"value":230,"unit":"V"`,
		"action: read\nmeters: [m]\nwith: {channels: [1-0:1.8.0, 1-0:2.8.0]}\n": `"value":5000`,
	} {
		res := c.order(order.Command, payload)
		if res.State != command.Done || len(res.Meters) != 1 || !strings.Contains(string(res.Meters[0].Data), want) {
			t.Errorf("%s: %+v", payload, res)
		}
	}
	if res := c.order(order.Command, "action: read\nmeters: [m]\nwith: {groups: [none]}\n"); res.State != command.Refused || !strings.Contains(res.Text, `no group "none"`) {
		t.Errorf("%+v", res)
	}
	if res := c.order(order.Command, "action: read\nmeters: [m]\nwith: {channels: [1-0:2.8.0]}\n"); res.State != command.Failed {
		t.Errorf("what is not there: %+v", res)
	}
}

// TestProfileNowAndAgain: the rows come with the readings, and again when that is
// ordered.
func TestProfileNowAndAgain(t *testing.T) {
	t.Parallel()
	c := newCommanded(t)
	from, to := time.Now().Add(-30*time.Hour).UTC(), time.Now().Add(-2*time.Hour).UTC()
	stretch := fmt.Sprintf("from: %s, to: %s", from.Format(time.RFC3339), to.Format(time.RFC3339))
	if res := c.order(order.Command, "action: profile\nmeters: [m]\nwith: {profile: 1-0:99.1.0, "+stretch+"}\n"); res.State != command.Done {
		t.Fatalf("%+v", res)
	}
	n := c.agent.store.Last(meter.Interval)
	if n < 100 || n > 120 {
		t.Errorf("%d rows of 28 hours", n)
	}
	proctest.Until(t, "they are sent", func() bool { return c.agent.store.Acked(meter.Interval) == n })
	resent := func() uint64 {
		c.agent.mu.Lock()
		defer c.agent.mu.Unlock()
		return c.agent.uplink.uplink.Stats().Resent
	}
	before := resent()
	if res := c.order(order.Command, "action: resend\nwith: {lane: interval, "+stretch+"}\n"); res.State != command.Done {
		t.Fatalf("%+v", res)
	}
	proctest.Until(t, "they are sent again", func() bool { return resent() >= before+100 })
	if res := c.order(order.Command, "action: resend\nwith: {lane: alarm, first: 7, last: 9}\n"); res.State != command.Failed {
		t.Errorf("%+v", res)
	}
	if res := c.order(order.Command, "action: profile\nmeters: [m]\nwith: {profile: 1-0:99.9.0, "+stretch+"}\n"); res.State != command.Failed {
		t.Errorf("a profile that is not there: %+v", res)
	}
}

func TestGatewayActions(t *testing.T) {
	t.Parallel()
	c := newCommanded(t)
	if res := c.order(order.Command, "action: buffer-stat\n"); res.State != command.Done || !strings.Contains(string(res.Data), `"Lanes"`) {
		t.Errorf("%+v", res)
	}
	if res := c.order(order.Command, "action: log-level\nwith: {level: debug, for: 1s}\n"); res.State != command.Done {
		t.Errorf("%+v", res)
	}
	proctest.Until(t, "the level is as it was", func() bool { return c.level.Level() == slog.LevelInfo })
	if res := c.order(order.Control, "action: output\nwith: {output: none, for: 1h}\n"); res.State != command.Refused {
		t.Errorf("%+v", res)
	}
	res := c.order(order.Command, "action: bundle\n")
	if res.State != command.Done || res.Parts == nil || res.Parts.Type != "application/gzip" {
		t.Fatalf("%+v", res)
	}
	bundle, err := c.agent.bundle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	files := untar(t, bundle)
	for name, want := range map[string]string{
		"config.yaml": "gateway: gw1", "version.txt": "1.2.3\n", "log.jsonl": "a line\n", "status.json": `"gateway":"gw1"`,
		"audit.json": `"entries":`, "buffer.json": `"Lanes"`, "orders.json": `"trust"`, "doctor.txt": "secrets",
	} {
		if got := files["gridgate-bundle/"+name]; !strings.Contains(got, want) {
			t.Errorf("%s of the bundle: %.300q", name, got)
		}
	}
}

func untar(t *testing.T, b []byte) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all[h.Name] = string(text)
	}
}

// TestRestart: the agent ends, and the next one says that it came.
func TestRestart(t *testing.T) {
	t.Parallel()
	c := newCommanded(t)
	data := c.u.sign(order.Command, "gridgate: 1\nkind: command\ntarget: here/_group/north\nid: r\nnot_after: 2099-01-01T00:00:00Z\n---\naction: restart\n")
	ended := make(chan struct{})
	a := c.agent
	go func() {
		defer close(ended)
		proctest.Until(t, "the agent ends", func() bool {
			a.mu.Lock()
			defer a.mu.Unlock()
			return a.lines == nil
		})
	}()
	if _, err := a.Command(data); err != nil {
		t.Fatal(err)
	}
	<-ended
	c.end()
	if n := len(c.fog.results("r")); n > 0 && c.fog.results("r")[n-1].State.Final() {
		t.Errorf("%+v", c.fog.results("r"))
	}
	c.begin()
	if res := c.fog.final("r", nil); res.State != command.Done || !strings.Contains(res.Text, "version 1.2.3") {
		t.Errorf("%+v", res)
	}
}

// TestCommandsAtTheGateway are taken and refused over the control socket too, and
// no other kind of document is a command.
func TestCommandsAtTheGateway(t *testing.T) {
	t.Parallel()
	c := newCommanded(t)
	data := c.u.sign(order.Command, "gridgate: 1\nkind: command\ntarget: here/gw1\nid: l\nnot_after: 2099-01-01T00:00:00Z\n---\naction: buffer-stat\n")
	if _, err := c.agent.Command(data); err != nil {
		t.Fatal(err)
	}
	proctest.Until(t, "it is done", func() bool {
		raw, err := c.agent.CommandResult("l")
		var r command.Result
		return err == nil && json.Unmarshal(raw, &r) == nil && r.State == command.Done
	})
	if _, err := c.agent.Command(data); err == nil || !strings.Contains(err.Error(), "carried out before") {
		t.Errorf("again: %v", err)
	}
	if _, err := c.agent.Command(c.u.config("here/gw1", 1, "mains: {voltage: 120}")); !errors.Is(err, order.ErrKind) {
		t.Errorf("a configuration: %v", err)
	}
	if err := c.submit(data); !errors.Is(err, errCommand) {
		t.Errorf("as another order: %v", err)
	}
	if raw, err := c.agent.CommandResult("nobody"); raw != nil || err != nil {
		t.Errorf("%s, %v", raw, err)
	}
	proctest.Until(t, "the refusal is reported", func() bool {
		r := c.agent.orders.current()
		return r.Command != nil && r.Command.Outcome == "refused"
	})
}

// TestAnchor: control is locked after the state was lost, until who holds the root
// keys says so.
func TestAnchor(t *testing.T) {
	t.Parallel()
	c := newCommanded(t)
	if err := c.agent.state.SetLost(); err != nil {
		t.Fatal(err)
	}
	output := "action: output\nwith: {output: none, for: 1h}\n"
	if res := c.order(order.Control, output); !strings.Contains(res.Text, "locked") {
		t.Errorf("%+v", res)
	}
	if err := c.submit(c.u.trust(2)); err != nil {
		t.Fatal(err)
	}
	if res := c.order(order.Control, output); !strings.Contains(res.Text, `no output "none"`) {
		t.Errorf("%+v", res)
	}
}

// TestRefusedWithoutATrust says why on the topic of the id that is shown.
func TestRefusedWithoutATrust(t *testing.T) {
	t.Parallel()
	c := newCommanded(t)
	c.end()
	if err := errors.Join(os.RemoveAll(filepath.Join(c.dir, "buffer")), os.WriteFile(filepath.Join(c.dir, "trust"), []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	c.begin()
	if res := c.order(order.Command, "action: buffer-stat\n"); res.State != command.Refused || !strings.Contains(res.Text, "no order is taken") {
		t.Errorf("%+v", res)
	}
}
