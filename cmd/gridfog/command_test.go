package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gridgate/agent/command"
	"gridgate/agent/order"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
)

// answerer answers commands as its test wants.
type answerer struct {
	t    *testing.T
	conn *mqtt.Conn
	name meter.ID

	mu   sync.Mutex
	came []*order.Document
}

// answering is a gateway of the site here that answers what comes on a topic.
func answering(t *testing.T, broker, name, group string, answer func(g *answerer, n int, d *order.Document)) *answerer {
	t.Helper()
	conn, err := mqtt.Dial(t.Context(), mqtt.Options{Address: broker, ClientID: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	g := &answerer{t: t, conn: conn, name: meter.ID(name)}
	topic := mqtt.OrderTopic("here", g.name, "", "command")
	if group != "" {
		topic = mqtt.OrderTopic("here", "", meter.ID(group), "command")
	}
	err = conn.Subscribe(t.Context(), topic, func(m mqtt.Message) {
		d, err := order.Read(m.Payload)
		if err != nil || m.Retained {
			t.Errorf("%v, retained %v", err, m.Retained)
			return
		}
		g.mu.Lock()
		g.came = append(g.came, d)
		n := len(g.came)
		g.mu.Unlock()
		answer(g, n, d)
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *answerer) say(part int, id string, payload []byte) {
	if _, err := g.conn.Publish(context.Background(), mqtt.PartTopic("here", g.name, meter.ID(id), part), false, payload); err != nil {
		g.t.Error(err)
	}
}

func (g *answerer) result(d *order.Document, change func(*command.Result)) {
	r := command.Result{ID: d.ID, Hash: hexOf(d.Hash), Action: "read", State: command.Done, Time: time.Now()}
	change(&r)
	b, err := json.Marshal(r)
	if err != nil {
		g.t.Error(err)
	}
	g.say(0, d.ID, b)
}

func (d *desk) broker(b *mqtttest.Broker) string { return "mqtt://" + b.Address }

// TestCommandIsRepeatedUntilAnswered, and an answer to another document with its
// id is none.
func TestCommandIsRepeatedUntilAnswered(t *testing.T) {
	t.Parallel()
	d, b := newDesk(t), mqtttest.Mosquitto(t, mqtttest.Config{})
	answering(t, b.Address, "gw-1", "", func(g *answerer, n int, doc *order.Document) {
		if n == 1 { // and nothing that counts
			g.result(doc, func(r *command.Result) { r.Hash, r.State = strings.Repeat("0", 64), command.Refused })
			return
		}
		g.result(doc, func(r *command.Result) { r.State = command.Accepted })
		g.result(doc, func(r *command.Result) { r.State, r.Done, r.Of = command.Running, 1, 2 })
		g.result(doc, func(r *command.Result) { r.Text = "all well" })
	})
	out, stderr, code := d.run("command", "run", "-broker", d.broker(b), "-sign", d.file("command.key"), "-to", "here/gw-1", "-meters", "m1, S2", "-wait", "60s", "read", "groups=[load]")
	if code != 0 || !strings.Contains(out, "all well") || !strings.Contains(stderr, "running 1 of 2") || strings.Contains(stderr, "refused") {
		t.Errorf("exit %d\n%s\n%s", code, out, stderr)
	}
}

func TestCommandsThatDoNotEndWell(t *testing.T) {
	t.Parallel()
	d, b := newDesk(t), mqtttest.Mosquitto(t, mqtttest.Config{})
	answering(t, b.Address, "gw-1", "", func(g *answerer, _ int, doc *order.Document) {
		g.result(doc, func(r *command.Result) { r.State, r.Text = command.Refused, "not today" })
	})
	run := func(to, wait string, more ...string) (string, string, int) {
		return d.run(append([]string{"command", "run", "-broker", d.broker(b), "-sign", d.file("command.key"), "-to", to, "-wait", wait}, more...)...)
	}
	if out, stderr, code := run("here/gw-1", "60s", "restart"); code != 1 || !strings.Contains(stderr, "refused at here/gw-1: not today") {
		t.Errorf("exit %d\n%s\n%s", code, out, stderr)
	}
	if out, stderr, code := run("here/gw-2", "2s", "restart"); code != 1 || !strings.Contains(stderr, "no word from here/gw-2") || !strings.Contains(out, "no answer") {
		t.Errorf("exit %d\n%s\n%s", code, out, stderr)
	}
	if out, stderr, code := run("here/_group/west", "2s", "restart"); code != 1 || !strings.Contains(stderr, "nobody of here/_group/west") {
		t.Errorf("exit %d\n%s\n%s", code, out, stderr)
	}
}

// TestCommandsOfAGroup shows everybody who answers.
func TestCommandsOfAGroup(t *testing.T) {
	t.Parallel()
	d, b := newDesk(t), mqtttest.Mosquitto(t, mqtttest.Config{})
	for _, name := range []string{"gw-1", "gw-2"} {
		answering(t, b.Address, name, "west", func(g *answerer, _ int, doc *order.Document) { g.result(doc, func(*command.Result) {}) })
	}
	out, stderr, code := d.run("command", "run", "-broker", d.broker(b), "-sign", d.file("command.key"), "-to", "here/_group/west", "-wait", "8s", "-queue", d.file("q"), "restart")
	if code != 0 || strings.Count(out, "done") != 2 {
		t.Errorf("exit %d\n%s\n%s", code, out, stderr)
	}
	if out := d.must("command", "table", "-queue", d.file("q")); strings.Count(out, "done") != 2 || !strings.Contains(out, "here/gw-2") {
		t.Error(out)
	}
}

// TestFilesOfGateways come in parts, in any order and more than once.
func TestFilesOfGateways(t *testing.T) {
	t.Parallel()
	d, b := newDesk(t), mqtttest.Mosquitto(t, mqtttest.Config{})
	file := bytes.Repeat([]byte("0123456789abcdef"), 200)
	answering(t, b.Address, "gw-1", "", func(g *answerer, _ int, doc *order.Document) {
		parts := (len(file) + command.PartSize - 1) / command.PartSize
		for _, n := range append([]int{parts, 1}, 2, 1, 3) {
			g.say(n, doc.ID, file[(n-1)*command.PartSize:min(n*command.PartSize, len(file))])
		}
		sum := sha256.Sum256(file)
		g.result(doc, func(r *command.Result) {
			r.Parts = &command.Parts{Name: "../../bundle.tar.gz", Type: "application/gzip", Parts: parts, Size: len(file), Hash: hexOf(sum)}
		})
	})
	out, stderr, code := d.run("command", "run", "-broker", d.broker(b), "-sign", d.file("command.key"), "-to", "here/gw-1", "-out", d.file("out"), "-wait", "60s", "bundle")
	if code != 0 {
		t.Fatalf("exit %d\n%s\n%s", code, out, stderr)
	}
	found, err := filepath.Glob(d.file("out/*bundle.tar.gz"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%q, %v", found, err)
	}
	if got, err := os.ReadFile(found[0]); err != nil || !bytes.Equal(got, file) {
		t.Errorf("%d octets, %v", len(got), err)
	}
}

// TestQueueOfCommands: what minisign signs beside a body is sent, and sent again
// only as long as it has no result.
func TestQueueOfCommands(t *testing.T) {
	t.Parallel()
	d, b := newDesk(t), mqtttest.Mosquitto(t, mqtttest.Config{})
	q := d.file("q")
	d.must("command", "make", "-queue", q, "-id", "c1", "-to", "here/gw-1,here/gw-2", "disconnect", "-meters", "m1")
	if out := d.must("command", "table", "-queue", q); strings.Count(out, "unsigned") != 2 {
		t.Error(out)
	}
	for i, key := range []string{"control", "config"} { // two have signed the first
		args := []string{"-S", "-W", "-s", d.file(key + ".key"), "-m", filepath.Join(q, "c1-1.body"), "-x", filepath.Join(q, "c1-1.body.minisig"+[]string{"", ".2"}[i])}
		if out, err := exec.CommandContext(t.Context(), "minisign", args...).CombinedOutput(); err != nil {
			t.Fatalf("minisign: %v: %s (scripts/setup.sh installs it)", err, out)
		}
	}
	g := answering(t, b.Address, "gw-1", "", func(g *answerer, _ int, doc *order.Document) {
		g.result(doc, func(r *command.Result) { r.Text = "open" })
	})
	if out, stderr, code := d.run("command", "send", "-broker", d.broker(b), "-queue", q, "-wait", "60s"); code != 0 {
		t.Fatalf("exit %d\n%s\n%s", code, out, stderr)
	}
	signed := d.read("q/c1-1.doc")
	if _, signatures, err := order.Unseal(signed); err != nil || len(signatures) != 2 {
		t.Errorf("%d signatures, %v", len(signatures), err)
	}
	if out := d.must("command", "table", "-queue", q, "-json"); !strings.Contains(out, `"gateway":"here/gw-1","state":"done"`) || !strings.Contains(out, "unsigned") {
		t.Error(out)
	}
	if _, stderr, code := d.run("command", "send", "-broker", d.broker(b), "-queue", q, "-wait", "60s"); code != 0 || !strings.Contains(stderr, "nothing is to be sent") {
		t.Errorf("exit %d, %s", code, stderr)
	}
	if n := len(g.came); n != 1 {
		t.Errorf("sent %d times", n)
	}
}

func TestCommandUsage(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.must("command", "make", "-queue", d.file("q"), "-id", "used", "-to", "a/b", "restart")
	eleven := "m0"
	for i := range 10 {
		eleven += fmt.Sprintf(",m%d", i+1)
	}
	for _, c := range []struct {
		want string
		code int
		args []string
	}{
		{"want run, make, send or table", 2, nil},
		{"want run, make, send or table", 2, []string{"dance"}},
		{"want a -queue", 2, []string{"make", "-to", "a/b", "restart"}},
		{"want -sign", 2, []string{"run", "-to", "a/b", "restart"}},
		{"want -to and an action", 2, []string{"run", "-sign", d.file("command.key"), "restart"}},
		{"want -to and an action", 2, []string{"run", "-sign", d.file("command.key"), "-to", "a/b"}},
		{"want SITE/GATEWAY", 2, []string{"run", "-sign", d.file("command.key"), "-to", "*", "restart"}},
		{"unknown action", 1, []string{"run", "-sign", d.file("command.key"), "-to", "a/b", "dance"}},
		{"want KEY=VALUE", 2, []string{"run", "-sign", d.file("command.key"), "-to", "a/b", "output", "boiler"}},
		{"with.for", 1, []string{"run", "-sign", d.file("control.key"), "-to", "a/b", "output", "output=boiler", "for=soon"}},
		{"is not of meters", 1, []string{"run", "-sign", d.file("control.key"), "-to", "a/b", "-meters", "m", "restart"}},
		{"wants meters", 1, []string{"run", "-sign", d.file("control.key"), "-to", "a/b", "disconnect"}},
		{"wants 2 keys of the role control", 1, []string{"run", "-sign", d.file("control.key"), "-to", "a/b", "-meters", eleven, "disconnect"}},
		{"-valid", 2, []string{"run", "-sign", d.file("command.key"), "-valid", "0s", "-to", "a/b", "restart"}},
		{"file exists", 1, []string{"make", "-queue", d.file("q"), "-id", "used", "-to", "a/b", "restart"}},
		{"want DOCUMENTS", 2, []string{"send"}},
		{"not signed", 1, []string{"send", d.file("q/used.body")}},
		{"no such file", 1, []string{"table", "-queue", d.file("none")}},
		{"not a document: line", 1, []string{"make", "-queue", d.file("q"), "-to", "a/b", "-with", d.write("w", "level: [\n"), "log-level"}},
	} {
		if _, err, code := d.run(append([]string{"command"}, c.args...)...); code != c.code || !strings.Contains(err, c.want) {
			t.Errorf("gridfog command %s: exit %d, %s; want %d, %q", strings.Join(c.args, " "), code, err, c.code, c.want)
		}
	}
	doc := d.file("q/used.doc")
	d.must("sign", "-key", d.file("command.key"), "-out", doc, d.file("q/used.body"))
	if _, err, code := d.run("push", doc); code != 1 || !strings.Contains(err, "gridfog command send") {
		t.Errorf("push: exit %d, %s", code, err)
	}
}
