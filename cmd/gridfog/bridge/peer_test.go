package bridge_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"gridgate/agent/batch"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// gateway publishes as an agent does.
type gateway struct {
	t         *testing.T
	conn      *mqtt.Conn
	catalogue *batch.Catalogue
	next      uint64
}

func newGateway(t *testing.T, broker *mqtttest.Broker) *gateway {
	t.Helper()
	conn, err := mqtt.Dial(t.Context(), mqtt.Options{Address: broker.Address, ClientID: "gateway"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	g := &gateway{t: t, conn: conn, catalogue: batch.NewCatalogue(), next: 1}
	g.state(`{"state":"online","version":"7.8.9"}`)
	return g
}

func (g *gateway) state(json string) { g.publish(mqtt.StateTopic("north", "gw-7"), true, []byte(json)) }

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

// send sends rows of a meter, one a second from start on, and gives the batch.
func (g *gateway) send(id batch.ID, start time.Time, values ...uint64) []byte {
	g.t.Helper()
	return g.sendBy(batch.Append, id, start, values...)
}

// encode is batch.Append, or does as it.
type encode func(dst []byte, h batch.Header, s batch.Span, c *batch.Catalogue) ([]byte, error)

func (g *gateway) sendBy(how encode, id batch.ID, start time.Time, values ...uint64) []byte {
	g.t.Helper()
	n := uint64(len(values))
	s := batch.Span{Lane: batch.Instant, Runs: []batch.Run{{First: g.next, Count: n}}, Last: g.next + n - 1}
	g.next += n
	for i, v := range values {
		s.Rows = append(s.Rows, batch.Row{
			Meter: id, Serial: "s-" + string(id), Channel: "1-0:1.8.0*255/3:2", Lane: batch.Instant, Unit: 30,
			Stamp: batch.Stamp{Time: start.UnixMilli() + int64(i)*1000}, Value: batch.Value{Kind: batch.Uint, Scale: 1, Bits: v},
		})
	}
	if g.catalogue.Add(s.Rows) {
		raw, _ := g.catalogue.AppendBinary(nil)
		g.publish(mqtt.CatalogueTopic("north", "gw-7", g.catalogue.Hash()), true, raw)
	}
	payload, err := how(nil, batch.Header{Site: "north", Gateway: "gw-7", Epoch: 5, Lane: batch.Instant}, s, g.catalogue)
	if err != nil {
		g.t.Fatal(err)
	}
	g.publish(mqtt.ReadingsTopic("north", "gw-7", meter.Instant), false, payload)
	return payload
}

// told is a message as testdata/js/host.mjs prints it.
type told struct {
	Kind, Device string
	Seq          int
	Timestamp    int64
	Metrics      []metric
}

type metric struct {
	Name, Type string
	Alias      uint64
	Timestamp  int64
	Historical bool
	Value      any // a string, a boolean, or nil
	Properties map[string]any
}

func (m *told) metric(name string) *metric {
	for i := range m.Metrics {
		if m.Metrics[i].Name == name {
			return &m.Metrics[i]
		}
	}
	return &metric{}
}

// host is a host application on the npm package sparkplug-client.
type host struct {
	t  *testing.T
	in io.WriteCloser

	mu       sync.Mutex
	messages []told
}

func newHost(t *testing.T, broker *mqtttest.Broker) *host {
	t.Helper()
	cmd := exec.Command("node", "host.mjs", "mqtt://"+broker.Address, "north", "gw-7", "scada") //nolint:noctx // the cleanup ends it
	cmd.Dir = filepath.Join("testdata", "js")
	h := &host{t: t}
	var text proctestBuffer
	cmd.Stderr = &text
	out, err := cmd.StdoutPipe()
	if err == nil {
		h.in, err = cmd.StdinPipe()
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("node: %v (scripts/setup.sh installs what it needs)", err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 8<<20)
		for lines.Scan() {
			var m told
			if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
				m.Kind = "not JSON: " + lines.Text()
			}
			h.mu.Lock()
			h.messages = append(h.messages, m)
			h.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		reading.Wait()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the host said:\n%s\nand heard:\n%s", text.String(), h.heard())
		}
	})
	proctest.Until(t, "the host is connected", func() bool { return h.count("ready") == 1 })
	return h
}

// proctestBuffer keeps what a process prints.
type proctestBuffer struct {
	mu sync.Mutex
	b  []byte
}

func (p *proctestBuffer) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.b = append(p.b, b...)
	return len(b), nil
}

func (p *proctestBuffer) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.b)
}

func (h *host) do(command string) {
	h.t.Helper()
	if _, err := io.WriteString(h.in, command+"\n"); err != nil {
		h.t.Fatal(err)
	}
}

// all gives what was heard so far.
func (h *host) all() []told {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]told(nil), h.messages...)
}

func (h *host) count(kind string) (n int) {
	for _, m := range h.all() {
		if m.Kind == kind {
			n++
		}
	}
	return n
}

// await waits for so many messages of a kind, and gives all of them.
func (h *host) await(kind string, n int) (list []told) {
	h.t.Helper()
	proctest.Until(h.t, fmt.Sprintf("the host heard %d %s", n, kind), func() bool { return h.count(kind) >= n })
	for _, m := range h.all() {
		if m.Kind == kind {
			list = append(list, m)
		}
	}
	return list
}

// rows gives the values that DDATA told, historical ones with an h, in order.
func (h *host) rows(device string) (values []string) {
	for _, m := range h.all() {
		if m.Kind != "DDATA" || m.Device != device {
			continue
		}
		for _, x := range m.Metrics {
			text := fmt.Sprint(x.Value)
			if x.Historical {
				text += "h"
			}
			values = append(values, text)
		}
	}
	return values
}

// heard prints messages in short.
func (h *host) heard() string {
	text := ""
	all := h.all()
	for i := max(0, len(all)-50); i < len(all); i++ {
		text += fmt.Sprintf("%+v\n", all[i])
	}
	return text
}

// gaps says where sequence numbers jump, between births.
func (h *host) gaps() (list []string) {
	last := -1
	for _, m := range h.all() {
		switch m.Kind {
		case "ready", "NDEATH", "NCMD":
			continue
		case "NBIRTH":
			if m.Seq != 0 {
				list = append(list, "NBIRTH with "+strconv.Itoa(m.Seq))
			}
		default:
			if m.Seq != (last+1)%256 {
				list = append(list, fmt.Sprintf("%s %d after %d", m.Kind, m.Seq, last))
			}
		}
		last = m.Seq
	}
	return list
}

func contents(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}
