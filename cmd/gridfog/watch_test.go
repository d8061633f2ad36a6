package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gridgate/agent/batch"
	"gridgate/cmd/gridfog/track"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
)

// gateway publishes as an agent does.
type gateway struct {
	t         *testing.T
	conn      *mqtt.Conn
	catalogue *batch.Catalogue
	next      uint64
}

func newGateway(t *testing.T, address string) *gateway {
	t.Helper()
	g := &gateway{t: t, catalogue: batch.NewCatalogue(), next: 1}
	g.dial(address)
	return g
}

func (g *gateway) dial(address string) {
	g.t.Helper()
	var err error
	if g.conn, err = mqtt.Dial(g.t.Context(), mqtt.Options{Address: address, ClientID: "gateway"}); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(g.conn.Close)
}

func (g *gateway) publish(topic string, retained bool, payload []byte) {
	g.t.Helper()
	token, err := g.conn.Publish(g.t.Context(), topic, retained, payload)
	if err != nil {
		g.t.Fatal(err)
	}
	<-token.Done()
	if err := token.Err(); err != nil {
		g.t.Fatal(err)
	}
}

// send sends n rows of a new meter; the catalogue comes after the batch that
// needs it when late is set.
func (g *gateway) send(n int, late bool) {
	g.t.Helper()
	s := batch.Span{Lane: batch.Instant, Runs: []batch.Run{{First: g.next, Count: uint64(n)}}, Last: g.next + uint64(n) - 1}
	for i := range n {
		s.Rows = append(s.Rows, batch.Row{
			Meter: batch.ID(fmt.Sprintf("house-%d", g.next)), Channel: "1-0:32.7.0*255/3:2", Lane: batch.Instant,
			Stamp: batch.Stamp{Time: 1_700_000_000_000 + int64(i)}, Value: batch.Value{Kind: batch.Int, Scale: -1, Bits: uint64(2300 + i)}, Unit: 35,
		})
	}
	g.next += uint64(n)
	g.catalogue.Add(s.Rows)
	payload, err := batch.Append(nil, batch.Header{Site: "north", Gateway: "gw-1", Epoch: 5, Lane: batch.Instant}, s, g.catalogue)
	if err != nil {
		g.t.Fatal(err)
	}
	raw, _ := g.catalogue.AppendBinary(nil)
	catalogue := func() { g.publish(mqtt.CatalogueTopic("north", "gw-1", g.catalogue.Hash()), true, raw) }
	if !late {
		catalogue()
	}
	g.publish(mqtt.ReadingsTopic("north", "gw-1", meter.Instant), false, payload)
	if late {
		catalogue()
	}
}

// running is a run of gridfog whose output can be read while it runs.
type running struct {
	stop       context.CancelFunc
	stdout     *bufio.Scanner
	stderr     *bufio.Scanner
	code       chan int
	outR, errR *io.PipeReader
}

func start(t *testing.T, args ...string) *running {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	outR, outW := io.Pipe()
	errR, errW := io.Pipe()
	r := &running{stop: stop, stdout: bufio.NewScanner(outR), stderr: bufio.NewScanner(errR), code: make(chan int, 1), outR: outR, errR: errR}
	go func() {
		code := program().Run(ctx, cli.Env{Stdout: outW, Stderr: errW, Getenv: os.Getenv}, args)
		_, _ = outW.Close(), errW.Close()
		r.code <- code
	}()
	t.Cleanup(func() {
		stop()
		_, _ = outR.Close(), errR.Close()
	})
	return r
}

// line gives the next line.
func line(t *testing.T, s *bufio.Scanner, want string) string {
	t.Helper()
	if !s.Scan() || !strings.Contains(s.Text(), want) {
		t.Fatalf("got %q, want a line with %q", s.Text(), want)
	}
	return s.Text()
}

func TestWatchDecodesCountsAndReconnects(t *testing.T) {
	t.Parallel()
	broker := mqtttest.Mosquitto(t, mqtttest.Config{})
	dir := t.TempDir()
	summary, recorded := filepath.Join(dir, "summary.json"), filepath.Join(dir, "recorded")
	w := start(t, "watch", "-broker", "tcp://"+broker.Address, "-json", "-from-start", "-summary", summary, "-record", recorded, "-session", "test")
	line(t, w.stderr, "connected")
	g := newGateway(t, broker.Address)
	g.send(2, false)
	g.send(1, true)
	var lines []string
	for range 3 {
		lines = append(lines, line(t, w.stdout, `"gateway":"gw-1"`))
	}
	broker.Stop()
	line(t, w.stderr, "trying again")
	broker.Start()
	for !strings.Contains(line(t, w.stderr, "broker"), "connected") { // refused once or twice while it starts
	}
	g.dial(broker.Address)
	g.next++ // a number that never comes
	g.send(1, false)
	lines = append(lines, line(t, w.stdout, `"sequence":5`))
	w.stop()
	line(t, w.stderr, "delivered 4 rows in 3 batches from 1 gateways: 1 missing, 0 duplicates")
	if code := <-w.code; code != 0 {
		t.Errorf("exit code %d", code)
	}
	const first = `{"meter":"house-1","serial":"","channel":"1-0:32.7.0*255/3:2","time":"2023-11-14T22:13:20.000Z","value":230.0,"unit":"V","quality":"good","lane":"instant","sequence":1,"site":"north","gateway":"gw-1"}`
	if lines[0] != first {
		t.Errorf("got  %s\nwant %s", lines[0], first)
	}
	b, err := os.ReadFile(summary)
	if err != nil {
		t.Fatal(err)
	}
	var s track.Summary
	if err := json.Unmarshal(b, &s); err != nil || s.Delivered != 4 || s.Missing != 1 || s.Undecoded != 0 || len(s.Lanes) != 1 || s.Lanes[0].Last != 5 {
		t.Errorf("%s, %v", b, err)
	}
	files, err := filepath.Glob(filepath.Join(recorded, "*"))
	if err != nil || len(files) < 6 {
		t.Errorf("recorded %v, %v", files, err)
	}
	decoded, text, code := gridfog(t, "", append([]string{"decode"}, files...)...)
	if code != 0 || decoded != strings.Join(lines, "\n")+"\n" {
		t.Errorf("decoded %d: %s\n%s", code, decoded, text)
	}
}

// What came without a gap is confirmed, and a later run goes on from there.
func TestWatchConfirms(t *testing.T) {
	t.Parallel()
	broker := mqtttest.Mosquitto(t, mqtttest.Config{})
	heard := make(chan string, 100)
	listener, err := mqtt.Dial(t.Context(), mqtt.Options{Address: broker.Address, ClientID: "listener"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(listener.Close)
	if err := listener.Subscribe(t.Context(), mqtt.AckFilter("", ""), func(m mqtt.Message) { heard <- m.Topic + " " + string(m.Payload) }); err != nil {
		t.Fatal(err)
	}
	g := newGateway(t, broker.Address)
	run := func(act func(*running)) {
		w := start(t, "watch", "-broker", "tcp://"+broker.Address, "-json", "-confirm")
		line(t, w.stderr, "connected")
		act(w)
		w.stop()
		line(t, w.stderr, "delivered")
		if code := <-w.code; code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
	want := func(sequence int) {
		t.Helper()
		if got, want := <-heard, fmt.Sprintf(`gridgate/1/north/gw-1/down/ack/instant {"epoch":"0000000000000005","sequence":%d}`, sequence); got != want {
			t.Errorf("heard %s, want %s", got, want)
		}
	}
	run(func(w *running) {
		g.send(3, false)
		for range 3 {
			line(t, w.stdout, "sequence")
		}
		want(3)
		g.next += 2 // a gap
		g.send(1, false)
		line(t, w.stdout, `"sequence":6`)
	})
	g.next = 4
	run(func(w *running) { // 6 is gone with the first run, which kept nothing
		g.send(2, false)
		for range 2 {
			line(t, w.stdout, "sequence")
		}
		want(5)
	})
	if len(heard) != 0 {
		t.Errorf("more was confirmed: %s", <-heard)
	}
}

// gridfog runs to its end.
func gridfog(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, text bytes.Buffer
	code = program().Run(t.Context(), cli.Env{Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &text, Getenv: os.Getenv}, args)
	return out.String(), text.String(), code
}

func TestWatchEndsByItselfWithoutABroker(t *testing.T) {
	t.Parallel()
	out, text, code := gridfog(t, "", "watch", "-broker", "mqtt://127.0.0.1:1", "-for", "300ms")
	if code != 0 || !strings.Contains(out, "delivered 0 rows") || strings.Count(text, "connection refused") != 1 {
		t.Errorf("%d\n%s\n%s", code, out, text)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"watch", "x"}, "flags only"},
		{[]string{"watch", "-broker", "http://x"}, "want mqtt://"},
		{[]string{"watch", "-site", "North"}, "-site"},
		{[]string{"watch", "-json", "-table"}, "exclude"},
		{[]string{"watch", "-ca", "x"}, "mqtts://"},
		{[]string{"decode"}, "no FILE"},
	} {
		if out, text, code := gridfog(t, "", c.args...); code != 2 || out != "" || !strings.Contains(text, c.want) {
			t.Errorf("%v: %d %s%s, want %q", c.args, code, out, text, c.want)
		}
	}
	for _, verb := range []string{"watch", "decode"} {
		if out, _, code := gridfog(t, "", verb, "-h"); code != 0 || !strings.Contains(out, "example:\n  gridfog "+verb) {
			t.Errorf("%s -h: %d\n%s", verb, code, out)
		}
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	s := batch.Span{
		Lane: batch.Alarm, Rows: []batch.Row{{Meter: "m", Channel: "tamper", Value: batch.Value{Kind: batch.Bool, Bits: 1}}},
		Runs: []batch.Run{{First: 9, Count: 1}}, Holes: []batch.Hole{{First: 10, Last: 12, Reason: batch.Quota, Count: 3}}, Last: 12,
	}
	c := batch.NewCatalogue()
	c.Add(s.Rows)
	b, err := batch.Append(nil, batch.Header{Site: "s", Gateway: "g", Lane: batch.Alarm}, s, c)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := c.AppendBinary(nil)
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	catalogue, one := file("c", raw), file("b", b)
	const want = `{"meter":"m","serial":"","channel":"tamper","time":"1970-01-01T00:00:00.000Z","value":true,"unit":"","quality":"good","lane":"alarm","sequence":9,"site":"s","gateway":"g"}` + "\n"
	for name, c := range map[string]struct {
		stdin  string
		args   []string
		out    string
		stderr string
		code   int
	}{
		"files":        {"", []string{one, "-catalogue", catalogue}, want, "numbers 10 to 12 carry no rows: quota, 3 rows lost", 0},
		"any order":    {"", []string{one, catalogue}, want, "quota", 0},
		"stdin":        {string(b), []string{"-", catalogue}, want, "quota", 0},
		"hex":          {hex.EncodeToString(raw) + "\n\n" + hex.EncodeToString(b) + "\n", []string{"-hex", "-"}, want, "quota", 0},
		"list":         {"", []string{catalogue}, "{\"number\":0,\"meter\":\"m\",\"serial\":\"\"}\n{\"number\":0,\"channel\":\"tamper\",\"kind\":5,\"scale\":0,\"unit\":\"\"}\n", "", 0},
		"no catalogue": {"", []string{one}, "", "gridgate/1/s/g/up/catalog/" + c.Hash().String(), 1},
		"garbage":      {"", []string{file("x", []byte("garbage"))}, "", "neither a batch nor a catalogue", 1},
		"bad batch":    {"", []string{file("y", b[:20])}, "", "y: batch: corrupt", 1},
		"no file":      {"", []string{filepath.Join(dir, "none")}, "", "no such file", 1},
		"bad hex":      {"08 1\n", []string{"-hex", "-"}, "", "-:1: not hexadecimal", 1},
	} {
		out, text, code := gridfog(t, c.stdin, append([]string{"decode"}, c.args...)...)
		if out != c.out || !strings.Contains(text, c.stderr) || code != c.code {
			t.Errorf("%s: %d\n%s%s\nwant %d\n%s%s", name, code, out, text, c.code, c.out, c.stderr)
		}
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_700_000_012_300)
	tracker := track.New(track.Options{})
	r := track.NewReceiver(tracker)
	tab := newTable(io.Discard)
	s := batch.Span{Lane: batch.Instant, Runs: []batch.Run{{First: 1, Count: 3}}, Last: 3}
	for i, text := range []string{"b", "a", "a\x1b[2J"} {
		s.Rows = append(s.Rows, batch.Row{
			Meter: batch.ID(text[:1]), Channel: batch.Channel([]string{"1-0:32.7.0*255/3:2", "x", "y"}[i]), Stamp: batch.Stamp{Time: 1_700_000_000_000 + 5000*int64(i)},
			Value: batch.Value{Kind: batch.Text, Data: text}, Unit: 35, Lane: batch.Instant,
		})
	}
	s.Rows[1].Quality = batch.OutOfRange
	fresh, _ := tracker.Add(batch.Header{Site: "s", Gateway: "g", Lane: batch.Instant}, s)
	for _, f := range fresh {
		if err := tab.reading(f); err != nil {
			t.Fatal(err)
		}
	}
	older := fresh[1]
	older.Row.Stamp.Time, older.Row.Value.Data = 0, "older"
	_ = tab.reading(older)
	tab.note("broker x: connected")
	plain := func(width, height int) string {
		screen := string(tab.draw(r, now, width, height))
		for _, code := range []string{"\x1b[2J", "\x1b[H", "\x1b[J", "\x1b[K", "\x1b[?25l", "\x1b[0m", "\x1b[1m", "\x1b[7m", "\x1b[33m"} {
			screen = strings.ReplaceAll(screen, code, "")
		}
		return screen
	}
	const want = `METER            CHANNEL                           VALUE UNIT  QUALITY                     AGE
a                x                                     a V     out-of-range              7.3 s
a                y                                 a?[2J V     good                      2.3 s
b                1-0:32.7.0                            b V     good                       12 s
gateways 1 (0 online)  batches 1  rows 3  duplicates 0  missing 0  conflicts 0
broker x: connected`
	if got := plain(200, 0); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	first := plain(60, 6) // two readings fit
	now = now.Add(pageEvery)
	second := plain(60, 6)
	if strings.Count(first, "\n") != 4 || !strings.Contains(first+second, "1-0:32.7.0") || first == second {
		t.Errorf("first\n%s\nsecond\n%s", first, second)
	}
}
