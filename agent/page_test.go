package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"gridgate/agent/web"
	"gridgate/configs"
	"gridgate/internal/meter"
	"gridgate/internal/proctest"
)

// Tokens of the tests.
const (
	viewerToken     = "viewer-token"
	technicianToken = "technician-token"
	consumerToken   = "consumer-token"
)

// paged makes a configuration with a page and these meters, the consumer's is
// called good. It gives the page's port.
func (s *site) paged(more string, meters ...string) (port int) {
	s.t.Helper()
	s.config("here", meters...)
	port = proctest.FreePorts(s.t, 1)
	s.appendPage(port, more)
	return port
}

// appendPage adds a page to the site's file.
func (s *site) appendPage(port int, more string) {
	s.t.Helper()
	text := fmt.Sprintf("page:\n  listen: 127.0.0.1:%d\n  %s\n  tokens:\n", port, more)
	for token, rest := range map[string]string{
		viewerToken: "name: v, role: viewer", technicianToken: "name: t, role: technician", consumerToken: "name: c, role: consumer, meter: good",
	} {
		text += fmt.Sprintf("    - {%s, sha256: %x}\n", rest, sha256.Sum256([]byte(token)))
	}
	f, err := os.OpenFile(s.file(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err = io.WriteString(f, text); err != nil || f.Close() != nil {
		s.t.Fatal(err)
	}
}

// ask gets a path with a token, and asks again when it asked too often. The code
// is 0 where nobody answers.
func (s *site) ask(port int, token, path string) (code int, header http.Header, body string) {
	s.t.Helper()
	proctest.Until(s.t, "the page has time", func() bool {
		code, header, body = s.askOnce(port, token, path)
		return code != http.StatusTooManyRequests
	})
	return code, header, body
}

func (s *site) askOnce(port int, token, path string) (code int, header http.Header, body string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", port, path), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Close = true
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, err.Error()
	}
	defer func() { _ = a.Body.Close() }()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return a.StatusCode, a.Header, string(b)
}

// servedAt waits until the page is served.
func (s *site) servedAt(port int) {
	s.t.Helper()
	proctest.Until(s.t, "the page is served", func() bool {
		code, _, _ := s.ask(port, "", "/")
		return code == http.StatusOK
	})
}

// TestPage asks an agent everything there is, in every role, and has all answers
// compared with the contract.
func TestPage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	port := s.paged("meter_metrics: false", modbusMeter("good", startZeroMeter(t).address, "fast"), modbusMeter("dead", "127.0.0.1:1", "fast"))
	defer s.begin()()
	s.visited(2, "good")
	s.visited(1, "dead")
	s.servedAt(port)
	proctest.Until(t, "readings are stored", func() bool {
		_, _, body := s.ask(port, technicianToken, "/api/1/meters/good/curve?channel=1-0:32.7.0")
		var c web.Curve
		return json.Unmarshal([]byte(body), &c) == nil && len(c.Points) > 0 && string(c.Points[0].Value) == "0" && c.Unit == "V" && c.Kind == "register"
	})
	var lines bytes.Buffer
	for _, token := range []string{viewerToken, technicianToken, consumerToken} {
		for contract, path := range map[string]string{
			"/": "/", "/api/1/start": "/api/1/start", "/api/1/overview": "/api/1/overview", "/api/1/lines": "/api/1/lines",
			"/api/1/meters": "/api/1/meters?state=failing", "/api/1/meters/{id}": "/api/1/meters/good",
			"/api/1/meters/{id}/curve": "/api/1/meters/good/curve?channel=1-0:32.7.0*255/3:2", "/api/1/alarms": "/api/1/alarms",
			"/api/1/me": "/api/1/me", "/api/1/me/curve": "/api/1/me/curve?channel=1-0:32.7.0&day=2020-02-29", "/metrics": "/metrics",
		} {
			code, header, body := s.ask(port, token, path)
			if code != 200 && code != 403 {
				t.Errorf("%s: %d %s", path, code, body)
			}
			entry := map[string]any{"path": contract, "status": code, "type": header.Get("Content-Type")}
			if strings.HasPrefix(header.Get("Content-Type"), "application/json") {
				entry["body"] = json.RawMessage(body)
			}
			b, err := json.Marshal(entry)
			if err != nil {
				t.Fatal(err)
			}
			lines.Write(append(b, '\n'))
		}
	}
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "web/testdata/validate.py", "../docs/openapi.yaml")
	cmd.Stdin = &lines
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	s.looks(port)
}

// looks compares what the page shows with what is the case.
func (s *site) looks(port int) {
	s.t.Helper()
	var got struct {
		Overview web.Overview
		Lines    []web.Line
		Meters   []web.Meter
	}
	var body string
	proctest.Until(s.t, "one meter reads, and all else is told as failing", func() bool {
		_, _, body = s.ask(port, viewerToken, "/api/1/start")
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			s.t.Fatal(err)
		}
		codes := ""
		for _, c := range got.Overview.Conditions {
			codes += c.Code + " "
		}
		return got.Overview.Health == "warn" && strings.Contains(codes, "meters-failing uplink-never ") &&
			got.Meters[0].State == "ok" && got.Meters[1].State == "failing" && got.Lines[0].OK == 1
	})
	good, dead := got.Meters[0], got.Meters[1]
	if *good.Success == 0 || good.Last == "" || *dead.Success != 0 || dead.Last != "" || dead.Error == "" || good.Protocol != "modbus" {
		s.t.Errorf("%+v %+v", good, dead)
	}
	if len(got.Lines) != 2 || got.Lines[1].OK != 0 || got.Lines[0].Kind != "network" {
		s.t.Errorf("%+v", got.Lines)
	}
	var me struct{ Me web.Me }
	_, _, body = s.ask(port, consumerToken, "/api/1/start")
	if err := json.Unmarshal([]byte(body), &me); err != nil || me.Me.ID != "good" || len(me.Me.Values) != 1 || me.Me.Values[0].Short != "1-0:32.7.0" || strings.Contains(body, "dead") {
		s.t.Errorf("%v: %s", err, body)
	}
	for path, want := range map[string]string{
		"/api/1/meters/good/curve?channel=x%20y":                     "a name has letters",
		"/api/1/meters/good/curve?channel=1-0:1.8.0&day=2026-02-30":  "day: want YYYY-MM-DD",
		"/api/1/meters/good/curve?channel=1-0:1.8.0&day=yesterday":   "day: want YYYY-MM-DD",
		"/api/1/meters/bad/curve?channel=1-0:1.8.0":                  "there is no meter",
		"/api/1/meters/good/curve?channel=1-0:1.8.0&day=99999-01-01": "day: want YYYY-MM-DD",
	} {
		if code, _, body := s.ask(port, technicianToken, path); code != 400 || !strings.Contains(body, want) {
			s.t.Errorf("%s: %d %s", path, code, body)
		}
	}
}

// TestPageApply adds a page to an agent that runs, changes who may see it, and
// takes it away; no line begins anew.
func TestPageApply(t *testing.T) {
	t.Parallel()
	s, m := newSite(t), startZeroMeter(t)
	good := modbusMeter("good", m.address, "fast")
	bare := s.config("here", good)
	defer s.begin()()
	s.visited(1, "good")
	poller := s.poller(m.address)
	if s.agent.live.Load() != nil {
		t.Error("without a page readings are kept in memory")
	}
	apply := func(cfg *configs.Config) {
		t.Helper()
		if err := s.agent.Apply(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	load := func() *configs.Config {
		t.Helper()
		cfg, err := configs.Load(s.file())
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	port := s.paged("meter_metrics: false", good)
	apply(load())
	s.servedAt(port)
	s.visited(2, "good")
	if code, _, body := s.ask(port, technicianToken, "/api/1/meters/good"); code != 200 || !strings.Contains(body, `"short":"1-0:32.7.0"`) {
		t.Errorf("%d %s", code, body)
	}
	cfg := load()
	cfg.Page.Tokens = cfg.Page.Tokens[:1]
	left := map[configs.Role]string{configs.RoleViewer: viewerToken, configs.RoleTechnician: technicianToken, configs.RoleConsumer: consumerToken}
	apply(cfg)
	s.servedAt(port)
	for role, token := range left {
		code, _, _ := s.ask(port, token, "/api/1/start")
		if want := cfg.Page.Tokens[0].Role == role; want != (code == 200) || !want && code != 401 {
			t.Errorf("as %s: %d", role, code)
		}
	}
	apply(bare)
	if code, _, _ := s.ask(port, viewerToken, "/"); code != 0 {
		t.Errorf("a page that was taken away: %d", code)
	}
	if s.agent.live.Load() != nil {
		t.Error("readings are kept in memory when the page is gone")
	}
	if s.poller(m.address) != poller {
		t.Error("the line began anew")
	}
}

// TestPageBusy has a port that somebody else has: it is told, and taken when it is
// free.
func TestPageBusy(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	port := s.paged("meter_metrics: false", modbusMeter("good", startZeroMeter(t).address, "fast"))
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer s.begin()()
	told := func() bool { return strings.Contains(strings.Join(s.agent.Report().Notes, "\n"), noPage) }
	proctest.Until(t, "it is told", told)
	s.visited(1, "good")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s.servedAt(port)
	proctest.Until(t, "the note is gone", func() bool { return !told() })
}

// TestLive holds what is kept of readings.
func TestLive(t *testing.T) {
	t.Parallel()
	l := newLive()
	row := func(channel string, mono, value int64) meter.Row {
		return meter.Row{
			Meter: "m", Serial: "1", Channel: meter.Channel(channel), Value: meter.IntValue(value, 0), Unit: meter.WattHour,
			Stamp: meter.Stamp{Time: 1e12 - mono, Mono: mono}, Lane: meter.Instant, // the clock runs backwards
		}
	}
	value := func() string {
		var all []string
		for _, v := range l.values("m", "") {
			all = append(all, fmt.Sprintf("%s=%s%v", v.Channel, v.Value, v.Unchecked))
		}
		return strings.Join(all, " ")
	}
	l.take([]meter.Row{row("b", 1, 10), row("a", 1, 20)}, true)
	l.take([]meter.Row{row("b", 2, 11)}, true)
	if got := value(); got != "a=20true b=11true" {
		t.Error(got)
	}
	l.take([]meter.Row{row("b", 1, 10), row("a", 1, 20)}, false) // stored, when a newer one was read
	if got := value(); got != "a=20false b=11true" {
		t.Error(got)
	}
	profile := row("b", 0, 5)
	profile.Stamp = meter.Stamp{Time: 1e12 - 100, Mono: 99, Source: meter.FromMeter} // of an old gap
	l.take([]meter.Row{profile}, false)
	if got := value(); got != "a=20false b=11true" {
		t.Error(got)
	}
	if got := l.values("m", "2"); len(got) != 0 {
		t.Errorf("readings of another meter: %v", got)
	}
	for i := range 3 * liveChannels {
		l.take([]meter.Row{row(fmt.Sprintf("c%d", i), 1, 1)}, false)
	}
	if n := len(l.values("m", "")); n != liveChannels {
		t.Errorf("%d channels", n)
	}
	for i := range 3 * liveEvents {
		e := row(fmt.Sprintf("event.%d", i), 1, 1)
		e.Lane, e.Value = meter.Alarm, meter.TextValue(strings.Repeat("ü", liveText))
		l.take([]meter.Row{e}, true) // not yet stored
		l.take([]meter.Row{e}, false)
	}
	events := l.newest()
	if len(events) != liveEvents || events[0].ID != "300" || events[0].Channel != "event.299" || !json.Valid(events[0].Value) || len(events[0].Value) > liveText+8 {
		t.Errorf("%d events, %+v", len(events), events[0])
	}
	l.keep(func(meter.ID) bool { return false })
	if got := value(); got != "" {
		t.Error(got)
	}
}

// TestDraw holds what a curve shows.
func TestDraw(t *testing.T) {
	t.Parallel()
	at := func(minute int, v int64, period uint32) meter.Row {
		return meter.Row{Stamp: meter.Stamp{Time: int64(minute) * 60000}, Value: meter.IntValue(v, 0), Unit: meter.WattHour, Period: period}
	}
	points := func(c web.Curve) (all []string) {
		for _, p := range c.Points {
			all = append(all, fmt.Sprintf("%s %s", p.Time[11:16], p.Value))
		}
		return all
	}
	var c web.Curve
	c.Kind = "register"
	draw(&c, []meter.Row{at(15, 2, 0), at(0, 1, 0), at(15, 3, 0), {Stamp: meter.Stamp{Time: 30 * 60000}, Quality: meter.Overflow}})
	if got := strings.Join(points(c), ", "); got != "00:00 1, 00:15 3, 00:30 null" || !c.Cumulative || c.Unit != "Wh" || c.Thinned || c.Points[2].Quality != "overflow" {
		t.Errorf("%s %+v", got, c)
	}
	c = web.Curve{Kind: "register"}
	draw(&c, []meter.Row{at(15, 2, 900), at(16, 7, 0)})
	if got := strings.Join(points(c), ", "); got != "00:15 2" || c.Kind != "interval" || c.Period != 900 || c.Cumulative {
		t.Errorf("%s %+v", got, c)
	}
	// A profile names its period for the registers that it captures too.
	register := at(15, 2, 900)
	register.Channel = "1-0:1.8.0*255/3:2"
	c = web.Curve{Kind: "register"}
	draw(&c, []meter.Row{register})
	if c.Kind != "register" || !c.Cumulative || len(c.Points) != 1 {
		t.Errorf("a register out of a profile: %+v", c)
	}
	for _, n := range []int{0, 1, 399, 400, 401, 1440, 86400} {
		var rows []meter.Row
		for i := range n {
			r := at(0, int64(i), 0)
			r.Stamp.Time = int64(i) * 1000
			rows = append(rows, r)
		}
		c = web.Curve{Kind: "register"}
		draw(&c, rows)
		if k := len(c.Points); k > maxPoints || k < min(n, maxPoints/2) || c.Thinned != (n > maxPoints) {
			t.Errorf("of %d rows %d points, thinned %v", n, k, c.Thinned)
		}
		if n > 0 && c.Points[len(c.Points)-1].Time != web.Time(time.UnixMilli(int64(n-1)*1000)) {
			t.Errorf("of %d rows the last one is missing", n)
		}
	}
}
