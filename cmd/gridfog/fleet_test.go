package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gridgate/agent/batch"
	"gridgate/cmd/gridfog/fleet"
	"gridgate/cmd/gridfog/pgtest"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
	"gridgate/internal/proctest"
)

// states publishes the states of two gateways, and something that is none.
func states(g *gateway, now time.Time) {
	at := now.UTC().Format(time.RFC3339)
	g.publish("gridgate/1/north/gw-1/up/state", true, fmt.Appendf(nil, `{"state":"online","version":"1.0","epoch":"0000000000000005","connected":%q,"at":%q,"time_zone":"UTC",`+
		`"config":"5f3c0a9be0d1c277","meters":3,"clock":{"synchronised":true,"bound_ms":12},"backlog":{"alarm":1,"billing":0,"interval":2,"instant":39},"reading":%q}`, at, at, at))
	g.publish("gridgate/1/north/gw-2/up/state", true, []byte(`{"state":"offline","reason":"lost","version":"0.9","at":"2026-01-01T00:00:00Z"}`))
	g.publish("gridgate/1/north/gw-1/up/config", true, []byte(`{"trust":2,"running":{"layers":[{"target":"north/_group/pilots","version":3},{"target":"north/gw-1","version":6}]},`+
		`"trial":{"target":"north/gw-1","version":7,"step":"proving"},"last":{"target":"north/gw-1","version":6,"outcome":"kept"}}`))
	g.publish("gridgate/1/north/gw-1/up/firmware", true, []byte(`{"agent":"v1.0","board":"virt-armv7","slot":"a"}`)) // is not for fleet
	g.publish("gridgate/1/north/gw-3/up/state", true, []byte("\x1b[2Jhello"))
}

// run runs a verb to its end.
func run(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var o, e bytes.Buffer
	code = program().Run(ctx, cli.Env{Stdin: strings.NewReader(""), Stdout: &o, Stderr: &e, Getenv: func(string) string { return "" }}, args)
	return code, o.String(), e.String()
}

func TestFleetShowsWhoIsAlive(t *testing.T) {
	t.Parallel()
	address, _, _ := startBroker(t)
	states(newGateway(t, address), time.Now().Add(-3*time.Minute))
	code, out, errOut := run(t, "fleet", "-broker", "mqtt://"+address)
	want := []string{
		"GATEWAY     STATE   SINCE                    BACKLOG       LAST READING  CLOCK  VERSION  CONFIG    TRUST  LAYERS         LAST ORDER  AT 8 H  AT 12 H  NOTE",
		"north/gw-1  online  3 min                    42 (alarm 1)  3 min         ±12ms  1.0      5f3c0a9b  v2     pilots v3, v6  v7 proving  -       -",
		"north/gw-2  lost    after 2026-01-01 00:00Z  -             -             -      0.9      -         -      -              -           -       -",
		"2 gateways: 1 online, 1 offline, 0 unknown",
	}
	for i, line := range strings.Split(strings.TrimSpace(out), "\n") {
		if i >= len(want) || strings.TrimSpace(line) != want[i] {
			t.Errorf("line %d is\n%s", i, line)
		}
	}
	if code != 0 || !strings.Contains(errOut, "topic gridgate/1/north/gw-3/up/state: state:") || strings.Contains(errOut, "\x1b") {
		t.Errorf("code %d\n%q", code, errOut)
	}
	code, out, _ = run(t, "fleet", "-broker", "mqtt://"+address, "-json", "-site", "north")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var one struct {
		State   string
		Backlog map[string]int
	}
	if err := json.Unmarshal([]byte(lines[0]), &one); err != nil || code != 0 || len(lines) != 2 || one.State != "online" || one.Backlog["instant"] != 39 {
		t.Errorf("code %d, %v\n%s", code, err, out)
	}
	if _, out, _ = run(t, "fleet", "-broker", "mqtt://"+address, "-site", "south", "-json"); out != "" {
		t.Errorf("of another site: %s", out)
	}
}

// The built program as an exporter, with readings of a gateway that has no
// state, and checked by Prometheus's own tool.
func TestFleetServesMetrics(t *testing.T) {
	t.Parallel()
	address, _, _ := startBroker(t)
	port := proctest.FreePorts(t, 1)
	p := proctest.Start(t, nil, filepath.Join(proctest.Build(t, "gridfog"), "gridfog"), "fleet", "-broker", "mqtt://"+address,
		"-listen", fmt.Sprintf("127.0.0.1:%d", port), "-session", "fleet")
	p.Await("connected")
	g := newGateway(t, address)
	g.next = 5
	g.send(3, true)
	g.next = 10
	g.send(3, false)
	states(g, time.Now())
	get := func(path string) string {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", port, path), nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		b, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%d %s", response.StatusCode, b)
	}
	proctest.Until(t, "all messages are there", func() bool { return strings.Contains(get("/metrics"), "gridfog_messages_refused_total 1\n") })
	metrics := get("/metrics")
	for _, line := range []string{
		`gridfog_broker_connected 1`,
		`gridgate_gateways{state="online"} 1`,
		`gridgate_gateway_missing_rows{site="north",gateway="gw-1"} 2`,
		`gridgate_gateway_backlog_rows{site="north",gateway="gw-1",lane="instant"} 39`,
	} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("no %s in\n%s", line, metrics)
		}
	}
	check := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
	check.Stdin = strings.NewReader(strings.TrimPrefix(metrics, "200 "))
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool (apt-get install prometheus): %v\n%s", err, out)
	}
	if got := get("/fleet"); !strings.HasPrefix(got, `200 {"site":"north","gateway":"gw-1","state":"online"`) {
		t.Error(got)
	}
	if got := get("/"); !strings.Contains(got, "2 rows missing") || !strings.Contains(got, "2 gateways: 1 online") {
		t.Error(got)
	}
	if got := get("/passwd"); !strings.HasPrefix(got, "404") {
		t.Error(got)
	}
	if code := p.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// With the database that the built ingest has filled a single look has the
// shares of yesterday.
func TestFleetAsksTheDatabase(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	url := server.Database()
	address, _, _ := startBroker(t)
	g := newGateway(t, address)
	states(g, time.Now())
	bin := filepath.Join(proctest.Build(t, "gridfog"), "gridfog")
	ingest := proctest.Start(t, nil, bin, "ingest", "-db", url, "-broker", "mqtt://"+address)
	db := server.Connect(url)
	rows := func() (n int) {
		_ = db.QueryRow(t.Context(), "SELECT count(*) FROM readings").Scan(&n) // there is no table at first
		return n
	}
	// Five days of quarter hours, but for one of each four: all came just now, and
	// so after the deadlines of each day that is over.
	today := time.Now().UTC().Truncate(24 * time.Hour)
	var all []batch.Row
	for at := today.AddDate(0, 0, -5); !at.After(today); at = at.Add(15 * time.Minute) {
		if at.Minute() != 30 {
			all = append(all, batch.Row{
				Meter: "house-1", Serial: "4711", Channel: "1-0:1.29.0*255/3:2", Lane: batch.Interval, Period: 900, Unit: 30, Value: meter.UintValue(7, 0),
				Stamp: batch.Stamp{Time: at.UnixMilli(), Source: meter.FromMeter},
			})
		}
	}
	s := batch.Span{Lane: batch.Interval, Rows: all, Runs: []batch.Run{{First: 1, Count: uint64(len(all))}}, Last: uint64(len(all))}
	g.catalogue.Add(all)
	payload, err := batch.Append(nil, batch.Header{Site: "north", Gateway: "gw-1", Epoch: 5, Lane: batch.Interval}, s, g.catalogue)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := g.catalogue.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	g.publish(mqtt.CatalogueTopic("north", "gw-1", g.catalogue.Hash()), true, raw)
	proctest.Until(t, "ingest has stored all", func() bool {
		g.publish(mqtt.ReadingsTopic("north", "gw-1", meter.Interval), false, payload) // until it listens
		return rows() == len(all)
	})
	if code := ingest.Stop(); code != 0 {
		t.Errorf("ingest: exit code %d", code)
	}
	look := func() []fleet.Share {
		t.Helper()
		code, out, errOut := run(t, "fleet", "-broker", "mqtt://"+address, "-db", url, "-json")
		first, _, _ := strings.Cut(out, "\n")
		var one fleet.Gateway
		if err := json.Unmarshal([]byte(first), &one); err != nil || code != 0 || one.Gateway != "gw-1" || len(one.Shares) != 2 {
			t.Fatalf("code %d, %v\n%s%s", code, err, out, errOut)
		}
		return one.Shares
	}
	for _, s := range look() {
		if s.Expected != 96 || s.Complete != 0 {
			t.Errorf("too late: %+v", s)
		}
	}
	if _, err := db.Exec(t.Context(), "UPDATE readings SET received = time + interval '1 minute'"); err != nil {
		t.Fatal(err)
	}
	for _, s := range look() {
		if s.Expected != 96 || s.Complete != 72 {
			t.Errorf("in time: %+v", s)
		}
	}
	if _, out, _ := run(t, "fleet", "-broker", "mqtt://"+address, "-database", url); strings.Count(out, "75.0 %") != 4 {
		t.Error(out)
	}
	server.Stop()
	code, _, errOut := run(t, "fleet", "-broker", "mqtt://"+address, "-db", url)
	if code != 1 || !strings.Contains(errOut, "database:") {
		t.Errorf("without its database: code %d\n%s", code, errOut)
	}
	server.Start()
	empty := server.Database()
	if code, _, errOut = run(t, "fleet", "-broker", "mqtt://"+address, "-db", empty); code != 1 || !strings.Contains(errOut, "does ingest fill it?") {
		t.Errorf("of an empty database: code %d\n%s", code, errOut)
	}
}

func TestFleetBadInput(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"now"}, 2, `"now": it takes flags only`},
		{[]string{"-broker", "nonsense"}, 2, "-broker"},
		{[]string{"-broker", "mqtt://127.0.0.1:1"}, 1, "does the broker run"},
		{[]string{"-site", "+"}, 2, "-site"},
		{[]string{"-time-zone", "Mars/Olympus"}, 2, "want a name as Europe/Berlin"},
		{[]string{"-listen", "x", "-json"}, 2, "it is at /fleet"},
		{[]string{"-session", "a"}, 2, "goes with -listen"},
		{[]string{"-listen", "nowhere"}, 1, "fleet: -listen"},
		{[]string{"-wait", "0s"}, 2, "-wait"},
		{[]string{"-database", "postgres://u:hunter2@:x/"}, 2, "-database"},
		{[]string{"-ca", "x"}, 2, "mqtts://"},
	} {
		code, out, errOut := run(t, append([]string{"fleet"}, c.args...)...)
		if code != c.code || !strings.Contains(errOut, c.text) || strings.Contains(errOut, "hunter2") {
			t.Errorf("fleet %v: code %d\n%s%s", c.args, code, out, errOut)
		}
	}
}

// A row of an interval that came over MQTT is counted for its day.
func TestFleetCountsIntervals(t *testing.T) {
	t.Parallel()
	f := &fleeting{notes: io.Discard}
	f.start(time.UTC)
	begin := time.Date(2026, 1, 10, 0, 0, 0, 0, time.UTC)
	f.fleet.Intervals.Watch(begin)
	c := batch.NewCatalogue()
	s := batch.Span{Lane: batch.Interval, Runs: []batch.Run{{First: 1, Count: 48}}, Last: 48}
	for i := range 48 {
		s.Rows = append(s.Rows, batch.Row{
			Meter: "m", Serial: "1", Channel: "1-0:1.29.0", Lane: batch.Interval, Period: 900, Unit: 30, Value: meter.UintValue(uint64(i), 0),
			Stamp: batch.Stamp{Time: begin.Add(time.Duration(i+1) * 15 * time.Minute).UnixMilli(), Source: meter.FromMeter},
		})
	}
	c.Add(s.Rows)
	payload, err := batch.Append(nil, batch.Header{Site: "north", Gateway: "gw-1", Epoch: 5, Lane: batch.Interval}, s, c)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := c.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	take := func(topic string, payload []byte) {
		f.takeAt(topic, payload, false, begin.Add(20*time.Hour))
	}
	take("gridgate/1/north/gw-1/up/readings/interval", payload) // waits for its catalogue
	take("gridgate/1/north/gw-1/up/catalog/"+c.Hash().String(), raw)
	take("gridgate/1/north/gw-2/up/readings/interval", payload) // another's name
	all := f.fleet.Gateways(begin.Add(32*time.Hour), true)
	if len(all) != 1 || len(all[0].Shares) != 1 || all[0].Shares[0].Expected != 96 || all[0].Shares[0].Complete != 48 || f.tool.Refused != 1 {
		t.Errorf("%+v, %+v", all, f.tool)
	}
}
